"""When to carry out deletion requests that may wait: schedules, what they cost, and the least that any of them can.

A request arrives, has to be carried out by its deadline, and hits clusters. A cluster that several requests of a batch
hit is learned again once: so waiting saves work, and makes people wait. Costs are in samples learned again: a batch
costs, for each cluster that it hits, the samples that the cluster has left after it.

If every request hits one cluster, waiting until a cluster's first deadline and taking along who waits for the same
cluster is the cheapest schedule of all, although it knows nothing of what comes: its j-th time is the latest that a
j-th time can be, so it needs the fewest, and more have left by each (intervals stabbed by points). Owners hit several
clusters, and their requests are carried out whole; then it is a heuristic, and `least_cost` a bound from below.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmeraser_kit import checks

MOST_TRIED = 10**6  # schedules that `cheapest` compares
ALONG = 0.2  # who waits goes along with a batch that learns this share of what their own request would, or more


@dataclass(frozen=True)
class TimedRequest:
    """A request to forget that may wait.

    Attributes:
        arrival: When it arrives, in days.
        deadline: By when it has to be carried out, in days; not before it arrives.
        leaving: How many of its samples lie in each cluster that it hits.
    """

    arrival: float
    deadline: float
    leaving: Mapping[int, int]

    def __post_init__(self):
        arrival = checks.number("arrival", self.arrival, -math.inf)
        if checks.number("deadline", self.deadline, -math.inf) < arrival:
            raise ValueError(f"deadline is {self.deadline:g}, before the arrival at {arrival:g}")
        _checked(self.leaving, "leaving")


def at_once(requests: Sequence[TimedRequest]) -> np.ndarray:
    """Each request when it arrives. Returns a time for each, (N,), in days."""
    return np.array([one.arrival for one in _listed(requests)], dtype=float)


def in_periods(requests: Sequence[TimedRequest], days: float) -> np.ndarray:
    """All that wait at the end of each period, or at their deadlines. Returns a time for each, (N,), in days.

    Args:
        requests: What arrives.
        days: How long a period is: 1 for every night.
    """
    days = checks.number("days", days, beyond=True)
    ends = [max(math.ceil(one.arrival / days) * days, one.arrival) for one in _listed(requests)]
    return np.array([min(end, one.deadline) for end, one in zip(ends, requests, strict=True)], dtype=float)


def at_latest(
    requests: Sequence[TimedRequest], sizes: Mapping[int, int], wait: float = math.inf, along: float = ALONG
) -> np.ndarray:
    """Each request at its deadline, or earlier with a batch that learns most of its clusters anyway.

    At no time does it know what arrives later.

    Args:
        requests: What arrives.
        sizes: Samples of each cluster at the start, by number.
        wait: How long a request waits at most, in days.
        along: Who waits goes along with a batch that learns at least this share of what their own request would, in
            samples. At 1, who costs nothing more. The default was the best of several, or near it, for owners whose
            numbers of images follow Zipf's law; it does not matter if every request hits one cluster.

    Returns:
        A time for each, (N,), in days.
    """
    sizes, along = _sizes_for(requests, sizes), checks.number("along", along, 0, 1, beyond=True)
    wait = math.inf if wait == math.inf else checks.number("wait", wait)
    due = np.array([min(one.deadline, one.arrival + wait) for one in requests], dtype=float)
    waiting: dict[int, set[int]] = defaultdict(set)
    for i, one in enumerate(requests):
        for k in one.leaving:
            waiting[k].add(i)
    times = np.full(len(requests), np.nan)
    for i in np.argsort(due, kind="stable").tolist():
        if not math.isnan(times[i]):
            continue
        joining, hit = [i], set[int]()
        while joining:
            new = [k for j in joining for k in requests[j].leaving if k not in hit]
            hit.update(new)
            for j in joining:
                times[j] = due[i]
                for k in requests[j].leaving:
                    waiting[k].discard(j)
            near = {j for k in new for j in waiting[k] if requests[j].arrival <= due[i]}
            shares = {j: sum(sizes[k] for k in requests[j].leaving if k in hit) for j in near}
            joining = [j for j in sorted(near) if shares[j] >= along * sum(sizes[k] for k in requests[j].leaving)]
    return times


def schedule_cost(requests: Sequence[TimedRequest], times: Iterable[float], sizes: Mapping[int, int]) -> dict:
    """What a schedule costs, and how long people wait.

    Args:
        requests: What arrives.
        times: When each is carried out, (N,), in days; none before it arrives. Who has the same time is one batch.
        sizes: Samples of each cluster at the start, by number.

    Returns:
        `samples` learned again, `clusters` learned again, `batches`, `mean_wait` and `longest_wait` in days, and
        `missed`, how many were carried out after their deadlines.
    """
    left, when = _sizes_for(requests, sizes), checks.array("times", times, len(requests), empty=True)
    arrivals = np.array([one.arrival for one in requests], dtype=float)
    if (when < arrivals).any():
        raise ValueError("times hold one before its request arrives")
    missed = int((when > np.array([one.deadline for one in requests], dtype=float)).sum())
    samples = clusters = 0
    for time in np.unique(when).tolist():
        hit = set[int]()
        for i in np.flatnonzero(when == time).tolist():
            for k, n in requests[i].leaving.items():
                left[k] -= n
                hit.add(k)
        samples += sum(left[k] for k in hit)
        clusters += len(hit)
    waits = when - arrivals if len(when) else np.zeros(1)
    counted = {"samples": samples, "clusters": clusters, "batches": len(np.unique(when))}
    return counted | {"mean_wait": float(waits.mean()), "longest_wait": float(waits.max()), "missed": missed}


def least_cost(requests: Sequence[TimedRequest], sizes: Mapping[int, int]) -> int:
    """Samples that every schedule which meets all deadlines learns again at least.

    Each cluster by itself, as if the parts of a request could be carried out at different times. If every request hits
    one cluster, `at_latest` needs no more.

    Args:
        requests: What arrives; all of it is known.
        sizes: Samples of each cluster at the start, by number.
    """
    sizes, parts = _sizes_for(requests, sizes), defaultdict(list)
    for one in requests:
        for k, n in one.leaving.items():
            parts[k].append(TimedRequest(one.arrival, one.deadline, {k: n}))
    alone = (schedule_cost(part, at_latest(part, sizes), sizes)["samples"] for part in parts.values())
    return sum(alone)


def cheapest(requests: Sequence[TimedRequest], sizes: Mapping[int, int]) -> np.ndarray:
    """The cheapest schedule that meets all deadlines, found by trying all: for a few requests.

    A batch may be put off until the first of its deadlines, or until the next batch, which it then joins; neither costs
    more. So it is enough to try deadlines as times.

    Args:
        requests: What arrives; all of it is known.
        sizes: Samples of each cluster at the start, by number.

    Returns:
        A time for each, (N,), in days.

    Raises:
        ValueError: If there are more than a million schedules to try.
    """
    _sizes_for(requests, sizes)
    deadlines = sorted({one.deadline for one in requests})
    choices = [[time for time in deadlines if one.arrival <= time <= one.deadline] for one in requests]
    if (n := math.prod(map(len, choices))) > MOST_TRIED:
        raise ValueError(f"there are {n:.0e} schedules to try, expected a million at most: give fewer requests")
    return np.array(min(itertools.product(*choices), key=lambda t: schedule_cost(requests, t, sizes)["samples"]))


def expected_waiting_cost(
    sizes: Mapping[int, int], rate: float, wait: float, shares: Iterable[float] | None = None
) -> float:
    """Samples that a request learns again on average, if a cluster waits so long after its first request.

    Requests come as a Poisson process, and hit cluster k of n_k samples at the rate `r_k = rate * n_k / N`. From one
    learning of it to the next, a first request has to come (`1 / r_k` days on average), and then the wait passes: so a
    request costs `sum_k (r_k / rate) n_k / (1 + r_k wait)`. Without a wait, that is `sum(n_k^2) / N`. Clusters are
    taken to keep their sizes.

    Args:
        sizes: Cluster sizes n_k, in samples, by number; one above 0 at least.
        rate: Requests in a day.
        wait: In days.
        shares: The share of requests that hits each cluster, (K,); by default n_k / N, for random samples. For owners,
            the share of owners who have a sample in it.
    """
    n = np.array(list(_checked(sizes).values()), dtype=float)
    if not n.any():
        raise ValueError("sizes are all 0, expected one above 0 at least")
    rate, wait = checks.number("rate", rate, beyond=True), checks.number("wait", wait)
    hit = n / n.sum() if shares is None else checks.array("shares", shares, len(n))
    return float((hit * n / (1 + rate * hit * wait)).sum())


def waiting_curve(requests: Sequence[TimedRequest], sizes: Mapping[int, int], waits: Iterable[float]) -> pd.DataFrame:
    """What it costs if nobody waits longer than so many days.

    Args:
        requests: What arrives.
        sizes: Samples of each cluster at the start, by number.
        waits: The longest wait, in days; 0 is each at once.

    Returns:
        A row for each wait: `wait`, and what `schedule_cost` says.
    """
    waits = checks.array("waits", waits, "N").tolist()
    rows = [{"wait": w, **schedule_cost(requests, at_latest(requests, sizes, w), sizes)} for w in waits]
    return pd.DataFrame(rows)


def stream_of_owners(
    owners: Iterable[str],
    clusters: Iterable[int],
    n_requests: int,
    days: float = 365,
    within: float = 45,
    bursts: int = 0,
    seed: int = 0,
) -> list[TimedRequest]:
    """Requests of different owners, drawn uniformly, at random times, some of them in bursts.

    Args:
        owners: The owner of each sample, (N,).
        clusters: The cluster of each sample, (N,).
        n_requests: How many owners ask; each once.
        days: Over how many days.
        within: How many days there are from the arrival to the deadline.
        bursts: On how many days half of the requests arrive, evenly; 0 for none. The others are spread over all days.
        seed: Draws who asks, and when.

    Returns:
        The requests, in order of arrival.
    """
    names = np.asarray(checks.names("owners", owners, "owner"))
    found = checks.array("clusters", clusters, len(names))
    everybody = np.unique(names)
    n = checks.whole("n_requests", n_requests, 0, len(everybody))
    days, within = checks.number("days", days, beyond=True), checks.number("within", within)
    bursts, rng = checks.whole("bursts", bursts, 0), np.random.default_rng(checks.seed(seed))
    arrivals = rng.uniform(0, days, n)
    if bursts:
        starts = rng.uniform(0, max(days - 1, 0), bursts)
        crowd = np.arange(n // 2)
        arrivals[crowd] = starts[crowd % bursts] + rng.uniform(0, min(1.0, days), len(crowd))
    held = pd.DataFrame({"owner": names, "cluster": found}).groupby("owner")["cluster"]
    leaving = {owner: part.value_counts().to_dict() for owner, part in held}
    chosen = rng.choice(everybody, n, replace=False)
    pairs = sorted(zip(arrivals.tolist(), chosen.tolist(), strict=True))
    return [TimedRequest(time, time + within, leaving[owner]) for time, owner in pairs]


def _sizes_for(requests: Sequence[TimedRequest], sizes: Mapping[int, int]) -> dict[int, int]:
    """Sizes by cluster, of which no more leave than there are. Raises ValueError."""
    sizes, leaving = _checked(sizes), defaultdict(int)
    for one in _listed(requests):
        for k, n in one.leaving.items():
            leaving[k] += n
    if beyond := [k for k, n in leaving.items() if n > sizes.get(k, 0)]:
        raise ValueError(f"{leaving[beyond[0]]} samples leave cluster {beyond[0]}, which has {sizes.get(beyond[0], 0)}")
    return sizes


def _listed(requests: Sequence[TimedRequest]) -> Sequence[TimedRequest]:
    """Requests as they are. Raises ValueError if they are something else."""
    if not isinstance(requests, Sequence) or not all(isinstance(one, TimedRequest) for one in requests):
        raise ValueError(f"requests are {requests!r:.80}, expected a list of TimedRequest")
    return requests


def _checked(sizes: Mapping[int, int], name: str = "sizes") -> dict[int, int]:
    """Samples by cluster, as a new dict. Raises ValueError if they are something else."""
    if not isinstance(sizes, Mapping):
        raise ValueError(f"{name} is {sizes!r:.80}, expected samples by cluster, such as LMEraser.sizes()")
    return {k: checks.whole(f"{name} of cluster {k}", n, 0) for k, n in sizes.items()}
