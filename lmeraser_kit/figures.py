"""Every figure, from arrays and data frames. To be read from the last row of a lecture hall.

One method has one colour everywhere (seaborn's colour-blind-safe palette) and one marker. Axes carry units.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from lmeraser_kit.metrics import ci95, summarise

_COLOURS = sns.color_palette("colorblind")
METHOD_STYLES = {  # method: (colour, marker)
    "lmeraser": (_COLOURS[0], "o"),
    "private routing": (_COLOURS[9], "P"),
    "cluster heads": (_COLOURS[2], "s"),
    "hashed clusters": (_COLOURS[1], "D"),
    "one prompt": (_COLOURS[3], "^"),
    "one head": (_COLOURS[4], "v"),
}
NEUTRAL = "0.35"


def set_theme() -> None:
    """Large type, a light grid, the same bytes for the same figure."""
    sns.set_theme(context="talk", style="whitegrid", palette="colorblind")
    plt.rcParams |= {"savefig.bbox": "tight", "figure.dpi": 80, "savefig.dpi": 110, "svg.hashsalt": "lmeraser-kit"}


def save(figure: Figure, folder: Path | str, name: str) -> Figure:
    """Write NAME.png and NAME.svg."""
    for ending in ("png", "svg"):
        figure.savefig(Path(folder) / f"{name}.{ending}", metadata={"Date": None} if ending == "svg" else None)
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
    """A 2-D map of features, the number of each group above its middle one. `points`: (N, 2); `groups`: (N,)."""
    figure, ax = plt.subplots(figsize=(9, 7))
    offset = 0.055 * np.ptp(points[:, 1])
    for i, name in enumerate(np.unique(groups)):
        inside, colour = points[groups == name], _COLOURS[i % len(_COLOURS)]
        ax.scatter(*inside.T, s=30, color=colour, marker="o^sDv"[i // len(_COLOURS) % 5], alpha=0.7, linewidths=0)
        x, y = inside[np.linalg.norm(inside - np.median(inside, axis=0), axis=1).argmin()]
        ax.text(x, y + offset, str(name), weight="bold", color=colour, ha="center", va="center")
    ax.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", title=f"Features of private images, by {group}")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.margins(0.08)
    return figure


def confusion(matrix: np.ndarray, title: str) -> Figure:
    """A confusion matrix in counts, (n_classes, n_classes), true classes in rows."""
    figure, ax = plt.subplots(figsize=(8, 7))
    sns.heatmap(matrix, annot=True, fmt="d", cmap="Blues", cbar_kws={"label": "test images"}, ax=ax, square=True)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


def dendrogram(features: np.ndarray, n_clusters: int, method: str = "average") -> Figure:
    """The top of the tree that agglomerative clustering builds, cut at `n_clusters`. `features`: (N, D)."""
    tree = hierarchy.linkage(features, method=method)
    cut = tree[-n_clusters + 1, 2] if n_clusters > 1 else tree[-1, 2] * 1.01
    below = tree[-n_clusters, 2] if n_clusters <= len(tree) else 0
    threshold = (cut + below) / 2
    figure, ax = plt.subplots(figsize=(11, 5.5))
    hierarchy.set_link_color_palette([plt.matplotlib.colors.to_hex(c) for c in _COLOURS])
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


def cluster_sizes(sizes: dict[int, int]) -> Figure:
    """Bars of cluster sizes, largest first, with the mean and the size-biased mean."""
    values = np.sort(np.array(list(sizes.values())))[::-1]
    figure, ax = plt.subplots(figsize=(10, 5))
    ax.bar(np.arange(len(values)), values, color=METHOD_STYLES["lmeraser"][0])
    lines = {"mean cluster, N/K": values.mean(), "met by a random request, Σn²/N": (values**2).sum() / values.sum()}
    for (label, y), style in zip(lines.items(), (":", "--"), strict=True):
        ax.axhline(y, color="black", linestyle=style, linewidth=2, label=f"{label} = {y:.0f}")
    ax.set(xlabel="rank of the cluster by size", ylabel="private samples", title="Large clusters are hit more often")
    ax.legend()
    return figure


def cost_factors(frame: pd.DataFrame) -> Figure:
    """How much cheaper than retraining one request is, against the number of clusters.

    Args:
        frame: Columns n_clusters, cost_factor_mean_cluster, cost_factor_size_biased; rows over seeds are averaged.
    """
    figure, ax = plt.subplots(figsize=(9, 6))
    labels = {
        "cost_factor_mean_cluster": "mean cluster: N / (N/K)",
        "cost_factor_size_biased": "random request: N² / Σn²",
    }
    table = summarise(frame, ["n_clusters"], list(labels))
    for (column, label), marker in zip(labels.items(), ("o", "s"), strict=True):
        mean, interval = table[f"{column}_mean"], table[f"{column}_ci95"].fillna(0)
        ax.errorbar(table["n_clusters"], mean, yerr=interval, marker=marker, capsize=6, label=label)
    ticks = sorted(frame["n_clusters"].unique())
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(ticks, ticks)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(
        xlabel="number of clusters", ylabel="times cheaper than retraining", title="Two meanings of 'K times cheaper'"
    )
    ax.legend()
    return figure


def loss_curves(curves: dict[str, np.ndarray]) -> Figure:
    """Mean cross-entropy per epoch; a method's clusters are weighted by size. `curves`: method -> (epochs,)."""
    figure, ax = plt.subplots(figsize=(9, 6))
    for method, losses in curves.items():
        colour, marker = METHOD_STYLES[method]
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
    order = [method for method in METHOD_STYLES if method in set(frame["method"])]
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
        colour, marker = METHOD_STYLES[method]
        ax.errorbar(
            values.mean(), y, xerr=ci95(values), color=colour, marker=marker, capsize=6, markersize=11, linewidth=2.5
        )
        ax.scatter(values, np.full(len(values), y), color=colour, s=25, alpha=0.5)


