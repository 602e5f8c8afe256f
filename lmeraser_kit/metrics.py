"""What unlearning costs, in closed form, and means with their spread over seeds. Arrays and data frames, no models.

The unit of cost is a sample gradient: one sample passed forward and backward once. One request for one uniformly drawn
sample tunes its whole cluster again without it. Large clusters are hit more often, so the expected cost is the
size-biased `sum(n_k^2)/N - 1` samples (times epochs), not the mean cluster's `N/K`: the two are equal only for even
clusters. A claim of "100 times cheaper" must say which it means; `cost_factors` gives both.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gammaln


def expected_request_cost(sizes: Iterable[int], epochs: int = 1) -> float:
    """Expected sample gradients of one request for a uniformly drawn sample: `(sum(n_k^2)/N - 1) * epochs`.

    Args:
        sizes: Cluster sizes n_k, in samples.
        epochs: Passes over a cluster when it is tuned.
    """
    n = np.asarray(list(sizes), dtype=float)
    return float(((n**2).sum() / n.sum() - 1) * epochs)


def expected_batch_cost(sizes: Iterable[int], n_requests: int, epochs: int = 1) -> float:
    """Expected sample gradients of forgetting `n_requests` uniformly drawn samples at once.

    `sum_k n_k [1 - C(N - n_k, m) / C(N, m)] - m`, times epochs: a cluster is tuned once if any of them hits it.

    Raises:
        ValueError: If more samples are to be forgotten than there are.
    """
    n = np.asarray(list(sizes), dtype=float)
    total, m = n.sum(), n_requests
    if m > total:
        raise ValueError(f"{m} samples cannot be drawn from {total:.0f}")
    others = total - n
    untouched = np.zeros_like(n)
    can = others >= m
    untouched[can] = np.exp(
        gammaln(others[can] + 1) - gammaln(others[can] - m + 1) - gammaln(total + 1) + gammaln(total - m + 1)
    )
    return float(((n * (1 - untouched)).sum() - m) * epochs)


def expected_clusters_touched(sizes: Iterable[int], n_requests: float) -> float:
    """Expected number of clusters that a time window touches, `sum_k [1 - exp(-m n_k / N)]`: they are tuned once each.

    Args:
        sizes: Cluster sizes n_k, in samples.
        n_requests: Expected number of requests in a window, m = rate times width; they arrive as a Poisson process.
    """
    n = np.asarray(list(sizes), dtype=float)
    return float((1 - np.exp(-n_requests * n / n.sum())).sum())


def slice_cost_share(slices: int) -> float:
    """Expected cost of a request with R equal slices, as a share of tuning the cluster: `2/3 + 1/(3R)`.

    Tuning passes over the slices so far after each; a request in slice r repeats the passes from r on (SISA,
    Bourtoule et al. 2021, Section V).
    """
    return 2 / 3 + 1 / (3 * slices)


def poisson_stream(uids: Iterable[str], rate: float, seed: int) -> pd.DataFrame:
    """Requests to forget that arrive one by one: everybody asks once, in random order.

    Args:
        uids: Who asks.
        rate: Mean number of requests in a unit of time.
        seed: Draws the order and the times.

    Returns:
        Columns `time` and `uid`, in order of time.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.sort(np.asarray(list(uids))))
    return pd.DataFrame({"time": rng.exponential(1 / rate, len(order)).cumsum(), "uid": order})


def in_windows(stream: pd.DataFrame, width: float) -> list[list[str]]:
    """The uids of a stream that arrive within each window of `width`; windows without any are empty lists."""
    number = (stream["time"] // width).astype(int)
    return [stream["uid"][number == i].tolist() for i in range(number.max() + 1)]


def cost_factors(sizes: Iterable[int]) -> dict[str, float]:
    """How many times cheaper one request is than retraining on everything.

    Returns:
        `cost_factor_mean_cluster`: N over the mean size of a cluster, which is the number of clusters.
        `cost_factor_size_biased`: `N^2 / sum(n_k^2)`, what a uniformly drawn request saves on average.
    """
    n = np.asarray(list(sizes), dtype=float)
    n = n[n > 0]
    return {
        "cost_factor_mean_cluster": float(len(n)),
        "cost_factor_size_biased": float(n.sum() ** 2 / (n**2).sum()),
    }


def ci95(values: Iterable[float]) -> float:
    """Half-width of the 95% confidence interval of a mean (Student's t); NaN for fewer than two values."""
    values = np.asarray(list(values), dtype=float)
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def summarise(frame: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Mean and 95% interval of columns over the rows of each group (its seeds).

    Returns:
        One row a group: the group's columns, `NAME_mean` and `NAME_ci95` of each value, and `seeds`, their number.
    """
    groups = frame.groupby(by, sort=True, dropna=False)
    columns = {"seeds": groups.size()}
    for name in values:
        columns[f"{name}_mean"] = groups[name].mean()
        columns[f"{name}_ci95"] = groups[name].apply(ci95)
    table = pd.DataFrame(columns)
    return table[[*table.columns[1:], "seeds"]].reset_index()


def against_undivided(frame: pd.DataFrame) -> pd.DataFrame:
    """Points of accuracy above the best undivided model of the same seed: what differs between seeds cancels out.

    Args:
        frame: Columns method, n_clusters, seed, accuracy (share); one row a method and seed. Methods of one cluster are
            undivided; the one with the best mean is the reference.

    Returns:
        The frame with the columns `points` (NaN where there is no undivided model) and `reference` (its method).
    """
    undivided = frame[frame["n_clusters"] == 1]
    if undivided.empty:
        return frame.assign(points=np.nan, reference="")
    best = undivided.groupby("method")["accuracy"].mean().idxmax()
    alone = undivided[undivided["method"] == best].set_index("seed")["accuracy"]
    return frame.assign(points=100 * (frame["accuracy"] - frame["seed"].map(alone)), reference=best)


def readable(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A table of `summarise` for people: NAME_mean and NAME_ci95 become one column, `mean ± interval`."""
    shown = {}
    for name in table.columns:
        if name.endswith("_mean"):
            pairs = zip(table[name], table[name.removesuffix("_mean") + "_ci95"], strict=True)
            cells = [f"{mean:.{digits}f}" + (f" ± {ci:.{digits}f}" if np.isfinite(ci) else "") for mean, ci in pairs]
            shown[name.removesuffix("_mean").replace("_", " ")] = cells
        elif not name.endswith("_ci95"):
            column = table[name]
            if column.dtype.kind == "f":  # rates are small
                column = column.round(2).where(column.abs() >= 0.1, column.round(4))
            shown[name.replace("_", " ")] = column
    return pd.DataFrame(shown)
