"""What a partition is: it says who is learnt together, and which clusters answer for an image."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from sklearn.base import BaseEstimator

from lmeraser_kit.ground.hashing import described, digest
from lmeraser_kit.ground.samples import Samples


@runtime_checkable
class Partition(Protocol):
    """Which cluster a sample belongs to: a scikit-learn estimator. `OwnPartition` has all but `assign` and `votes`.

    Its parameters (`get_params`) are numbers, text and lists; what it has learnt are arrays in attributes that end in
    an underscore. `assign` and `votes` are pure functions of these and of their arguments, row by row: the cluster of a
    sample must not depend on who else is routed.

    A partition with an attribute `by` that is `owner` gets the keys of owners (`Samples.owner_keys`), so that it can
    keep an owner's samples together; any other gets those of uids.

    Attributes:
        learns_from: Which samples `fit` is given, `public` or `private`; None if there is nothing to fit.
        uses_features: Whether it looks at features; otherwise it gets None, and they need not be computed.
        refits: Whether every request fits it again, on all private samples held.
        exact: Whether nothing of it outlives the samples that it has been fitted on.
    """

    learns_from: Literal["public", "private"] | None
    uses_features: bool
    refits: bool
    exact: bool

    def check(self, n_samples: int) -> None:
        """Refuse arguments that make no sense for so many samples to fit on. Raises ValueError."""
        ...

    def fit(self, features: np.ndarray, keys: np.ndarray) -> Partition:
        """Learn from features, (N, D), and keys, (N,), see `keys_for`, in an order that does not depend on arrival."""
        ...

    def assign(self, features: np.ndarray | None, keys: np.ndarray) -> np.ndarray:
        """The number of each sample's cluster, from 0, (N,) int, from its features, (N, D), and key, (N,)."""
        ...

    def votes(self, features: np.ndarray | None, available: np.ndarray) -> np.ndarray:
        """How much each cluster counts in a prediction.

        Args:
            features: Features of the images asked about, (N, D).
            available: Numbers of the clusters that hold samples, (K,); one at least.

        Returns:
            Weights, (N, K), or (1, K) if they are the same for all images; rows sum to 1.
        """
        ...

    def pieces(self) -> dict[str, str]:
        """A hash of everything that the fitted partition is, by name; equal if and only if it is the same."""
        ...


@runtime_checkable
class BoundedPartition(Partition, Protocol):
    """A partition whose clusters are divided when they have more samples than a bound; see `partitions.trie`.

    `assign` returns the cluster before any is divided; part i - 1 of cluster k has the number `k + (i - 1) * n_groups`,
    and `votes` is given the parts' numbers.

    Attributes:
        bound: How many samples a cluster may have, from 1; None if there is no bound.
    """

    bound: Any

    @property
    def n_groups(self) -> int:
        """Number of clusters before any is divided."""
        ...

    def codes(self, features: np.ndarray | None, keys: np.ndarray, assigned: np.ndarray) -> np.ndarray:
        """Bits that divide a cluster's samples, the lowest first, int64 (N,): a pure function, row by row.

        Args:
            features: Features, (N, D).
            keys: `Samples.keys`, (N,).
            assigned: What `assign` returns, (N,).
        """
        ...


def keys_for(partition: Partition | None, samples: Samples) -> np.ndarray:
    """The keys that a partition is given of samples, (N,) uint64: their uids', or their owners'."""
    return samples.owner_keys if getattr(partition, "by", "uid") == "owner" else samples.keys


def bounded(partition: Partition | None) -> BoundedPartition | None:
    """The fitted partition, if its clusters have a bound; else None."""
    return partition if isinstance(partition, BoundedPartition) and partition.bound is not None else None


def assignment(partition: Partition, features: np.ndarray | None, keys: np.ndarray) -> np.ndarray:
    """What `assign` returns. Raises ValueError if it is not one number from 0 for each sample."""
    assigned = np.asarray(partition.assign(features, keys))
    if assigned.shape != keys.shape or assigned.dtype.kind not in "iu" or assigned.min(initial=0) < 0:
        given = f"{assigned.dtype} {assigned.shape}, the smallest {assigned.min(initial=0)}"
        raise ValueError(f"{type(partition).__name__}.assign returned {given}, expected int {keys.shape} from 0")
    return assigned


def weights_of(partition: Partition, features: np.ndarray | None, available: np.ndarray, n: int) -> np.ndarray:
    """What `votes` returns, as (N, K). Raises ValueError if rows are not weights from 0 that sum to 1."""
    weights = np.asarray(partition.votes(features, available))
    if weights.shape not in ((n, len(available)), (1, len(available))) or not np.isfinite(weights).all():
        raise ValueError(
            f"{type(partition).__name__}.votes returned {weights.dtype} {weights.shape}, expected finite weights "
            f"({n}, {len(available)}) or (1, {len(available)})"
        )
    if (weights < 0).any() or not np.allclose(weights.sum(axis=1), 1):
        raise ValueError(f"{type(partition).__name__}.votes returned rows that are negative or do not sum to 1")
    return np.broadcast_to(weights, (n, len(available)))


class OwnPartition(BaseEstimator):
    """A start for a partition of your own: nothing to fit, exact; write `assign` and `votes`."""

    learns_from: Literal["public", "private"] | None = None
    uses_features, refits, exact = True, False, True

    def check(self, n_samples: int) -> None:
        """Every number of samples will do."""

    def fit(self, features: np.ndarray, keys: np.ndarray) -> OwnPartition:
        """Nothing to learn."""
        return self

    def pieces(self) -> dict[str, str]:
        """A hash of class, parameters and learnt arrays."""
        learnt = [(name, value) for name, value in sorted(vars(self).items()) if name.endswith("_")]
        arrays = [(name, np.asarray(value)) for name, value in learnt]
        bits = [part for name, array in arrays for part in (name, array.dtype, array.shape, array.tobytes())]
        return {"routing": digest("partition", described(self), *bits)}