def request_costs(frame: pd.DataFrame, retrain_cost: float, expected: float) -> Figure:
    """What each request of a stream has cost, against the closed form and against retraining.

    Args:
        frame: Columns request, sample_gradients, closed_form; one row a request.
        retrain_cost: Sample gradients of retraining on everything.
        expected: Expected cost of a uniformly drawn request, in sample gradients.
    """
    figure, ax = plt.subplots(figsize=(11, 6))
    colour, marker = METHOD_STYLES["lmeraser"]
    ax.scatter(
        frame["request"], frame["closed_form"], s=170, facecolors="none", edgecolors="black", label="closed form"
    )
    ax.scatter(frame["request"], frame["sample_gradients"], s=60, color=colour, marker=marker, label="measured")
    ax.axhline(retrain_cost, color=METHOD_STYLES["one prompt"][0], linewidth=3, label="retraining everything")
    ax.axhline(expected, color=NEUTRAL, linestyle="--", linewidth=2, label="expected, (Σn²/N - 1) x epochs")
    ax.set_yscale("log")
    ax.set(xlabel="request", ylabel="sample gradients", title="Forgetting one image tunes one cluster")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def accuracy_stream(frame: pd.DataFrame, fresh_accuracy: float) -> Figure:
    """Test accuracy along a stream of requests, and of a fresh fit at its end.

    Args:
        frame: Columns request (0 is before any), accuracy (share).
        fresh_accuracy: Test accuracy of a fit from scratch on what remains.
    """
    figure, ax = plt.subplots(figsize=(10, 5))
    ax.plot(
        frame["request"], frame["accuracy"], color=METHOD_STYLES["lmeraser"][0], marker="o", label="after each request"
    )
    ax.scatter(
        frame["request"].iloc[-1], fresh_accuracy, s=350, facecolors="none", edgecolors="black", linewidths=2.5,
        label="fresh fit on what remains", zorder=3,
    )  # fmt: skip
    ax.set(xlabel="requests so far", ylabel="test accuracy (share)", title="Accuracy while people leave")
    ax.margins(y=0.4)
    ax.legend()
    return figure


def tradeoff(frame: pd.DataFrame) -> Figure:
    """Accuracy against what one random request saves, with 95% intervals over seeds.

    Args:
        frame: Columns method, n_clusters, accuracy_mean, accuracy_ci95, cost_factor_size_biased_mean.
    """
    figure, ax = plt.subplots(figsize=(11, 6))
    for method, part in frame.groupby("method"):
        colour, marker = METHOD_STYLES[method]
        part = part.sort_values("cost_factor_size_biased_mean")
        ax.errorbar(
            part["cost_factor_size_biased_mean"], part["accuracy_mean"], yerr=part["accuracy_ci95"], color=colour,
            marker=marker, markersize=11, capsize=6, linewidth=2.5, label=method,
        )  # fmt: skip
        for row in part.itertuples():
            if row.n_clusters > 1:
                ax.annotate(f"K={row.n_clusters}", (row.cost_factor_size_biased_mean, row.accuracy_mean),
                            xytext=(10, -5), textcoords="offset points", fontsize=13)  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}x")
    ax.margins(x=0.15)
    ax.set_ylim(top=min(ax.get_ylim()[1], 1.0))  # an interval of a mean may pass 1, an accuracy cannot
    ax.set(xlabel="times cheaper than retraining, for a random request", ylabel="test accuracy (share)")
    ax.set_title("What exact unlearning saves, and what it costs")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
