"""Clusters by what images show: agglomerative clustering of features, a prototype each (LMEraser, Section 4)."""

from __future__ import annotations

import math
import warnings

import numpy as np
import psutil
from scipy.special import softmax
from sklearn.base import BaseEstimator

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import described, digest, keyed_uniform
from lmeraser_kit.partitions.agglomeration import BYTES_A_PAIR, cut, cut_for, merged, squared_distances
from lmeraser_kit.partitions.trie import BITS

LINKAGES = ("ward", "average", "complete", "single")
FIT_ON = ("public", "private", "private-once")
COST_FACTOR = 100  # the paper's claim
DIRECTIONS = 12  # bits by what images show, before those by uid
UNIT = 2.0**14  # features of length 1 are whole multiples of 1 / UNIT
MOST_CLUSTERS = 2**18  # that may have a bound, so that the number of every leaf is below 2^63


class HierarchicalClusters(BaseEstimator):
    """Agglomerative clustering of backbone features; a sample goes to the nearest prototype (LMEraser, Section 4).

    A prototype is the mean feature of its cluster. By default features have length 1 and linkage is Ward's, which gives
    clusters of even sizes: a request costs `sum(n_k^2)/N`, and one large cluster spoils it. `published()` has the
    paper's. At most one of the first three arguments is given.

    Args:
        n_clusters: Number of clusters.
        cost_factor: As many clusters as it takes for a request to cost so many times less than a fit, on average
            (`N^2 / sum(n_k^2)`) over the samples that are clustered. By default 100.
        distance_threshold: Clusters farther apart (in feature units) are not merged.
        fit_on: `public` (the default: nothing private in the routing); `private`, fitted again at every request; or
            `private-once`, kept for ever (the published code), which is not exact.
        linkage: `ward`, `average` (the paper's), `complete` or `single`.
        fit_size: At most so many samples are clustered, chosen by uid. Memory grows with its square.
        neighbors: Whether only each sample's nearest neighbours, so many, may be merged with it (Ward linkage): memory
            then grows with the number of samples. None for all pairs.
        bound: How many samples a cluster may have; one with more is divided, by public directions of its features, and
            where these are all alike by its uids' hashes: see `partitions.trie`. None for no bound.
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
        n_clusters=None,
        cost_factor=None,
        distance_threshold=None,
        fit_on="public",
        linkage="ward",
        fit_size=5000,
        neighbors=None,
        bound=None,
        softness=0.0,
        n_votes=None,
        unit_length=True,
    ):
        self.n_clusters = n_clusters
        self.cost_factor = cost_factor
        self.distance_threshold = distance_threshold
        self.fit_on = fit_on
        self.linkage = linkage
        self.fit_size = fit_size
        self.neighbors = neighbors
        self.bound = bound
        self.softness = softness
        self.n_votes = n_votes
        self.unit_length = unit_length

    uses_features = True

    @classmethod
    def published(cls, n_clusters: int = 194) -> HierarchicalClusters:
        """The published code's: average linkage of a thousand private features as they are, kept; not exact.

        Args:
            n_clusters: The published number is 194 for CIFAR-10, 347 for CIFAR-100, 30 for SVHN, 90 for GTSRB.
        """
        return cls(n_clusters, fit_on="private-once", linkage="average", fit_size=1000, unit_length=False)

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

    @property
    def n_groups(self) -> int:
        """Number of prototypes."""
        return len(self.prototypes_)

    def check(self, n_samples: int) -> None:
        """Refuse what makes no sense for `n_samples` samples or needs too much memory (ValueError); warn of 1 GB."""
        self._check_arguments()
        n = min(checks.whole("n_samples", n_samples, 0), int(self.fit_size))
        if self.n_clusters is not None and self.n_clusters > n:
            raise ValueError(f"{self.n_clusters} clusters cannot be made of {n} {self.learns_from} samples")
        if self._cost_factor > n:
            what = f"cost_factor is {self._cost_factor:g}" + " (the default)" * (self.cost_factor is None)
            raise ValueError(
                f"{what}, and cannot be had from {n} {self.learns_from} samples: give a smaller one, or n_clusters"
            )
        if self.bound is not None and n > MOST_CLUSTERS:
            raise ValueError(f"fit_size is {self.fit_size}, expected at most {MOST_CLUSTERS} where a bound is given")
        if self.neighbors is not None:
            if self.neighbors >= n:
                raise ValueError(f"neighbors is {self.neighbors}, expected fewer than the {n} samples")
            return
        wanted, free = BYTES_A_PAIR * n**2, psutil.virtual_memory().available
        takes = f"fit_size is {self.fit_size}: clustering {n} samples takes {wanted / 1e9:.1f} GB of memory"
        if wanted > free:
            fits = math.isqrt(free // BYTES_A_PAIR)
            less = f"the largest fit_size that fits is {fits}; with neighbors=20 it takes much less"
            raise ValueError(f"{takes}, and {free / 1e9:.1f} GB are free; {less}")
        if wanted > 1e9:
            warnings.warn(f"{takes}; with neighbors=20 much less", stacklevel=3)

    def _check_arguments(self) -> None:
        checks.choice("fit_on", self.fit_on, FIT_ON)
        checks.choice("linkage", self.linkage, LINKAGES)
        checks.whole("fit_size", self.fit_size)
        checks.number("softness", self.softness)
        checks.flag("unit_length", self.unit_length)
        given = [self.n_clusters, self.cost_factor, self.distance_threshold]
        if sum(value is not None for value in given) > 1:
            raise ValueError("give one of n_clusters, cost_factor and distance_threshold, and None for the others")
        for name in ("n_clusters", "n_votes", "neighbors", "bound"):
            if (value := getattr(self, name)) is not None:
                checks.whole(name, value)
        if self.cost_factor is not None:
            checks.number("cost_factor", self.cost_factor, 1)
        if self.distance_threshold is not None:
            checks.number("distance_threshold", self.distance_threshold)
        if self.neighbors is not None and self.linkage != "ward":
            raise ValueError(f"linkage is {self.linkage!r}, expected 'ward' where neighbors are given")

    @property
    def _cost_factor(self) -> float:
        others = self.n_clusters is not None or self.distance_threshold is not None
        return 0.0 if others else COST_FACTOR if self.cost_factor is None else float(self.cost_factor)

    def fit(self, features: np.ndarray, keys: np.ndarray) -> HierarchicalClusters:
        """Find the prototypes. Raises ValueError if an argument makes no sense, or a feature is not finite.

        Args:
            features: Features, (N, D). If fewer are left than clusters are asked for (after deletions), each is one.
            keys: `Samples.keys` of these samples, (N,): they choose and order, so that the order of arrival cannot.
        """
        self._check_arguments()
        draws = keyed_uniform("prototypes", 0, keys)[:, 0]
        features = checks.array("features", features, len(draws), "D")
        chosen = np.argsort(draws, kind="stable")[: self.fit_size]
        points = self._points(features[chosen])
        labels = self._labels(points)
        self.counts_ = np.bincount(labels)  # how many samples each prototype is the mean of
        means = [points[labels == k].mean(axis=0) for k in range(len(self.counts_))]
        self.prototypes_ = np.array(means).reshape(-1, features.shape[1])
        if self.unit_length:
            self.prototypes_ = np.rint(self.prototypes_)
        inside = points - self.prototypes_[labels]
        self.spread_ = np.square(inside).sum(axis=1).mean(keepdims=True)
        self.directions_ = np.zeros((0, features.shape[1]))
        if self.bound is not None:
            _, vectors = np.linalg.eigh(inside.T @ inside)
            self.directions_ = np.rint(UNIT * vectors[:, ::-1][:, :DIRECTIONS].T)
        return self

    def assign(self, features: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The cluster of each sample before any is divided, (N,) int: its nearest prototype's."""
        features = checks.array("features", features, len(keyed_uniform("bits", 0, keys)), self.prototypes_.shape[1])
        return self._nearest(features, self.prototypes_)

    def codes(self, features: np.ndarray, keys: np.ndarray, assigned: np.ndarray) -> np.ndarray:
        """The bits by which a sample goes down its cluster's trie: a function of its own feature and uid.

        Args:
            features: Features, (N, D).
            keys: `Samples.keys` of these samples, (N,).
            assigned: What `assign` returns, (N,).

        Returns:
            Bits, the lowest first, int64 (N,): on which side of the prototype it lies, by public direction (the
            principal ones of public features around their prototypes); then those of the uid's hash.
        """
        draws = keyed_uniform("bits", 0, keys)[:, 0]
        features = checks.array("features", features, len(draws), self.prototypes_.shape[1])
        assigned = checks.indices("assigned", checks.array("assigned", assigned, len(draws)), self.n_groups)
        codes = np.zeros(len(draws), np.int64)
        for i in range(0, len(codes), 4096):
            part = slice(i, i + 4096)
            inside = self._points(features[part]) - self.prototypes_[assigned[part]]
            for bit, direction in enumerate(self.directions_):
                codes[part] |= ((inside * direction).sum(axis=1) > 0).astype(np.int64) << bit
        first = len(self.directions_)
        return codes | (draws * 2.0 ** (BITS - first)).astype(np.int64) << first

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """How much each cluster that has a model counts in a sample's prediction.

        Args:
            features: Features of the samples, (N, D).
            available: Numbers of the clusters that have a model, (K,).

        Returns:
            Weights, (N, K); rows sum to 1. The nearest prototype's cluster has all of it, or with softness the most;
            the parts of one that was divided share its weight.
        """
        features = checks.array("features", features, "N", self.prototypes_.shape[1], empty=True)
        available = checks.indices(
            "available", available, self.n_groups * (1 if self.bound is None else 2 ** (BITS + 1))
        )
        near, place = np.unique(available % self.n_groups, return_inverse=True)
        parts = np.bincount(place)
        if not self.softness:
            nearest = self._nearest(features, self.prototypes_[near])
            return (nearest[:, None] == place) / parts[place]
        distances = self._squared(features, self.prototypes_[near])
        if self.n_votes is not None and self.n_votes < len(near):
            farthest = np.partition(distances, self.n_votes - 1, axis=1)[:, [self.n_votes - 1]]
            distances = np.where(distances <= farthest, distances, np.inf)
        weights = softmax(-distances / (self.softness * max(self.spread_[0], np.finfo(float).tiny)), axis=1)
        return weights[:, place] / parts[place]

    def _labels(self, points: np.ndarray) -> np.ndarray:
        """The cluster of each point that is clustered, (N,) int, from 0."""
        if len(points) < 2:
            return np.zeros(len(points), dtype=int)
        children, heights = merged(points, self.linkage, self.neighbors, exact=self.unit_length)
        if self.n_clusters is not None:
            return cut(children, min(self.n_clusters, len(points)))
        if self.distance_threshold is not None:
            unit = UNIT if self.unit_length else 1.0
            return cut(children, 1 + int((heights >= self.distance_threshold * unit).sum()))
        return cut_for(children, self._cost_factor)

    def _points(self, features: np.ndarray) -> np.ndarray:
        """Features as they are compared, float64 (N, D): each row from its own feature alone."""
        points = features.astype(np.float64)
        if not self.unit_length:
            return points
        length = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
        return np.rint(points * (UNIT / np.maximum(length, np.finfo(np.float32).tiny)))

    def _squared(self, features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        """Squared distances to prototypes, (N, K); a row does not depend on who else is there."""
        return squared_distances(self._points(features), prototypes, self.unit_length)

    def _nearest(self, features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
        """The nearest prototype of each sample, (N,)."""
        parts = (features[i : i + 4096] for i in range(0, len(features), 4096))  # not N x K at once
        found = [self._squared(part, prototypes).argmin(axis=1) for part in parts]
        return np.concatenate(found or [np.zeros(0, dtype=np.int64)])

    def pieces(self) -> dict[str, str]:
        """A hash of every prototype, and of the rest, by name."""
        learnt = (self.counts_, self.directions_, self.spread_)
        rest = {"routing": digest("hierarchical", described(self), *(array.tobytes() for array in learnt))}
        return rest | {f"prototype {k}": digest(p.tobytes()) for k, p in enumerate(self.prototypes_)}
