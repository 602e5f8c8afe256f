"""LMEraser's peers by name, exact but for one. They are the same machine with another partition or another recipe.

Retraining from scratch is `one prompt`: every request tunes the only cluster again.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lmeraser_kit.backbone import Backbone
from lmeraser_kit.clustering import HashClusters, HierarchicalClusters, HyperplaneClusters, SingleCluster
from lmeraser_kit.eraser import LMEraser
from lmeraser_kit.tuning import Recipe

# name: (partition for a number of clusters, whether a prompt is tuned)
METHODS = {
    "lmeraser": (HierarchicalClusters, True),  # a prompt and a head per cluster, routed by public prototypes
    "divided clusters": (lambda k: HierarchicalClusters(k, max_share=1 / k), True),  # the large ones, by features
    "divided by uids": (lambda k: HierarchicalClusters(k, max_share=1 / k, divide_by="uids"), True),
    "private routing": (lambda k: HierarchicalClusters(k, fit_on="private"), True),  # prototypes fitted again
    "published routing": (lambda k: HierarchicalClusters(k, fit_on="private-once"), True),  # prototypes kept: not exact
    "hyperplanes": (lambda k: HyperplaneClusters(max(1, round(math.log2(k)))), True),  # 2^round(log2 k) clusters
    "cluster heads": (HierarchicalClusters, False),  # LMEraser without prompts
    "hashed clusters": (HashClusters, True),  # SISA's partition: all shards vote
    "one prompt": (lambda k: SingleCluster(), True),
    "one head": (lambda k: SingleCluster(), False),  # linear probe by SGD
}


def build_method(name: str, backbone: Backbone, n_clusters: int, recipe: Recipe, **options) -> LMEraser:
    """An unfitted estimator of a method.

    Args:
        name: One of METHODS.
        backbone: The frozen backbone.
        n_clusters: Number of clusters, where the method has any.
        recipe: How to tune; the methods without a prompt leave the prompt out of it.
        **options: Further arguments of LMEraser (seed, n_jobs, ...).

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {name!r}; one of: {', '.join(METHODS)}.{hint}")
    partition, prompted = METHODS[name]
    recipe = recipe if prompted else replace(recipe, prompt="none")
    return LMEraser(backbone, partition(n_clusters), recipe, **options)


def linear_probe(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray) -> np.ndarray:
    """What a linear classifier reads from features: logistic regression on standardised features.

    Args:
        features: Training features, (N, D).
        labels: Their classes, (N,).
        test_features: Features to classify, (M, D).

    Returns:
        Predicted classes, (M,).
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return probe.fit(features, labels).predict(test_features)
