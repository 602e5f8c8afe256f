"""No wrong answer without a word: a wrong argument is one ValueError of the kit's own, before anything is computed.

`calls` has every public function with right arguments, TABLE the wrong values of each. To cover another
module, name it in MODULES; `test_every_argument_has_a_row` says what is missing.
"""

import inspect
import math
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import sklearn
import torch
from conftest import TINY

import lmeraser_kit
from lmeraser_kit import (
    Backbone,
    HashClusters,
    HierarchicalClusters,
    HyperplaneClusters,
    LMEraser,
    Recipe,
    RidgeEraser,
    Samples,
    SingleCluster,
)
from lmeraser_kit.backbones import named, pretraining, timm_models
from lmeraser_kit.baselines import approximate, methods, private_head, unlearning_task
from lmeraser_kit.data import copies, datasets, owners
from lmeraser_kit.evaluation import costs, distances, owner_costs, reconstruction
from lmeraser_kit.ground import commitments, hashing, minibatches, names, samples
from lmeraser_kit.learners import prompts, recipe, ridge
from lmeraser_kit.partitions import hashed, hierarchical, hyperplanes
from lmeraser_kit.store import schedules

MODULES = [approximate, methods, ridge, hierarchical, datasets, distances, costs, pretraining, unlearning_task, prompts]
MODULES += [
    copies,
    owners,
    owner_costs,
    recipe,
    samples,
    names,
    commitments,
    minibatches,
    hashing,
    hashed,
    hyperplanes,
    named,
    timm_models,
    reconstruction,
    private_head,
    schedules,
]
KIT = str(Path(lmeraser_kit.__file__).parent)

NAN, INF = math.nan, math.inf
SEED = [0.5, "3", None, True, -1, NAN, 2**63, 3.0]
WHOLE = [0, -1, 2.5, 3.0, "3", None, True, NAN]  # from 1
FROM_0 = [-1, 2.5, "3", None, True, NAN]
NUMBER = [-1, "x", None, True, NAN, INF, 1j, np.array([1.0]), 10**400]  # from 0
ABOVE_0 = [*NUMBER, 0]
SHARE = [-1, 0, 1.5, "x", None, True, NAN, INF]  # in (0, 1]
FLAG = [1, 0, "True", None, NAN]
CHOICE = ["no such name", 3, None, ["frame"], True]
PATH = [3, None, 0.5, ["data"]]
DEVICE = ["cudaa", "cuda:77", "gpu", 0.5]
ARRAY = [
    None,
    "x",
    3,
    [["a", "b"]],
    [[1.0], [1.0, 2.0]],
    {"a": 1},
    [[NAN, 1.0], [0.0, 1.0]],
    np.ma.masked_equal([[1]], 1),
]
LABELS = [0.5, [0.5, 1], [NAN, 1], ["cat", "dog"], [None, 1], [[1, 0], [0, 1]], [1], [0, 1, 0], [-1, 0], [1j, 0]]
LABELS += [[b"1", b"0"], np.array(["2020", "2021"], "M8[Y]"), {"a": 1}, "01"]
UIDS = [None, 0.5, True, b"s1", {"s1": 1}, [0.5], [None], [NAN], [b"s1"], [["s1", "s2"]], [True], [""], ["a", NAN]]
UIDS += [np.array([["s0", "s1"], ["s2", "s3"]]), pd.DataFrame({"uid": ["s1"]}), np.array(["2020"], "M8[Y]"), object()]
OWNERS = [*UIDS[1:], ["a"] * 5, ["\ud800", *"bcdef"], [*"abcde", None], 3, "anna"]
OWNER = [*UIDS, [], ["s1", "s1"], "nobody", ["s1", "nobody"]]
ASKED = [*UIDS, ["s1", "s1"], "nobody", ["s1", "nobody"], np.array([True] * 6)]
KEYS = [None, "x", [1, 2, 3, 4, 5, 6], np.arange(6), np.zeros((6, 1), np.uint64), np.arange(6.0)]
SIZES = [[], [0, 0], [-1, 3], [2.5], [NAN], ["3"], "33", None, 3, [True], [[1, 2]], [1j]]
COLUMNS = ["nothing", ["nothing"], 3, None, [["method"]]]
FRAME = [None, 3, [1, 2], {"accuracy": [1]}, pd.DataFrame({"a": [1]})]
LOGITS = [
    None,
    "x",
    np.zeros(3),
    np.zeros((2, 0)),
    np.zeros((0, 3)),
    [[NAN, 0, 1], [0, 0, 1]],
    [[INF, 0, 1], [0, 0, 1]],
]
LOGITS += [[[-INF] * 3, [0, 0, 1]], [["a", "b", "c"]] * 2, [[True, False, False]] * 2, [[1.0], [1.0, 2.0]]]
BY_CLUSTER = [None, 3, "x", [2, 3], {0: -1}, {0: 0.5}, {0: "x"}]
REQUESTS = [None, 3, "x", [None], [(0, 1, {0: 1})], np.zeros(2)]
NOT_SAMPLES = [None, "digits", np.zeros((2, 1, 4, 4), np.uint8), 3, []]
PIXELS = [None, "x", np.zeros((2, 4, 4), np.uint8), np.zeros((2, 1, 4, 4)), np.zeros((2, 2, 4, 4), np.uint8)]
LIMITS = [[1, 2], [1, 2, 3, 4], [-1, 0, 0], [0.5, 0, 0], ["1", 0, 0], "abc", "000", 3, [True, 0, 0], [10**6, 0, 0], {}]
ENTRIES = [None, 3, {"weight": "x"}, {"nothing": torch.zeros(1)}, {"weight": torch.zeros(2, 2)}]
STRENGTH = [0, -1, NAN, INF, "x", None, True]
LABELS_OF_PARTS = [dict.fromkeys(distances.PARTS, wrong) for wrong in ([0.5, 1], [NAN, 1], ["cat", "dog"], [1], [0, 3])]
LOGITS_OF_PARTS = [dict.fromkeys(distances.PARTS, wrong) for wrong in LOGITS]
SHARES = [None, 3, {}, {"UA": 0.5}, dict.fromkeys(["UA", "RA", "TA", "MIA"], NAN), dict.fromkeys(["UA", "RA", "TA"], 2)]

