"""Figures of attacks; styles and colours are those of `figures`."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import roc_curve

from lmeraser_kit.figures.theme import METHOD_STYLES, NEUTRAL


def roc(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """ROC curves in log-log, where few false positives count. `curves`: attack -> (scores of members, of others)."""
    figure, ax = plt.subplots(figsize=(8, 7))
    least = min(0.5 / len(others) for _, others in curves.values())
    for (name, (members, others)), style in zip(curves.items(), ("-", "--", "-.", ":", "-"), strict=False):
        truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
        fpr, tpr, _ = roc_curve(truth, np.r_[members, others])
        ax.plot(np.maximum(fpr, least), np.maximum(tpr, least), style, linewidth=3, label=name)
    ax.plot([least, 1], [least, 1], color=NEUTRAL, linestyle=":", linewidth=2, label="guessing")
    ax.set(xscale="log", yscale="log", xlabel="false positive rate", ylabel="true positive rate")
    ax.set(title="Who was in the training data?", xlim=(least, 1), ylim=(least, 1))
    ax.legend()
    return figure


def losses(groups: dict[str, np.ndarray]) -> Figure:
    """Histograms of losses in nats, on a log axis, one row a group; the last group is the yardstick, behind all."""
    *others, yardstick = groups
    figure, axes = plt.subplots(len(others), 1, figsize=(10, 2.6 * len(others) + 0.8), sharex=True, squeeze=False)
    edges = np.geomspace(1e-4, max(values.max() for values in groups.values()) + 1, 50)
    for ax, name in zip(axes.flat, others, strict=True):
        for which, colour, alpha in ((yardstick, NEUTRAL, 0.5), (name, METHOD_STYLES["lmeraser"][0], 0.6)):
            values = np.maximum(groups[which], edges[0])
            ax.hist(values, edges, density=False, weights=np.full(len(values), 1 / len(values)), color=colour,
                    alpha=alpha, label=which)  # fmt: skip
        ax.set(xscale="log", ylabel="share")
        ax.legend(loc="upper left")
    axes[-1, 0].set_xlabel("loss of the forget set (nats)")
    axes[0, 0].set_title("Losses of those who left")
    return figure


def epsilons(groups: dict[str, np.ndarray]) -> Figure:
    """Per-example epsilon: the share of people with at least so much; `retrained` is the yardstick, in grey.

    Args:
        groups: Method -> epsilons, (N,); infinite ones count as beyond the axis.
    """
    figure, ax = plt.subplots(figsize=(11, 6))
    dashes = itertools.cycle(
        ["--", ":", "-.", (0, (1, 1)), (0, (5, 1)), (0, (8, 2, 1, 2)), (0, (3, 1, 1, 1)), (0, (6, 4))]
    )
    finite = np.concatenate([values[np.isfinite(values)] for values in groups.values()])
    most = 1.05 * finite.max(initial=0.1)
    for name, values in groups.items():
        x = np.sort(np.minimum(values, 2 * most))
        share = np.arange(len(x), -1, -1) / len(x)  # at least so much; 0 beyond the last
        style: dict[str, Any]
        if name == "retrained":
            style = {"color": "0.8", "linewidth": 12, "zorder": 1}
        elif name in METHOD_STYLES:
            style = {"color": METHOD_STYLES[name][0], "linewidth": 3}
        else:
            style = {"linestyle": next(dashes), "linewidth": 2, "color": "0.45"}
        ax.step(np.r_[0, x, x[-1]], np.r_[1, share], where="pre", label=name, **style)
    ax.set(xlabel="per-example epsilon, at least (nats)", ylabel="share of the forget set", xlim=(0, most))
    ax.set_title("How well can one person's leaving be told?")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def u_lira(frame: pd.DataFrame) -> Figure:
    """U-LiRA's AUC of every method, and its null interval: retrained models against retrained models.

    Args:
        frame: Columns method, auc, null_low, null_high; rows of several seeds are averaged.
    """
    table = frame.groupby("method", sort=False)[["auc", "null_low", "null_high"]].agg(["mean", "min", "max"])
    figure, ax = plt.subplots(figsize=(10, 0.5 * len(table) + 2))
    ax.use_sticky_edges = False  # room beside the intervals
    for y, (_, row) in enumerate(table.iterrows()):
        low, high = row["null_low", "mean"], row["null_high", "mean"]
        ax.barh(
            y, high - low, left=low, height=0.8, color="0.85", label="retraining against retraining" if not y else None
        )
        auc = row["auc"]
        inside = low <= auc["mean"] <= high
        error = [[auc["mean"] - auc["min"]], [auc["max"] - auc["mean"]]]
        style = METHOD_STYLES["lmeraser"] if inside else METHOD_STYLES["one prompt"]
        ax.errorbar(auc["mean"], y, xerr=error, color=style[0], marker=style[1], markersize=11, capsize=5, linewidth=2)
    ax.axvline(0.5, color="black", linestyle=":", linewidth=2)
    ax.set_yticks(range(len(table)), table.index)
    ax.invert_yaxis()
    ax.set(xlabel="AUC of U-LiRA (0.5: forgotten cannot be told from never seen)", title="Has it been forgotten?")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def reconstruction(frame: pd.DataFrame) -> Figure:
    """The share of those who left together that each attack names, with its 95% interval, against their number.

    Args:
        frame: What `roc.reconstruction_rates` gives by attack and number: columns attack, leave, named_share,
            named_low and named_high; and candidates, among how many an attacker chooses.
    """
    figure, ax = plt.subplots(figsize=(10, 6))
    styles = zip("osD^v", ("-", ":", "--", "-", "-."), strict=True)
    for (name, part), (marker, line) in zip(frame.groupby("attack", sort=False), styles, strict=False):
        ax.plot(part["leave"], part["named_share"], marker=marker, linestyle=line, label=name)
        ax.fill_between(part["leave"], part["named_low"], part["named_high"], alpha=0.15)
    guessed = 1 / frame.groupby("leave")["candidates"].mean()
    together = guessed.index.to_numpy()
    ax.plot(together, together * guessed.to_numpy(), color=NEUTRAL, linestyle=":", linewidth=2, label="guessing")
    ax.set(xscale="log", ylim=(-0.02, 1.05), xlabel="samples that leave at once", ylabel="share of them that is named")
    ax.set_xticks(together, [str(m) for m in together])
    ax.minorticks_off()
    ax.set_title("Whom do the models before and after betray?")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def closure_attack(rows: pd.DataFrame) -> Figure:
    """AUCs of an attack on forgotten images, with their 95% intervals: a row a case, a marker a kind of copy.

    Args:
        rows: Columns change, case, auc, auc_low, auc_high.
    """
    figure, ax = plt.subplots(figsize=(10, 1.2 * rows["case"].nunique() + 2.2))
    cases, changes = rows["case"].drop_duplicates().tolist(), rows["change"].drop_duplicates().tolist()
    for i, (change, marker) in enumerate(zip(changes, itertools.cycle("os^Dv"), strict=False)):
        part = rows[rows["change"] == change]
        heights = [cases.index(case) + 0.15 * (i - (len(changes) - 1) / 2) for case in part["case"]]
        wide = np.abs(part[["auc_low", "auc_high"]].to_numpy().T - part["auc"].to_numpy())
        ax.errorbar(part["auc"], heights, xerr=wide, fmt=marker, markersize=9, capsize=4, label=f"copy: {change}")
    ax.axvline(0.5, color=NEUTRAL, linestyle=":", linewidth=2, label="guessing")
    ax.set(yticks=range(len(cases)), yticklabels=cases, xlabel="AUC of LiRA on the forgotten images")
    ax.set(title="Is a forgotten image still found?")
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def klom(frame: pd.DataFrame) -> Figure:
    """KLOM of every method on each forget set, from the mean to the worst off, and that of retraining itself.

    Args:
        frame: Columns forget_set, method, klom_mean, klom_largest and retrained_klom_mean.
    """
    sets = list(dict.fromkeys(frame["forget_set"]))
    methods = list(dict.fromkeys(frame["method"]))
    columns = min(3, len(sets))
    rows = -(-len(sets) // columns)
    size = (5 * columns + 2, rows * (0.6 * len(methods) + 2))
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.ravel()[len(sets) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.ravel(), sets, strict=False):
        part = frame[frame["forget_set"] == name].groupby("method")[["klom_mean", "klom_largest"]].mean().loc[methods]
        y = np.arange(len(methods))
        ax.hlines(y, part["klom_mean"], part["klom_largest"], color="0.7", linewidth=4)
        ax.plot(part["klom_mean"], y, "o", label="mean")
        ax.plot(part["klom_largest"], y, "x", color="black", label="largest")
        retrained = frame.loc[frame["forget_set"] == name, "retrained_klom_mean"].mean()
        ax.axvline(retrained, color=NEUTRAL, linestyle=":", linewidth=2, label="retrained, mean")
        ax.set(xscale="log", xlabel="KLOM (nats)", title=name)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
        ax.tick_params(labelbottom=True)
        ax.set_yticks(y, methods)
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure
