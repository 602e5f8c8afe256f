"""An eraser of any partition, learner and vote."""

from __future__ import annotations

from typing import ClassVar

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.learners.protocol import Learner
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.votes import Choices, ClusterVote, Vote


class Eraser(BaseEraser):
    """Exact unlearning with any partition, learner and vote: the kit's, or your own.

    Args:
        backbone: The frozen backbone.
        partition: Who is learnt together.
        learner: What is learnt from them.
        vote: Who answers; by default the mean of the clusters' probabilities, weighted as the partition says.
        seed: Keys every random draw of the learner.
        n_classes: Number of classes; by default the public samples' (or, without them, the private samples').
        n_jobs: Clusters learnt at a time (joblib); the result does not depend on it.
        threads: Intra-op threads; fixed, because bits may depend on it.
        verbose: Show progress bars.
    """

    DEFAULTS: ClassVar = {"vote": ClusterVote}

    def __init__(
        self,
        backbone: Backbone,
        partition: Partition,
        learner: Learner,
        vote: Vote | None = None,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
    ):
        super().__init__(backbone, seed, n_classes, n_jobs, threads, verbose)
        self.partition = partition
        self.learner = learner
        self.vote = vote

    def choices(self) -> Choices:
        """Partition, learner and vote, as they were given."""
        return Choices(self.partition, self.learner, self.arguments()["vote"])
