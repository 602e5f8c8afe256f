"""LMEraser's peers by name, exact but for one. They are the same machine with another partition or another recipe.

Retraining from scratch is `one prompt`: every request tunes the only cluster again.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground.plugins import installed
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.partitions import HashClusters, HierarchicalClusters, HyperplaneClusters, SingleCluster
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.lmeraser import LMEraser
from lmeraser_kit.unlearning.ridge_eraser import BUCKETS, RidgeEraser

NO_PROMPT = {"prompt": "none"}
SLICED = {"slices": 4}
FROM_PUBLIC = {"head_start": "public"}
SOFTNESS = 0.2  # chosen on CIFAR-10, on private samples of splits that no table uses
CORRECTIONS = {"softness": 0.2, "n_votes": 8}  # chosen on public samples: benchmarks/choices.py


def _buckets(_: int) -> HashClusters:
    return HashClusters(BUCKETS)


def _soft(**options) -> Callable:
    return lambda k: HierarchicalClusters(k, **options)


# name: (estimator, partition for a number of clusters, what is changed in the recipe; None if it takes none)
METHODS: dict[str, tuple[Callable[..., BaseEraser], Callable, dict[str, Any] | None]] = {
    # a prompt and a head per cluster, routed by public prototypes: of even clusters (Ward linkage, features at length
    # 1); of uneven ones (average linkage, features as they are)
    "lmeraser": (LMEraser, HierarchicalClusters, {}),
    "uneven clusters": (LMEraser, lambda k: HierarchicalClusters(k, linkage="average", unit_length=False), {}),
    # private prototypes: fitted again at every request; fitted once and kept, as published (not exact)
    "private routing": (LMEraser, lambda k: HierarchicalClusters(k, fit_on="private"), {}),
    "published routing": (LMEraser, HierarchicalClusters.published, {}),
    # 2^b clusters, the nearest power of two
    "hyperplanes": (LMEraser, lambda k: HyperplaneClusters(max(1, round(math.log2(k)))), {}),
    # LMEraser without prompts: the nearest cluster's head answers; heads vote by their distance
    "cluster heads": (LMEraser, HierarchicalClusters, NO_PROMPT),
    "soft heads": (LMEraser, _soft(softness=SOFTNESS), NO_PROMPT),
    "soft heads from zero": (LMEraser, _soft(softness=SOFTNESS), NO_PROMPT | {"head_start": "zero", "head_lr": 1.0}),
    # from a prompt and a head that were tuned on public samples, with their labels (learners.public_start)
    "lmeraser from public": (LMEraser, HierarchicalClusters, FROM_PUBLIC),
    "cluster heads from public": (LMEraser, HierarchicalClusters, NO_PROMPT | FROM_PUBLIC),
    "one prompt from public": (LMEraser, lambda k: SingleCluster(), FROM_PUBLIC),
    "one head from public": (LMEraser, lambda k: SingleCluster(), NO_PROMPT | FROM_PUBLIC),
    # a prompt and a head per shard; SISA (Bourtoule et al. 2021): with slices, and an aggregate
    "hashed clusters": (LMEraser, HashClusters, {}),
    "sisa (mean)": (LMEraser, HashClusters, SLICED),
    "sisa (vote)": (LMEraser, lambda k: HashClusters(k, vote="majority"), SLICED),
    # nothing divided: a request retrains everything; without a prompt, the linear probe by SGD
    "one prompt": (LMEraser, lambda k: SingleCluster(), {}),
    "one head": (LMEraser, lambda k: SingleCluster(), NO_PROMPT),
    "sisa heads (mean)": (LMEraser, HashClusters, NO_PROMPT),
    "sisa heads (vote)": (LMEraser, lambda k: HashClusters(k, vote="majority"), NO_PROMPT),
    "sisa heads by owner": (
        LMEraser,
        lambda k: HashClusters(k, by="owner"),
        NO_PROMPT,
    ),  # who has many images is in one
    # closed form, from exact sums, which no cluster divides (they are buckets of rows): on the backbone's feature; on
    # the outputs of all its stages; with even clusters' corrections; of an image and its mirror image, too
    "ridge head": (partial(RidgeEraser, layers=False), _buckets, None),
    "layered ridge head": (RidgeEraser, _buckets, None),
    "corrected ridge head": (RidgeEraser, _soft(**CORRECTIONS), None),
    "mirrored layered ridge head": (partial(RidgeEraser, mirrored=True), _buckets, None),
    "mirrored corrected ridge head": (partial(RidgeEraser, mirrored=True), _soft(**CORRECTIONS), None),
}
SUMMED = ("ridge head", "layered ridge head", "mirrored layered ridge head")  # exact sums: nothing is learnt again
UNDIVIDED = (
    "one prompt",
    "one head",
    "one prompt from public",
    "one head from public",
)  # one cluster: a request is a fit
FRONTIER = (  # prompts and heads, then heads alone
    *("one prompt", "lmeraser", "uneven clusters", "published routing", "hashed clusters"),
    *("one head", "cluster heads", "soft heads", "soft heads from zero"),
    *("sisa heads (mean)", "sisa heads (vote)", "ridge head", "layered ridge head", "corrected ridge head"),
    *("mirrored layered ridge head", "mirrored corrected ridge head"),
)


def build_method(
    name: str | Callable[..., BaseEraser], backbone: Backbone, n_clusters: int, recipe: Recipe, **options
) -> BaseEraser:
    """An unfitted estimator of a method.

    Args:
        name: One of METHODS, or of an installed package's methods (see `ground.plugins`). Or a function of the other
            arguments that returns an unfitted eraser of your own.
        backbone: The frozen backbone.
        n_clusters: Number of clusters, where the method has any.
        recipe: How to tune; some methods change it: see METHODS.
        **options: Further arguments of LMEraser (seed, n_jobs, ...).

    Raises:
        ValueError: If the name is unknown, or another argument is none of these.
    """
    check_methods([] if callable(name) else [name])
    checks.instance("backbone", backbone, Backbone), checks.instance("recipe", recipe, Recipe)
    checks.whole("n_clusters", n_clusters)
    if name not in METHODS:
        build = name if callable(name) else installed("methods")[name].load()
        return checks.instance("what the method returns", build(backbone, n_clusters, recipe, **options), BaseEraser)
    estimator, partition, changes = METHODS[name]
    known = list(inspect.signature(getattr(estimator, "func", estimator)).parameters)
    for option in options:
        checks.choice("an option", option, known)
    how = {} if changes is None else {"recipe": replace(recipe, **changes)}
    return estimator(backbone, partition(n_clusters), **how, **options)


def check_methods(names: list[str], known: Iterable[str] | None = None, what: str = "method") -> None:
    """Refuse unknown names before they cost time. Raises ValueError, naming the nearest and all known ones."""
    known = [*METHODS, *installed("methods")] if known is None else list(known)
    if isinstance(names, str):
        raise ValueError(f"names is {names!r}, expected a list of names")
    for name in checks.instance("names", names, Iterable):
        if not isinstance(name, str) or name not in known:
            text = str(name)
            near = difflib.get_close_matches(text, known, 1) or [k for k in known if text.lower() in k][:1]
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown {what} {name!r:.80}; one of: {', '.join(known)}.{hint}")


def linear_probe(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray) -> np.ndarray:
    """What a linear classifier reads from features: logistic regression on standardised features.

    Args:
        features: Training features, (N, D).
        labels: Their classes, (N,), two different ones at least.
        test_features: Features to classify, (M, D).

    Returns:
        Predicted classes, (M,).

    Raises:
        ValueError: If an argument is none of these.
    """
    features = checks.array("features", features, "N", "D")
    test_features = checks.array("test_features", test_features, "M", features.shape[1])
    labels = checks.class_labels(labels, len(features))
    if labels.min() == labels.max():
        raise ValueError(f"labels are all {labels[0]}, expected two different classes at least")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return probe.fit(features, labels).predict(test_features)
