"""What the request of an owner costs, who has many samples, in closed form: see `costs` for that of a sample."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.evaluation.costs import Sizes, expected_batch_cost, sizes_of
from lmeraser_kit.ground.names import owner_counts


def owner_request_cost(owners: Iterable[str], clusters: Iterable[int], epochs: int = 1) -> dict[str, float]:
    """Expected cost of the request of one uniformly drawn owner, where it is known whose samples lie where.

    With n_k samples of c_k different owners in cluster k, N samples and M owners in all: `sum(c_k) / M` clusters, and
    `(sum(n_k c_k) - N) / M` samples, times epochs. If each sample is its own owner, `expected_request_cost`.

    Args:
        owners: The owner of each sample, (N,): `state_.samples.owners`.
        clusters: The cluster of each sample, (N,): `state_.assignment`.
        epochs: Passes over a cluster when it is tuned.

    Returns:
        `clusters_touched`, and `sample_gradients` of those who share these clusters and stay.
    """
    names = np.asarray(checks.names("owners", owners, "owner"))
    if not len(names):
        raise ValueError("owners are empty, expected one for each sample, and one sample at least")
    found = checks.array("clusters", clusters, len(names))
    sizes, counts, n_owners = owner_counts(names, found)
    relearnt = float((sizes * counts).sum() - len(names)) / n_owners * checks.whole("epochs", epochs)
    return {"clusters_touched": float(counts.sum()) / n_owners, "sample_gradients": relearnt}


def placed_owner_cost(owner_sizes: Sizes, n_clusters: int, together: bool = False, epochs: int = 1) -> dict[str, float]:
    """Expected cost of one uniformly drawn owner's request, before samples are placed: each by itself, or an owner's.

    A shard of K is drawn for each sample, or `together` for each owner, uniformly and independently (HashClusters). An
    owner of m samples touches `K (1 - (1 - 1/K)^m)` shards, or 1; each has `(N - m) / K` of the others.

    Args:
        owner_sizes: Samples of each owner, from 1; a dict of them will do.
        n_clusters: K, the number of shards.
        together: Whether an owner's samples are kept together (`by="owner"`).
        epochs: Passes over a cluster when it is tuned.

    Returns:
        As `owner_request_cost`.
    """
    m, k = _owner_sizes(owner_sizes), checks.whole("n_clusters", n_clusters)
    touched = np.ones_like(m) if checks.flag("together", together) else k * (1 - (1 - 1 / k) ** m)
    relearnt = touched * (m.sum() - m) / k
    return {
        "clusters_touched": float(touched.mean()),
        "sample_gradients": float(relearnt.mean()) * checks.whole("epochs", epochs),
    }


def spread_owner_cost(owner_sizes: Sizes, sizes: Sizes, epochs: int = 1) -> float:
    """Expected sample gradients of one uniformly drawn owner's request, where owners have nothing to do with clusters.

    An owner of m samples then costs what `expected_batch_cost` says of m uniformly drawn ones; the mean over owners.

    Args:
        owner_sizes: Samples of each owner, from 1; a dict of them will do.
        sizes: Cluster sizes n_k, in samples, with the same sum; a dict of them will do.
        epochs: Passes over a cluster when it is tuned.
    """
    m, n = _owner_sizes(owner_sizes), sizes_of(sizes)
    if m.sum() != n.sum():
        raise ValueError(f"owner_sizes have the sum {m.sum():.0f}, and sizes {n.sum():.0f}, expected the same samples")
    of_size, counts = np.unique(m.astype(int), return_counts=True)
    costs = [expected_batch_cost(n.astype(int), one, epochs) for one in of_size.tolist()]
    return float(np.dot(costs, counts) / len(m))


def _owner_sizes(owner_sizes: Sizes) -> np.ndarray:
    """Samples of each owner as floats. Raises ValueError if one has none."""
    try:
        m = sizes_of(owner_sizes)
    except ValueError as error:
        raise ValueError(f"owner_{error}") from error
    if not m.all():
        raise ValueError("owner_sizes hold 0, expected whole numbers from 1: who has no sample owns nothing")
    return m
