"""Who answers: the clusters, by the weights that the partition gives them, or one head that all of them share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from sklearn.base import BaseEstimator

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import one_thread
from lmeraser_kit.ground.names import owner_counts
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.learners.protocol import BatchedLearner, ClusterModel, Context, Learner, SummedLearner
from lmeraser_kit.learners.ridge import LEAST_L2, factor, probabilities, solve
from lmeraser_kit.partitions import trie
from lmeraser_kit.partitions.agglomeration import size_biased_factor
from lmeraser_kit.partitions.protocol import Partition, bounded, weights_of
from lmeraser_kit.unlearning.state import State

LEAST_SHARE = 1e-4  # a cluster with less of the vote is not asked for its correction


@runtime_checkable
class Vote(Protocol):
    """How clusters answer together: a scikit-learn estimator without `fit`."""

    def gather(self, learner: Learner, state: State, context: Context) -> Any:
        """What follows from all clusters, and from the sums, if there are any; it is dropped with the state."""
        ...

    def predict_proba(
        self, gathered: Any, learner: Learner, partition: Partition, samples: Samples, context: Context
    ) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes).

        Args:
            gathered: What `gather` has returned.
            learner: What has learnt the clusters.
            partition: Fitted.
            samples: Samples to predict, of which only images may be looked at.
            context: Its `features` are computed once.
        """
        ...

    def forward_passes(self, learner: Learner, partition: Partition, weights: np.ndarray) -> int:
        """Passes through the backbone for one image, whose clusters have these weights, (1, K)."""
        ...


@dataclass(frozen=True)
class Choices:
    """The three choices that an eraser is made of: who is learnt together, what is learnt from them, who answers."""

    partition: Partition
    learner: Learner
    vote: Vote

    @property
    def sums_alone(self) -> bool:
        """Whether nobody is ever learnt again: exact sums, without corrections."""
        return isinstance(self.learner, SummedLearner) and not getattr(self.vote, "corrections", False)

    @property
    def word(self) -> str:
        """What messages call the samples that lie together: `bucket` (of rows of exact sums) or `cluster`."""
        return "bucket" if self.sums_alone else "cluster"

    def relearnt(self, state: State) -> np.ndarray:
        """Sizes of the groups of which a request for one sample learns one again, for `evaluation.costs`.

        They are the clusters', and where these have a bound, clusters that a request would join. Where there are exact
        sums alone, a sample is taken back by itself: groups of one.
        """
        if self.sums_alone:
            return np.ones(len(state), dtype=np.int64)
        sizes, limited = {k: model.n_samples for k, model in state.models.items()}, bounded(state.routing)
        found = trie.relearnt(sizes, limited.n_groups, limited.bound) if limited else list(sizes.values())
        return np.array(found, dtype=np.int64)

    def cost_factor(self, state: State) -> float:
        """How many times less a request for a random sample costs than a fit, in samples; NaN if nobody is held."""
        sizes = self.relearnt(state)
        return size_biased_factor(sizes) if len(sizes) else math.nan

    def owner_cost_factor(self, state: State) -> float:
        """How many times less a request of a random owner costs than a fit, in samples; NaN if nobody is held.

        `N M / sum(n_k c_k)`, with c_k of the M owners in cluster k (see `evaluation.costs.owner_request_cost`); as for
        clusters without a bound.
        """
        owners = np.concatenate([state.empty.owners, *(part.owners for part in state.members.values())])
        clusters = np.repeat([*state.members, 0], [*map(len, state.members.values()), 0])
        sizes, counts, n_owners = owner_counts(owners, np.arange(len(owners)) if self.sums_alone else clusters)
        return len(owners) * n_owners / int((sizes * counts).sum()) if len(owners) else math.nan


