"""Every figure, from arrays and data frames. To be read from the last row of a lecture hall.

One method has one colour everywhere (seaborn's colour-blind-safe palette) and one marker. Axes carry units.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colors, patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from sklearn.cluster import DBSCAN

from lmeraser_kit.evaluation.costs import ci95
from lmeraser_kit.figures.alt_text import DESCRIPTION, describe, show_alternative_texts
from lmeraser_kit.ground.hashing import digest

_COLOURS = sns.color_palette("colorblind")
METHOD_STYLES = {  # method: (colour, marker)
    "lmeraser": (_COLOURS[0], "o"),
    "private routing": (_COLOURS[9], "P"),
    "published routing": (_COLOURS[7], "X"),
    "hyperplanes": (_COLOURS[8], "p"),
    "uneven clusters": (_COLOURS[6], "H"),
    "cluster heads": (_COLOURS[2], "s"),
    "hashed clusters": (_COLOURS[1], "D"),
    "sisa (mean)": (_COLOURS[1], "<"),
    "sisa (vote)": (_COLOURS[1], ">"),
    "ridge head": ("black", "*"),
    "soft heads": (_COLOURS[5], "8"),
    "soft heads from zero": (_COLOURS[5], "X"),
    "sisa heads (mean)": (_COLOURS[8], "<"),
    "sisa heads (vote)": (_COLOURS[8], ">"),
    "sisa heads by owner": (_COLOURS[8], "^"),
    "layered ridge head": ("black", "P"),
    "corrected ridge head": (_COLOURS[9], "d"),
    "mirrored layered ridge head": ("0.5", "P"),
    "mirrored corrected ridge head": ("0.5", "d"),
    "one prompt": (_COLOURS[3], "^"),
    "one head": (_COLOURS[4], "v"),
}
NEUTRAL = "0.35"
OTHER_MARKERS = "^vDPXsh*"


def style_of(method: str) -> tuple[tuple[float, ...] | str, str]:
    """Colour and marker of a method; of one that METHOD_STYLES lacks, they follow from its name."""
    number = int(digest(method), 16)
    other = (_COLOURS[number % len(_COLOURS)], OTHER_MARKERS[number // len(_COLOURS) % len(OTHER_MARKERS)])
    return METHOD_STYLES.get(method, other)


def in_order(methods: Iterable[str]) -> list[str]:
    """Each method once: those of METHOD_STYLES in its order, then others by name."""
    present = set(methods)
    return [method for method in METHOD_STYLES if method in present] + sorted(present - METHOD_STYLES.keys())


def group_styles(n: int) -> list[tuple[tuple[float, float, float], str]]:
    """A colour and a marker for each of n groups: no two have one colour, and neighbours in colour differ in marker."""
    colours = _COLOURS if n <= len(_COLOURS) else sns.color_palette("husl", n)
    return [(colours[i], "o^sDvPX"[i % 7]) for i in range(n)]


def set_theme() -> None:
    """Large type, a light grid, the same bytes for the same figure; in a notebook an alternative text for each."""
    sns.set_theme(context="talk", style="whitegrid", palette="colorblind")
    plt.rcParams |= {"savefig.bbox": "tight", "figure.dpi": 80, "savefig.dpi": 110, "svg.hashsalt": "lmeraser-kit"}
    show_alternative_texts()


def save(figure: Figure, folder: Path | str, name: str, alt: str = "") -> Figure:
    """Write NAME.png and NAME.svg, with their alternative text inside.

    Args:
        figure: The figure.
        folder: Where the files go.
        name: Their name, without an ending.
        alt: What to see, if title, axes and legend do not say it; the alternative text begins with it.
    """
    figure.set_label(alt)
    for ending, about in (("png", {}), ("svg", {"Date": None})):
        figure.savefig(Path(folder) / f"{name}.{ending}", metadata={DESCRIPTION: describe(figure), **about})
    return figure


def images(pixels: np.ndarray, titles: list, columns: int = 8) -> Figure:
    """Images in a grid. `pixels`: (N, C, H, W), uint8, or floats that are scaled to the largest absolute value."""
    rows = -(-len(pixels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.8 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, pixels, titles, strict=False):
        shown = np.moveaxis(image, 0, -1)
        if shown.dtype != np.uint8:
            shown = 0.5 + shown / (2 * max(np.abs(pixels).max(), 1e-12))
        ax.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", interpolation="nearest")
        ax.set_title(title, fontsize=14)
    return figure


def feature_map(points: np.ndarray, groups: np.ndarray, group: str) -> Figure:
    """A 2-D map of features: each group with a colour and a marker, and its number beside each island that it has.

    Args:
        points: Places on the map, (N, 2).
        groups: The group of each point, (N,).
        group: What a group is, for the title.
    """
    figure, ax = plt.subplots(figsize=(9, 7))
    names, height = np.unique(groups), np.ptp(points[:, 1])
    for name, (colour, marker) in zip(names, group_styles(len(names)), strict=True):
        inside = points[groups == name]
        ax.scatter(inside[:, 0], inside[:, 1], s=30, color=colour, marker=marker, alpha=0.7, linewidths=0)
        islands = DBSCAN(eps=0.06 * height, min_samples=1).fit_predict(inside)
        for island in np.flatnonzero(np.bincount(islands) >= 0.1 * len(inside)):
            x = inside[islands == island, 0].mean()
            top = inside[islands == island, 1].max()
            number = ax.text(x, top + 0.035 * height, str(name), weight="bold", color=colour, ha="center", va="center")
            number.set_path_effects([patheffects.withStroke(linewidth=4, foreground="white")])
    ax.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", title=f"Features of private images, by {group}")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.margins(0.08)
    return figure


def confusion(matrix: np.ndarray, title: str) -> Figure:
    """A confusion matrix as shares of each true class (rows). `matrix`: counts, (n_classes, n_classes)."""
    figure, ax = plt.subplots(figsize=(8, 7))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    label = {"label": "share of the true class"}
    style = {"annot": len(matrix) <= 20, "annot_kws": {"fontsize": 11}, "fmt": ".2f"}
    sns.heatmap(shares, cmap="Blues", cbar_kws=label, vmin=0, vmax=1, ax=ax, square=True, **style)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


def dendrogram(features: np.ndarray, n_clusters: int, method: str = "average") -> Figure:
    """The top of the tree that agglomerative clustering builds, cut at `n_clusters`. `features`: (N, D)."""
    tree = hierarchy.linkage(features, method=method)
    cut = tree[-n_clusters + 1, 2] if n_clusters > 1 else tree[-1, 2] * 1.01
    below = tree[-n_clusters, 2] if n_clusters <= len(tree) else 0
    threshold = (cut + below) / 2
    figure, ax = plt.subplots(figsize=(11, 5.5))
    hierarchy.set_link_color_palette([colors.to_hex(colour) for colour, _ in group_styles(n_clusters)])
    hierarchy.dendrogram(
        tree,
        p=60,
        truncate_mode="lastp",
        color_threshold=threshold,
        above_threshold_color=NEUTRAL,
        no_labels=True,
        ax=ax,
    )
    ax.axhline(threshold, color=NEUTRAL, linestyle="--", linewidth=2)
    ax.set(
        xlabel="public samples",
        ylabel="distance (feature units)",
        title=f"{method} linkage, cut (dashed) into {n_clusters} clusters",
    )
    return figure


def loss_curves(curves: dict[str, np.ndarray]) -> Figure:
    """Mean cross-entropy per epoch; a method's clusters are weighted by size. `curves`: method -> (epochs,)."""
    figure, ax = plt.subplots(figsize=(9, 6))
    for method, losses in curves.items():
        colour, marker = style_of(method)
        ax.plot(np.arange(1, len(losses) + 1), losses, color=colour, marker=marker, label=method)
    ax.set(xlabel="epoch", ylabel="mean cross-entropy (nats)", title="Tuning loss on private samples")
    ax.set_ylim(bottom=0)
    ax.legend()
    return figure


