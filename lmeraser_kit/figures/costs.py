"""Figures of what unlearning costs, and of how exact it is; styles and colours are those of `figures`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lmeraser_kit.evaluation.costs import slice_cost_share, summarise
from lmeraser_kit.figures.theme import METHOD_STYLES, NEUTRAL, style_of


def cluster_sizes(sizes: dict[int, int]) -> Figure:
    """Bars of the clusters' shares of the samples, largest first, with the mean and the size-biased mean."""
    values = np.sort(np.array(list(sizes.values())))[::-1] / sum(sizes.values())
    figure, ax = plt.subplots(figsize=(10, 5))
    ax.bar(np.arange(1, len(values) + 1), values, color=METHOD_STYLES["lmeraser"][0])
    lines = {"mean cluster, 1/K": values.mean(), "met by a random request, Σn²/N²": (values**2).sum()}
    for (label, y), style in zip(lines.items(), (":", "--"), strict=True):
        ax.axhline(y, color="black", linestyle=style, linewidth=2, label=f"{label} = {y:.1%}")
    ax.set(
        xlabel="rank of the cluster by size",
        ylabel="share of private samples",
        title="Large clusters are hit more often",
    )
    ax.legend()
    return figure


def cost_factors(frame: pd.DataFrame) -> Figure:
    """How much cheaper than retraining a random request is, against the number of clusters: of every kind of clusters.

    Args:
        frame: Columns clusters (their kind), n_clusters, cost_factor_size_biased; rows over seeds are averaged.
    """
    figure, ax = plt.subplots(figsize=(10, 6))
    ticks = sorted(frame["n_clusters"].unique())
    ax.plot(ticks, ticks, ":", color=NEUTRAL, linewidth=3, label="the mean cluster: K")
    kinds = sorted(frame["clusters"].unique(), key=lambda kind: (kind != "default", kind))
    for kind, marker in zip(kinds, "os^DvPX*", strict=False):
        table = summarise(frame[frame["clusters"] == kind], ["n_clusters"], ["cost_factor_size_biased"])
        mean, interval = table["cost_factor_size_biased_mean"], table["cost_factor_size_biased_ci95"].fillna(0)
        label = f"{kind}: N² / Σn²"
        ax.errorbar(table["n_clusters"], mean, yerr=interval, marker=marker, markersize=11, capsize=6, label=label)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(ticks, ticks)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="number of clusters K", ylabel="times cheaper than retraining", title="What a random request saves")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def request_costs(frame: pd.DataFrame, retrain_cost: float, expected: float) -> Figure:
    """What each request of a stream has cost, as a share of retraining, against the closed form.

    Args:
        frame: Columns request, sample_gradients, closed_form_sample_gradients; one row a request.
        retrain_cost: Sample gradients of retraining on everything.
        expected: Expected cost of a uniformly drawn request, in sample gradients.
    """
    figure, ax = plt.subplots(figsize=(11, 6))
    colour, marker = METHOD_STYLES["lmeraser"]
    ax.scatter(
        frame["request"],
        frame["closed_form_sample_gradients"] / retrain_cost,
        s=170,
        facecolors="none",
        edgecolors="black",
        label="closed form",
    )
    measured = frame["sample_gradients"] / retrain_cost
    ax.scatter(frame["request"], measured, s=60, color=colour, marker=marker, label="measured")
    ax.axhline(1, color=METHOD_STYLES["one prompt"][0], linewidth=3, label="retraining everything")
    ax.axhline(expected / retrain_cost, color=NEUTRAL, linestyle="--", linewidth=2, label="expected, about Σn²/N²")
    ax.set_ylim(0, 1.1 * max(1, measured.max()))
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.set(xlabel="request", ylabel="cost (share of retraining)", title="Forgetting one image tunes one cluster")
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
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.set(xlabel="requests so far", ylabel="test accuracy (share)", title="Accuracy while people leave")
    ax.margins(y=0.4)
    ax.set_ylim(top=min(ax.get_ylim()[1], 1.0) + 0.002)  # the line is seen where it is 1
    ax.legend(loc="lower left")
    return figure