# (function, argument, wrong values, what the message says besides the argument's name)
TABLE = [
    # samples
    ("samples.Samples", "images", [None, "x", 3, [], [[1]], np.zeros((6, 1, 4, 4)), np.zeros((6, 1, 4, 4), bool)], ""),
    ("samples.Samples", "images", [np.zeros((6, 2, 4, 4), np.uint8), np.zeros((6, 1, 4, 0), np.uint8)], ""),
    ("samples.Samples", "images", [np.zeros((6, 1, 4, 4), object), [np.zeros((1, 4, 4)), np.zeros((1, 5, 5))]], ""),
    ("samples.Samples", "images", [torch.zeros(6, 1, 4, 4), torch.zeros(6, 1, 4, 4, device="meta"), [["a"]]], ""),
    ("samples.Samples", "images", [np.zeros((5, 1, 4, 4), np.uint8)], "expected one for each"),
    ("samples.Samples", "labels", [*LABELS, [0, 1, 2, 0, 1, 3], [0, 1, 2, 0, 1, -1], [True] * 6], "label"),
    ("samples.Samples", "labels", [[0, 1, 2, 0, 1, "x"], [0, 1, 2, 0, 1, 0.5], [0, 1, 2, 0, 1, 10**30]], "uid 's5'"),
    ("samples.Samples", "labels", [np.eye(6, 3)], "argmax"),
    ("samples.Samples", "uids", [*UIDS, ["a"] * 6, ["a"] * 5, ["\ud800", *"bcdef"], [*"abcde", None]], "uid"),
    ("samples.Samples", "owners", OWNERS, "owner"),
    ("samples.Samples.with_owners", "owners", OWNERS, "owner"),
    ("samples.Samples.uids_of", "owner", OWNER, "owner"),
    ("samples.Samples", "n_classes", [0, -1, 2.5, "3", True, NAN, 10**7], ""),
    ("samples.Samples", "n_classes", [2], "label 2 of uid 's2' is outside the range 0 to 1"),
    (
        "samples.Samples[]",
        "index",
        [6, -7, 0.5, None, True, "s1", [0, 9], [0.5], [[0, 1]], [0, 0], (0, 1), {}],
        "ndex|uid",
    ),
    ("samples.Samples[]", "index", [[True] * 5, slice(0.5, 2), slice("a"), slice(0, 3, 0), ..., np.zeros(3)], "ndex"),
    ("samples.Samples+", "other", [3, None, "s1", []], "expected Samples"),
    ("samples.Samples.positions", "uids", ASKED, "uid"),
    ("samples.Samples.without", "uids", ASKED, "uid"),
    ("samples.concatenate", "parts", [[], None, 3, ["s1"], [None]], "part"),
    ("names.named", "uids", ASKED, "uid"),
    ("names.owned_by", "owner", OWNER, "owner"),
    ("names.request", "owner", [0.5, True, [None], [""], None], "owner"),
    ("commitments.commitment_of", "kind", [3, None, "", "person"], ""),
    ("commitments.commitment_of", "name", [3, None, ""], ""),
    ("commitments.commitment_of", "salt", [3, None, ""], ""),
    ("commitments.opens", "commitment", [3, None, ""], ""),
    ("commitments.opens", "owner", [3, None, ""], ""),
    ("commitments.opens", "salt", [3, None, ""], ""),
    ("samples.class_labels", "labels", [*LABELS, [2, 0]], "label"),
    (
        "hashing.digest",
        "parts",
        [np.arange(3), {"a"}, torch.zeros(2), object(), pd.Series([1]), memoryview(b"a")],
        "part",
    ),
    ("hashing.keyed_uniform", "purpose", [None, 3, "", b"a"], ""),
    ("hashing.keyed_uniform", "seed", SEED, ""),
    ("hashing.keyed_uniform", "keys", KEYS, ""),
    ("hashing.keyed_uniform", "epoch", FROM_0, ""),
    ("hashing.keyed_uniform", "columns", WHOLE, ""),
    # clustering
    ("hierarchical.HierarchicalClusters", "n_clusters", [*WHOLE[:5], True, NAN, 101], "cluster"),
    ("hierarchical.HierarchicalClusters", "distance_threshold", [*NUMBER[:2], *NUMBER[3:]], ""),
    ("hierarchical.HierarchicalClusters", "fit_on", CHOICE, ""),
    ("hierarchical.HierarchicalClusters", "linkage", CHOICE, ""),
    ("hierarchical.HierarchicalClusters", "fit_size", WHOLE, ""),
    (
        "hierarchical.HierarchicalClusters",
        "fit_size",
        [2],
        "cost_factor is 100 (the default), and cannot be had from 2 public",
    ),
    ("hierarchical.HierarchicalClusters", "unit_length", FLAG, ""),
    ("hierarchical.HierarchicalClusters", "cost_factor", [*NUMBER[:2], *NUMBER[3:], 0.5, 101], ""),
    ("hierarchical.HierarchicalClusters", "neighbors", [*WHOLE[:5], True, NAN, 100], ""),
    ("hierarchical.HierarchicalClusters", "bound", [*WHOLE[:5], True, NAN], ""),
    ("hierarchical.HierarchicalClusters.published", "n_clusters", [0, 101], "cluster"),
    ("hierarchical.HierarchicalClusters", "softness", NUMBER, ""),
    ("hierarchical.HierarchicalClusters", "n_votes", [*WHOLE[:5], True, NAN], ""),
    ("hierarchical.HierarchicalClusters.check", "n_samples", FROM_0, ""),
    ("hierarchical.HierarchicalClusters.fit", "features", [*ARRAY, np.zeros((5, 2)), np.full((6, 2), INF)], ""),
    ("hierarchical.HierarchicalClusters.fit", "keys", KEYS, ""),
    ("hierarchical.HierarchicalClusters.assign", "features", [*ARRAY, np.zeros((6, 3)), np.full((6, 2), NAN)], ""),
    ("hierarchical.HierarchicalClusters.assign", "keys", KEYS, ""),
    ("hierarchical.HierarchicalClusters.codes", "features", [*ARRAY, np.zeros((6, 3)), np.full((6, 2), NAN)], ""),
    ("hierarchical.HierarchicalClusters.codes", "keys", KEYS, ""),
    ("hierarchical.HierarchicalClusters.codes", "assigned", [None, [0] * 5, [2] * 6, [-1] * 6, [0.5] * 6], ""),
    ("hierarchical.HierarchicalClusters.votes", "features", [*ARRAY, np.zeros((6, 3)), np.full((6, 2), NAN)], ""),
    ("hierarchical.HierarchicalClusters.votes", "available", [None, [], [-1], [2], [0.5], ["0"], [[0]], 0, [NAN]], ""),
    ("hyperplanes.HyperplaneClusters", "n_bits", [*WHOLE, 21], ""),
    ("hyperplanes.HyperplaneClusters", "seed", SEED, ""),
    ("hyperplanes.HyperplaneClusters.check", "n_samples", FROM_0, ""),
    ("hyperplanes.HyperplaneClusters.assign", "features", ARRAY, ""),
    ("hyperplanes.HyperplaneClusters.votes", "features", ARRAY, ""),
    ("hyperplanes.HyperplaneClusters.votes", "available", [None, [], [-1], [8], [0.5], ["0"], [[0]]], ""),
    ("hashed.HashClusters", "n_clusters", WHOLE, ""),
    ("hashed.HashClusters", "vote", CHOICE, ""),
    ("hashed.HashClusters", "by", CHOICE, ""),
    ("hashed.HashClusters.check", "n_samples", FROM_0, ""),
    ("hashed.HashClusters.assign", "keys", KEYS, ""),
    ("hashed.HashClusters.votes", "available", [None, [], [-1], [8], [0.5], ["0"], [[0]]], ""),
    # recipe
    *(("recipe.Recipe", name, CHOICE, "") for name in ("prompt", "optimiser", "head_start")),
    *(
        ("recipe.Recipe", name, [0, 2.5, "3", None, True, NAN, INF, 1j, np.bool_(True)], "")
        for name in ("epochs", "slices", "batch_size", "min_batches")
    ),
    *(("recipe.Recipe", name, NUMBER, "") for name in ("prompt_lr", "head_lr", "prompt_std", "weight_decay", "rotate")),
    *(("recipe.Recipe", name, [*NUMBER, 1], "") for name in ("momentum", "warmup", "zoom")),
    ("recipe.Recipe", "prompt_size", SHARE, ""),
    ("recipe.Recipe", "shift", [*NUMBER, 1.5], ""),
    ("recipe.Recipe", "flip", FLAG, ""),
    ("recipe.Recipe.published", "changes", [{"epochs": 0}, {"prompt": "ring"}], "Recipe"),
    ("recipe.Recipe.batch_of", "n", FROM_0, "n is"),
    ("recipe.Recipe.slices_of", "keys", KEYS, ""),
    ("recipe.Recipe.slices_of", "seed", SEED, ""),
    ("recipe.Recipe.mask", "size", WHOLE, ""),
    ("recipe.Recipe.mask", "seed", SEED, ""),
    ("recipe.named_recipe", "name", [*CHOICE, "publised"], "expected one of: default, published"),
    ("recipe.named_recipe", "changes", [{"epoch": 3}, {"epochs": 0}], "epoch"),
    ("recipe.optimiser_for", "recipe", [None, "default", {}, Recipe], ""),
    ("recipe.optimiser_for", "parameters", [None, {}, {"weight": torch.zeros(1, 1)}, []], ""),
    ("recipe.optimiser_for", "share", NUMBER, ""),
    # prompts
    ("prompts.prompt_mask", "kind", CHOICE, ""),
    ("prompts.prompt_mask", "share", [*SHARE, 2], ""),
    ("prompts.prompt_mask", "size", WHOLE, ""),
    ("prompts.prompt_mask", "seed", SEED, ""),
    ("prompts.prompt_canvas", "prompt", [None, "x", np.zeros((3, 7)), torch.zeros(3, 6), torch.zeros(7), 3], ""),
    ("prompts.prompt_canvas", "mask", [None, "x", np.ones((4, 4)), np.ones(4, bool), torch.ones(4, 4)], ""),
    ("prompts.prompt_canvas", "mask", [np.ones((4, 4), bool)], "expected (..., 3, 16) for the mask"),
    # metrics
    *(
        (f"costs.{name}", "sizes", SIZES, "")
        for name in ("expected_request_cost", "expected_batch_cost", "expected_clusters_touched", "cost_factors")
    ),
    ("costs.expected_request_cost", "epochs", WHOLE, ""),
    ("schedules.TimedRequest", "arrival", [w for w in NUMBER if w != -1], ""),
    ("schedules.TimedRequest", "deadline", [*[w for w in NUMBER if w != -1], -5], ""),
    ("schedules.TimedRequest", "leaving", BY_CLUSTER, ""),
    *(
        (f"schedules.{name}", argument, wrong, "TimedRequest" if argument == "requests" else "sizes|leave")
        for name in ("at_latest", "schedule_cost", "least_cost", "cheapest", "waiting_curve", "at_once", "in_periods")
        for argument, wrong in (("requests", REQUESTS), ("sizes", [*BY_CLUSTER, {}, {0: 1, 1: 0}]))
        if not (name in ("at_once", "in_periods") and argument == "sizes")
    ),
    ("schedules.in_periods", "days", ABOVE_0, ""),
    ("schedules.at_latest", "wait", [w for w in NUMBER if w != INF], ""),
    ("schedules.at_latest", "along", SHARE, ""),
    ("schedules.schedule_cost", "times", [None, "x", [1.0], [NAN, 1.0], [1.0, 0.5], [-1.0, 2.0]], "times"),
    ("schedules.waiting_curve", "waits", [None, "x", [], [-1.0], [NAN]], "wait"),
    ("schedules.expected_waiting_cost", "sizes", [*BY_CLUSTER, {}, {0: 0}], ""),
    ("schedules.expected_waiting_cost", "rate", ABOVE_0, ""),
    ("schedules.expected_waiting_cost", "wait", NUMBER, ""),
    ("schedules.expected_waiting_cost", "shares", ["x", 3, [0.5], [NAN, 1.0]], ""),
    ("schedules.stream_of_owners", "owners", [*UIDS[1:], ["a"]], "owner|cluster"),
    ("schedules.stream_of_owners", "clusters", [None, "x", [0], [NAN, 1.0, 1.0]], ""),
    ("schedules.stream_of_owners", "n_requests", [*FROM_0, 3], ""),
    ("schedules.stream_of_owners", "days", ABOVE_0, ""),
    ("schedules.stream_of_owners", "within", NUMBER, ""),
    ("schedules.stream_of_owners", "bursts", FROM_0, ""),
    ("schedules.stream_of_owners", "seed", SEED, ""),
    ("costs.expected_batch_cost", "epochs", WHOLE, ""),
    ("costs.expected_batch_cost", "n_requests", [*FROM_0, 15], ""),
    ("costs.expected_clusters_touched", "n_requests", NUMBER, ""),
    ("costs.slice_cost_share", "slices", [0, -1, 0.5, "3", None, True, NAN, INF, [0, 1]], ""),
    ("costs.poisson_stream", "uids", [*UIDS[:4], *UIDS[5:], ["a", "a"]], "uid"),
    ("costs.poisson_stream", "rate", ABOVE_0, ""),
    ("costs.poisson_stream", "seed", SEED, ""),
    ("costs.in_windows", "stream", FRAME, "frame|column"),
    ("costs.in_windows", "stream", [pd.DataFrame({"time": [t], "uid": ["a"]}) for t in (NAN, -1.0, "x")], "time"),
    ("costs.in_windows", "width", [*ABOVE_0, 1e-300], ""),
    ("costs.ci95", "values", [None, 3, "12", ["a"], [[1, 2], [3, 4]], [1j, 2], [[1], [1, 2]]], ""),
    ("costs.summarise", "frame", FRAME, "frame|column"),
    ("costs.summarise", "by", [*COLUMNS, []], "by|column"),
    ("costs.summarise", "values", [*COLUMNS, ["method"]], "values|column"),
    ("costs.against_undivided", "frame", FRAME, "frame|column"),
    (
        "costs.readable",
        "table",
        [*FRAME[:4], pd.DataFrame({"a_mean": [1]}), pd.DataFrame({"a_mean": ["x"], "a_ci95": [1]})],
        "table|frame|column",
    ),
    ("costs.readable", "digits", FROM_0, ""),
    # distances
    *((f"distances.{name}", "logits", LOGITS, "") for name in ("accuracy", "cross_entropy")),
    ("distances.margin", "logits", [x for x in LOGITS if not (isinstance(x, np.ndarray) and x.ndim == 3)], ""),
    *((f"distances.{name}", "labels", [*LABELS, [0, 3]], "label") for name in ("accuracy", "cross_entropy", "margin")),
    ("distances.accuracies", "logits", [None, 3, {}, {"forget": 1}, *LOGITS_OF_PARTS], ""),
    ("distances.accuracies", "labels", [None, 3, {}, {"forget": 1}, *LABELS_OF_PARTS], "label"),
    *(("distances.compare", name, [None, 3, {}, *LOGITS_OF_PARTS], "logits") for name in ("unlearned", "retrained")),
    ("distances.compare", "labels", [None, {}, *LABELS_OF_PARTS], "label"),
    *(
        (f"distances.{f}", name, SHARES, "")
        for f in ("average_gap", "tug_of_war")
        for name in ("unlearned", "retrained")
    ),
    *(
        (f"distances.{function}", name, [*LOGITS, np.zeros((3, 3)), np.zeros((2, 4))], "")
        for function in ("kl_divergence", "total_variation")
        for name in ("unlearned", "retrained")
    ),
    ("distances.klom", "unlearned", ARRAY, ""),
    ("distances.klom", "retrained", [*ARRAY, np.zeros((2, 4)), np.zeros((0, 3))], ""),
    ("distances.klom", "bins", WHOLE, ""),
    # training
    ("minibatches.warmup_cosine", "step", [*FROM_0, 11], ""),
    ("minibatches.warmup_cosine", "total", FROM_0, ""),
    ("minibatches.warmup_cosine", "warmup", [*NUMBER, 1.5], ""),
    (
        "minibatches.augment",
        "views",
        [None, np.zeros((2, 3, 8, 8)), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).int()],
        "",
    ),
    ("minibatches.augment", "draws", [None, "x", np.zeros((2, 4)), np.zeros((3, 5)), np.full((2, 5), NAN)], ""),
    ("minibatches.augment", "shift", [*NUMBER, 1.5], ""),
    ("minibatches.augment", "rotate", NUMBER, ""),
    ("minibatches.augment", "zoom", [*NUMBER, 1], ""),
    ("minibatches.augment", "flip", FLAG, ""),
    ("minibatches.minibatches", "keys", [*KEYS, np.zeros(0, np.uint64)], ""),
    ("minibatches.minibatches", "seed", SEED, ""),
    ("minibatches.minibatches", "epoch", FROM_0, ""),
    ("minibatches.minibatches", "batch_size", WHOLE, ""),
    ("minibatches.train", "loss_of", [None, 3, "x"], ""),
    ("minibatches.train", "optimiser", [None, "adamw"], ""),
    ("minibatches.train", "keys", [*KEYS, np.zeros(0, np.uint64)], ""),
    ("minibatches.train", "epochs", [3, None, [-1], [0.5], ["a"]], "epoch"),
    ("minibatches.train", "batch_size", WHOLE, ""),
    ("minibatches.train", "seed", SEED, ""),
    ("minibatches.train", "warmup", [*NUMBER, 1.5], ""),
    ("minibatches.train", "micro_batch", WHOLE, ""),
    # datasets
    *(("datasets.Split", name, NOT_SAMPLES, "") for name in ("public", "private", "test")),
    ("datasets.Split", "name", [None, 3, ""], ""),
    ("datasets.Split", "classes", [None, "abc", ("a",), ("",) * 10, (3,) * 10], ""),
    *(("datasets.Split.take", name, [*FROM_0, 10**6], "") for name in ("public", "private", "test")),
    ("datasets.Split.take", "seed", SEED, ""),
    ("datasets.dataset_names", "root", PATH, ""),
    ("datasets.load_dataset", "name", [None, 3, ["digits"]], ""),
    ("datasets.load_dataset", "name", ["digit", "/paper", "digits/papers", "digits/paper"], "digit|unknown dataset ''"),
    ("datasets.check_dataset", "name", [None, 3, ["digits"], "digit", "digits/papers"], "name|digit"),
    ("datasets.check_dataset", "root", PATH, ""),
    ("owners.invented_owners", "samples", NOT_SAMPLES, ""),
    ("owners.invented_owners", "mean_size", [*NUMBER, 0, 0.5], ""),
    ("owners.invented_owners", "exponent", NUMBER, ""),
    ("owners.invented_owners", "seed", SEED, ""),
    ("owners.invented_owners", "alike", FLAG, ""),
    ("owner_costs.owner_request_cost", "owners", [*UIDS, ["a"] * 5, []], "owner|clusters"),
    ("owner_costs.owner_request_cost", "clusters", [None, "x", [0] * 5, ["a"] * 6, [NAN] * 6, [[0] * 6]], ""),
    ("owner_costs.owner_request_cost", "epochs", WHOLE, ""),
    ("owner_costs.placed_owner_cost", "owner_sizes", [*SIZES, [0, 3]], ""),
    ("owner_costs.placed_owner_cost", "n_clusters", WHOLE, ""),
    ("owner_costs.placed_owner_cost", "together", FLAG, ""),
    ("owner_costs.placed_owner_cost", "epochs", WHOLE, ""),
    ("owner_costs.spread_owner_cost", "owner_sizes", [*SIZES, [0, 3]], ""),
    ("owner_costs.spread_owner_cost", "owner_sizes", [[2, 4]], "expected the same samples"),
    ("owner_costs.spread_owner_cost", "sizes", SIZES, ""),
    ("owner_costs.spread_owner_cost", "epochs", WHOLE, ""),
    ("datasets.load_dataset", "seed", SEED, ""),
    ("datasets.load_dataset", "root", PATH, ""),
    ("datasets.load_dataset", "limits", LIMITS[:-2], ""),
    ("datasets.load_dataset", "limits", [[10**6, 0, 0]], "there are"),
    # copies
    *((f"copies.{name}", "images", PIXELS, "") for name in ("pixel_keys", "perceptual_hashes", "views")),
    ("copies.perceptual_hashes", "verbose", FLAG, ""),
    *(("copies.public_twins", name, NOT_SAMPLES, "") for name in ("private", "public")),
    *(
        ("copies.guessed_kind", name, [None, "x", np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4))], "images")
        for name in ("image", "other")
    ),
    ("copies.guessed_kind", "other", [np.zeros((1, 5, 4), np.uint8)], "expected one shape"),
    ("copies.altered", "samples", NOT_SAMPLES, ""),
    ("copies.altered", "kind", [*CHOICE, "miror"], ""),
    ("copies.altered", "seed", SEED, ""),
    # pretraining
    (
        "named.backbone_for",
        "name",
        [None, 3, "", "vit_bas_patch16_224", "test_vit@4", "test_vit@²", "@"],
        "name|model|backbone",
    ),
    ("named.backbone_for", "public", NOT_SAMPLES, ""),
    ("named.backbone_for", "epochs", FROM_0, ""),
    ("named.backbone_for", "seed", SEED, ""),
    ("named.backbone_for", "device", DEVICE, ""),
    ("named.backbone_for", "precision", CHOICE, ""),
    ("named.backbone_for", "root", PATH, ""),
    ("named.backbone_for", "cached", FLAG, ""),
    (
        "named.check_backbone",
        "name",
        [None, 3, "", "vit_bas_patch16_224", "test_vit@4", "no/such.safetensors"],
        "name|model|backbone|file",
    ),
    ("timm_models.timm_name", "name", [None, 3, "", "vit@", "vit@x", "vit@7", "vit@-96", "vit@²"], "backbone|name"),
    ("named.untrained", "name", [None, 3, "", "test_vi", "test_vit@4"], "name|test_vi"),
    ("named.untrained", "seed", SEED, ""),
    ("named.untrained", "device", DEVICE, ""),
    ("named.untrained", "precision", CHOICE, ""),
    ("timm_models.read_timm", "name", [None, 3, "", "test_vi", "test_vit@4"], "name|test_vi"),
    ("timm_models.read_timm", "pretrained", FLAG, ""),
    ("timm_models.read_timm", "weights", [3, 0.5, ["w"]], ""),
    ("backbone.Backbone.from_timm", "device", DEVICE, ""),
    ("backbone.Backbone.from_module", "module", [None, "net", 3], ""),
    ("backbone.Backbone.from_module", "size", [0, -1, 8.5, "8", None], ""),
    ("backbone.Backbone.from_module", "mean", [None, 0.5, [0.5], [0, 0, NAN], "mean"], ""),
    ("backbone.Backbone.from_module", "std", [None, 0.5, [0.5, 0.5], [1, 1, 0], [1, 1, -1]], ""),
    ("backbone.Backbone.from_module", "stages", [None, 3, ["conv"], [3]], "a stage|stages"),
    ("backbone.Backbone.from_module", "device", DEVICE, ""),
    ("backbone.Backbone.from_module", "precision", CHOICE, ""),
    ("timm_models.read_timm", "beside", [3, None, ["a"], [4], "96", [64]], "beside"),
    ("timm_models.read_timm", "size", [0, 7, 96.5, "96", True], ""),
    ("timm_models.read_timm", "arguments", [{"nonsense": 3}, {"num_heads": 5}], "the arguments"),
    ("pretraining.pretrain_vit", "public", NOT_SAMPLES, ""),
    ("pretraining.pretrain_vit", "epochs", FROM_0, ""),
    ("pretraining.pretrain_vit", "seed", SEED, ""),
    ("pretraining.pretrain_vit", "device", DEVICE, ""),
    ("pretraining.pretrain_vit", "threads", WHOLE, ""),
    ("pretraining.pretrain_vit", "batch_size", WHOLE, ""),
    (
        "pretraining.pretrain_vit",
        "arguments",
        [{"depth": 0}, {"width": 3}, {"num_heads": 7}, {"patch_size": 99}],
        "ViT|depth",
    ),
    # baselines
    ("methods.build_method", "name", [None, 3, "one promt", ["lmeraser"]], "unknown method"),
    ("methods.build_method", "backbone", [None, "small-vit"], ""),
    ("methods.build_method", "n_clusters", [*WHOLE, "8"], ""),
    ("methods.build_method", "recipe", [None, {}, "default"], ""),
    ("methods.build_method", "options", [{"sed": 3}], "seed"),
    (
        "methods.check_methods",
        "names",
        ["lmeraser", None, 3, [3], [None], ["nothing"], [["lmeraser"]]],
        "name|method",
    ),
    ("methods.linear_probe", "features", [*ARRAY, np.zeros((3, 2)), np.zeros(4)], "features|labels"),
    ("methods.linear_probe", "labels", [*LABELS, [1, 1, 1, 1]], "label"),
    ("methods.linear_probe", "test_features", [*ARRAY, np.zeros((3, 3))], ""),
    # task
    ("unlearning_task.UnlearningTask", "eraser", [None, "one head"], ""),
    ("unlearning_task.UnlearningTask", "uids", [None, 0.5, b"a", "nobody", {"a": 1}, [True]], "uid"),
    ("unlearning_task.UnlearningTask.part", "samples", NOT_SAMPLES, ""),
    # approximate
    *((f"approximate.{f.__name__}", "task", [None, "one head"], "") for f in approximate.APPROXIMATE.values()),
    *((f"approximate.{f.__name__}", "strength", STRENGTH, "") for f in approximate.APPROXIMATE.values()),
    *(
        (f"approximate.{name}", "epochs", WHOLE, "")
        for name in ("fine_tune", "gradient_ascent", "neg_grad_plus", "random_label", "salun", "scrub")
    ),
    ("approximate.neg_grad_plus", "alpha", [*NUMBER, 1.5], ""),
    ("approximate.random_label", "only", ENTRIES[1:], ""),
    ("approximate.salun", "share", SHARE, ""),
    ("approximate.scrub", "ascents", FROM_0, ""),
    ("approximate.ssd", "alpha", NUMBER, ""),
    ("approximate.ssd", "lam", NUMBER, ""),
    ("approximate.newton_removal", "l2", ABOVE_0, ""),
    ("approximate.unlearn", "name", [None, 3, "salum", ["salun"]], "unknown method"),
    ("approximate.unlearn", "task", [None, "one head"], ""),
    ("approximate.unlearn", "strength", STRENGTH, ""),
    ("approximate.unlearn", "options", [{"epoch": 3}, {"epochs": 0}], "epoch"),
    ("approximate.relearn_steps", "task", [None], ""),
    ("approximate.relearn_steps", "parameters", [*ENTRIES, {}], ""),
    ("approximate.relearn_steps", "accuracy", NUMBER, ""),
    ("approximate.relearn_steps", "most", WHOLE, ""),
    # closed_form
    ("ridge.with_one", "features", [*ARRAY, np.zeros(3)], ""),
    ("ridge.sums", "rows", [*ARRAY, np.zeros(3)], ""),
    ("ridge.sums", "inputs", [*WHOLE, 5], ""),
    ("ridge.head_from_sums", "total", [*ARRAY, np.zeros((3, 3))], ""),
    ("ridge.head_from_sums", "l2", ABOVE_0, ""),
    ("ridge.factor", "system", [*ARRAY, np.zeros((2, 3))], ""),
    ("ridge.factor", "penalty", [*ABOVE_0], "penalty"),
    ("ridge.solve", "cholesky", [*ARRAY, np.zeros((2, 3))], ""),
    ("ridge.solve", "right", [*ARRAY, np.zeros((5, 2))], ""),
    ("ridge.probabilities", "scores", ARRAY, ""),
    ("ridge.head_from_rows", "rows", [*ARRAY, np.zeros((0, 5))], ""),
    ("ridge.head_from_rows", "inputs", [*WHOLE, 5], ""),
    ("ridge.head_from_rows", "l2", ABOVE_0, ""),
    # reconstruction, and noise against it
    ("reconstruction.public_gram", "public", [*ARRAY, np.zeros((0, 3))], ""),
    ("reconstruction.public_gram", "n_samples", WHOLE, ""),
    ("reconstruction.public_gram", "penalty", ABOVE_0, ""),
    ("reconstruction.cosines", "feature", [*ARRAY, np.zeros(3), np.ones(2)], "feature|candidates"),
    ("reconstruction.cosines", "candidates", [*ARRAY, np.zeros((2, 3))], ""),
    ("reconstruction.residuals", "head", [*ARRAY, np.ones((2, 3))], "head|candidates"),
    ("reconstruction.residuals", "candidates", [*ARRAY, np.zeros((2, 3))], ""),
    ("reconstruction.residuals", "labels", LABELS, "label"),
    ("reconstruction.residuals", "cross_entropy", FLAG, ""),
    *(
        (f"reconstruction.{function}", argument, wrong, "before|after|gram")
        for function in ("reconstruct", "span_shares", "matched_filter", "least_squares", "attack_scores")
        for argument, wrong in (
            ("before", [*ARRAY, np.ones((2, 3))]),
            ("after", [*ARRAY, np.ones((3, 3))]),
            ("gram", [*ARRAY, np.ones((3, 2))]),
        )
    ),
    *(
        (f"reconstruction.{function}", "candidates", [*ARRAY, np.ones((2, 2)), np.zeros((2, 3))], "")
        for function in ("span_shares", "matched_filter", "least_squares", "attack_scores")
    ),
    *((f"reconstruction.{function}", "n_left", WHOLE, "") for function in ("span_shares", "attack_scores")),
    *(
        (f"reconstruction.{function}", "left_over", [*ARRAY, np.ones((2, 3)), np.ones((3, 2))], "")
        for function in ("matched_filter", "least_squares")
    ),
    ("reconstruction.least_squares", "l2", ABOVE_0, ""),
    ("reconstruction.attack_scores", "labels", LABELS, "label"),
    ("reconstruction.attack_scores", "cross_entropy", FLAG, ""),
    ("private_head.PublicMap.of", "public", [*ARRAY, np.zeros((0, 3)), np.ones((6, 2))], "public|n_directions"),
    ("private_head.PublicMap.of", "n_directions", [*WHOLE, 3], ""),
    ("private_head.ridge_head", "inputs", [*ARRAY, np.ones(3)], ""),
    ("private_head.ridge_head", "labels", LABELS, "label"),
    ("private_head.ridge_head", "n_classes", WHOLE, ""),
    ("private_head.ridge_head", "penalty", ABOVE_0, ""),
    ("private_head.sensitivity", "n", WHOLE, ""),
    ("private_head.sensitivity", "bound", ABOVE_0, ""),
    ("private_head.sensitivity", "share", [*ABOVE_0, 0.01], ""),
    ("private_head.gaussian_scale", "sensitivity", ABOVE_0, ""),
    ("private_head.gaussian_scale", "epsilon", [*ABOVE_0, 1e7], ""),
    ("private_head.gaussian_scale", "delta", [*ABOVE_0, 1, 1e-15], ""),
    ("private_head.private_head", "inputs", [*ARRAY, np.ones(3), 9 * np.ones((2, 3))], "inputs|input"),
    ("private_head.private_head", "labels", LABELS, "label"),
    ("private_head.private_head", "n_classes", WHOLE, ""),
    ("private_head.private_head", "n", [*WHOLE, 1], ""),
    ("private_head.private_head", "bound", [*ABOVE_0, 0.1], ""),
    ("private_head.private_head", "share", [*ABOVE_0, 0.01], ""),
    ("private_head.private_head", "epsilon", [*ABOVE_0, 1e7], ""),
    ("private_head.private_head", "delta", [*ABOVE_0, 1, 1e-15], ""),
    ("private_head.private_head", "noise", [None, 3, "x", np.random.RandomState(0)], ""),
]
ANYTHING = {  # arguments without a row, and why
    "names.named.held": "the kit's own set or dict of uids",
    "names.owned_by.held": "the kit's own dict of owners",
    "costs.sizes_of.sizes": "what the costs are given",
    "names.request.uids": "checked by named",
    **{f"names.owner_counts.{name}": "a state's, or checked by costs" for name in ("owners", "clusters")},
    **{f"names.one_each.{name}": "checked for Samples" for name in ("name", "names", "n")},
    "names.keys_of.names": "those of Samples",
    "names.repeated.uids": "those of Samples",
    "hyperplanes.HyperplaneClusters.assign.keys": "this partition does not look at them",
    "hashed.HashClusters.assign.features": "this partition does not look at them",
    "hashed.HashClusters.votes.features": "this partition does not look at them",
    "hashed.SingleCluster.check.n_samples": "one cluster always makes sense",
    "hashing.described.part": "the kit's own parts, and see test_check_eraser",
    "hashing.code_of.kind": "a class",
    "hashing.code_of.skipped": "the kit's own",
    "samples.not_empty.name": "a word for the message",
    "samples.not_empty.samples": "Backbone.train's public",
    "pretraining.new_vit.arguments": "an entry of VITS",
    "timm_models.create_model.pretrained": "timm's",
    "timm_models.create_model.arguments": "timm's",
    "timm_models.create_model.name": "read_timm's",
    "timm_models.check_model.name": "check_backbone's",
    "methods.check_methods.known": "the kit's own table of names",
    "methods.check_methods.what": "a word for the message",
    **{f"unlearning_task.Part.{name}": "made by UnlearningTask.part" for name in ("inputs", "labels", "keys")},
    **{f"private_head.PublicMap.{name}": "made by PublicMap.of" for name in ("centre", "directions", "bound")},
    "unlearning_task.Part.batches.seed": "checked by minibatches",
    "unlearning_task.Part.batches.epoch": "checked by minibatches",
    **{
        f"unlearning_task.UnlearningTask.{name}": "what the methods hand on, of what UnlearningTask has made"
        for name in ("embed.parameters", "embed.inputs", "logits.parameters", "logits.inputs", "predict.parameters")
    },
    "unlearning_task.UnlearningTask.predict.part": "made by UnlearningTask.part",
    "unlearning_task.UnlearningTask.optimiser.parameters": "checked by optimiser_for",
    "unlearning_task.UnlearningTask.optimiser.share": "checked by optimiser_for",
}


