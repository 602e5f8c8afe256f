"""A ridge regression head whose statistics are kept exactly: a deletion costs next to nothing, and is exact to the bit.

The head solves `(X^T X + l2 I) W = X^T Y` over the features X of all samples. Subtracting a sample's `x x^T` would be
exact on paper and not in floating point. Here a cluster's statistics are one more cached pure function of its samples,
added up in a fixed order: a deletion computes one cluster's statistics again, adds, and solves. So it is an LMEraser in
which "tuning" is counting, and the clusters (best small ones, by uid) decide nothing but what has to be counted again.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from threadpoolctl import threadpool_limits

from lmeraser_kit.eraser import LMEraser
from lmeraser_kit.samples import Samples
from lmeraser_kit.tuning import ClusterModel, cluster_addresses

SHARPNESS = 5.0  # scores of about 0 and 1 become probabilities


class RidgeEraser(LMEraser):
    """One linear head for all clusters, by ridge regression on features. Arguments are LMEraser's.

    Of the recipe only `weight_decay` counts: l2 as a share of the mean diagonal of `X^T X`; 0 means 1e-3.
    """

    def predict_proba(self, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): the softmax of the scores, made sharper."""
        images = samples.images if isinstance(samples, Samples) else samples
        if not self.state_.models:
            raise ValueError("no cluster has a model: no private sample is held (any more); add some first")
        scores = _with_one(self.backbone.features(np.asarray(images), self.threads)) @ self.head()
        shares = np.exp(SHARPNESS * (scores - scores.max(axis=1, keepdims=True)))
        return shares / shares.sum(axis=1, keepdims=True)

    def head(self) -> np.ndarray:
        """The head, (D + 1, n_classes), the last row the bias; clusters are added up in the order of their numbers."""
        total = sum(self.state_.models[k].weight for k in sorted(self.state_.models))
        gram, moments = total[:, : len(total)], total[:, len(total) :]
        l2 = (self._recipe().weight_decay or 1e-3) * np.trace(gram) / len(gram)
        with threadpool_limits(1):  # bits may depend on the number of threads
            return np.linalg.solve(gram + l2 * np.eye(len(gram)), moments)

    def _tune(self, jobs: list[tuple[Samples, ClusterModel | None]]) -> Iterable[ClusterModel]:
        for part, _ in jobs:
            x = _with_one(self._features(part))
            y = np.eye(part.n_classes)[part.labels]
            with threadpool_limits(1):
                statistics = np.concatenate([x.T @ x, x.T @ y], axis=1)
            nothing = np.zeros((0,))
            address = cluster_addresses(self.backbone, part, self._recipe(), self.seed, self.threads).popitem()[1]
            yield ClusterModel(np.zeros((3, 0)), statistics, nothing, nothing, len(part), len(part), address)


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.c_[features, np.ones(len(features))].astype(np.float64)
