"""Which cluster a sample belongs to, in training and at prediction.

Three partitions with one interface. `fit_on` says whose features a partition learns from: "public" leaves no private
trace, "private" is the paper's way (and is fitted again on what remains at every request, so it is exact, but moves
other samples), None learns nothing. A sample is routed once, by the feature of its clean, un-prompted image.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator
from sklearn.cluster import AgglomerativeClustering

from lmeraser_kit.samples import digest, keyed_uniform


class HierarchicalClusters(BaseEstimator):
    """Agglomerative clustering of backbone features; a sample goes to the nearest prototype (LMEraser, Section 4).

    A prototype is the mean feature of its cluster. Distances are Euclidean, in float64, one pair at a time
    (scipy's cdist), so that a sample's cluster does not depend on who else is routed.

    Args:
        n_clusters: Number of clusters; None if `distance_threshold` decides.
        distance_threshold: Clusters farther apart (in feature units) are not merged; None if `n_clusters` decides.
        fit_on: `public` (the default: nothing private in the routing) or `private` (the paper).
        linkage: scikit-learn's; the paper's is `average`.
        fit_size: At most so many samples are clustered, chosen by uid (the published code takes 1000).
    """

    def __init__(self, n_clusters=8, distance_threshold=None, fit_on="public", linkage="average", fit_size=1000):
        self.n_clusters = n_clusters
        self.distance_threshold = distance_threshold
        self.fit_on = fit_on
        self.linkage = linkage
        self.fit_size = fit_size

    def check(self, n_samples: int) -> None:
        """Refuse arguments that make no sense for `n_samples` samples to fit on. Raises ValueError."""
        if self.fit_on not in ("public", "private"):
            raise ValueError(f"fit_on is {self.fit_on!r}, expected 'public' or 'private'")
        if (self.n_clusters is None) == (self.distance_threshold is None):
            raise ValueError("give one of n_clusters and distance_threshold, and None for the other")
        if self.n_clusters is not None:
            _check_n_clusters(self.n_clusters)
            most = min(n_samples, self.fit_size)
            if self.n_clusters > most:
                raise ValueError(f"{self.n_clusters} clusters cannot be made of {most} {self.fit_on} samples")

    def fit(self, features: np.ndarray, keys: np.ndarray) -> HierarchicalClusters:
        """Find the prototypes.

        Args:
            features: Features, (N, D). If fewer are left than n_clusters (after deletions), each is a cluster.
            keys: `Samples.keys` of these samples, (N,): they choose and order, so that the order of arrival cannot.
        """
        chosen = np.argsort(keyed_uniform("prototypes", 0, keys)[:, 0], kind="stable")[: self.fit_size]
        points = features[chosen].astype(np.float64)
        labels = np.zeros(len(points), dtype=int)
        if len(points) > 1:
            n_clusters = None if self.n_clusters is None else min(self.n_clusters, len(points))
            tree = AgglomerativeClustering(n_clusters, distance_threshold=self.distance_threshold, linkage=self.linkage)
            labels = tree.fit_predict(points)
        means = [points[labels == k].mean(axis=0) for k in range(labels.max(initial=-1) + 1)]
        self.prototypes_ = np.array(means).reshape(-1, features.shape[1])
        return self

    def assign(self, features: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The cluster of each sample, (N,) int."""
        return cdist(features.astype(np.float64), self.prototypes_).argmin(axis=1)

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """How much each cluster that has a model counts in a sample's prediction.

        Args:
            features: Features of the samples, (N, D).
            available: Numbers of the clusters that have a model, (K,).

        Returns:
            Weights, (N, K); rows sum to 1. Here the nearest available cluster has all of it.
        """
        nearest = cdist(features.astype(np.float64), self.prototypes_[available]).argmin(axis=1)
        return np.eye(len(available))[nearest]

    def digest(self) -> str:
        """A hash of all that the partition has learnt, in hex."""
        return digest("hierarchical", repr(self), self.prototypes_.shape, self.prototypes_.tobytes())


class HashClusters(BaseEstimator):
    """Shards by a hash of the uid: SISA's partition (Bourtoule et al. 2021), exact, and blind to what images show.

    A test image has no shard, so all shards vote with their mean probability: K forward passes an image.

    Args:
        n_clusters: Number of shards; some may be empty when there are few samples.
    """

    fit_on = None

    def __init__(self, n_clusters=8):
        self.n_clusters = n_clusters

    def check(self, n_samples: int) -> None:
        """Refuse a number of shards that makes no sense (ValueError); warn if there are more than samples."""
        _check_n_clusters(self.n_clusters)
        if self.n_clusters > n_samples > 0:
            warnings.warn(f"{self.n_clusters} shards for {n_samples} samples: some will be empty", stacklevel=3)

    def assign(self, features: np.ndarray | None, keys: np.ndarray) -> np.ndarray:
        """The shard of each sample, (N,) int."""
        return (keyed_uniform("shard", 0, keys)[:, 0] * self.n_clusters).astype(int)

    def votes(self, features: np.ndarray | None, available: np.ndarray) -> np.ndarray:
        """Every shard with a model counts the same: (1, K), for all samples."""
        return np.full((1, len(available)), 1 / len(available))

    def digest(self) -> str:
        """A hash of all that the partition is, in hex."""
        return digest("partition", repr(self))


class SingleCluster(HashClusters):
    """All private samples in one cluster: one prompt and one head, the unpartitioned model."""

    def __init__(self):
        super().__init__(n_clusters=1)

    def check(self, n_samples: int) -> None:
        """One cluster always makes sense."""


def _check_n_clusters(n_clusters: int) -> None:
    if not isinstance(n_clusters, (int, np.integer)) or n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters!r}, expected a whole number from 1")
