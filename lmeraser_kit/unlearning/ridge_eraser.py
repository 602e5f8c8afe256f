"""Ridge regression heads from exact statistics: a deletion costs next to nothing, and is exact to the bit.

One head for everybody solves `(X^T X + l2 I) W = X^T Y` over the features X of all samples. Subtracting a sample's
`x x^T` would be exact on paper and not in floating point. Here a cluster's statistics are one more cached pure function
of its samples, added up in a fixed order: a deletion computes one cluster's statistics again, adds, and solves. So it
is an LMEraser in which "tuning" is counting; what a cluster is decides what has to be counted again.

So it does not matter who shares a cluster with whom: shards by uid, of a few samples each, are the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground import checks
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.prompt_tuning import ClusterModel, cluster_features
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.learners.ridge import L2, SHARPNESS, head_from_rows, head_from_sums, sums, with_one
from lmeraser_kit.partitions import HashClusters
from lmeraser_kit.unlearning.eraser import LMEraser
from lmeraser_kit.unlearning.prediction import asked_about

SHARDS = 256  # a random request then costs some 256 times less than all of them; accuracy does not depend on it


class RidgeEraser(LMEraser):
    """A linear head for everybody, by ridge regression on features: the kit's bargain, and no prompts.

    Of the recipe only `weight_decay` counts: it is `closed_form`'s l2; 0 means its default.

    Args:
        backbone: As for LMEraser, like all up to `verbose`.
        clusters: The partition; by default HashClusters(SHARDS).
        layers: Whether the head sees the outputs of all stages of the backbone beside its feature (Head2Toe, Evci et
            al. 2022); in the same pass.
        mirrored: Whether an image's feature is the mean of its own and of its mirror image's: two passes.
        local: Weight of the clusters' own heads, which vote as the partition says beside the head for everybody.

    Raises:
        ValueError: If `local` is negative; by `fit`.
    """

    def __init__(
        self,
        backbone: Backbone,
        clusters: BaseEstimator | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
        layers: bool = True,
        mirrored: bool = False,
        local: float = 0.0,
    ):
        super().__init__(backbone, clusters, recipe, seed, n_classes, n_jobs, threads, verbose)
        self.layers = layers
        self.mirrored = mirrored
        self.local = local

    @property
    def forward_passes(self) -> int:
        """Passes through the backbone that a prediction takes."""
        self._check_unchanged()
        return 1 + self.mirrored

    def predict_proba(self, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes): the softmax of the scores, made sharper."""
        self._check_unchanged()
        samples = asked_about(samples, self.state_)
        if not self.state_.models:
            raise ValueError("no cluster has a model: no private sample is held (any more); add some first")
        found = self.backbone.features(np.asarray(samples.images), self.threads, layers=self.layers, uids=samples.uids)
        x = self._inputs(samples, found)
        with threadpool_limits(1):  # bits may depend on the number of threads
            scores = x @ self.head()
            if self.local:
                scores += self.local * self._local_scores(x, found[:, -self.backbone.n_features :])
            return softmax(SHARPNESS * scores, axis=1)

    def head(self) -> np.ndarray:
        """The head for everybody, (inputs, n_classes), the last row the bias; clusters are added up in their order."""
        models = [self.state_.models[k] for k in sorted(self.state_.models)]
        inputs = models[0].weight.shape[1] - self.n_classes_
        rows = np.concatenate([np.zeros((0, models[0].weight.shape[1])), *(m.weight for m in models if holds_rows(m))])
        counted = [model.weight for model in models if not holds_rows(model)]
        return head_from_sums(sum(counted, sums(rows, inputs)), self._l2()) if counted else self._solve(rows)

    def _solve(self, rows: np.ndarray) -> np.ndarray:
        return head_from_rows(rows, rows.shape[1] - self.n_classes_, self._l2())

    def _local_scores(self, x: np.ndarray, clean: np.ndarray) -> np.ndarray:
        """What the clusters' own heads say, by their votes, (N, n_classes)."""
        available = np.array(sorted(self.state_.models))
        votes = np.broadcast_to(self.state_.routing.votes(clean, available), (len(x), len(available)))
        scores = np.zeros((len(x), self.n_classes_))
        for k, share in zip(available, votes.T, strict=True):
            asked, model = share > 0, self.state_.models[k]
            own = self._solve(model.weight) if holds_rows(model) else head_from_sums(model.weight, self._l2())
            scores[asked] += share[asked, None] * (x[asked] @ own)
        return scores

    def _l2(self) -> float:
        return self._recipe().weight_decay or L2

    def _clusters(self) -> BaseEstimator:
        return self.clusters if self.clusters is not None else HashClusters(SHARDS)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        checks.flag("layers", self.layers)
        checks.flag("mirrored", self.mirrored)
        checks.number("local", self.local)

    MADE_WITH = (*LMEraser.MADE_WITH, "layers", "mirrored", "local")

    def _made_with(self) -> tuple:
        return (*super()._made_with(), bool(self.layers), bool(self.mirrored), float(self.local))

    def _inputs(self, samples: Samples, found: np.ndarray) -> np.ndarray:
        """What the heads see of samples whose own features are `found`: float64 (N, inputs)."""
        if self.mirrored:
            mirror = replace(samples, images=np.ascontiguousarray(np.asarray(samples.images)[..., ::-1]))
            found = (found + cluster_features(self.backbone, mirror, self.threads, self.layers)) / 2
        return with_one(found)

    def _addresses(self, part: Samples) -> dict[int, str]:
        last = super()._addresses(part).popitem()[1]
        return {0: digest("statistics", last, self.layers, self.mirrored)}

    def _tune(self, jobs: list[tuple[Samples, ClusterModel | None]]) -> Iterable[ClusterModel]:
        for part, _ in progress(jobs, desc="counting clusters", unit="cluster", disable=not self.verbose):
            x, nothing = (
                self._inputs(part, cluster_features(self.backbone, part, self.threads, self.layers)),
                np.zeros(0),
            )
            known = np.c_[x, np.eye(part.n_classes)[part.labels]]
            if len(known) > x.shape[1]:
                known = sums(known, x.shape[1])  # smaller
            yield ClusterModel(
                np.zeros((3, 0)), known, nothing, nothing, len(part), len(part), self._addresses(part)[0]
            )


def holds_rows(model: ClusterModel) -> bool:
    """Whether a cluster keeps X and Y, being small, and not their sums."""
    return len(model.weight) == model.n_samples