class ClusterVote(BaseEstimator):
    """The mean of the clusters' class probabilities, weighted by the partition.

    If the partition has an attribute `vote`, and it is `majority`, a cluster votes for its most probable class.
    """

    def gather(self, learner: Learner, state: State, context: Context) -> Any:
        """The clusters' numbers, and what the learner needs of them."""
        available = np.array(sorted(state.models))
        models = [state.models[k].arrays for k in available.tolist()]
        return available, learner.gather(models, context) if isinstance(learner, BatchedLearner) else models

    def predict_proba(
        self, gathered: Any, learner: Learner, partition: Partition, samples: Samples, context: Context
    ) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): one routing pass, then what each vote takes."""
        available, models = gathered
        needed = partition.uses_features or getattr(learner, "uses_features", True)
        weights = weights_of(partition, context.features(samples) if needed else None, available, len(samples))
        rows, clusters = np.nonzero(weights)
        if isinstance(learner, BatchedLearner):
            votes = learner.predict_pairs(models, samples, rows, clusters, context)
        else:
            votes = np.zeros((len(rows), samples.n_classes))
            for k in np.unique(clusters):
                mine = clusters == k
                votes[mine] = learner.predict_proba(models[k], samples[rows[mine]], context)
        if getattr(partition, "vote", "mean") == "majority":
            votes = np.eye(votes.shape[1])[votes.argmax(axis=1)]
        votes = votes * weights[rows, clusters, None]
        return np.stack([np.bincount(rows, of_class, len(samples)) for of_class in votes.T], axis=1)

    def forward_passes(self, learner: Learner, partition: Partition, weights: np.ndarray) -> int:
        """One to route, or for all that needs clean features; and one for each prompt that votes."""
        clean = getattr(learner, "uses_features", True)
        return int((not clean) * np.count_nonzero(weights) + (partition.uses_features or clean))


class SharedHead(BaseEstimator):
    """One ridge head from the exact sums over all samples, maybe with each cluster's own correction of it.

    A correction is a ridge head on what the shared head leaves of a cluster's labels, `Y - X W`. It is derived: a
    function of the shared head and of the cluster's rows in the order of their uids, computed when a prediction asks
    for that cluster, and dropped with the state. What depends on the rows alone, a factor of their kernel matrix, is
    kept with the cluster.

    Args:
        corrections: Whether clusters correct the shared head, weighted as the partition says.
        l2: A correction's penalty, in mean diagonals of the cluster's kernel matrix.
    """

    def __init__(self, corrections: bool = False, l2: float = 1.0):
        self.corrections = corrections
        self.l2 = l2

    def check(self, learner: Learner) -> None:
        """Refuse arguments that make no sense. Raises ValueError."""
        checks.flag("corrections", self.corrections)
        checks.number("l2", self.l2, LEAST_L2)
        checks.instance("learner", learner, ExactSums, ", from which a shared head can be computed")

    def gather(self, learner: ExactSums, state: State, context: Context) -> SharedModel:
        """The shared head, and where corrections are kept when they have been asked for."""
        assert state.sums is not None  # somebody is held
        return SharedModel(learner.head(state.sums, context), learner.steps(context), state.models, self.l2)

    def predict_proba(
        self, gathered: SharedModel, learner: ExactSums, partition: Partition, samples: Samples, context: Context
    ) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): the softmax of the scores, made sharper."""
        x = learner.inputs(samples, context)
        with one_thread:  # bits may depend on the number of threads
            scores = x @ gathered.head
            if self.corrections:
                clean = context.features(samples, learner.layers)[:, -context.backbone.n_features :]
                available = np.array(sorted(gathered.models))
                weights = weights_of(partition, clean, available, len(x))
                for k, share in zip(available.tolist(), weights.T, strict=True):
                    asked = share > LEAST_SHARE
                    if asked.any():
                        scores[asked] += share[asked, None] * (x[asked] @ gathered.correction(k))
        return probabilities(scores)

    def forward_passes(self, learner: ExactSums, partition: Partition, weights: np.ndarray) -> int:
        """Those of the inputs."""
        return learner.passes


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A shared head, (L + D + 1, n_classes), and each cluster's correction of it.

    Attributes:
        head: The shared head, its last row the bias.
        steps: What rounded features are multiples of, (L + D + 1,).
        models: The clusters, with their rows and labels.
        l2: As for `SharedHead`.
        corrections: Those that were asked for, by cluster.
    """

    head: np.ndarray
    steps: np.ndarray
    models: Mapping[int, ClusterModel]
    l2: float
    corrections: dict[int, np.ndarray] = field(default_factory=dict)

    def correction(self, k: int) -> np.ndarray:
        """Cluster k's correction, (L + D + 1, n_classes)."""
        if k not in self.corrections:
            model = self.models[k]
            rows = model.arrays["rows"].astype(np.float64)
            few = len(rows) <= len(self.head)  # the factor is that of the smaller of X X^T and X^T X
            if "factor" not in model.derived:
                x = np.c_[rows * self.steps[:-1], np.ones(len(rows))]
                penalty = self.l2 * np.square(x).sum() / len(rows)
                model.derived["factor"] = factor(x @ x.T if few else x.T @ x, penalty)
            fitted = rows @ (self.steps[:-1, None] * self.head[:-1]) + self.head[-1]
            left = np.eye(self.head.shape[1])[model.arrays["labels"]] - fitted
            cholesky = model.derived["factor"]
            solved = self._back(rows, solve(cholesky, left)) if few else solve(cholesky, self._back(rows, left))
            self.corrections[k] = solved
        return self.corrections[k]

    def _back(self, rows: np.ndarray, right: np.ndarray) -> np.ndarray:
        """`X^T R`, (L + D + 1, n_classes)."""
        return np.vstack([self.steps[:-1, None] * (rows.T @ right), right.sum(axis=0)])
