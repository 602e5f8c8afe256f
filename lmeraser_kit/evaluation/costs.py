"""What unlearning costs, in closed form, and means with their spread over seeds. Arrays and data frames, no models.

The unit of cost is a sample gradient: one sample passed forward and backward once. One request for one uniformly drawn
sample tunes its whole cluster again without it. Large clusters are hit more often, so the expected cost is the
size-biased `sum(n_k^2)/N - 1` samples (times epochs), not the mean cluster's `N/K`: the two are equal only for even
clusters. A claim of "100 times cheaper" must say which it means; `cost_factors` gives both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gammaln

from lmeraser_kit import checks

Sizes = Iterable[int] | Mapping[int, int]  # of clusters, in samples; `LMEraser.sizes()` gives a dict
MOST_WINDOWS = 10**7


def expected_request_cost(sizes: Sizes, epochs: int = 1) -> float:
    """Expected sample gradients of one request for a uniformly drawn sample: `(sum(n_k^2)/N - 1) * epochs`.

    Args:
        sizes: Cluster sizes n_k, in samples; a dict of them will do.
        epochs: Passes over a cluster when it is tuned.
    """
    n, epochs = sizes_of(sizes), checks.whole("epochs", epochs)
    return float(((n**2).sum() / n.sum() - 1) * epochs)


def expected_batch_cost(sizes: Sizes, n_requests: int, epochs: int = 1) -> float:
    """Expected sample gradients of forgetting `n_requests` uniformly drawn samples at once.

    `sum_k n_k [1 - C(N - n_k, m) / C(N, m)] - m`, times epochs: a cluster is tuned once if any of them hits it.

    Args:
        sizes: Cluster sizes n_k, in samples; a dict of them will do.
        n_requests: How many samples leave, m; not more than there are.
        epochs: Passes over a cluster when it is tuned.
    """
    n, m, epochs = sizes_of(sizes), checks.whole("n_requests", n_requests, 0), checks.whole("epochs", epochs)
    total = n.sum()
    if m > total:
        raise ValueError(f"n_requests is {m}: {m} samples cannot be drawn from {total:.0f}")
    others = total - n
    untouched = np.zeros_like(n)
    can = others >= m
    untouched[can] = np.exp(
        gammaln(others[can] + 1) - gammaln(others[can] - m + 1) - gammaln(total + 1) + gammaln(total - m + 1)
    )
    return float(((n * (1 - untouched)).sum() - m) * epochs)


def expected_clusters_touched(sizes: Sizes, n_requests: float) -> float:
    """Expected number of clusters that a time window touches, `sum_k [1 - exp(-m n_k / N)]`: they are tuned once each.

    Args:
        sizes: Cluster sizes n_k, in samples; a dict of them will do.
        n_requests: Expected number of requests in a window, m = rate times width; they arrive as a Poisson process.
    """
    n, n_requests = sizes_of(sizes), checks.number("n_requests", n_requests)
    return float((1 - np.exp(-n_requests * n / n.sum())).sum())


def slice_cost_share(slices: int | np.ndarray) -> float | np.ndarray:
    """Expected cost of a request with R equal slices, as a share of tuning the cluster: `2/3 + 1/(3R)`.

    Tuning passes over the slices so far after each; a request in slice r repeats the passes from r on (SISA,
    Bourtoule et al. 2021, Section V).

    Args:
        slices: R, from 1; or many of them.
    """
    r = checks.array("slices", slices, ...)
    if (r < 1).any():
        raise ValueError(f"slices is {slices!r:.80}, expected a number from 1")
    share = 2 / 3 + 1 / (3 * r)
    return share if r.ndim else float(share)


def poisson_stream(uids: Iterable[str], rate: float, seed: int) -> pd.DataFrame:
    """Requests to forget that arrive one by one: everybody asks once, in random order.

    Args:
        uids: Who asks, each once.
        rate: Mean number of requests in a unit of time.
        seed: Draws the order and the times.

    Returns:
        Columns `time` and `uid`, in order of time.
    """
    listed = isinstance(uids, Iterable) and not isinstance(uids, (str, bytes, bytearray, pd.DataFrame))
    uids = list(uids) if listed else uids
    if len(names := checks.names("uids", uids)) > len(set(names)):
        raise ValueError("uids name somebody more than once: everybody asks once")
    rate, rng = checks.number("rate", rate, beyond=True), np.random.default_rng(checks.seed(seed))
    order = rng.permutation(np.sort(np.asarray(uids if listed else names)))
    return pd.DataFrame({"time": rng.exponential(1 / rate, len(order)).cumsum(), "uid": order})


def in_windows(stream: pd.DataFrame, width: float) -> list[list[str]]:
    """The uids of a stream that arrive within each window of `width`; windows without any are empty lists.

    Args:
        stream: As `poisson_stream` returns it.
        width: In the stream's unit of time; of windows so narrow that there are over 10 million, none is made.
    """
    _check_columns(stream, ("time", "uid"))
    time, width = checks.array("time", stream["time"], "N", empty=True), checks.number("width", width, beyond=True)
    if len(time) and (time.min() < 0 or time.max() / width > MOST_WINDOWS):
        expected = f"times from 0, and no more than {MOST_WINDOWS} windows"
        raise ValueError(f"times are {time.min():g} to {time.max():g} and width is {width:g}, expected {expected}")
    number = (stream["time"] // width).astype(int)
    return [stream["uid"][number == i].tolist() for i in range(number.max() + 1 if len(number) else 0)]


def cost_factors(sizes: Sizes) -> dict[str, float]:
    """How many times cheaper one request is than retraining on everything.

    Args:
        sizes: Cluster sizes n_k, in samples; a dict of them will do.

    Returns:
        `cost_factor_mean_cluster`: N over the mean size of a cluster, which is the number of clusters.
        `cost_factor_size_biased`: `N^2 / sum(n_k^2)`, what a uniformly drawn request saves on average.
    """
    n = sizes_of(sizes)
    n = n[n > 0]
    return {
        "cost_factor_mean_cluster": float(len(n)),
        "cost_factor_size_biased": float(n.sum() ** 2 / (n**2).sum()),
    }


def ci95(values: Iterable[float]) -> float:
    """Half-width of the 95% confidence interval of a mean (Student's t).

    NaN for fewer than two values, and if one is NaN or infinite: how much a value that is missing varies is not known.
    """
    values = _listed("values", values)
    if values.ndim == 1 and values.dtype == object:  # JSON has no NaN, and None instead
        values = checks.as_array("values", [math.nan if value is None else value for value in values.tolist()])
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ValueError(f"values are {values.tolist()!r:.80}, expected a list of numbers")
    values = values.astype(float)
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def summarise(frame: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Mean and 95% interval of columns over the rows of each group (its seeds).

    Args:
        frame: One row a run.
        by: Names of the columns that tell groups apart, at least one.
        values: Names of columns of numbers. NaN counts as missing for the mean; the interval is NaN then.

    Returns:
        One row a group: the group's columns, `NAME_mean` and `NAME_ci95` of each value, and `seeds`, their number.
    """
    by, values = ([names] if isinstance(names, str) else names for names in (by, values))
    by, values = (list(checks.instance(*arg, Iterable, " of columns")) for arg in (("by", by), ("values", values)))
    if not by:
        raise ValueError("by is empty, expected the name of a column at least")
    _check_columns(frame, by)
    _check_columns(frame, values, of_numbers=True)
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
    _check_columns(frame, ("method", "n_clusters", "seed"))
    _check_columns(frame, ("accuracy",), of_numbers=True)
    undivided = frame[frame["n_clusters"] == 1]
    if undivided.empty:
        return frame.assign(points=np.nan, reference="")
    best = undivided.groupby("method")["accuracy"].mean().idxmax()
    alone = undivided[undivided["method"] == best].set_index("seed")["accuracy"]
    if alone.index.has_duplicates:
        raise ValueError(f"frame has several rows of {best!r} with one seed, expected one row a method and seed")
    return frame.assign(points=100 * (frame["accuracy"] - frame["seed"].map(alone)), reference=best)


def readable(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A table of `summarise` for people: NAME_mean and NAME_ci95 become one column, `mean ± interval`."""
    checks.whole("digits", digits, 0)
    means = [name for name in checks.instance("table", table, pd.DataFrame) if str(name).endswith("_mean")]
    _check_columns(table, [*means, *(name.removesuffix("_mean") + "_ci95" for name in means)], of_numbers=True)
    table = table.rename(columns=str)
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


def sizes_of(sizes: Sizes) -> np.ndarray:
    """Cluster sizes as floats. Raises ValueError if one is no number of samples, or there is no sample at all."""
    n = checks.array("sizes", _listed("sizes", sizes.values() if isinstance(sizes, Mapping) else sizes), "K")
    if (n < 0).any() or (n != np.floor(n)).any() or not n.any():
        raise ValueError(f"sizes are {n.tolist()!r:.80}, expected whole numbers from 0, and one above 0 at least")
    return n.astype(float)


def _listed(name: str, values: Iterable) -> np.ndarray:
    listed = isinstance(values, Iterable) and not isinstance(values, (str, bytes, np.ndarray, pd.DataFrame))
    return checks.as_array(name, list(values) if listed else values)


def _check_columns(frame: pd.DataFrame, names: Iterable[str], of_numbers: bool = False) -> None:
    known = list(checks.instance("frame", frame, pd.DataFrame).columns)
    for name in names:
        if name not in known:
            raise ValueError(f"there is no column {name!r:.80}; there are: {', '.join(map(str, known))}")
        if of_numbers and not all(value is None or isinstance(value, Real) for value in frame[name]):
            raise ValueError(f"the column {name!r} holds something else than numbers")
