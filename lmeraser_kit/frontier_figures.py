"""Figures of the frontier of accuracy and cost; styles and colours are those of `figures`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lmeraser_kit.figures import METHOD_STYLES, NEUTRAL
from lmeraser_kit.metrics import summarise

TARGET_FACTOR, TARGET_LOSS = 100, 0.01  # a hundredfold cheaper, and no more than a point lost
PANELS = {
    "cost_factor_size_biased": "times cheaper than retraining, for a random request",
    "forward_passes": "forward passes per predicted image",
}


def frontier(frame: pd.DataFrame) -> Figure:
    """Accuracy against what a random request saves, and against what a prediction takes; 95% intervals over seeds.

    The target is the shaded corner: a factor of 100 within a point of the best undivided model (of one cluster).

    Args:
        frame: Columns method, n_clusters, accuracy (share), cost_factor_size_biased, forward_passes; a row a seed.
    """
    table = summarise(frame, ["method", "n_clusters"], ["accuracy", *PANELS])
    figure, axes = plt.subplots(1, 2, figsize=(17, 9), sharey=True, width_ratios=(3, 2))
    for ax, (name, label) in zip(axes, PANELS.items(), strict=True):
        for method in [m for m in METHOD_STYLES if m in set(table["method"])]:
            colour, marker = METHOD_STYLES[method]
            part = table[table["method"] == method].sort_values("n_clusters")
            ax.errorbar(
                part[f"{name}_mean"], part["accuracy_mean"], yerr=part["accuracy_ci95"], color=colour, marker=marker,
                markersize=13, capsize=5, linewidth=2 if name != "forward_passes" else 0, elinewidth=1.5, label=method,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set(xlabel=label)
    axes[1].set_xticks(ticks := sorted(table["forward_passes_mean"].unique()), [f"{x:g}" for x in ticks], minor=False)
    axes[1].set_xticks([], minor=True)
    axes[1].margins(x=0.15)
    axes[0].xaxis.set_major_formatter("{x:g}")
    for row in table[table["n_clusters"] > 1].itertuples():
        place = (row.cost_factor_size_biased_mean, row.accuracy_mean)
        axes[0].annotate(f"{row.n_clusters}", place, (7, 7), textcoords="offset points", fontsize=11, color=NEUTRAL)
    undivided = table[table["n_clusters"] == 1]["accuracy_mean"]
    if len(undivided):
        least, right = undivided.max() - TARGET_LOSS, max(axes[0].get_xlim()[1], 2 * TARGET_FACTOR)
        axes[0].fill_between([TARGET_FACTOR, right], least, 1, color="gold", alpha=0.35, label="the target", zorder=0)
        axes[0].set_xlim(right=right)
        for ax in axes:
            ax.axhline(least, color=NEUTRAL, linestyle=":", linewidth=2)
    low, high = (table["accuracy_mean"].min(), table["accuracy_mean"].max())
    axes[0].set(ylabel="test accuracy (share)", ylim=(low - 0.03, min(high + 0.03, 1.0)))
    figure.suptitle("What exact unlearning saves, and what it costs (small numbers: clusters)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    figure.tight_layout()
    return figure