def six(**changes):
    images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 1, 4, 4)
    return {
        "images": images,
        "labels": [0, 1, 2, 0, 1, 2],
        "uids": [f"s{i}" for i in range(6)],
        "n_classes": 3,
    } | changes


def packed(function, name):
    """A function that takes its ** arguments as one dict, like those of the table."""
    return lambda **given: function(**{k: v for k, v in given.items() if k != name}, **given[name])


def of_reconstruction():
    """The attacks with a head of three inputs and two classes, and two candidates."""
    attack, rng = reconstruction, np.random.default_rng(0)
    candidates, before, after = (rng.normal(size=shape) for shape in ((2, 3), (3, 2), (3, 2)))
    two = {"before": before, "after": after, "gram": np.eye(3)}
    asked, known = two | {"candidates": candidates}, {"candidates": candidates, "labels": [0, 1]}
    left_over = {"left_over": rng.normal(size=(2, 2))}
    return [
        (attack.public_gram, {"public": candidates, "n_samples": 5, "penalty": 1.0}),
        (attack.reconstruct, two),
        (attack.cosines, {"feature": np.ones(3), "candidates": candidates}),
        (attack.span_shares, asked | {"n_left": 1}),
        (attack.residuals, known | {"head": before, "cross_entropy": False}),
        (attack.matched_filter, asked | left_over),
        (attack.least_squares, asked | left_over | {"l2": 0.1}),
        (attack.attack_scores, two | known | {"n_left": 1, "cross_entropy": False}),
    ]


