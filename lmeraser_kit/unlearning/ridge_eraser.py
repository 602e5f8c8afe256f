"""One ridge head for everybody, from exact statistics of shards: forgetting computes those of one shard again.

It does not matter who shares a shard with whom: shards by uid, of a few samples each, are the cheapest.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.learners.ridge import L2
from lmeraser_kit.learners.ridge_statistics import RidgeStatistics
from lmeraser_kit.partitions.hashed import HashClusters
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.votes import Choices, SharedHead

SHARDS = 256  # a random request then costs some 256 times less than all of them; accuracy does not depend on it


class RidgeEraser(BaseEraser):
    """A linear head for everybody, by ridge regression on features; exact unlearning without prompts.

    Of the recipe only `weight_decay` counts: it is the penalty l2 of `learners.ridge`; 0 means its default.

    Args:
        backbone: As for LMEraser, like all up to `verbose`.
        clusters: The partition; by default HashClusters(SHARDS).
        recipe: For its `weight_decay`.
        seed: No draw depends on it.
        n_classes: Number of classes.
        n_jobs: Clusters at a time (joblib).
        threads: Intra-op threads.
        verbose: Show progress bars.
        layers: Whether the head sees the outputs of all stages of the backbone beside its feature (Head2Toe, Evci et
            al. 2022); in the same pass.
        mirrored: Whether an image's feature is the mean of its own and of its mirror image's: two passes.
        local: Weight of the clusters' own heads, which vote as the partition says beside the head for everybody.

    Raises:
        ValueError: If `local` is negative; by `fit`.
    """

    DEFAULTS: ClassVar = {"clusters": lambda: HashClusters(SHARDS), "recipe": Recipe}

    def __init__(
        self,
        backbone: Backbone,
        clusters: Partition | None = None,
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
        super().__init__(backbone, seed, n_classes, n_jobs, threads, verbose)
        self.clusters = clusters
        self.recipe = recipe
        self.layers = layers
        self.mirrored = mirrored
        self.local = local

    def choices(self) -> Choices:
        """The partition, its statistics, and one head."""
        arguments = self.arguments()
        recipe = checks.instance("recipe", arguments["recipe"], Recipe)
        learner = RidgeStatistics(self.layers, self.mirrored, recipe.weight_decay or L2)
        return Choices(arguments["clusters"], learner, SharedHead(self.local))

    def head(self) -> np.ndarray:
        """The head for everybody, (inputs, n_classes), the last row the bias. Raises ValueError if nobody is held."""
        self.check_unchanged()
        return self.gathered()[0]
