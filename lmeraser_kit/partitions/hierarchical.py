"""Clusters by what images show: agglomerative clustering of features, a prototype each (LMEraser, Section 4)."""

from __future__ import annotations

import math
import warnings

import numpy as np
import psutil
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.cluster import AgglomerativeClustering

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import described, digest, keyed_uniform

FIT_ON = ("public", "private", "private-once")
BYTES_A_PAIR = 8  # all pairs' distances, twice half of them: measured for average, complete and Ward linkage


class HierarchicalClusters(BaseEstimator):
    """Agglomerative clustering of backbone features; a sample goes to the nearest prototype (LMEraser, Section 4).

    A prototype is the mean feature of its cluster. Distances are Euclidean, in float64, one pair at a time
    (scipy's cdist), so that a sample's cluster does not depend on who else is routed.

    Average linkage makes uneven clusters, and a request costs `sum(n_k^2)/N`. `max_share` divides those that are too
    large, by what the fitted features show and nothing else, so that it stays exact.

    Args:
        n_clusters: Number of clusters; None if `distance_threshold` decides.
        distance_threshold: Clusters farther apart (in feature units) are not merged; None if `n_clusters` decides.
        fit_on: `public` (the default: nothing private in the routing); `private`, fitted again at every request; or
            `private-once`, kept for ever (the published code), which is not exact.
        linkage: scikit-learn's; the paper's is `average`.
        fit_size: At most so many samples are clustered, chosen by uid (the published code takes 1000).
        max_share: Clusters with more than this share of the clustered samples are divided; None for no such limit.
        split_by: `features`: halved by Ward linkage until small enough, each part with its own prototype; or `uids`:
            into shards by a hash of the uid, which all vote (a forward pass each).
        softness: How far votes reach at prediction: a cluster's weight is `softmax(-distance^2 / (softness * s))`,
            with s the mean squared distance of the fitted samples to their prototypes; 0 for the nearest cluster alone
            (the paper). It changes no cluster's members, so forgetting costs the same and is as exact.
        n_votes: With softness, how many of the nearest prototypes vote (a prompted pass each); None for all.
        unit_length: Whether features are scaled to length 1 first, and rounded to whole multiples of 2^-14. Without it
            a few features that are large decide everything, and with average linkage nearly all samples share one
            cluster. Distances between whole numbers are exact, so that a matrix product computes them, and routing is
            the same on every machine.
    """

    def __init__(
        self,
        n_clusters=8,
        distance_threshold=None,
        fit_on="public",
        linkage="average",
        fit_size=1000,
        max_share=None,
        split_by="features",
        softness=0.0,
        n_votes=None,
        unit_length=False,
    ):
        self.n_clusters = n_clusters
        self.distance_threshold = distance_threshold
        self.fit_on = fit_on
        self.linkage = linkage
        self.fit_size = fit_size
        self.max_share = max_share
        self.split_by = split_by
        self.softness = softness
        self.n_votes = n_votes
        self.unit_length = unit_length

    uses_features = True

    @property
    def learns_from(self) -> str:
        """`public` or `private`."""
        return "public" if self.fit_on == "public" else "private"

    @property
    def refits(self) -> bool:
        """Whether every request fits the prototypes again."""
        return self.fit_on == "private"

    @property
    def exact(self) -> bool:
        """False if prototypes outlive the samples that they are means of."""
        return self.fit_on != "private-once"

    def check(self, n_samples: int) -> None:
        """Refuse what makes no sense for `n_samples` samples or needs too much memory (ValueError); warn of 1 GB."""
        self._check_arguments()
        n = min(checks.whole("n_samples", n_samples, 0), int(self.fit_size))
        if self.n_clusters is not None and self.n_clusters > n:
            raise ValueError(f"{self.n_clusters} clusters cannot be made of {n} {self.learns_from} samples")
        wanted, free = BYTES_A_PAIR * n**2 * (self.linkage != "single"), psutil.virtual_memory().available
        takes = f"fit_size is {self.fit_size}: clustering {n} samples takes {wanted / 1e9:.1f} GB of memory"
        if wanted > free:
            fits = math.isqrt(free // BYTES_A_PAIR)
            raise ValueError(f"{takes}, and {free / 1e9:.1f} GB are free; the largest fit_size that fits is {fits}")
        if wanted > 1e9:
            warnings.warn(takes, stacklevel=3)

    def _check_arguments(self) -> None:
        checks.choice("fit_on", self.fit_on, FIT_ON)
        checks.choice("linkage", self.linkage, ("average", "complete", "single", "ward"))
        checks.choice("split_by", self.split_by, ("features", "uids"))
        checks.whole("fit_size", self.fit_size)
        checks.number("softness", self.softness)
        checks.flag("unit_length", self.unit_length)
        if (self.n_clusters is None) == (self.distance_threshold is None):
            raise ValueError("give one of n_clusters and distance_threshold, and None for the other")
        for name in ("n_clusters", "n_votes"):
            if (value := getattr(self, name)) is not None:
                checks.whole(name, value)
        if self.distance_threshold is not None:
            checks.number("distance_threshold", self.distance_threshold)
        if self.max_share is not None:
            checks.number("max_share", self.max_share, 0, 1, beyond=True)

    def fit(self, features: np.ndarray, keys: np.ndarray) -> HierarchicalClusters:
        """Find the prototypes. Raises ValueError if an argument makes no sense, or a feature is not finite.

        Args:
            features: Features, (N, D). If fewer are left than n_clusters (after deletions), each is a cluster.
            keys: `Samples.keys` of these samples, (N,): they choose and order, so that the order of arrival cannot.
        """
        self._check_arguments()
        draws = keyed_uniform("prototypes", 0, keys)[:, 0]
        features = checks.array("features", features, len(draws), "D")
        chosen = np.argsort(draws, kind="stable")[: self.fit_size]
        points = self._points(features[chosen])
        labels = np.zeros(len(points), dtype=int)
        if len(points) > 1:
            n_clusters = None if self.n_clusters is None else min(self.n_clusters, len(points))
            tree = AgglomerativeClustering(n_clusters, distance_threshold=self.distance_threshold, linkage=self.linkage)
            labels = tree.fit_predict(points)
        most = len(points) if self.max_share is None else max(1, math.floor(self.max_share * len(points)))
        if self.split_by == "features":
            _divide(points, labels, most)
        self.counts_ = np.bincount(labels)  # how many samples each prototype is the mean of
        means = [points[labels == k].mean(axis=0) for k in range(len(self.counts_))]
        self.prototypes_ = np.array(means).reshape(-1, features.shape[1])
        if self.unit_length:
            self.prototypes_ = np.rint(self.prototypes_)
        self.spread_ = np.square(points - self.prototypes_[labels]).sum(axis=1).mean(keepdims=True)
        self.shards_ = -(-self.counts_ // most) if self.split_by == "uids" else np.ones_like(self.counts_)
        return self

    def assign(self, features: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The cluster of each sample, (N,) int: its nearest prototype's, or one of that prototype's shards."""
        draws = keyed_uniform("shard", 0, keys)[:, 0]
        features = checks.array("features", features, len(draws), self.prototypes_.shape[1])
        nearest = self._nearest(features, self.prototypes_)
        first = np.cumsum(self.shards_) - self.shards_
        return first[nearest] + (draws * self.shards_[nearest]).astype(int)

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """How much each cluster that has a model counts in a sample's prediction.

        Args:
            features: Features of the samples, (N, D).
            available: Numbers of the clusters that have a model, (K,).

        Returns:
            Weights, (N, K); rows sum to 1. The nearest prototype's cluster has all of it, or with softness the most; a
            prototype's shards share its weight.
        """
        features = checks.array("features", features, "N", self.prototypes_.shape[1], empty=True)
        available = checks.indices("available", available, self.shards_.sum())
        prototype = np.repeat(np.arange(len(self.shards_)), self.shards_)[available]
        near, place = np.unique(prototype, return_inverse=True)
        shards = np.bincount(place)
        if not self.softness:
            nearest = self._nearest(features, self.prototypes_[near])
            return (nearest[:, None] == place) / shards[place]
        distances = self._squared(features, self.prototypes_[near])
        if self.n_votes is not None and self.n_votes < len(near):
            farthest = np.partition(distances, self.n_votes - 1, axis=1)[:, [self.n_votes - 1]]
            distances = np.where(distances <= farthest, distances, np.inf)
        weights = softmax(-distances / (self.softness * max(self.spread_[0], np.finfo(float).tiny)), axis=1)
        return weights[:, place] / shards[place]

    def _points(self, features: np.ndarray) -> np.ndarray:
        """Features as they are compared, float64 (N, D): each row from its own feature alone."""
        points = features.astype(np.float64)
        if not self.unit_length:
            return points
        length = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
        return np.rint(points * (2.0**14 / np.maximum(length, np.finfo(np.float32).tiny)))

    def _squared(self, features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        """Squared distances to prototypes, (N, K); a row does not depend on who else is there."""
        points = self._points(features)
        if not self.unit_length:
            return cdist(points, prototypes, "sqeuclidean")
        squares = np.square(points).sum(axis=1)[:, None] + np.square(prototypes).sum(axis=1)
        return squares - 2 * (points @ prototypes.T)  # whole numbers below 2^53, so in any order the same

    def _nearest(self, features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        """The nearest prototype of each sample, (N,)."""
        parts = (features[i : i + 4096] for i in range(0, len(features), 4096))  # not N x K at once
        found = [self._squared(part, prototypes).argmin(axis=1) for part in parts]
        return np.concatenate(found or [np.zeros(0, dtype=np.int64)])

    def pieces(self) -> dict[str, str]:
        """A hash of every prototype, and of the rest, by name."""
        learnt = (self.counts_, self.shards_, self.spread_)
        rest = {"routing": digest("hierarchical", described(self), *(array.tobytes() for array in learnt))}
        return rest | {f"prototype {k}": digest(p.tobytes()) for k, p in enumerate(self.prototypes_)}


def _divide(points: np.ndarray, labels: np.ndarray, most: int) -> None:
    """Halve clusters of more than `most` points by Ward linkage until there is none; `labels` is changed in place."""
    k = 0
    while k <= labels.max(initial=-1):
        members = np.flatnonzero(labels == k)
        if len(members) > most:
            half = AgglomerativeClustering(2, linkage="ward").fit_predict(points[members])
            labels[members[half == 1]] = labels.max() + 1
        else:
            k += 1
