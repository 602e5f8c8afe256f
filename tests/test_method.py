"""Clustering, prompts, tuning, and the estimator, each on its own."""

import pickle
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from sklearn.base import clone

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
    figures,
    load_dataset,
    tune_cluster,
)
from lmeraser_kit.backbones.backbone import FEATURE_BATCH
from lmeraser_kit.baselines.methods import METHODS, build_method
from lmeraser_kit.learners import public_start, ridge
from lmeraser_kit.learners.prompts import PROMPTS, prompt_canvas, prompt_mask
from lmeraser_kit.learners.recipe import named_recipe

# --- clustering


def test_prototypes_are_the_means_of_average_linkage_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10, 0], [0, 10]])
    points = np.concatenate([c + rng.normal(size=(20, 2)) for c in centres]).astype(np.float32)
    keys = rng.integers(0, 2**63, 60).astype(np.uint64)
    as_published = {"linkage": "average", "unit_length": False}
    routing = HierarchicalClusters(3, **as_published).fit(points, keys)
    expected = sorted(points[20 * k : 20 * k + 20].mean(axis=0).tolist() for k in range(3))
    np.testing.assert_allclose(sorted(routing.prototypes_.tolist()), expected, rtol=1e-5)
    assigned = routing.assign(points, keys)
    assert all(len(set(assigned[20 * k : 20 * k + 20])) == 1 for k in range(3)) and len(set(assigned)) == 3
    by_threshold = HierarchicalClusters(distance_threshold=6.0, **as_published).fit(points, keys)
    assert len(by_threshold.prototypes_) == len(set(fcluster(scipy_linkage(points, "average"), 6.0, "distance")))


def test_the_order_of_arrival_does_not_matter_to_routing(backbone, split):
    features, keys = backbone.features(split.public.images[:200]), split.public.keys[:200]
    order = np.random.default_rng(1).permutation(200)
    one = HierarchicalClusters(6, fit_size=150).fit(features, keys)
    other = HierarchicalClusters(6, fit_size=150).fit(features[order], keys[order])
    assert one.pieces() == other.pieces()
    assert one.pieces() != HierarchicalClusters(6, fit_size=140).fit(features, keys).pieces()


def test_votes_are_weights_over_the_clusters_that_have_a_model():
    routing = HierarchicalClusters(3, unit_length=False)
    routing.prototypes_ = np.array([[0.0], [1.0], [5.0]])
    features = np.array([[0.9], [0.1], [4.0]])
    np.testing.assert_array_equal(routing.votes(features, np.array([0, 2])), [[1, 0], [1, 0], [0, 1]])
    routing.bound = 9  # clusters 4 and 7 are parts of cluster 1
    np.testing.assert_array_equal(routing.votes(features, np.array([4, 7, 2])), [[0.5, 0.5, 0]] * 2 + [[0, 0, 1]])
    signs = HyperplaneClusters(3).assign(points := np.random.default_rng(0).standard_normal((50, 4)), None)
    np.testing.assert_array_equal(HyperplaneClusters(3).votes(points, np.arange(8)).argmax(axis=1), signs)
    near = HyperplaneClusters(3).votes(points, np.array([0, 7])).argmax(axis=1)
    np.testing.assert_array_equal(near, np.bitwise_count(signs) > 1)
    np.testing.assert_array_equal(HashClusters(4).votes(None, np.array([1, 3])), [[0.5, 0.5]])


