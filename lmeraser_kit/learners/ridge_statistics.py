"""What ridge regression needs of a cluster: its rows while it is small, and their exact statistics beyond.

One head for everybody solves `(X^T X + l2 I) W = X^T Y` over the features X of all samples. Subtracting a sample's
`x x^T` would be exact on paper and not in floating point. So a cluster's statistics are one more pure function of its
samples; a deletion computes those of one cluster again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import Arrays, Context
from lmeraser_kit.learners.ridge import L2, SHARPNESS, head_from_rows, head_from_sums, sums, with_one


class RidgeStatistics(BaseEstimator):
    """Inputs X and one-hot labels Y of a cluster, or `X^T X` and `X^T Y`, whichever is smaller.

    A cluster keeps either `rows`, X and Y side by side, float64 (N, inputs + n_classes), or `statistics`, `X^T X` and
    `X^T Y` side by side, float64 (inputs, inputs + n_classes).

    Args:
        layers: Whether the inputs are the outputs of all stages of the backbone and its feature (Head2Toe, Evci et al.
            2022), in the same pass, or the feature alone.
        mirrored: Whether an image's inputs are the mean of its own and of its mirror image's: two passes.
        l2: The penalty, as `learners.ridge` defines it.
    """

    def __init__(self, layers: bool = True, mirrored: bool = False, l2: float = L2):
        self.layers = layers
        self.mirrored = mirrored
        self.l2 = l2

    uses_features = True

    def check(self) -> None:
        """Refuse arguments that make no sense. Raises ValueError."""
        checks.flag("layers", self.layers)
        checks.flag("mirrored", self.mirrored)
        checks.number("l2", self.l2)

    @property
    def passes(self) -> int:
        """Passes through the backbone that the inputs of one image take."""
        return 1 + bool(self.mirrored)

    def learn(self, samples: Samples, context: Context) -> tuple[dict[str, np.ndarray], int]:
        """The cluster's rows or statistics; each sample has passed once, without gradients."""
        x = self.inputs(samples, context)
        rows = np.c_[x, np.eye(samples.n_classes)[samples.labels]]
        if len(rows) > x.shape[1]:
            return {"statistics": sums(rows, x.shape[1])}, len(samples)
        return {"rows": rows}, len(samples)

    def inputs(self, samples: Samples, context: Context) -> np.ndarray:
        """What heads see of samples, and a one for the bias, float64 (N, inputs)."""
        features = context.features(samples, self.layers)
        if self.mirrored:
            mirror = replace(samples, images=np.ascontiguousarray(np.asarray(samples.images)[..., ::-1]))
            features = (features + replace(context, queries=None).features(mirror, self.layers)) / 2
        return with_one(features)

    def head(self, learnt: Arrays, n_classes: int) -> np.ndarray:
        """The head of one cluster alone, (inputs, n_classes), the last row the bias."""
        if "rows" in learnt:
            return head_from_rows(learnt["rows"], learnt["rows"].shape[1] - n_classes, self.l2)
        return head_from_sums(learnt["statistics"], self.l2)

    def shared_head(self, clusters: list[Arrays], n_classes: int) -> np.ndarray:
        """The head for everybody, (inputs, n_classes); clusters are added up in their order."""
        columns = next(iter(clusters[0].values())).shape[1]
        rows = np.concatenate([np.zeros((0, columns)), *(learnt["rows"] for learnt in clusters if "rows" in learnt)])
        counted = [learnt["statistics"] for learnt in clusters if "rows" not in learnt]
        inputs = columns - n_classes
        if not counted:
            return head_from_rows(rows, inputs, self.l2)
        return head_from_sums(sum(counted, sums(rows, inputs)), self.l2)

    def predict_proba(self, learnt: Arrays, samples: Samples, context: Context) -> np.ndarray:
        """The softmax of the scores of one cluster's own head, made sharper, float64 (N, n_classes)."""
        x = self.inputs(samples, context)
        with threadpool_limits(1):  # bits may depend on the number of threads
            return softmax(SHARPNESS * (x @ self.head(learnt, samples.n_classes)), axis=1)