def of_private_heads():
    """Ridge heads of two samples with inputs of length 1 at most."""
    data = {"inputs": np.full((2, 3), 0.5), "labels": [0, 1], "n_classes": 2}
    budget = {"n": 10, "bound": 1.0, "share": 0.5, "epsilon": 1.0, "delta": 1e-5}
    return [
        (private_head.ridge_head, data | {"penalty": 1.0}),
        (private_head.sensitivity, {name: budget[name] for name in ("n", "bound", "share")}),
        (private_head.gaussian_scale, {"sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}),
        (private_head.private_head, data | budget | {"noise": np.random.default_rng(0)}),
    ]


@pytest.fixture(scope="module")
def calls(backbone, split, private, tmp_path_factory):
    """Every public function by its name in the table, with right arguments."""
    few, keys = Samples(**six()), Samples(**six()).keys
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    timed = [schedules.TimedRequest(0.0, 5.0, {0: 1}), schedules.TimedRequest(1.0, 3.0, {0: 1, 1: 2})]
    features, logits, labels = rng.normal(size=(6, 2)), rng.normal(size=(2, 3)), [0, 1]
    parts = {name: dict.fromkeys(distances.PARTS, value) for name, value in (("logits", logits), ("labels", labels))}
    shares = dict.fromkeys(["UA", "RA", "TA", "MIA"], 0.5)
    prototypes = HierarchicalClusters(2).fit(features, keys)
    tuned = LMEraser(backbone, SingleCluster(), Recipe(prompt="none", epochs=1), verbose=False).fit(private[:20])
    leaving = unlearning_task.UnlearningTask(tuned, private.uids[:4])
    runs = pd.DataFrame({"method": ["one head"] * 2, "n_clusters": 1, "seed": [0, 1], "accuracy": [0.5, 0.7]})
    weight = {"weight": torch.zeros(3, 2, requires_grad=True), "bias": torch.zeros(3, requires_grad=True)}
    rows, public = np.c_[features, np.eye(3)[[0, 1, 2, 0, 1, 2]]], split.public[:4]
    descent = torch.optim.SGD(list(weight.values()), lr=0.1)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8), torch.nn.Flatten())
    peers = {f"approximate.{f.__name__}": (f, {"task": leaving}) for f in approximate.APPROXIMATE.values()}
    for function, right in peers.values():
        right |= {"epochs": 1} if "epochs" in inspect.signature(function).parameters else {}
    return peers | {
        "samples.Samples": (Samples, six()),
        "samples.Samples[]": (lambda index: few[index], {"index": 3}),
        "samples.Samples+": (lambda other: few[:2] + other, {"other": few[2:]}),
        "samples.Samples.positions": (few.positions, {"uids": "s1"}),
        "samples.Samples.without": (few.without, {"uids": "s1"}),
        "samples.Samples.with_owners": (few.with_owners, {"owners": [*"aabbbc"]}),
        "samples.Samples.uids_of": (few.uids_of, {"owner": "s1"}),
        "samples.concatenate": (samples.concatenate, {"parts": [few]}),
        "names.named": (names.named, {"uids": "s1", "held": set(few.uids.tolist())}),
        "names.request": (names.request, {"uids": None, "owner": "anna"}),
        "names.owned_by": (names.owned_by, {"owner": "s1", "held": {"s1": "s1"}}),
        "commitments.commitment_of": (commitments.commitment_of, {"kind": "owner", "name": "anna", "salt": "00"}),
        "commitments.opens": (commitments.opens, {"commitment": "ab", "owner": "anna", "salt": "00"}),
        "samples.class_labels": (samples.class_labels, {"labels": [0, 1], "n": 2, "n_classes": 2}),
        "hashing.digest": (lambda parts: hashing.digest(parts), {"parts": b"a"}),
        "hashing.keyed_uniform": (hashing.keyed_uniform, {"purpose": "a", "seed": 3, "keys": keys, "epoch": 1}),
        "hierarchical.HierarchicalClusters": (lambda **changes: HierarchicalClusters(**changes).check(100), {}),
        "hierarchical.HierarchicalClusters.check": (HierarchicalClusters(2).check, {"n_samples": 9}),
        "hierarchical.HierarchicalClusters.fit": (HierarchicalClusters(2).fit, {"features": features, "keys": keys}),
        "hierarchical.HierarchicalClusters.assign": (prototypes.assign, {"features": features, "keys": keys}),
        "hierarchical.HierarchicalClusters.published": (
            lambda n_clusters: HierarchicalClusters.published(n_clusters).check(100),
            {"n_clusters": 3},
        ),
        "hierarchical.HierarchicalClusters.codes": (
            prototypes.codes,
            {"features": features, "keys": keys, "assigned": np.zeros(6, int)},
        ),
        "hierarchical.HierarchicalClusters.votes": (
            prototypes.votes,
            {"features": features, "available": np.array([1])},
        ),
        "hyperplanes.HyperplaneClusters": (lambda **changes: HyperplaneClusters(**changes).check(100), {}),
        "hyperplanes.HyperplaneClusters.check": (HyperplaneClusters().check, {"n_samples": 9}),
        "hyperplanes.HyperplaneClusters.assign": (HyperplaneClusters().assign, {"features": features, "keys": None}),
        "hyperplanes.HyperplaneClusters.votes": (
            HyperplaneClusters().votes,
            {"features": features, "available": np.array([1])},
        ),
        "hashed.HashClusters": (lambda **changes: HashClusters(**changes).check(100), {}),
        "hashed.HashClusters.check": (HashClusters(2).check, {"n_samples": 9}),
        "hashed.HashClusters.assign": (HashClusters().assign, {"features": None, "keys": keys}),
        "hashed.HashClusters.votes": (HashClusters().votes, {"features": None, "available": np.array([1])}),
        "recipe.Recipe": (Recipe, {}),
        "recipe.Recipe.published": (packed(Recipe.published, "changes"), {"changes": {"epochs": 3}}),
        "recipe.Recipe.batch_of": (Recipe().batch_of, {"n": 3}),
        "recipe.Recipe.slices_of": (Recipe(slices=3).slices_of, {"keys": keys, "seed": 3}),
        "recipe.Recipe.mask": (Recipe(prompt="random-patch").mask, {"size": 16, "seed": 3}),
        "recipe.named_recipe": (packed(recipe.named_recipe, "changes"), {"name": "default", "changes": {}}),
        "recipe.optimiser_for": (recipe.optimiser_for, {"recipe": Recipe(), "parameters": weight, "share": 1.0}),
        "prompts.prompt_mask": (prompts.prompt_mask, {"kind": "random-patch", "share": 0.2, "size": 16, "seed": 3}),
        "prompts.prompt_canvas": (prompts.prompt_canvas, {"prompt": torch.ones(3, 10), "mask": np.tri(4, 4, 0) > 0}),
        "costs.expected_request_cost": (costs.expected_request_cost, {"sizes": [7, 1, 4, 2], "epochs": 3}),
        "costs.expected_batch_cost": (costs.expected_batch_cost, {"sizes": [7, 1, 4, 2], "n_requests": 3}),
        "costs.expected_clusters_touched": (costs.expected_clusters_touched, {"sizes": [7, 1], "n_requests": 0.5}),
        "costs.slice_cost_share": (costs.slice_cost_share, {"slices": 3}),
        "schedules.TimedRequest": (schedules.TimedRequest, {"arrival": 0.5, "deadline": 3.0, "leaving": {0: 1}}),
        "schedules.at_once": (schedules.at_once, {"requests": timed}),
        "schedules.in_periods": (schedules.in_periods, {"requests": timed, "days": 7.0}),
        "schedules.at_latest": (
            schedules.at_latest,
            {"requests": timed, "sizes": {0: 5, 1: 4}, "wait": 9.0, "along": 0.5},
        ),
        "schedules.schedule_cost": (
            schedules.schedule_cost,
            {"requests": timed, "times": [1.0, 2.0], "sizes": {0: 5, 1: 4}},
        ),
        "schedules.least_cost": (schedules.least_cost, {"requests": timed, "sizes": {0: 5, 1: 4}}),
        "schedules.cheapest": (schedules.cheapest, {"requests": timed, "sizes": {0: 5, 1: 4}}),
        "schedules.waiting_curve": (
            schedules.waiting_curve,
            {"requests": timed, "sizes": {0: 5, 1: 4}, "waits": [0.0, 2.0]},
        ),
        "schedules.expected_waiting_cost": (
            schedules.expected_waiting_cost,
            {"sizes": {0: 5, 1: 4}, "rate": 2.0, "wait": 1.0, "shares": [0.5, 0.5]},
        ),
        "schedules.stream_of_owners": (
            schedules.stream_of_owners,
            {"owners": ["a", "a", "b"], "clusters": [0, 1, 1], "n_requests": 2, "days": 9.0, "within": 3.0}
            | {"bursts": 1, "seed": 3},
        ),
        "costs.poisson_stream": (costs.poisson_stream, {"uids": ["a", "b"], "rate": 1.0, "seed": 3}),
        "costs.in_windows": (costs.in_windows, {"stream": costs.poisson_stream("ab", 1.0, 3), "width": 2.0}),
        "costs.cost_factors": (costs.cost_factors, {"sizes": [7, 1]}),
        "costs.ci95": (costs.ci95, {"values": [0.5, 0.7]}),
        "costs.summarise": (costs.summarise, {"frame": runs, "by": ["method"], "values": ["accuracy"]}),
        "costs.against_undivided": (costs.against_undivided, {"frame": runs}),
        "costs.readable": (costs.readable, {"table": costs.summarise(runs, ["method"], ["accuracy"])}),
        "distances.accuracy": (distances.accuracy, {"logits": logits, "labels": labels}),
        "distances.accuracies": (distances.accuracies, parts),
        "distances.compare": (
            distances.compare,
            {"unlearned": parts["logits"], "retrained": parts["logits"], "labels": parts["labels"]},
        ),
        "distances.average_gap": (distances.average_gap, {"unlearned": shares, "retrained": shares}),
        "distances.tug_of_war": (distances.tug_of_war, {"unlearned": shares, "retrained": shares}),
        "distances.kl_divergence": (distances.kl_divergence, {"retrained": logits, "unlearned": logits}),
        "distances.total_variation": (distances.total_variation, {"retrained": logits, "unlearned": logits}),
        "distances.cross_entropy": (distances.cross_entropy, {"logits": logits, "labels": labels}),
        "distances.margin": (distances.margin, {"logits": logits, "labels": labels}),
        "distances.klom": (distances.klom, {"unlearned": logits, "retrained": logits, "bins": 4}),
        "minibatches.warmup_cosine": (minibatches.warmup_cosine, {"step": 3, "total": 10, "warmup": 0.2}),
        "minibatches.augment": (minibatches.augment, {"views": torch.zeros(2, 3, 8, 8), "draws": np.zeros((2, 5))}),
        "minibatches.minibatches": (
            lambda **arguments: list(minibatches.minibatches(**arguments)),
            {"keys": keys, "seed": 3, "epoch": 0, "batch_size": 2},
        ),
        "minibatches.train": (
            minibatches.train,
            {"loss_of": lambda rows, draws: 0 * weight["weight"].sum() + draws.mean(), "optimiser": descent,
             "keys": keys, "epochs": [0], "batch_size": 2, "seed": 3, "warmup": 0.2},
        ),
        "copies.pixel_keys": (copies.pixel_keys, {"images": few.images}),
        "copies.perceptual_hashes": (copies.perceptual_hashes, {"images": few.images}),
        "copies.views": (copies.views, {"images": few.images}),
        "copies.public_twins": (copies.public_twins, {"private": few, "public": few}),
        "copies.guessed_kind": (copies.guessed_kind, {"image": few.images[0], "other": few.images[1]}),
        "copies.altered": (copies.altered, {"samples": few, "kind": "mirrored", "seed": 3}),
        "datasets.Split": (datasets.Split, {"public": few, "private": few, "test": few, "name": "six"}),
        "datasets.Split.take": (split.take, {"public": 2}),
        "datasets.dataset_names": (datasets.dataset_names, {"root": root}),
        "datasets.check_dataset": (datasets.check_dataset, {"name": "digits", "root": root}),
        "owners.invented_owners": (owners.invented_owners, {"samples": few}),
        "owner_costs.owner_request_cost": (
            owner_costs.owner_request_cost, {"owners": [*"aabbbc"], "clusters": [0, 1, 0, 1, 2, 2]}
        ),
        "owner_costs.placed_owner_cost": (owner_costs.placed_owner_cost, {"owner_sizes": [2, 3], "n_clusters": 4}),
        "owner_costs.spread_owner_cost": (owner_costs.spread_owner_cost, {"owner_sizes": [2, 3], "sizes": [1, 4]}),
        "datasets.load_dataset": (datasets.load_dataset, {"name": "digits", "seed": 3, "root": root, "limits": []}),
        "named.backbone_for": (
            named.backbone_for,
            {"name": "small-vit", "public": public, "epochs": 0, "root": root},
        ),
        "timm_models.timm_name": (timm_models.timm_name, {"name": "test_vit@96"}),
        "named.check_backbone": (named.check_backbone, {"name": "small-vit"}),
        "named.untrained": (named.untrained, {"name": "small-vit", "seed": 3}),
        "backbone.Backbone.from_timm": (Backbone.from_timm, {"name": "test_vit", "pretrained": False}),
        "backbone.Backbone.from_module": (Backbone.from_module, {"module": net, "size": 8, "stages": ["0"]}),
        "timm_models.read_timm": (
            packed(timm_models.read_timm, "arguments"),
            {"name": "test_vit", "pretrained": False, "arguments": {}},
        ),
        "pretraining.pretrain_vit": (
            packed(pretraining.pretrain_vit, "arguments"),
            {"public": public, "epochs": 0, "seed": 3, "arguments": TINY},
        ),
        "methods.build_method": (
            packed(methods.build_method, "options"),
            {"name": "lmeraser", "backbone": backbone, "n_clusters": 4, "recipe": Recipe(), "options": {"seed": 3}},
        ),
        "methods.check_methods": (methods.check_methods, {"names": ["lmeraser"]}),
        "methods.linear_probe": (
            methods.linear_probe,
            {"features": features[:4], "labels": [0, 1, 1, 0], "test_features": features[4:]},
        ),
        "unlearning_task.UnlearningTask": (unlearning_task.UnlearningTask, {"eraser": tuned, "uids": []}),
        "unlearning_task.UnlearningTask.part": (leaving.part, {"samples": private[:2]}),
        "approximate.unlearn": (
            packed(approximate.unlearn, "options"),
            {"name": "fine-tune", "task": leaving, "strength": 1.0, "options": {"epochs": 1}},
        ),
        "approximate.relearn_steps": (
            approximate.relearn_steps,
            {"task": leaving, "parameters": leaving.start, "accuracy": 0.0, "most": 3},
        ),
        "ridge.with_one": (ridge.with_one, {"features": features}),
        "ridge.sums": (ridge.sums, {"rows": rows, "inputs": 2}),
        "ridge.head_from_sums": (ridge.head_from_sums, {"total": ridge.sums(rows, 2), "l2": 0.4}),
        "ridge.factor": (ridge.factor, {"system": np.eye(3), "penalty": 1.0}),
        "ridge.solve": (ridge.solve, {"cholesky": np.eye(3), "right": np.ones((3, 2))}),
        "ridge.probabilities": (ridge.probabilities, {"scores": np.ones((3, 2))}),
        "ridge.head_from_rows": (ridge.head_from_rows, {"rows": rows, "inputs": 2, "l2": 0.4}),
        **{f"reconstruction.{f.__name__}": (f, right) for f, right in of_reconstruction()},
        "private_head.PublicMap.of": (private_head.PublicMap.of, {"public": features, "n_directions": 2}),
        **{f"private_head.{f.__name__}": (f, right) for f, right in of_private_heads()},
    }  # fmt: skip


