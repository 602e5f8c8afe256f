"""Which cluster a sample belongs to. Every partition has one interface: `check`, `fit`, `assign`, `votes`, `pieces`.

What a partition learns from decides whether forgetting is exact, and what it moves (the *routing ladder*):

    prototypes of private features, kept    inexact: a prototype remembers who has left (the published code)
    prototypes of private features, refit   exact; a request moves other samples, whose clusters are tuned again too
    prototypes of public features           exact; nothing private in the routing (the default)
    random hyperplanes from a public seed   exact; nothing is fitted, and clusters are less coherent
    a hash of the uid                       exact; blind to what images show: SISA's shards (Bourtoule et al. 2021)

A partition's attribute `learns_from` is `public`, `private` or None; `uses_features` says whether it looks at features,
`refits` whether every request fits it again, `exact` whether forgetting is exact.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.cluster import AgglomerativeClustering

from lmeraser_kit.samples import digest, keyed_uniform

FIT_ON = ("public", "private", "private-once")


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
        divide_by: `features`: halved by Ward linkage until small enough, each part with its own prototype; or `uids`:
            into shards by a hash of the uid, which all vote (a forward pass each).
        softness: How far votes reach at prediction: a cluster's weight is `softmax(-distance^2 / (softness * s))`,
            with s the mean squared distance of the fitted samples to their prototypes; 0 for the nearest cluster alone
            (the paper). It changes no cluster's members, so forgetting costs the same and is as exact.
        n_votes: With softness, how many of the nearest prototypes vote (a prompted pass each); None for all.
    """

    def __init__(
        self,
        n_clusters=8,
        distance_threshold=None,
        fit_on="public",
        linkage="average",
        fit_size=1000,
        max_share=None,
        divide_by="features",
        softness=0.0,
        n_votes=None,
    ):
        self.n_clusters = n_clusters
        self.distance_threshold = distance_threshold
        self.fit_on = fit_on
        self.linkage = linkage
        self.fit_size = fit_size
        self.max_share = max_share
        self.divide_by = divide_by
        self.softness = softness
        self.n_votes = n_votes

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
        """Refuse arguments that make no sense for `n_samples` samples to fit on. Raises ValueError."""
        if self.fit_on not in FIT_ON:
            raise ValueError(f"fit_on is {self.fit_on!r}, expected one of: {', '.join(FIT_ON)}")
        if (self.n_clusters is None) == (self.distance_threshold is None):
            raise ValueError("give one of n_clusters and distance_threshold, and None for the other")
        if self.linkage not in ("average", "complete", "single", "ward"):
            raise ValueError(f"linkage is {self.linkage!r}, expected one of: average, complete, single, ward")
        if self.distance_threshold is not None and not self.distance_threshold >= 0:
            raise ValueError(f"distance_threshold is {self.distance_threshold!r}, expected a number from 0, or None")
        if self.fit_size < 1:
            raise ValueError(f"fit_size is {self.fit_size!r}, expected at least 1")
        if self.max_share is not None and not (isinstance(self.max_share, (int, float)) and 0 < self.max_share <= 1):
            raise ValueError(f"max_share is {self.max_share!r}, expected a share in (0, 1], or None")
        if self.divide_by not in ("features", "uids"):
            raise ValueError(f"divide_by is {self.divide_by!r}, expected 'features' or 'uids'")
        if not (isinstance(self.softness, (int, float)) and 0 <= self.softness < math.inf):
            raise ValueError(f"softness is {self.softness!r}, expected a number from 0")
        if self.n_votes is not None:
            _check_whole("n_votes", self.n_votes)
        if self.n_clusters is not None:
            _check_whole("n_clusters", self.n_clusters)
            most = min(n_samples, self.fit_size)
            if self.n_clusters > most:
                raise ValueError(f"{self.n_clusters} clusters cannot be made of {most} {self.learns_from} samples")

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
        most = len(points) if self.max_share is None else max(1, math.floor(self.max_share * len(points)))
        if self.divide_by == "features":
            _divide(points, labels, most)
        self.counts_ = np.bincount(labels)  # how many samples each prototype is the mean of
        means = [points[labels == k].mean(axis=0) for k in range(len(self.counts_))]
        self.prototypes_ = np.array(means).reshape(-1, features.shape[1])
        self.spread_ = np.square(points - self.prototypes_[labels]).sum(axis=1).mean(keepdims=True)
        self.shards_ = -(-self.counts_ // most) if self.divide_by == "uids" else np.ones_like(self.counts_)
        return self

    def assign(self, features: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The cluster of each sample, (N,) int: its nearest prototype's, or one of that prototype's shards."""
        nearest = _nearest(features, self.prototypes_)
        first = np.cumsum(self.shards_) - self.shards_
        return first[nearest] + (keyed_uniform("shard", 0, keys)[:, 0] * self.shards_[nearest]).astype(int)

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """How much each cluster that has a model counts in a sample's prediction.

        Args:
            features: Features of the samples, (N, D).
            available: Numbers of the clusters that have a model, (K,).

        Returns:
            Weights, (N, K); rows sum to 1. The nearest prototype's cluster has all of it, or with softness the most; a
            prototype's shards share its weight.
        """
        prototype = np.repeat(np.arange(len(self.shards_)), self.shards_)[available]
        near, place = np.unique(prototype, return_inverse=True)
        shards = np.bincount(place)
        if not self.softness:
            nearest = _nearest(features, self.prototypes_[near])
            return (nearest[:, None] == place) / shards[place]
        distances = cdist(features.astype(np.float64), self.prototypes_[near], "sqeuclidean")
        if self.n_votes is not None and self.n_votes < len(near):
            farthest = np.partition(distances, self.n_votes - 1, axis=1)[:, [self.n_votes - 1]]
            distances = np.where(distances <= farthest, distances, np.inf)
        weights = softmax(-distances / (self.softness * max(self.spread_[0], np.finfo(float).tiny)), axis=1)
        return weights[:, place] / shards[place]

    def pieces(self) -> dict[str, str]:
        """A hash of every prototype, and of the rest, by name."""
        learnt = (self.counts_, self.shards_, self.spread_)
        rest = {"routing": digest("hierarchical", repr(self), *(array.tobytes() for array in learnt))}
        return rest | {f"prototype {k}": digest(p.tobytes()) for k, p in enumerate(self.prototypes_)}


class HyperplaneClusters(BaseEstimator):
    """Clusters by the signs of a feature's products with random directions (Charikar 2002), from a public seed.

    Nothing is fitted. A sample whose own cluster has no model is predicted by the one that differs in the fewest signs.

    Args:
        n_bits: Number of hyperplanes; there are 2^n_bits clusters, some of them empty.
        seed: Draws the directions.
    """

    learns_from, uses_features, refits, exact = None, True, False, True

    def __init__(self, n_bits=3, seed=0):
        self.n_bits = n_bits
        self.seed = seed

    def check(self, n_samples: int) -> None:
        """Refuse a number of bits that makes no sense. Raises ValueError."""
        if not isinstance(self.n_bits, (int, np.integer)) or not 1 <= self.n_bits <= 20:
            raise ValueError(f"n_bits is {self.n_bits!r}, expected a whole number from 1 to 20")
        if not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}, expected a whole number from 0")

    def assign(self, features: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
        """The cluster of each sample, (N,) int: its signs, read as a binary number."""
        directions = np.random.default_rng(self.seed).standard_normal((self.n_bits, features.shape[1]))
        products = np.stack([(features * direction).sum(axis=1) for direction in directions], axis=1)
        return (products > 0) @ (1 << np.arange(self.n_bits))

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """The available cluster that differs in the fewest signs has the whole vote, (N, K)."""
        differing = np.bitwise_count(self.assign(features, None)[:, None] ^ available)
        return np.eye(len(available))[differing.argmin(axis=1)]

    def pieces(self) -> dict[str, str]:
        """A hash of all that the partition is."""
        return {"routing": digest("partition", repr(self))}


class HashClusters(BaseEstimator):
    """Shards by a hash of the uid: SISA's partition (Bourtoule et al. 2021), exact, and blind to what images show.

    A test image has no shard, so all shards vote: K forward passes an image.

    Args:
        n_clusters: Number of shards; some may be empty when there are few samples.
        vote: `mean` of the shards' probabilities, or `majority` of their most probable classes; SISA has both.
    """

    learns_from, uses_features, refits, exact = None, False, False, True

    def __init__(self, n_clusters=8, vote="mean"):
        self.n_clusters = n_clusters
        self.vote = vote

    def check(self, n_samples: int) -> None:
        """Refuse a number of shards or a vote that makes no sense (ValueError); warn if shards will be empty."""
        _check_whole("n_clusters", self.n_clusters)
        if self.vote not in ("mean", "majority"):
            raise ValueError(f"vote is {self.vote!r}, expected 'mean' or 'majority'")
        if self.n_clusters > n_samples > 0:
            warnings.warn(f"{self.n_clusters} shards for {n_samples} samples: some will be empty", stacklevel=3)

    def assign(self, features: np.ndarray | None, keys: np.ndarray) -> np.ndarray:
        """The shard of each sample, (N,) int."""
        return (keyed_uniform("shard", 0, keys)[:, 0] * self.n_clusters).astype(int)

    def votes(self, features: np.ndarray | None, available: np.ndarray) -> np.ndarray:
        """Every shard with a model counts the same: (1, K), for all samples."""
        return np.full((1, len(available)), 1 / len(available))

    def pieces(self) -> dict[str, str]:
        """A hash of all that the partition is."""
        return {"routing": digest("partition", repr(self))}


class SingleCluster(HashClusters):
    """All private samples in one cluster: one prompt and one head, the unpartitioned model."""

    def __init__(self):
        super().__init__(n_clusters=1)

    def check(self, n_samples: int) -> None:
        """One cluster always makes sense."""


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


def _nearest(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """The nearest prototype of each sample, (N,); pair by pair, so that it does not depend on who else is there."""
    parts = (features[i : i + 4096].astype(np.float64) for i in range(0, len(features), 4096))  # not N x K at once
    return np.concatenate([cdist(part, prototypes).argmin(axis=1) for part in parts] or [np.zeros(0, dtype=np.int64)])


def _check_whole(name: str, value: int) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number from 1")
