"""lmeraser_kit: exact unlearning by adaptive prompt tuning (LMEraser, arXiv 2404.11056).

Names are imported when they are first used: collecting runs or drawing figures must not wait for torch.
"""

import importlib

_HOME = {
    "Backbone": "backbone",
    "ClusterModel": "tuning",
    "ExactnessError": "state",
    "HashClusters": "clustering",
    "HierarchicalClusters": "clustering",
    "HyperplaneClusters": "clustering",
    "LMEraser": "eraser",
    "Receipt": "state",
    "Recipe": "recipe",
    "RidgeEraser": "ridge",
    "Samples": "samples",
    "SingleCluster": "clustering",
    "Store": "store",
    "load_dataset": "datasets",
    "tune_cluster": "tuning",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'lmeraser_kit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lmeraser_kit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
