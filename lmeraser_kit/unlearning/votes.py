"""Who answers: the clusters, by the weights that the partition gives them, or one head that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import Arrays, BatchedLearner, Context, Learner
from lmeraser_kit.learners.ridge import SHARPNESS
from lmeraser_kit.learners.ridge_statistics import RidgeStatistics
from lmeraser_kit.partitions.protocol import Partition, weights_of


@runtime_checkable
class Vote(Protocol):
    """How clusters answer together: a scikit-learn estimator without `fit`."""

    def gather(self, learner: Learner, clusters: Mapping[int, Arrays], context: Context) -> Any:
        """What follows from all clusters, computed when it is first needed and dropped when one of them changes."""
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


class ClusterVote(BaseEstimator):
    """The mean of the clusters' class probabilities, weighted by the partition.

    If the partition has an attribute `vote`, and it is `majority`, a cluster votes for its most probable class.
    """

    def gather(self, learner: Learner, clusters: Mapping[int, Arrays], context: Context) -> Any:
        """The clusters' numbers, and what the learner needs of them."""
        available = np.array(sorted(clusters))
        models = [clusters[k] for k in available.tolist()]
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
        probabilities = np.zeros((len(samples), votes.shape[1]))
        np.add.at(probabilities, rows, votes * weights[rows, clusters, None])
        return probabilities

    def forward_passes(self, learner: Learner, partition: Partition, weights: np.ndarray) -> int:
        """One to route, or for all that needs clean features; and one for each prompt that votes."""
        clean = getattr(learner, "uses_features", True)
        return int((not clean) * np.count_nonzero(weights) + (partition.uses_features or clean))


class SharedHead(BaseEstimator):
    """One ridge head from the statistics of all clusters (`RidgeStatistics`), maybe beside the clusters' own heads.

    Args:
        local: Weight of the clusters' own heads, which vote as the partition says.
    """

    def __init__(self, local: float = 0.0):
        self.local = local

    def check(self, learner: Learner) -> None:
        """Refuse arguments that make no sense. Raises ValueError."""
        checks.number("local", self.local)
        checks.instance("learner", learner, RidgeStatistics, ", from which a shared head can be computed")

    def gather(self, learner: RidgeStatistics, clusters: Mapping[int, Arrays], context: Context) -> Any:
        """The head for everybody, and with `local` each cluster's own, by number."""
        models = [clusters[k] for k in sorted(clusters)]
        n_classes = self._n_classes(learner, models[0], context)
        own = {k: learner.head(clusters[k], n_classes) for k in sorted(clusters) if self.local}
        return learner.shared_head(models, n_classes), np.array(sorted(clusters)), own

    def predict_proba(
        self, gathered: Any, learner: RidgeStatistics, partition: Partition, samples: Samples, context: Context
    ) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): the softmax of the scores, made sharper."""
        head, available, own = gathered
        x = learner.inputs(samples, context)
        with threadpool_limits(1):  # bits may depend on the number of threads
            scores = x @ head
            if self.local:
                clean = context.features(samples, learner.layers)[:, -context.backbone.n_features :]
                weights = weights_of(partition, clean, available, len(x))
                scores += self.local * self._local_scores(x, weights, list(own.values()))
            return softmax(SHARPNESS * scores, axis=1)

    def forward_passes(self, learner: RidgeStatistics, partition: Partition, weights: np.ndarray) -> int:
        """Those of the inputs."""
        return learner.passes

    @staticmethod
    def _n_classes(learner: RidgeStatistics, learnt: Arrays, context: Context) -> int:
        if "statistics" in learnt:
            return learnt["statistics"].shape[1] - len(learnt["statistics"])
        widths = context.backbone.layer_widths if learner.layers else [context.backbone.n_features]
        return learnt["rows"].shape[1] - sum(widths) - 1

    @staticmethod
    def _local_scores(x: np.ndarray, weights: np.ndarray, heads: list[np.ndarray]) -> np.ndarray:
        """The scores of the clusters' own heads, weighted, (N, n_classes)."""
        scores = np.zeros((len(x), heads[0].shape[1]))
        for head, share in zip(heads, weights.T, strict=True):
            asked = share > 0
            scores[asked] += share[asked, None] * (x[asked] @ head)
        return scores