def test_soft_votes_fall_with_the_distance_and_reach_the_nearest_few():
    rng = np.random.default_rng(0)
    points, keys = rng.normal(size=(60, 4)), np.arange(60, dtype=np.uint64)
    hard = HierarchicalClusters(5, unit_length=False).fit(points, keys)
    soft = HierarchicalClusters(5, softness=0.5, unit_length=False).fit(points, keys)
    few = HierarchicalClusters(5, softness=0.5, n_votes=2, unit_length=False).fit(points, keys)
    available = np.array([0, 1, 3, 4])
    distances = ((points[:, None] - soft.prototypes_[available]) ** 2).sum(axis=2)
    nearest, votes = distances.argmin(axis=1), soft.votes(points, available)
    farther = np.log(votes[:, :1] / votes) * soft.spread_ * 0.5
    np.testing.assert_allclose(farther, distances - distances[:, :1], atol=1e-9)
    np.testing.assert_allclose(votes.sum(axis=1), 1)
    np.testing.assert_array_equal(votes.argmax(axis=1), nearest)
    np.testing.assert_array_equal((few.votes(points, available) > 0).sum(axis=1), 2)
    np.testing.assert_array_equal(hard.votes(points, available).argmax(axis=1), nearest)
    np.testing.assert_array_equal(soft.assign(points, keys), hard.assign(points, keys))  # members are the same


def test_default_clusters_are_even_and_cost_what_was_asked(split, backbone):
    found, features = backbone.features(split.public.images), backbone.features(split.private.images)
    for k in (8, 32):
        routing = HierarchicalClusters(k).fit(found, split.public.keys)
        sizes = np.bincount(routing.assign(features, split.private.keys), minlength=k)
        assert len(sizes) == k and len(features) ** 2 / np.square(sizes).sum() > k / 2
        alone = HierarchicalClusters(k, neighbors=30).fit(found, split.public.keys)  # memory grows with N
        sizes = np.bincount(alone.assign(features, split.private.keys), minlength=k)
        assert len(sizes) == k and len(features) ** 2 / np.square(sizes).sum() > k / 2
    asked = HierarchicalClusters(cost_factor=20).fit(found, split.public.keys)
    fewer = HierarchicalClusters(len(asked.counts_) - 1).fit(found, split.public.keys)
    factors = [one.counts_.sum() ** 2 / np.square(one.counts_).sum() for one in (asked, fewer)]
    assert factors[0] >= 20 > factors[1]
    whole = HierarchicalClusters(8).fit(found, split.public.keys)
    points = np.rint(2.0**14 * found / np.linalg.norm(found.astype(float), axis=1, keepdims=True))
    labels = fcluster(scipy_linkage(points, "ward"), 8, "maxclust")
    expected = sorted(np.rint(points[labels == k].mean(axis=0)).tolist() for k in range(1, 9))
    assert sorted(whole.prototypes_.tolist()) == expected
    published = HierarchicalClusters.published(8)
    assert (published.linkage, published.fit_on, published.fit_size, published.exact) == (
        *("average", "private-once", 1000),
        False,
    )


def test_shards_are_even_and_belong_to_the_uid(split):
    shards = HashClusters(4).assign(None, split.private.keys)
    np.testing.assert_array_equal(HashClusters(4).assign(None, split.private.keys[::-1])[::-1], shards)
    for seed in range(4):  # whichever seed has split the data: a shard is no part of a part
        private = load_dataset("digits", seed=seed).private
        assert np.bincount(HashClusters(8).assign(None, private.keys), minlength=8).min() > len(private) / 8 * 0.6


# --- prompts


@pytest.mark.parametrize(
    "kind, pixels", [("frame", 224**2 - 164**2), ("patch", 900), ("random-patch", 900), ("none", 0)]
)
def test_prompt_masks_cover_what_they_say(kind, pixels):
    mask = prompt_mask(kind, 30 / 224, 224, seed=1)
    assert mask.sum() == pixels and mask.shape == (224, 224)
    if kind == "frame":
        assert 3 * mask.sum() == 69_840  # the published frame
        assert not mask[30:194, 30:194].any() and mask[:30].all() and mask[:, -30:].all()
    canvas = prompt_canvas(torch.ones(3, int(mask.sum())), mask)
    np.testing.assert_array_equal(canvas[2].numpy(), mask.astype(np.float32))


