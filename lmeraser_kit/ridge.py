"""Ridge regression heads from exact statistics: a deletion costs next to nothing, and is exact to the bit.

One head for everybody solves `(X^T X + l2 I) W = X^T Y` over the features X of all samples. Subtracting a sample's
`x x^T` would be exact on paper and not in floating point. Here a cluster's statistics are one more cached pure function
of its samples, added up in a fixed order: a deletion computes one cluster's statistics again, adds, and solves. So it
is an LMEraser in which "tuning" is counting; what a cluster is decides what has to be counted again.

The clusters' own heads, solved from the same statistics, may vote beside the head for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from lmeraser_kit.backbone import Backbone
from lmeraser_kit.closed_form import L2, SHARPNESS, head_from_rows, head_from_sums, sums, with_one
from lmeraser_kit.clustering import HierarchicalClusters
from lmeraser_kit.eraser import LMEraser
from lmeraser_kit.recipe import Recipe
from lmeraser_kit.samples import Samples
from lmeraser_kit.tuning import ClusterModel, cluster_addresses, cluster_features


class RidgeEraser(LMEraser):
    """A linear head for everybody, and maybe one for each cluster, by ridge regression on features.

    Of the recipe only `weight_decay` counts: it is `closed_form`'s l2; 0 means its default.

    Args:
        backbone: As for LMEraser, like all up to `verbose`.
        local: Weight of the clusters' own heads, which vote as the partition says; 0 for none.
        mirrored: Whether an image's feature is the mean of its own and of its mirror image's: two passes.
    """

    def __init__(
        self,
        backbone: Backbone,
        clusters: HierarchicalClusters | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
        local: float = 0.0,
        mirrored: bool = False,
    ):
        super().__init__(backbone, clusters, recipe, seed, n_classes, n_jobs, threads, verbose)
        self.local = local
        self.mirrored = mirrored

    @property
    def forward_passes(self) -> int:
        """Passes through the backbone that a prediction takes."""
        return 1 + self.mirrored

    def predict_proba(self, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): the softmax of the scores, made sharper."""
        if not isinstance(samples, Samples):  # checks the images
            samples = Samples(samples, np.zeros(len(samples)), np.arange(len(samples)))
        if not self.state_.models:
            raise ValueError("no cluster has a model: no private sample is held (any more); add some first")
        clean = self.backbone.features(np.asarray(samples.images), self.threads)
        x = self._inputs(samples, clean)
        with threadpool_limits(1):  # bits may depend on the number of threads
            scores = x @ self.head()
            return softmax(
                SHARPNESS * (scores + self.local * self._local_scores(x, clean) if self.local else scores), 1
            )

    def _local_scores(self, x: np.ndarray, clean: np.ndarray) -> np.ndarray:
        """What the clusters' own heads say, by their votes, (N, n_classes)."""
        available = np.array(sorted(self.state_.models))
        votes = np.broadcast_to(self.state_.routing.votes(clean, available), (len(x), len(available)))
        scores = np.zeros((len(x), self.n_classes_))
        for k, share in zip(available, votes.T, strict=True):
            asked = share > 0
            model = self.state_.models[k]
            known = model.weight
            own = (
                head_from_rows(known, x.shape[1], self._l2())
                if holds_rows(model)
                else head_from_sums(known, self._l2())
            )
            scores[asked] += share[asked, None] * (x[asked] @ own)
        return scores

    def head(self) -> np.ndarray:
        """The head for everybody, (D + 1, n_classes), the last row the bias; clusters are added up in their order."""
        models = [self.state_.models[k] for k in sorted(self.state_.models)]
        width = models[0].weight.shape[1]
        rows = [model.weight for model in models if holds_rows(model)]
        total = sums(np.concatenate([np.zeros((0, width)), *rows]), width - self.n_classes_)
        return head_from_sums(sum((model.weight for model in models if not holds_rows(model)), total), self._l2())

    def _l2(self) -> float:
        return self._recipe().weight_decay or L2

    def _made_with(self) -> tuple:
        return (*super()._made_with(), self.local, self.mirrored)

    def _inputs(self, samples: Samples, clean: np.ndarray) -> np.ndarray:
        """What the heads see of samples whose own features are `clean`: float64 (N, D + 1)."""
        if self.mirrored:
            mirror = replace(samples, images=np.ascontiguousarray(np.asarray(samples.images)[..., ::-1]))
            clean = (clean + cluster_features(self.backbone, mirror, self.threads)) / 2
        return with_one(clean)

    def _tune(self, jobs: list[tuple[Samples, ClusterModel | None]]) -> Iterable[ClusterModel]:
        for part, _ in jobs:
            x, nothing = self._inputs(part, cluster_features(self.backbone, part, self.threads)), np.zeros(0)
            known = np.c_[x, np.eye(part.n_classes)[part.labels]]
            if len(known) > x.shape[1]:
                known = sums(known, x.shape[1])  # smaller
            address = cluster_addresses(self.backbone, part, self._recipe(), self.seed, self.threads).popitem()[1]
            yield ClusterModel(np.zeros((3, 0)), known, nothing, nothing, len(part), len(part), address)


def holds_rows(model: ClusterModel) -> bool:
    """Whether a cluster keeps X and Y, being small, and not their sums."""
    return len(model.weight) == model.n_samples