def accuracy_bars(frame: pd.DataFrame, title: str, by: str | None = None) -> Figure:
    """Test accuracy of methods, as points with a 95% interval over seeds; `by` makes one panel a value.

    Args:
        frame: Columns method, accuracy (share), and `by`.
        title: The figure's title.
        by: A column that tells panels apart.
    """
    panels = [(title, frame)] if by is None else [(f"{by} = {value}", part) for value, part in frame.groupby(by)]
    order = in_order(frame["method"])
    figure, axes = plt.subplots(1, len(panels), figsize=(8.5 if by is None else 13, 5), squeeze=False, sharey=True)
    for ax, (name, part) in zip(axes.flat, panels, strict=True):
        _interval_points(ax, part, order)
        ax.set(xlabel="test accuracy (share)", title=name, xlim=(None, min(ax.get_xlim()[1], 1.0)))
    axes[0, 0].set_yticks(range(len(order)), order)
    axes[0, 0].invert_yaxis()
    if by is not None:
        figure.suptitle(title)
    figure.tight_layout()
    return figure


def _interval_points(ax: Axes, frame: pd.DataFrame, order: list[str]) -> None:
    for y, method in enumerate(order):
        values = frame.loc[frame["method"] == method, "accuracy"]
        colour, marker = style_of(method)
        ax.errorbar(
            values.mean(), y, xerr=ci95(values), color=colour, marker=marker, capsize=6, markersize=11, linewidth=2.5
        )
        ax.scatter(values, np.full(len(values), y), color=colour, s=25, alpha=0.5)