def test_right_arguments_are_taken(calls):
    for function, right in calls.values():
        function(**right)


@pytest.mark.parametrize("function, argument, values, says", TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_a_wrong_argument_is_one_clear_error(function, argument, values, says, calls):
    call, right = calls[function]
    for wrong in values:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                call(**right | {argument: wrong})
            except Exception as error:
                home, text = traceback.extract_tb(error.__traceback__)[-1].filename, f"{wrong!r}: {error!r}"
                assert isinstance(error, ValueError) and home.startswith(KIT), f"not the kit's own error: {text}"
                assert any(words in str(error) for words in (says or argument).split("|")), text
            else:
                pytest.fail(f"{argument}={wrong!r} was taken")


def test_every_argument_has_a_row():
    rows, missing = {f"{function}.{argument}" for function, argument, *_ in TABLE}, []
    for module in MODULES:
        home = module.__name__.rpartition(".")[2]
        for name, thing in public_members(module).items():
            for parameter in inspect.signature(thing).parameters.values():
                missing.append(f"{home}.{name}.{parameter.name}")
    missing = [argument for argument in missing if not argument.endswith(".self")]
    assert [argument for argument in missing if argument not in rows | ANYTHING.keys()] == []
    assert not rows & ANYTHING.keys() and ANYTHING.keys() <= set(missing) | {"samples.class_labels.n"}


def public_members(module):
    """The functions and classes of a module that have names for users, and these classes' methods."""
    members = {}
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__ or not callable(thing):
            continue
        members[name] = thing
        methods = vars(thing).items() if inspect.isclass(thing) else ()
        for method, function in methods:
            if not method.startswith("_") and (inspect.isfunction(function) or isinstance(function, classmethod)):
                members[f"{name}.{method}"] = getattr(thing, method)
    return members


# (function, argument, unusual values that are right, the plain value that they mean)
SEEDED = [function for function, argument, *_ in TABLE if argument == "seed"]
UNUSUAL = [
    *((function, "seed", [np.int64(3), np.int32(3)][: 1 + ("train" not in function)], 3) for function in SEEDED),
    ("samples.Samples", "labels", [[0.0, 1, 2] * 2, [*"012012"], [[0], [1], [2]] * 2, np.array([0, 1, 2] * 2, object)],
     [0, 1, 2] * 2),
    ("samples.Samples", "labels", [torch.tensor([0, 1, 2] * 2), pd.Series([0, 1, 2] * 2), pd.Categorical([*"012012"])],
     [0, 1, 2] * 2),
    ("samples.class_labels", "labels", [[True, False], np.array([True, False]), [np.uint8(1), " 0"]], [1, 0]),
    ("samples.Samples", "uids", [[*"012345"], np.arange(6), pd.Series(range(6)), iter(range(6)), np.arange(6)[None]],
     [0, 1, 2, 3, 4, 5]),
    ("samples.Samples", "images", [torch.tensor(six()["images"]), six()["images"][:]], six()["images"]),
    ("samples.Samples", "n_classes", [np.int64(3), None], 3),
    ("samples.Samples[]", "index", [np.int64(3), [3], np.array([-3]), slice(3, 4), np.arange(6) == 3], 3),
    ("names.named", "uids", [["s1"], ("s1",), {"s1"}, np.array("s1"), np.array([["s1"]]), pd.Index(["s1"])], "s1"),
    ("names.named", "uids", [iter(["s1"]), {"s1": 3}.keys(), np.str_("s1"), Samples(**six())[1]], "s1"),
    ("hashing.keyed_uniform", "epoch", [np.int32(2)], 2),
    ("hierarchical.HierarchicalClusters.check", "n_samples", [np.int64(9)], 9),
    ("recipe.Recipe", "epochs", [3.0, np.int64(3), np.float32(3)], 3),
    ("recipe.Recipe", "head_lr", [1, np.float64(1), np.int8(1)], 1.0),
    ("recipe.Recipe", "flip", [np.bool_(True)], True),
    ("recipe.Recipe.mask", "size", [np.int64(16)], 16),
    ("costs.cost_factors", "sizes", [(7, 1), {0: 7, 4: 1}, [7.0, 1.0], pd.Series([7, 1]), iter([7, 1])], [7, 1]),
    ("costs.expected_batch_cost", "n_requests", [np.int64(2)], 2),
    ("costs.slice_cost_share", "slices", [np.int64(3), 3.0], 3),
    ("costs.ci95", "values", [(0.0, 1.0), [False, True], np.array([0, 1]), pd.Series([0, 1])], [0.0, 1.0]),
    ("costs.ci95", "values", [[0.5, None, 0.7], [INF, 1.0], [], [1.0]], [NAN, 1.0]),
    ("costs.summarise", "by", ["method", ("method",), {"method": 1}], ["method"]),
    ("costs.poisson_stream", "rate", [2, np.float32(2)], 2.0),
    ("distances.accuracy", "labels", [[1.0, 2.0], ["1", "2"], [[1], [2]], np.uint8([1, 2])], [1, 2]),
    ("datasets.load_dataset", "limits", [(5, 0, 5), np.array([5, 0, 5]), iter([5, 0, 5])], [5, 0, 5]),
    ("datasets.load_dataset", "limits", [None, (), [0, 0, 0]], []),
    ("prompts.prompt_mask", "share", [1, np.int64(1)], 1.0),
    ("minibatches.minibatches", "batch_size", [np.int64(2)], 2),
    ("pretraining.pretrain_vit", "epochs", [np.int64(0)], 0),
    ("methods.linear_probe", "labels", [["0", "1", "1", "0"], [False, True, True, False]], [0, 1, 1, 0]),
]  # fmt: skip


@pytest.mark.parametrize("function, argument, unusual, plain", UNUSUAL)
def test_unusual_values_mean_the_plain_one(function, argument, unusual, plain, calls):
    call, right = calls[function]
    expected = contents(call(**right | {argument: plain}))
    for value in unusual:
        assert contents(call(**right | {argument: value})) == expected, repr(value)


def contents(result):
    """What can be compared of a result."""
    if isinstance(result, Samples):
        return contents([result.images, result.labels, result.uids, result.n_classes])
    if isinstance(result, datasets.Split):
        return result.digest
    if isinstance(result, Backbone):
        return result.fingerprint
    if isinstance(result, LMEraser):
        return result.seed
    if isinstance(result, pd.DataFrame):
        return result.to_json()
    if isinstance(result, (list, tuple)):
        return [contents(part) for part in result]
    return (result.dtype, result.shape, result.tobytes()) if isinstance(result, np.ndarray) else repr(result)


# --- what no row of a table says


def test_a_partition_is_described_by_its_parameters_alone():
    described = hierarchical.described
    plain, features = HierarchicalClusters(5, softness=0.2), np.random.default_rng(0).normal(size=(9, 2))
    assert described(plain) == described(HierarchicalClusters(np.int64(5), softness=0.2, fit_on=np.str_("public")))
    others = [HierarchicalClusters(5), HierarchicalClusters(6, softness=0.2), HashClusters(5), SingleCluster()]
    assert len({described(one) for one in [plain, *others]}) == 5
    keys = np.arange(9, dtype=np.uint64)
    before = [one.pieces() for one in (plain.fit(features, keys), HashClusters(5), HyperplaneClusters(3))]
    with sklearn.config_context(print_changed_only=False):
        assert before == [one.pieces() for one in (plain, HashClusters(5), HyperplaneClusters(3))]
    long = [HierarchicalClusters(8, fit_on="x" * 2000 + end) for end in "ab"]  # repr abbreviates them
    assert described(long[0]) != described(long[1])
    with pytest.raises(ValueError, match="a parameter that is no number, text, True, False, None or list"):
        described(HierarchicalClusters(8, softness=NAN))


def test_memory_for_clustering_is_looked_for_first(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 4 * 10**9}))
    with pytest.raises(
        ValueError,
        match=r"fit_size is 30000: clustering 30000 .* 7.2 GB .* 4.0 GB .* that fits is 22360; with neighbors=20",
    ):
        HierarchicalClusters(8, fit_size=30_000).check(40_000)
    with pytest.warns(UserWarning, match=r"fit_size is 20000: clustering 20000 samples takes 3.2 GB of memory"):
        HierarchicalClusters(8, fit_size=20_000).check(40_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HierarchicalClusters(8, fit_size=10**6).check(10_000)  # there are no more
        HierarchicalClusters(8, fit_size=np.int32(10**6), neighbors=20).check(10**6)  # it needs no pairs' distances
    with pytest.warns(UserWarning, match="22360"):
        HierarchicalClusters(8, fit_size=np.int32(22_360)).check(40_000)


def test_samples_are_one_after_another_and_know_their_uids():
    few = Samples(**six())
    assert [part.uids[0] for part in few] == few.uids.tolist()
    assert "s3" in few and "s6" not in few


def test_what_has_probability_0_adds_nothing_to_the_divergence():
    p, q = np.log([[0.5, 0.5, 1e-300]]), np.log([[0.25, 0.75, 1e-300]])
    p[0, 2] = q[0, 2] = -INF
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = distances.kl_divergence(p, q)
    assert found == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_methods_that_change_heads_take_no_others(backbone, private, calls):
    few = private[:9]
    sliced = LMEraser(backbone, SingleCluster(), Recipe(prompt="none", epochs=1, slices=2), verbose=False).fit(few)
    ridge = RidgeEraser(backbone, SingleCluster(), verbose=False).fit(few)
    for eraser, message in ((sliced, "2 slices"), (ridge, "is RidgeEraser"), (LMEraser(backbone), "a fitted LMEraser")):
        with pytest.raises(ValueError, match=message):
            unlearning_task.UnlearningTask(eraser, [])
    eraser = calls["unlearning_task.UnlearningTask"][1]["eraser"]
    for uids, message in (([], "forget set is empty"), (private[:20], "retain set is empty")):
        with pytest.raises(ValueError, match=message):
            approximate.unlearn("fine-tune", unlearning_task.UnlearningTask(eraser, uids))
