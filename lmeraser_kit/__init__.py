"""lmeraser_kit: exact unlearning by adaptive prompt tuning (LMEraser, arXiv 2404.11056)."""

from lmeraser_kit.backbone import Backbone
from lmeraser_kit.clustering import HashClusters, HierarchicalClusters, SingleCluster
from lmeraser_kit.datasets import load_dataset
from lmeraser_kit.eraser import ExactnessError, LMEraser, Receipt
from lmeraser_kit.samples import Samples
from lmeraser_kit.tuning import ClusterModel, Recipe, tune_cluster

__all__ = [
    "Backbone",
    "ClusterModel",
    "ExactnessError",
    "HashClusters",
    "HierarchicalClusters",
    "LMEraser",
    "Receipt",
    "Recipe",
    "Samples",
    "SingleCluster",
    "load_dataset",
    "tune_cluster",
]