def tradeoff(frame: pd.DataFrame) -> Figure:
    """Accuracy against what one random request saves, with 95% intervals over seeds.

    Args:
        frame: Columns method, n_clusters, accuracy_mean, accuracy_ci95, cost_factor_size_biased_mean.
    """
    figure, ax = plt.subplots(figsize=(11, 6))
    for method, part in frame.groupby("method"):
        colour, marker = style_of(method)
        part = part.sort_values("cost_factor_size_biased_mean")
        ax.errorbar(
            part["cost_factor_size_biased_mean"], part["accuracy_mean"], yerr=part["accuracy_ci95"], color=colour,
            marker=marker, markersize=11, capsize=6, linewidth=2.5, label=method,
        )  # fmt: skip
        for row in part.itertuples():
            if row.n_clusters > 1:
                ax.annotate(f"K={row.n_clusters}", (row.cost_factor_size_biased_mean, row.accuracy_mean),
                            xytext=(0, 14), textcoords="offset points", fontsize=13, ha="center",
                            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}x")
    ax.margins(x=0.15)
    ax.set_ylim(top=min(ax.get_ylim()[1], 1.0))  # an interval of a mean may pass 1, an accuracy cannot
    ax.set(xlabel="times cheaper than retraining, for a random request", ylabel="test accuracy (share)")
    ax.set_title("What exact unlearning saves, and what it costs")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


RUNG_MEASURES = {  # column: axis label
    "accuracy": "test accuracy\n(share)",
    "cost_factor_size_biased": "times cheaper\n(one cluster tuned)",
    "clusters_tuned": "clusters tuned\nper request",
    "samples_tuned": "samples tuned\nper request",
    "singletons": "prototypes of\none private sample",
    "residue": "pieces left of\nthe deleted",
}