def test_gradients_reach_the_prompt_and_nothing_else(backbone, split):
    mask = prompt_mask("frame", 0.2, backbone.size)
    prompt = torch.zeros(3, int(mask.sum()), requires_grad=True)
    backbone(backbone.views(split.private.images[:4]) + prompt_canvas(prompt, mask)).square().sum().backward()
    assert (prompt.grad.abs() > 0).float().mean() > 0.9
    assert all(p.grad is None for p in backbone.model.parameters())


# --- tuning


def test_tuning_lowers_the_loss_and_a_prompt_is_learnt(backbone, private):
    recipe = Recipe(epochs=5, batch_size=16, head_start="zero", head_lr=1.0)
    model = tune_cluster(backbone, private, recipe, seed=0)
    assert model.arrays["losses"][-1] < 0.6 * model.arrays["losses"][0] and model.arrays["losses"].shape == (5,)
    assert np.abs(model.arrays["prompt"]).max() > 0 and model.n_samples == len(private)
    assert tune_cluster(backbone, private, Recipe(epochs=1, prompt="none"), seed=0).arrays["prompt"].shape == (3, 0)


def test_tuning_is_a_pure_function(backbone, private):
    recipe = Recipe(epochs=2, shift=0.1, flip=True, prompt_std=0.5)
    one = tune_cluster(backbone, private, recipe, seed=4)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    tune_cluster(backbone, private[:30], recipe, seed=8)  # what came before leaves no trace
    shuffled = private[np.random.default_rng(0).permutation(len(private))]
    assert tune_cluster(backbone, shuffled, recipe, seed=4).digest == one.digest
    assert tune_cluster(backbone, private, recipe, seed=5).digest != one.digest


def test_the_address_covers_everything_the_model_is_a_function_of(backbone, private):
    part = private[:5]
    relabelled = Samples(part.images, (part.labels + 1) % 10, part.uids, 10)
    renamed = Samples(part.images, part.labels, [f"other-{u}" for u in part.uids], 10)
    recipe = Recipe(epochs=1)
    arguments = [
        (part, recipe, 0),
        (part[:4], recipe, 0),
        (relabelled, recipe, 0),
        (renamed, recipe, 0),
        (part, Recipe(epochs=2), 0),
        (part, recipe, 1),
    ]
    assert len({tune_cluster(backbone, *a).address for a in arguments}) == len(arguments)


def test_a_rate_that_is_too_high_is_named(backbone, private):
    with pytest.raises(FloatingPointError, match="lower prompt_lr"):
        tune_cluster(backbone, private, Recipe(epochs=3, optimiser="sgd", head_lr=1e30), seed=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "ring"},
        {"epochs": 0},
        {"epochs": "5"},
        {"batch_size": 0},
        {"prompt_lr": -1},
        {"head_lr": float("nan")},
        {"prompt_size": 0},
        {"momentum": 1},
    ],
)
def test_bad_recipes_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)) + r"|unknown prompt 'ring'; one of: frame"):
        Recipe(**bad)


# --- the estimator


def test_it_is_a_scikit_learn_estimator(make_eraser, private, split):
    eraser = make_eraser()
    copy = clone(eraser)
    assert copy.backbone is eraser.backbone and copy.get_params()["recipe"] == eraser.recipe
    assert "HierarchicalClusters(n_clusters=5)" in repr(eraser).replace("\n", "")
    assert eraser.fit(private, public=split.public) is eraser
    assert not hasattr(eraser.clusters, "prototypes_")  # arguments stay as they were given


