"""Figures of the frontier of accuracy and cost; styles and colours are those of `figures`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmeraser_kit.evaluation.costs import against_undivided, summarise
from lmeraser_kit.figures.theme import NEUTRAL, in_order, style_of

TARGET_FACTOR, TARGET_LOSS = 100, 1  # 100 times cheaper, and at most one point lost
PANELS = {
    "cost_factor_size_biased": "times cheaper than retraining, for a random request",
    "forward_passes": "forward passes per predicted image",
}
FITS = {"seconds_fit_images": "fit from images", "seconds_refit_cached": "fit, features at hand"}
NEAR = 0.02  # of an axis: closer numbers of clusters would cover each other


def frontier(frame: pd.DataFrame) -> Figure:
    """Accuracy against what a random request saves, and against what a prediction takes; 95% intervals over seeds.

    Accuracy is in points above the best undivided model (of one cluster) of the same seed; the target is the shaded
    corner: a factor of 100 within a point of it. Without an undivided model it is the accuracy itself.

    Args:
        frame: Columns method, n_clusters, seed, accuracy (share), cost_factor_size_biased, forward_passes.
    """
    frame = against_undivided(frame)
    undivided = (frame["method"] == frame["reference"]) & (frame["n_clusters"] == 1)
    reference, best = frame["reference"].iloc[0], frame.loc[undivided, "accuracy"].mean()
    y, label = ("points", f"points above {reference} ({best:.3f})") if reference else ("accuracy", "accuracy (share)")
    table = summarise(frame, ["method", "n_clusters"], [y, *PANELS])
    figure, axes = plt.subplots(1, 2, figsize=(17, 9), sharey=True, width_ratios=(3, 2))
    passes = sorted(table["forward_passes_mean"].unique())
    shown = in_order(table["method"])
    for ax, (name, x_label) in zip(axes, PANELS.items(), strict=True):
        for method, aside in zip(shown, np.linspace(-0.35, 0.35, len(shown)), strict=True):
            colour, marker = style_of(method)
            part = table[table["method"] == method].sort_values("n_clusters")
            x, width = part[f"{name}_mean"], 2
            if name == "forward_passes":  # a column each; who takes as many stands side by side
                x, width = np.searchsorted(passes, x) + aside, 0
            ax.errorbar(
                x, part[f"{y}_mean"], yerr=part[f"{y}_ci95"], color=colour, marker=marker, markersize=13,
                linewidth=width, elinewidth=2, label=method,
            )  # fmt: skip
        ax.set(xlabel=x_label)
    axes[0].set_xscale("log")
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[1].set_xticks(range(len(passes)), [f"{count:g}" for count in passes])
    axes[1].set_xlim(-0.5, len(passes) - 0.5)
    axes[1].grid(visible=False, axis="x")
    for column in range(1, len(passes)):
        axes[1].axvline(column - 0.5, color="0.8", linewidth=2)
    if reference:
        right = max(axes[0].get_xlim()[1], 2 * TARGET_FACTOR)
        axes[0].fill_between(
            [TARGET_FACTOR, right], -TARGET_LOSS, 100, color="gold", alpha=0.35, label="the target", zorder=0
        )
        axes[0].set_xlim(right=right)
        for ax in axes:
            ax.axhline(-TARGET_LOSS, color=NEUTRAL, linestyle=":", linewidth=2)
    margin = 0.1 * (table[f"{y}_mean"].max() - table[f"{y}_mean"].min()) + (1 if reference else 0.01)
    axes[0].set(ylabel=f"test accuracy: {label}" if reference else f"test {label}")
    axes[0].set_ylim(table[f"{y}_mean"].min() - margin, table[f"{y}_mean"].max() + margin)
    _write_numbers_of_clusters(axes[0], table, y)
    figure.suptitle("What exact unlearning saves, and what it costs (small numbers: clusters)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    figure.tight_layout()
    return figure


def requests_and_fits(frame: pd.DataFrame) -> Figure:
    """Accuracy against seconds: of a request until the next answer, and of the fits that it is instead of.

    A line is a method with what its head sees; means over seeds. Beside it are accuracy and the size-biased factor.

    Args:
        frame: Columns method, n_clusters, features, accuracy (share), cost_factor_size_biased, seconds_request,
            seconds_refit_cached, seconds_fit_images (s); rows without seconds_request are left out.
    """
    by, beside = ["features", "method", "n_clusters"], ["accuracy", "cost_factor_size_biased"]
    table = frame.dropna(subset=["seconds_request"]).groupby(by)[[*beside, "seconds_request", *FITS]].mean()
    table = table.sort_values("accuracy").reset_index()
    figure, ax = plt.subplots(figsize=(14, 0.55 * len(table) + 3))
    for y, row in table.iterrows():
        colour, marker = style_of(row["method"])
        ends = [row["seconds_request"], *(row[name] for name in FITS)]
        ax.plot([min(ends), max(ends)], [y, y], color=colour, linewidth=2, alpha=0.4)
        ax.plot(ends[0], y, marker, color=colour, markersize=15)
        for x, (fill, size) in zip(ends[1:], (("full", 7), ("none", 11)), strict=True):
            ax.plot(x, y, "s", color=colour, markersize=size, fillstyle=fill, markeredgewidth=2)
        for x, text in ((1.12, f"{row['accuracy']:.4f}"), (1.26, f"{row['cost_factor_size_biased']:,.0f}")):
            ax.text(x, y, text, va="center", ha="right", transform=ax.get_yaxis_transform())
    ax.plot([], [], "o", color=NEUTRAL, markersize=15, label="large: a request, until the next answer")
    for label, fill, size in zip(FITS.values(), ("full", "none"), (7, 11), strict=True):
        ax.plot([], [], "s", color=NEUTRAL, markersize=size, fillstyle=fill, markeredgewidth=2, label=label)
    names = [
        f"{r.method}{f', {r.n_clusters} clusters' * (r.n_clusters > 1)} ({r.features})" for r in table.itertuples()
    ]
    ax.set_yticks(range(len(table)), names)
    ax.set(xscale="log", xlabel="seconds", title="A request, and the fits that it is instead of")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    for x, text in ((1.12, "accuracy"), (1.26, "factor")):
        ax.text(x, len(table) - 0.4, text, va="bottom", ha="right", transform=ax.get_yaxis_transform())
    ax.set_ylim(-0.6, len(table) - 0.4)
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3 / figure.get_figheight()), ncols=3)
    return figure


def _write_numbers_of_clusters(ax: Axes, table: pd.DataFrame, y: str) -> None:
    """Each number beside its point, unless another stands there already."""
    written: list[np.ndarray] = []
    for row in table[table["n_clusters"] > 1].itertuples():
        place = (row.cost_factor_size_biased_mean, getattr(row, f"{y}_mean"))
        on_axes = ax.transAxes.inverted().transform(ax.transData.transform(place))
        if not any(np.abs(on_axes - there).max() < NEAR for there in written):
            ax.annotate(f"{row.n_clusters}", place, (7, 7), textcoords="offset points", fontsize=12, color=NEUTRAL)
            written.append(on_axes)
