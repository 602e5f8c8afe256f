"""One ridge head for everybody, from exact sums: forgetting takes a sample's part back, to the bit."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.exact_sums import L2, ExactSums
from lmeraser_kit.partitions.hashed import HashClusters
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.votes import Choices, SharedHead

BUCKETS = 256  # a request rewrites one of them; nothing else depends on it


class RidgeEraser(BaseEraser):
    """A linear head for everybody, by ridge regression on rounded features; exact unlearning without prompts.

    Args:
        backbone: The frozen backbone, trained or standardised on public samples: these say how features are rounded.
        clusters: By what features show (HierarchicalClusters): each cluster corrects the head for everybody, and votes
            on images near it. By uids: buckets of rows, and no corrections; by default HashClusters(BUCKETS).
        l2: The penalty, in mean squares of a public feature; see `ExactSums`.
        seed: No draw depends on it.
        n_classes: Number of classes; by default the public samples' (or, without them, the private samples').
        n_jobs: Processes that compute features (joblib); the result does not depend on it. Sums use all cores.
        threads: Intra-op threads; fixed, because bits of features and heads may depend on it.
        verbose: Show progress bars.
        layers: Whether the head sees the outputs of all stages of the backbone beside its feature (Head2Toe, Evci et
            al. 2022); in the same pass.
        mirrored: Whether an image's feature is the mean of its own and of its mirror image's: two passes.
    """

    DEFAULTS: ClassVar = {"clusters": lambda: HashClusters(BUCKETS)}

    def __init__(
        self,
        backbone: Backbone,
        clusters: Partition | None = None,
        l2: float = L2,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
        layers: bool = True,
        mirrored: bool = False,
    ):
        super().__init__(backbone, seed, n_classes, n_jobs, threads, verbose)
        self.clusters = clusters
        self.l2 = l2
        self.layers = layers
        self.mirrored = mirrored

    def choices(self) -> Choices:
        """The partition, exact sums, and one head."""
        clusters = self.arguments()["clusters"]
        corrections = bool(getattr(clusters, "uses_features", False))  # shards by uid would all say the same
        return Choices(clusters, ExactSums(self.layers, self.mirrored, self.l2), SharedHead(corrections))

    def prepare(self, private: Samples, public: Samples | None = None) -> Samples:
        """As for any eraser. Shards that stay empty are no matter, where they are but buckets of rows."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\d+ shards for")
            return super().prepare(private, public)

    def head(self) -> np.ndarray:
        """The head for everybody, (inputs, n_classes), the last row the bias. Raises ValueError if nobody is held."""
        self.check_unchanged()
        return self.gathered().head

    def saturated(self) -> int:
        """How many values of the rows held are the largest that 16 bits hold, and stand for larger ones perhaps."""
        self.check_unchanged()
        return sum(ExactSums.saturated(model.arrays) for model in self.state_.models.values())