def test_prediction_mixes_clusters_as_if_each_were_alone(make_eraser, private, split, backbone):
    eraser = make_eraser().fit(private, public=split.public)
    test = split.test[:90]
    probabilities = eraser.predict_proba(test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    nearest = eraser.state_.routing.assign(backbone.features(test.images), test.keys)
    mask = eraser.recipe.mask(backbone.size, 0)
    for k in np.unique(nearest):
        model, rows = eraser.state_.models[k], nearest == k
        canvas = prompt_canvas(torch.tensor(model.arrays["prompt"]), mask)
        features = backbone(backbone.views(test.images[rows]) + canvas).numpy()
        logits = torch.from_numpy(features @ model.arrays["weight"].T + model.arrays["bias"])
        np.testing.assert_allclose(probabilities[rows], logits.softmax(1), atol=1e-5)
    assert eraser.score(test) == (eraser.predict(test.images) == test.labels).mean()


def test_bad_images_are_refused_at_prediction(make_eraser, private, split):
    eraser = make_eraser(SingleCluster(), recipe={"epochs": 1}).fit(private[:20])
    for bad, message in ((np.full((2, 1, 8, 8), np.nan), "NaN"), (np.zeros((2, 8, 8), np.uint8), r"\(N, C, H, W\)")):
        with pytest.raises(ValueError, match=message):
            eraser.predict(bad)


def test_shards_vote_with_their_mean_probability(make_eraser, private, split):
    eraser = make_eraser(HashClusters(3)).fit(private)
    mean = np.zeros((20, 10))
    for k, model in eraser.state_.models.items():
        alone = make_eraser(SingleCluster()).fit(private[HashClusters(3).assign(None, private.keys) == k])
        assert alone.state_.models[0].digest == model.digest
        mean += alone.predict_proba(split.test[:20]) / 3
    np.testing.assert_allclose(eraser.predict_proba(split.test[:20]), mean, atol=1e-6)


def test_clusters_start_from_what_public_samples_have_given(backbone, private, split, make_eraser, tmp_path):
    recipe = Recipe(epochs=1, prompt_lr=0.01)
    started = public_start(backbone, split.public[:60], recipe, seed=5)
    learnt = tune_cluster(backbone, split.public[:60], recipe, seed=5).arrays
    still = replace(recipe, head_start="public", prompt_lr=0.0, head_lr=0.0)
    for part in (private[:9], private[9:30]):  # nothing is tuned any more
        for name, array in tune_cluster(started, part, still, seed=0).arrays.items():
            assert name == "losses" or np.array_equal(array, learnt[name])
    moved = tune_cluster(started, private[:9], replace(recipe, head_start="public"), seed=0).arrays
    assert not np.array_equal(moved["prompt"], learnt["prompt"])
    other = public_start(backbone, split.public[:59], recipe, seed=5)
    assert (
        len({backbone.fingerprint, started.fingerprint, other.fingerprint}) == 3
    )  # all that is learnt has its address
    again = Backbone.load(started.save(tmp_path / "started.safetensors"))
    assert again.fingerprint == started.fingerprint == pickle.loads(pickle.dumps(started)).fingerprint
    np.testing.assert_array_equal(again.features(private.images[:4]), backbone.features(private.images[:4]))
    for bad, message in (
        (LMEraser(backbone, HashClusters(2), Recipe(head_start="public")), "has no start: public_start"),
        (LMEraser(started, HashClusters(2), Recipe(head_start="public", prompt="none")), r"expected \(3, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bad.fit(private[:20])
    few = Samples(private.images[:4], [0, 1, 2, 1], ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="start has 10 classes, the samples 3"):
        tune_cluster(started, few, replace(recipe, head_start="public"), seed=0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_by_name_learns(name, backbone_of, private, split):
    eraser = build_method(
        name, backbone_of(name), 4, Recipe(epochs=4, batch_size=16, head_lr=0.1), seed=0, verbose=False
    )
    assert eraser.fit(private, public=split.public).score(split.test) > 0.3  # chance is 0.1


@pytest.mark.parametrize(
    "clusters, recipe, passes",
    [
        (HierarchicalClusters(4), {}, 2),
        (HierarchicalClusters(4, softness=0.2), {}, 5),
        (HierarchicalClusters(4, softness=0.2, n_votes=2), {}, 3),
        (HierarchicalClusters(4, softness=0.2), {"prompt": "none"}, 1),
        (HashClusters(3), {}, 3),
        (HashClusters(3), {"prompt": "none"}, 1),
        (SingleCluster(), {}, 1),
    ],
)
def test_forward_passes_are_those_of_a_prediction(clusters, recipe, passes, make_eraser, private, split, monkeypatch):
    eraser = make_eraser(clusters, recipe={"epochs": 1, **recipe}).fit(private, public=split.public)
    call, seen = type(eraser.backbone).__call__, []
    monkeypatch.setattr(
        type(eraser.backbone), "__call__", lambda self, x, *layers: (seen.append(len(x)), call(self, x, *layers))[1]
    )
    eraser.predict(split.test[:FEATURE_BATCH])
    assert eraser.forward_passes() == passes == sum(seen) / FEATURE_BATCH


def test_a_head_may_start_from_its_closed_form(make_eraser, private, split):
    recipe = {"prompt": "none", "shift": 0.0, "head_lr": 0.0, "epochs": 1, "head_start": "ridge"}
    eraser = make_eraser(SingleCluster(), recipe=recipe).fit(private)  # at rate 0 it stays there
    x = ridge.with_one(eraser.backbone.features(private.images))
    expected = ridge.head_from_rows(np.c_[x, np.eye(10)[private.labels]], x.shape[1])
    np.testing.assert_allclose(eraser.state_.models[0].arrays["weight"], 5 * expected[:-1].T, rtol=1e-5, atol=1e-6)
    eraser.verify()
    with pytest.raises(ValueError, match="head_start is 'rigde', expected one of: zero, ridge, public"):
        Recipe(head_start="rigde")
    with pytest.raises(ValueError, match="name is 'publised', expected one of: default, published"):
        named_recipe("publised")
    assert named_recipe("published", epochs=3) == Recipe.published(epochs=3)


def test_joblib_chooses_where_clusters_are_tuned(make_eraser, private, split):
    expected = make_eraser().fit(private, public=split.public).state_hash()
    with joblib.parallel_config("threading", n_jobs=2):
        assert make_eraser().fit(private, public=split.public).state_hash() == expected


def test_bad_fits_are_refused_before_they_cost_time(make_eraser, private, split, monkeypatch):
    monkeypatch.setattr("lmeraser_kit.unlearning.rebuild.learn_cluster", lambda *a: pytest.fail("it began to tune"))
    cases = [
        (make_eraser(HierarchicalClusters(0)), "n_clusters is 0"),
        (make_eraser(HashClusters(0)), "n_clusters is 0"),
        (
            make_eraser(HierarchicalClusters(10**6)),
            f"1000000 clusters cannot be made of {len(split.public)} public samples",
        ),
        (
            make_eraser(HierarchicalClusters(121, fit_on="private")),
            "121 clusters cannot be made of 120 private samples",
        ),
        (make_eraser(HierarchicalClusters(4, bound=0)), "bound is 0"),
        (make_eraser(HierarchicalClusters(cost_factor=10**4)), "cost_factor is 10000, and cannot be had from"),
        (make_eraser(HierarchicalClusters(4, linkage="average", neighbors=9)), "expected 'ward'"),
        (make_eraser(HierarchicalClusters(4, softness=-1.0)), "softness is -1.0"),
        (make_eraser(HierarchicalClusters(4, softness=1.0, n_votes=0)), "n_votes is 0"),
        (make_eraser(HyperplaneClusters(0)), "n_bits is 0"),
        (make_eraser(HyperplaneClusters(3, seed=-1)), "seed is -1"),
        (make_eraser(HierarchicalClusters(4, linkage="foo")), "linkage is 'foo'"),
        (make_eraser(HierarchicalClusters(None, distance_threshold=-1.0)), "distance_threshold is -1.0"),
        (make_eraser(HierarchicalClusters(4, fit_size=0)), "fit_size is 0"),
        (make_eraser(HierarchicalClusters(4, bound="a")), "bound is 'a'"),
        (make_eraser(HashClusters(4, vote="loud")), "vote is 'loud'"),
        (make_eraser(8), "expected a partition such as"),
        (make_eraser(HierarchicalClusters(4, fit_on="test")), "expected one of: public, private"),
        (
            make_eraser(HierarchicalClusters(4, distance_threshold=1.0)),
            "one of n_clusters, cost_factor and distance_threshold",
        ),
        (make_eraser(n_classes=5), "outside the range 0 to 4"),
    ]
    for eraser, message in cases:
        with pytest.raises(ValueError, match=message):
            eraser.fit(private, public=split.public)
    with pytest.raises(ValueError, match=r"public=\.\.\."):
        make_eraser().fit(private)
    with pytest.raises(ValueError, match="both public and private"):
        make_eraser().fit(private + split.public[:1], public=split.public)
    with pytest.raises(ValueError, match=r"unknown method 'one promt'.*mean 'one prompt'"):
        build_method("one promt", None, 2, Recipe())


def test_prompts_of_every_kind_are_tuned_and_predict(make_eraser, private, split):
    for kind in PROMPTS:
        eraser = make_eraser(SingleCluster(), recipe={"prompt": kind}).fit(private[:40])
        assert eraser.predict(split.test[:5]).shape == (5,)
        eraser.verify()


@pytest.mark.parametrize("kind", [LMEraser, RidgeEraser])
def test_images_of_another_shape_and_bare_arrays_are_refused(kind, make_eraser, split):
    eraser = make_eraser(HashClusters(2), cls=kind, recipe={"epochs": 1}).fit(split.private[:20])
    assert len(eraser.predict(split.test.images[:2])) == 2
    for images in (np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 1, 16, 16), np.uint8)):
        with pytest.raises(ValueError, match="those that were fitted are"):
            eraser.predict(images)
    with pytest.raises(TypeError, match="expected Samples"):
        eraser.fit(split.private.images, split.private.labels)


def test_a_method_of_ones_own_is_drawn():
    common = {"seed": 0, "forward_passes": 1}
    methods = [(method, k) for method in ("lmeraser", "mine", "also mine") for k in (1, 4)]
    rows = [{"method": method, "n_clusters": k, "accuracy": 0.9 / k, "cost_factor_size_biased": k, **common}
            for method, k in methods]  # fmt: skip
    figure = figures.frontier(pd.DataFrame(rows))
    labels = [label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]]
    assert {"lmeraser", "mine", "also mine"} <= set(labels)
    assert figure.axes[0].get_ylabel().endswith("(0.900)")  # of one cluster, not the mean of all
    assert figures.accuracy_bars(pd.DataFrame(rows), "accuracy").axes[0].get_yticklabels()[-1].get_text() == "mine"


def test_requests_stand_beside_the_fits_that_they_are_instead_of():
    common = {"features": "8", "accuracy": 0.9, "cost_factor_size_biased": 1234.0}
    common |= {"seconds_refit_cached": 2.0, "seconds_fit_images": 30.0}
    timed = [("ridge head", 1, 0.1), ("lmeraser", 4, 0.2), ("one head", 1, np.nan)]
    rows = [common | {"method": method, "n_clusters": k, "seconds_request": seconds} for method, k, seconds in timed]
    (ax,) = figures.requests_and_fits(pd.DataFrame(rows)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["lmeraser, 4 clusters (8)", "ridge head (8)"]
    assert {"0.9000", "1,234"} <= {text.get_text() for text in ax.texts}
    assert {0.1, 0.2, 2.0, 30.0} <= {x for line in ax.lines for x in line.get_xdata()}
