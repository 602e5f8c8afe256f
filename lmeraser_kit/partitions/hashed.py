"""Shards by a hash of the uid or the owner (SISA, Bourtoule et al. 2021), and the one shard that holds everybody."""

from __future__ import annotations

import warnings

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.partitions.protocol import OwnPartition


class HashClusters(OwnPartition):
    """Shards by a hash of the uid: SISA's partition (Bourtoule et al. 2021), exact, and blind to what images show.

    A test image has no shard, so all shards vote: K forward passes an image.

    Args:
        n_clusters: Number of shards; some may be empty when there are few samples.
        vote: `mean` of the shards' probabilities, or `majority` of their most probable classes; SISA has both.
        by: `uid`, or `owner`: all samples of an owner are in one shard, so that forgetting them costs one.
    """

    uses_features = False

    def __init__(self, n_clusters=8, vote="mean", by="uid"):
        self.n_clusters = n_clusters
        self.vote = vote
        self.by = by

    def check(self, n_samples: int) -> None:
        """Refuse arguments that make no sense (ValueError); warn if shards will be empty."""
        checks.whole("n_clusters", self.n_clusters)
        checks.choice("vote", self.vote, ("mean", "majority"))
        checks.choice("by", self.by, ("uid", "owner"))
        if self.n_clusters > checks.whole("n_samples", n_samples, 0) > 0:
            warnings.warn(
                f"{self.n_clusters} shards for {n_samples} samples: some will be empty; HashClusters(n) has n",
                stacklevel=3,
            )

    def assign(self, features: np.ndarray | None, keys: np.ndarray) -> np.ndarray:
        """The shard of each sample, (N,) int."""
        return (keyed_uniform("shard", 0, keys)[:, 0] * checks.whole("n_clusters", self.n_clusters)).astype(int)

    def votes(self, features: np.ndarray | None, available: np.ndarray) -> np.ndarray:
        """Every shard with a model counts the same: (1, K), for all samples."""
        available = checks.indices("available", available, self.n_clusters)
        return np.full((1, len(available)), 1 / len(available))


class SingleCluster(HashClusters):
    """All private samples in one cluster: one prompt and one head, the unpartitioned model."""

    def __init__(self):
        super().__init__(n_clusters=1)

    def check(self, n_samples: int) -> None:
        """One cluster always makes sense."""
