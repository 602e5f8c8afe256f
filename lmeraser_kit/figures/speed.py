"""Figures of speed; styles and colours are those of `figures`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lmeraser_kit.figures.theme import METHOD_STYLES, NEUTRAL, in_order, style_of

COLOURS = {
    "lmeraser-kit": METHOD_STYLES["lmeraser"][0],
    "lmeraser-kit, one cluster": METHOD_STYLES["lmeraser"][0],
    "bare backbone": "0.7",
    "bare backbone, compiled": "0.7",
    "plain loop": METHOD_STYLES["one prompt"][0],
}
PRECISION_STYLES = {"float32": ("-", "o"), "bfloat16": ("--", "s")}


def rates(frame: pd.DataFrame) -> Figure:
    """Samples per second, forward and backward, of each method in each precision.

    Args:
        frame: Columns method, precision, images_per_second; a row a turn.
    """
    figure, ax = plt.subplots(figsize=(10, 5))
    groups = (
        frame.groupby(["precision", "method"], sort=False)["images_per_second"]
        .agg(["median", "min", "max"])
        .sort_values("median")
    )
    for y, ((_, method), row) in enumerate(groups.iterrows()):
        error = [[row["median"] - row["min"]], [row["max"] - row["median"]]]
        ax.barh(y, row["median"], xerr=error, color=COLOURS[method], capsize=5)
        rate = f"{row['median']:,.0f}" if row["median"] >= 100 else f"{row['median']:.3g}"
        ax.annotate(rate, (row["max"], y), xytext=(8, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(groups)), [f"{method}, {precision}" for precision, method in groups.index])
    ax.set(xlabel="samples per second, forward and backward", xlim=(0, 1.2 * groups["max"].max()))
    ax.set_title("How fast a prompt is tuned")
    ax.grid(visible=False, axis="y")
    return figure


def forgetting(frame: pd.DataFrame) -> Figure:
    """Seconds an epoch against the cluster's size. `frame`: columns precision, size, seconds."""
    figure, ax = plt.subplots(figsize=(9, 5.5))
    for precision, part in frame.groupby("precision", sort=False):
        line, marker = PRECISION_STYLES.get(precision, ("-", "o"))
        ax.plot(part["size"], part["seconds"], line, marker=marker, markersize=10, linewidth=3, label=precision,
                color=METHOD_STYLES["lmeraser"][0])  # fmt: skip
    ax.set(xlabel="samples in the cluster", ylabel="seconds an epoch", xlim=(0, None), ylim=(0, None))
    ax.set_title("What forgetting one image takes")
    ax.legend()
    return figure


def owner_requests(frame: pd.DataFrame) -> Figure:
    """Images learnt again for the request of one owner, by method: expected, and the mean over requests.

    Args:
        frame: Columns method, expected_relearned, mean_relearned, accuracy (share); a row a method.
    """
    figure, ax = plt.subplots(figsize=(10, 0.8 * len(frame) + 1.5))
    rows = frame.set_index("method").loc[in_order(frame["method"])[::-1]]
    for y, (method, row) in enumerate(rows.iterrows()):
        ax.barh(y, row["expected_relearned"], color=style_of(str(method))[0], label="expected" if y == 0 else None)
        ax.plot(
            row["mean_relearned"], y, "D", color="black", markersize=9, clip_on=False, label="mean" if y == 0 else None
        )
    widest = max(1.0, rows[["expected_relearned", "mean_relearned"]].to_numpy().max())
    ax.set_yticks(range(len(rows)), [f"{name} ({accuracy:.3f})" for name, accuracy in rows["accuracy"].items()])
    ax.set(xlabel="images learnt again for one owner", xlim=(0, 1.1 * widest), title="What an owner's request costs")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="best")
    return figure


def waiting(frame: pd.DataFrame) -> Figure:
    """What a request costs against how long people wait: a panel for each kind of request.

    Args:
        frame: Columns requests (their kind), schedule, mean_wait (days), samples_each, least_each (samples learnt again
            for each request, and at least); a row a schedule, those named `at most ...` in order of their waits.
    """
    kinds = list(dict.fromkeys(frame["requests"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(6.5 * len(kinds), 5.5), squeeze=False, layout="constrained")
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = frame[frame["requests"] == kind]
        ours = part[part["schedule"].str.startswith("at most") | (part["schedule"] == "each at once")]
        periods = part[part["schedule"].str.startswith("every")]
        ax.plot(ours["mean_wait"], ours["samples_each"], "o-", markersize=9, linewidth=3, label="at most so many days")
        ax.plot(
            periods["mean_wait"], periods["samples_each"], "s", color=NEUTRAL, markersize=9, label="every so many days"
        )
        ax.axhline(part["least_each"].iloc[0], color="black", linestyle="--", linewidth=2, label="no schedule is below")
        ax.set(xlabel="mean wait (days)", ylabel="samples learned again\nfor each request", title=kind)
        ax.set_ylim(bottom=0)
        for row in part[part["schedule"].str.startswith(("at most", "every"))].itertuples():
            days, above = str(row.schedule).split()[-2], str(row.schedule).startswith("at")
            at, offset = (float(row.mean_wait), float(row.samples_each)), (-4 if above else 4, -22 if above else 12)  # type: ignore
            ax.annotate(days, at, xytext=offset, textcoords="offset points", ha="center", fontsize=13)
    axes[0][-1].legend(loc="best")
    return figure


def routing(frame: pd.DataFrame) -> Figure:
    """Seconds of routing against the number of samples. `frame`: columns samples, clusters, seconds."""
    figure, ax = plt.subplots(figsize=(9, 5.5))
    shades = np.linspace(0.75, 0.0, frame["clusters"].nunique())
    for (clusters, part), shade in zip(frame.groupby("clusters"), shades, strict=True):
        ax.plot(
            part["samples"], part["seconds"], "o-", markersize=9, linewidth=3, color=str(shade), label=f"{clusters}"
        )
    ax.set(xscale="log", yscale="log", xlabel="samples", ylabel="seconds")
    ax.set_title("Routing, once the features are there")
    ax.legend(title="clusters", labelcolor=NEUTRAL)
    return figure


def prompt_rates(frame: pd.DataFrame, default: float) -> Figure:
    """What a prompt adds to the head alone, in points of accuracy, against its rate; a line a size of cluster.

    Args:
        frame: Columns kind, size, prompt_lr, accuracy (share); a row a setting (and a seed).
        default: The default rate.
    """
    figure, ax = plt.subplots(figsize=(10, 5.5))
    frame = frame.replace({"kind": {"default": "prompt rate"}})  # it is one of them
    means = frame.groupby(["kind", "size", "prompt_lr"])["accuracy"].mean()
    sizes = sorted(frame["size"].unique())
    for size, shade, marker in zip(sizes, np.linspace(0.55, 0.0, len(sizes)), "osD^v", strict=False):
        gain = 100 * (means["prompt rate", size] - means["head alone", size].iloc[0])
        ax.plot(gain.index, gain, marker=marker, markersize=10, linewidth=3, color=str(shade), label=f"{size} samples")
    ax.axhline(0, color=COLOURS["plain loop"], linewidth=2, label="head alone")
    ax.axvline(default, color=NEUTRAL, linestyle="--", linewidth=2, label="default")
    ax.set(xscale="log", xlabel="prompt's learning rate (normalised pixel units a step)")
    ax.set(ylabel="accuracy gained\n(points)", title="What a prompt adds to the head alone")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
