"""What a fitted model keeps, and what a request leaves: plain data, hashed piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator

from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.tuning import ClusterModel


@dataclass(frozen=True, eq=False)
class State:
    """Everything that a fitted model keeps of private data.

    Attributes:
        samples: The samples held, in the order of their uids.
        features: Their features, float32 (N, D); None if the partition needs none.
        routing: The fitted partition.
        assignment: The cluster of each sample, (N,).
        models: The tuned clusters, by number. A cluster without samples has none.
    """

    samples: Samples
    features: np.ndarray | None
    routing: BaseEstimator
    assignment: np.ndarray
    models: dict[int, ClusterModel]

    def pieces(self) -> dict[str, str]:
        """A hash of every piece of the state, by name."""
        features = b"" if self.features is None else self.features.tobytes()
        parts = {
            "samples": digest(*self.samples.digests),
            "features": digest(features),
            "routing": self.routing.digest(),
            "assignment": digest(self.assignment.astype(np.int64).tobytes()),
        }
        return parts | {f"cluster {k}": self.models[k].digest for k in sorted(self.models)}


@dataclass(frozen=True)
class Receipt:
    """What a request has done. It goes to who asked; the eraser keeps none.

    It names no uid. But the hashes from before cover the samples that have left: who holds all the others could try
    guesses of the missing one against them. Keep receipts as evidence, and no longer than they are needed.

    Attributes:
        action: `fit`, `forget` or `add`.
        n_requested: How many samples the request named.
        n_samples: How many samples are held after it.
        clusters_tuned: The clusters that were tuned (again), and how many samples each has.
        clusters_removed: The clusters that have no sample left, and so no model.
        n_moved: Samples that stayed and changed company, clusters being matched by their members (0 unless the routing
            is fitted on private features).
        sample_gradients: The cost: samples passed forward and backward once.
        seconds: The time that the request took.
        hash_before: `state_hash()` before; empty for a fit.
        hash_after: `state_hash()` after.
        clusters_before: Every cluster's hash before, by number.
        clusters_after: Every cluster's hash after, by number.
        environment: Where the bits were computed; they can be compared only where it is the same.
    """

    action: str
    n_requested: int
    n_samples: int
    clusters_tuned: dict[int, int]
    clusters_removed: list[int]
    n_moved: int
    sample_gradients: int
    seconds: float
    hash_before: str
    hash_after: str
    clusters_before: dict[int, str]
    clusters_after: dict[int, str]
    environment: dict[str, str | int]
