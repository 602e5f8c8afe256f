"""LMEraser (arXiv 2404.11056): clusters by public prototypes, a prompt and a head for each, the nearest answers."""

from __future__ import annotations

from typing import ClassVar

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.partitions.hierarchical import HierarchicalClusters
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.votes import Choices, ClusterVote


class LMEraser(BaseEraser):
    """Clusters, each with its own prompt and head over a frozen backbone; exact unlearning (arXiv 2404.11056).

    A scikit-learn estimator over `Samples`: arguments are stored as given, results end in an underscore; `BaseEraser`
    lists them.

    Args:
        backbone: The frozen backbone.
        clusters: The partition; by default HierarchicalClusters(), fitted on public features.
        recipe: How a cluster is tuned; by default Recipe().
        seed: Keys every random draw of tuning.
        n_classes: Number of classes; by default the public samples' (or, without them, the private samples').
        n_jobs: Clusters tuned at a time (joblib); the result does not depend on it.
        threads: Intra-op threads of each tuning; fixed, because bits may depend on it.
        verbose: Show progress bars.
    """

    DEFAULTS: ClassVar = {"clusters": HierarchicalClusters, "recipe": Recipe}

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
    ):
        super().__init__(backbone, seed, n_classes, n_jobs, threads, verbose)
        self.clusters = clusters
        self.recipe = recipe

    def choices(self) -> Choices:
        """The partition, prompt tuning, and the vote of the clusters."""
        arguments = self.arguments()
        return Choices(arguments["clusters"], PromptTuning(arguments["recipe"]), ClusterVote())