def rungs(frame: pd.DataFrame) -> Figure:
    """Routings side by side, a panel a measure: means over seeds with 95% intervals; inexact routings are hatched.

    Args:
        frame: Columns routing, exact (bool), and those of RUNG_MEASURES; one row a routing and seed.
    """
    measures = RUNG_MEASURES
    order = list(dict.fromkeys(frame["routing"]))
    table = summarise(frame, ["routing"], list(measures)).set_index("routing").loc[order]
    exact = frame.groupby("routing")["exact"].all()
    figure, axes = plt.subplots(2, -(-len(measures) // 2), figsize=(15, 1.3 * len(order) + 3), sharey=True)
    for ax, (name, label) in zip(axes.flat, measures.items(), strict=True):
        for y, routing in enumerate(order):
            colour = style_of(routing)[0]
            mean, interval = table.loc[routing, f"{name}_mean"], table.loc[routing, f"{name}_ci95"]
            ax.barh(y, mean, xerr=interval, color=colour, hatch=None if exact[routing] else "//", capsize=5)
            end = mean + np.nan_to_num(interval)
            ax.annotate(f"{mean:.3g}", (end, y), xytext=(6, 0), textcoords="offset points", fontsize=15, va="center")
        ax.set_xlabel(label.replace("\n", " "))
        ax.grid(visible=False, axis="y")
        top = (table[f"{name}_mean"] + table[f"{name}_ci95"].fillna(0)).max()
        ax.set_xlim(0, 1.4 * top if top > 0 else 1)
    axes[0, 0].set_yticks(range(len(order)), [r if exact[r] else f"{r}\n(not exact)" for r in order])
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    return figure


def slice_costs(frame: pd.DataFrame) -> Figure:
    """What a request costs when tuning goes on from the last slice before it, against the closed form.

    Args:
        frame: Columns slices, cost_share (of tuning the cluster from the start); one row a request.
    """
    figure, ax = plt.subplots(figsize=(10, 5.5))
    means = summarise(frame, ["slices"], ["cost_share"])
    jitter = frame.groupby("slices").cumcount() % 7 - 3
    ax.scatter(frame["slices"] * 1.03**jitter, frame["cost_share"], s=25, color=NEUTRAL, alpha=0.5, label="a request")
    ax.errorbar(
        means["slices"], means["cost_share_mean"], yerr=means["cost_share_ci95"], fmt="o", markersize=11, capsize=6,
        color=METHOD_STYLES["lmeraser"][0], label="mean, 95% interval",
    )  # fmt: skip
    r = np.linspace(frame["slices"].min(), frame["slices"].max(), 200)
    ax.plot(r, slice_cost_share(r), "k--", linewidth=2, label="2/3 + 1/(3R)")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(frame["slices"].unique()), [str(r) for r in sorted(frame["slices"].unique())])
    ax.set(xlabel="slices R", ylabel="cost of a request\n(share of tuning the cluster)", ylim=(0, None))
    ax.set_title("Slices save a third at best")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def windows(frame: pd.DataFrame) -> Figure:
    """How many clusters a window of requests touches, against its expectation.

    Args:
        frame: Columns width (requests expected in a window), touched, expected; one row a window.
    """
    figure, ax = plt.subplots(figsize=(10, 5.5))
    means = summarise(frame, ["width"], ["touched"])
    ax.errorbar(
        means["width"], means["touched_mean"], yerr=means["touched_ci95"], fmt="o", markersize=11, capsize=6,
        color=METHOD_STYLES["lmeraser"][0], label="simulated, 95% interval",
    )  # fmt: skip
    expected = frame.groupby("width")["expected"].first()
    ax.plot(expected.index, expected, "k--", linewidth=2, label="Σ [1 - exp(-λ w n / N)]")
    ax.plot(expected.index, expected.index, color=NEUTRAL, linestyle=":", linewidth=2, label="one by one")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(expected.index, [f"{width:g}" for width in expected.index])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="requests in a window (mean)", ylabel="clusters tuned in a window")
    ax.set_title("A cluster that several requests hit is tuned once")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def peers(frame: pd.DataFrame) -> Figure:
    """Exact and approximate methods: distance to retraining, and cost, of forgetting one set.

    Args:
        frame: Columns method, kind (`exact` or `approximate`), KL_nats, sample_gradients, gradients_of_one (for exact
            methods), retrained_KL_nats, retrain_gradients; one row a method (and seed).
    """
    order = list(dict.fromkeys(frame["method"]))
    table = summarise(frame, ["method"], ["KL_nats", "sample_gradients"]).set_index("method").loc[order]
    kind = frame.groupby("method")["kind"].first()
    one = frame.groupby("method")["gradients_of_one"].mean()
    figure, axes = plt.subplots(1, 2, figsize=(15, 0.5 * len(order) + 2), sharey=True)
    floor, least_share = 1e-5, 1e-3
    retrain = frame["retrain_gradients"].mean()
    for y, method in enumerate(order):
        approximate = kind[method] == "approximate"
        colour = "0.55" if approximate else style_of(method)[0]
        for ax, name, least in zip(axes, ("KL_nats", "sample_gradients"), (floor, least_share), strict=True):
            whole = 1 if ax is axes[0] else retrain
            value, interval = (table.loc[method, f"{name}_{of}"] / whole for of in ("mean", "ci95"))
            value = max(value, least)
            error = None if np.isnan(interval) else [[min(interval, value - least)], [interval]]
            ax.errorbar(value, y, xerr=error, fmt="s" if approximate else "o", color=colour, markersize=10, capsize=5)
        axes[1].plot(
            np.maximum(one[method] / retrain, least_share),
            y,
            "o",
            color=colour,
            markersize=11,
            fillstyle="none",
            markeredgewidth=2.5,
        )
    axes[1].plot([], [], "o", color=NEUTRAL, markersize=10, label="whole set")
    axes[1].plot([], [], "o", color=NEUTRAL, markersize=11, fillstyle="none", markeredgewidth=2.5, label="one person")
    axes[0].axvspan(floor / 2, frame["retrained_KL_nats"].mean(), color="0.85", label="retraining against retraining")
    axes[1].axvline(1, color=METHOD_STYLES["one prompt"][0], linewidth=3, label="retraining")
    axes[0].set(xscale="log", xlabel=f"KL to retraining (nats; 0 at {floor:g})")
    axes[1].set(xscale="log", xlabel=f"cost (share of retraining; 0 at {least_share:g})")
    axes[0].set_yticks(range(len(order)), [f"{m} ({kind[m]})" for m in order])
    axes[0].invert_yaxis()
    for ax in axes:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=14)
    figure.tight_layout()
    return figure


def pareto(frame: pd.DataFrame) -> Figure:
    """Exact methods: accuracy against what one random request saves, in sample gradients and in seconds.

    Args:
        frame: Columns method, accuracy, cost_factor_size_biased, times_faster; a row a method (and seed).
    """
    measures = {"cost_factor_size_biased": "times cheaper (sample gradients)", "times_faster": "times faster (seconds)"}
    table = summarise(frame, ["method"], ["accuracy", *measures])
    figure, axes = plt.subplots(1, 2, figsize=(15, 6), sharey=True)
    for ax, (name, label) in zip(axes, measures.items(), strict=True):
        for row in table.to_dict("records"):
            colour, marker = style_of(row["method"])
            ax.errorbar(
                row[f"{name}_mean"], row["accuracy_mean"], yerr=row["accuracy_ci95"], color=colour, marker=marker,
                markersize=12, capsize=5, linewidth=2, linestyle="", label=row["method"],
            )  # fmt: skip
        ax.set(xscale="log", xlabel=label)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}x")
    axes[0].set_ylabel("test accuracy (share)")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle("Exact unlearning: one random request against retraining everything")
    return figure
