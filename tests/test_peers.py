"""Peers: exact ones are exact, approximate ones do what their formula says, shadow models are the method's own."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lmeraser_kit import Eraser, HashClusters, HierarchicalClusters, LMEraser, Recipe, SingleCluster
from lmeraser_kit.baselines import shadows as shadow_module
from lmeraser_kit.baselines.approximate import APPROXIMATE, newton_removal, relearn_steps, salun, ssd, unlearn
from lmeraser_kit.baselines.leakage import KeptPrototypes
from lmeraser_kit.baselines.methods import METHODS, build_method
from lmeraser_kit.baselines.shadows import halves, shadow_logits
from lmeraser_kit.baselines.unlearning_task import UnlearningTask
from lmeraser_kit.evaluation import distances
from lmeraser_kit.learners import Context, ExactSums, PromptTuning, ridge
from lmeraser_kit.store.files import StoreError
from lmeraser_kit.store.store import Store
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser

EXACT = [name for name in METHODS if name != "published routing"]


@pytest.fixture
def one_head(make_eraser, private):
    return make_eraser(SingleCluster(), recipe={"prompt": "none", "shift": 0.0, "epochs": 4}).fit(private)


@pytest.fixture
def one_prompt(make_eraser, private):
    return make_eraser(SingleCluster(), recipe={"shift": 0.0, "epochs": 3}).fit(private)


# --- exact


@pytest.mark.parametrize("name", EXACT)
def test_every_exact_method_forgets_exactly(name, backbone_of, private, split):
    def build():
        return build_method(name, backbone_of(name), 4, Recipe(epochs=2), seed=3, verbose=False)

    eraser = build().fit(private[:60], public=split.public)
    eraser.forget(private.uids[:5])
    eraser.add(private[60:63])
    eraser.forget(private.uids[60])
    assert eraser.verify() == build().fit(private[5:60] + private[61:63], public=split.public).state_hash()


def test_sisas_vote_counts_shards_and_its_mean_their_probabilities(make_eraser, private, split):
    mean, vote = (make_eraser(HashClusters(3, vote=v), recipe={"slices": 2}).fit(private) for v in ("mean", "majority"))
    shards = [mean.state_.models[k] for k in sorted(mean.state_.models)]
    assert all(a.digest == b.digest for a, b in zip(shards, vote.state_.models.values(), strict=True))
    votes = vote.predict_proba(split.test[:30]) * 3
    np.testing.assert_allclose(votes, votes.round(), atol=1e-9)
    assert not np.allclose(mean.predict_proba(split.test[:30]), votes / 3)


def test_sisa_costs_its_formula():
    """`(N/S + 1/(2S) - 1) m - m^2/(2S)`: m requests one after another, each for any of S equal shards; simulated."""
    n, s, m, rng = 400, 8, 60, np.random.default_rng(0)
    costs = []
    for _ in range(400):
        sizes, cost = np.full(s, n // s), 0
        for shard in rng.integers(0, s, m):
            sizes[shard] -= 1
            cost += sizes[shard]
        costs.append(cost)
    expected = (n / s + 1 / (2 * s) - 1) * m - m**2 / (2 * s)
    assert abs(np.mean(costs) - expected) < 4 * np.std(costs) / np.sqrt(len(costs))


def test_a_second_deletion_in_a_shard_does_not_bring_the_first_back(backbone, private):
    sisa = build_method("sisa (mean)", backbone, 3, Recipe(epochs=2), seed=3, verbose=False).fit(private[:60])
    shard = sisa.state_.cluster_by_uid()
    first, second = [uid for uid in shard if shard[uid] == shard[private.uids[0]]][:2]
    sisa.forget(first)
    sisa.forget(second)
    assert {first, second}.isdisjoint(sisa.state_.samples.uids)
    fresh = build_method("sisa (mean)", backbone, 3, Recipe(epochs=2), seed=3, verbose=False)
    assert sisa.state_hash() == fresh.fit(private[:60].without([first, second])).state_hash()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("layers", [False, True])
def test_the_ridge_head_is_the_solution_over_all_samples(layers, mirrored, backbone, private, split):
    options = {"layers": layers, "mirrored": mirrored, "verbose": False}
    ridge = RidgeEraser(backbone, HashClusters(20), l2=5.0, **options).fit(private)
    features = backbone.features(private.images, layers=layers)
    if mirrored:
        features = (features + backbone.features(private.images[..., ::-1], layers=layers)) / 2
    x = np.c_[features, np.ones(len(private))].astype(float)
    public = backbone.features(split.public.images, layers=layers).astype(float)
    expected = np.linalg.solve(
        x.T @ x + 5 * np.square(public).mean() * np.eye(x.shape[1]), x.T @ np.eye(10)[private.labels]
    )
    np.testing.assert_allclose(ridge.head(), expected, rtol=2e-3, atol=2e-4)  # features are rounded to 15 bits
    assert ridge.forward_passes() == 1 + mirrored
    receipt = ridge.forget(private.uids[0])
    assert len(receipt.clusters_tuned) == 1 and receipt.sample_gradients == 0
    assert ridge.score(split.test) > 0.4
    ridge.verify()
    ridge.forget(private.uids[1:])
    with pytest.raises(ValueError, match="no private sample is held"):
        ridge.predict(split.test)


def test_a_store_keeps_a_ridge_eraser(backbone, private, split, tmp_path):
    ridge = RidgeEraser(backbone, HashClusters(8), mirrored=True, verbose=False)
    with Store.create(tmp_path / "store", ridge, private[:40]) as store:
        store.forget(private.uids[:3])
    with Store.open(tmp_path / "store", verbose=False) as store:
        fresh = ridge.fit(private[3:40])
        assert store.eraser.state_hash() == fresh.state_hash() == store.verify().state_hash
        np.testing.assert_array_equal(store.eraser.predict(split.test), fresh.predict(split.test))
    with pytest.warns(UserWarning, match="it does not forget"):
        leak = KeptPrototypes(backbone, HierarchicalClusters(3), verbose=False)
        Store.create(tmp_path / "leak", leak, private[:40], split.public).close()
    with pytest.raises(StoreError, match=r"of your own\): open it with eraser="):
        Store.open(tmp_path / "leak")


def test_statistics_of_other_features_have_other_addresses(backbone, private):
    cache, part = {}, private[:20]
    for layers, mirrored in itertools.product([False, True], repeat=2):
        ridge = RidgeEraser(backbone, HashClusters(2), layers=layers, mirrored=mirrored, verbose=False)
        ridge.prepare(part)
        assert len(ridge.successor((), part, cache).work.clusters_tuned) == 2  # nothing of the others' is found there
    assert len(cache) == 8


def test_few_rows_give_the_same_head_as_their_sums():
    rng = np.random.default_rng(0)
    rows = np.c_[rng.normal(size=(12, 30)), np.eye(3)[rng.integers(0, 3, 12)]]
    total = ridge.sums(rows, 30)
    l2 = 0.3 * np.trace(total[:, :30]) / 12  # the same l2, as a share of the other diagonal
    expected = ridge.head_from_sums(total, l2 * 30 / np.trace(total[:, :30]))
    np.testing.assert_allclose(ridge.head_from_rows(rows, 30, 0.3), expected, atol=1e-10)


def test_each_cluster_corrects_the_head_for_everybody(backbone, private, split):
    def fitted(clusters):
        return RidgeEraser(backbone, clusters, l2=3.0, verbose=False).fit(private, public=split.public)

    images, inputs = split.test[:30], ExactSums().inputs
    plain, both = fitted(None), fitted(HierarchicalClusters(4, softness=0.5))
    np.testing.assert_array_equal(plain.head(), both.head())  # a partition divides nothing of the sums
    x = inputs(images, Context(backbone))
    votes = both.state_.routing.votes(x[:, -backbone.n_features - 1 : -1], np.array(sorted(both.state_.models)))
    expected = x @ plain.head()
    for k, share in zip(sorted(both.state_.models), votes.T, strict=True):
        members = both.state_.members[k]
        own = inputs(members, Context(backbone))
        left, kernel = np.eye(10)[members.labels] - own @ plain.head(), own @ own.T
        correction = own.T @ np.linalg.solve(kernel + np.trace(kernel) / len(own) * np.eye(len(own)), left)
        expected += share[:, None] * (x @ correction)
    np.testing.assert_allclose(both.predict_proba(images), ridge.probabilities(expected), atol=2e-3)
    assert np.abs(both.predict_proba(images) - plain.predict_proba(images)).max() > 0.05
    both.forget(private.uids[:3])
    both.verify()
    alone = fitted(HierarchicalClusters(4, softness=0.5)).forget(private.uids[:3])
    assert alone.hash_after == both.state_hash()


def test_a_head_on_features_that_do_not_change_is_tuned_on_them(make_eraser, private, monkeypatch):
    counted = itertools.count()
    call = type(make_eraser().backbone).__call__
    eraser = make_eraser(SingleCluster(), recipe={"prompt": "none", "shift": 0.0, "epochs": 9})
    monkeypatch.setattr(type(eraser.backbone), "__call__", lambda self, *x: (next(counted), call(self, *x))[1])
    eraser.fit(private)
    assert next(counted) == 2 and eraser.receipt_.sample_gradients == 9 * len(private)


# --- approximate


@pytest.mark.parametrize("name", APPROXIMATE)
@pytest.mark.parametrize("kind", ["one_head", "one_prompt"])
def test_every_approximate_method_changes_the_model_and_is_not_exact(name, kind, request, private, make_eraser):
    eraser = request.getfixturevalue(kind)
    before = eraser.state_hash()
    task = UnlearningTask(eraser, private.uids[:12].tolist())
    strength = 20.0 if name == "ssd" else 1.0
    after, cost = unlearn(name, task, strength)
    assert cost["sample_gradients"] > 0 and cost["seconds"] > 0
    assert any((after[key] != task.start[key]).any() for key in after)
    again, _ = unlearn(name, UnlearningTask(eraser, private.uids[:12].tolist()), strength)
    assert all(torch.equal(after[key], again[key]) for key in after)  # keyed randomness only
    retrained = make_eraser(SingleCluster(), recipe=vars(eraser.recipe)).fit(private[12:])
    assert not torch.equal(after["weight"], UnlearningTask(retrained, []).start["weight"])
    assert eraser.state_hash() == before


def test_what_each_loss_pulls_at(one_head, private):
    task = UnlearningTask(one_head, private.uids[:12].tolist())

    def loss(parameters, part):
        return distances.cross_entropy(task.predict(parameters, part), part.labels.cpu().numpy()).mean()

    start = {part: loss(task.start, getattr(task, part)) for part in ("forget", "retain")}
    assert loss(unlearn("fine-tune", task)[0], task.retain) < start["retain"]
    assert loss(unlearn("gradient ascent", task, 10.0)[0], task.forget) > start["forget"]
    many = UnlearningTask(one_head, private.uids[:110].tolist())  # hardly anybody stays to pull the other way
    for name, strength in (("random label", 1.0), ("salun", 1.0), ("scrub", 100.0)):
        assert loss(unlearn(name, many, strength)[0], many.forget) > loss(many.start, many.forget)
    assert loss(unlearn("neggrad+", task, 1.0)[0], task.retain) < start["retain"]


def test_salun_moves_half_of_the_entries(one_prompt, private):
    task = UnlearningTask(one_prompt, private.uids[:12].tolist())
    after = salun(task, 1.0, epochs=1)
    moved = sum((after[key] != task.start[key]).sum().item() for key in after)
    total = sum(p.numel() for p in after.values())
    assert 0.45 * total < moved <= 0.5 * total + 1


def test_ssd_only_shrinks(one_head, private):
    task = UnlearningTask(one_head, private.uids[:12].tolist())
    after = ssd(task, strength=20.0)
    for key, value in after.items():
        assert (value.abs() <= task.start[key].abs() + 1e-12).all()


def test_newton_removal_is_exact_where_the_loss_is_minimal(one_head, private):
    """At the minimum of an l2-regularised logistic loss one step gets almost to the minimum without the sample."""
    task, l2 = UnlearningTask(one_head, private.uids[:1].tolist()), 1e-2

    def minimum(parts):
        x = torch.cat([part.inputs for part in parts]).double().cpu()
        y = torch.cat([part.labels for part in parts]).cpu()
        w = torch.zeros(10, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        optimiser = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def closure():
            optimiser.zero_grad()
            loss = F.cross_entropy(x @ w.T, y, reduction="sum") + 0.5 * l2 * len(x) * (w**2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return w.detach()

    with_it, without_it = minimum((task.forget, task.retain)), minimum((task.retain,))
    task.start = {"weight": with_it[:, :-1].float(), "bias": with_it[:, -1].float()}
    after = newton_removal(task, l2=l2)
    after = torch.cat([after["weight"], after["bias"][:, None]], 1).double()
    assert (after - without_it).norm() < 0.1 * (with_it - without_it).norm()


def test_relearning_takes_no_step_where_nothing_was_lost(one_head, private):
    task = UnlearningTask(one_head, private.uids[:30].tolist())
    assert relearn_steps(task, task.start, accuracy=0.0) == 0
    blank = {key: torch.zeros_like(value) for key, value in task.start.items()}
    steps = relearn_steps(task, blank, accuracy=0.3)
    assert 0 < steps < 100 and relearn_steps(task, blank, accuracy=1.1, most=7) == 7


def test_unknown_names_list_the_known_ones(one_head, backbone, private, make_eraser):
    with pytest.raises(ValueError, match=r"unknown method 'salum'; one of: fine-tune, .*Did you mean 'salun'\?"):
        unlearn("salum", UnlearningTask(one_head, private.uids[:2].tolist()))
    with pytest.raises(ValueError, match=r"unknown method 'sisa mean'; one of: lmeraser, .*Did you mean 'sisa"):
        build_method("sisa mean", backbone, 4, Recipe())
    with pytest.raises(ValueError, match="take one cluster, and there are 3"):
        UnlearningTask(make_eraser(HashClusters(3)).fit(private), [])


# --- shadow models


def test_shadow_models_are_the_methods_own_and_are_kept(backbone, private, split, tmp_path):
    recipe, forget = Recipe(prompt="none", epochs=2), private.uids[:6].tolist()
    inside = halves(4, len(private), seed=0)
    assert (inside.sum(axis=0) == 2).all()
    inside[:, :6] = True
    options = {"seed": 7, "forget": forget, "approximate": {"newton": 1.0}, "folder": tmp_path}
    found = shadow_logits(backbone, private, inside, split.test[:20], recipe, **options)
    alone = LMEraser(backbone, SingleCluster(), recipe, seed=9, verbose=False).fit(private[inside[2]])
    np.testing.assert_allclose(found["trained"][2], np.log(alone.predict_proba(split.test[:20])), rtol=1e-6)
    alone.forget(forget)
    np.testing.assert_allclose(found["exact"][2], np.log(alone.predict_proba(split.test[:20])), rtol=1e-6)
    assert found["newton"].shape == (4, 20, 10) and len(list(tmp_path.iterdir())) == 4
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = shadow_logits(backbone, private, inside, split.test[:20], recipe, **options)
    assert all((again[name] == found[name]).all() for name in found)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}  # resumed, not done again


@pytest.fixture
def models_fitted(backbone, private, split, tmp_path, monkeypatch):
    """The arguments of a call of shadow_logits that keeps its model, and how many models another call has to fit."""
    fitted, fit = [], BaseEraser.fit
    monkeypatch.setattr(BaseEraser, "fit", lambda self, *a, **k: fitted.append(self) or fit(self, *a, **k))
    first = {
        "backbone": backbone,
        "pool": private[:20],
        "inside": np.arange(20)[None] % 3 > 0,
        "ask": split.test[:5],
        "recipe": Recipe(prompt="none", epochs=1),
        "method": "one head",
        "n_clusters": 1,
        "public": split.public[:30],
        "seed": 7,
        "forget": private.uids[[1, 2]].tolist(),
        "approximate": {"newton": 1.0, "ssd": 2.0},
    }

    def count(**changes):
        fitted.clear()
        shadow_logits(**first | changes, folder=tmp_path)
        return len(fitted)

    assert count() == 1
    return first, count


def two_shards(backbone, n_clusters, recipe, **options):
    return Eraser(backbone, HashClusters(2), PromptTuning(recipe), **options)


OTHERS = {
    "a pixel": lambda a: {
        "pool": replace(a["pool"], images=a["pool"].images ^ (np.arange(20) == 4)[:, None, None, None])
    },
    "a label": lambda a: {"pool": replace(a["pool"], labels=(a["pool"].labels + (np.arange(20) == 4)) % 10)},
    "a uid": lambda a: {"pool": replace(a["pool"], uids=np.where(np.arange(20) == 4, "new", a["pool"].uids))},
    "number of classes": lambda a: {"public": replace(a["public"], n_classes=11)},
    "who is inside": lambda a: {"inside": a["inside"] | (np.arange(20) == 0)},
    "who is asked": lambda a: {"ask": a["ask"][:4]},
    "the order of who is asked": lambda a: {"ask": a["ask"][np.arange(5)[::-1]]},
    "public samples": lambda a: {"public": a["public"][:29]},
    "no public samples": lambda a: {"public": None},
    "the method": lambda a: {"method": "hashed clusters"},
    "a method of one's own": lambda a: {"method": two_shards, "approximate": None},
    "number of clusters": lambda a: {"n_clusters": 2},
    "the recipe": lambda a: {"recipe": replace(a["recipe"], head_lr=0.2)},
    "the seed": lambda a: {"seed": 8},
    "fewer leave": lambda a: {"forget": a["forget"][:1]},
    "a name in place of two": lambda a: {"forget": [a["pool"].uids[4]]},
    "nobody leaves": lambda a: {"forget": None, "approximate": None},
    "a strength": lambda a: {"approximate": {"newton": 1.0, "ssd": 1.0}},
    "strengths the other way round": lambda a: {"approximate": {"newton": 2.0, "ssd": 1.0}},
    "fewer methods": lambda a: {"approximate": {"newton": 1.0}},
    "the backbone": lambda a: {"backbone": a["backbone"].at("bfloat16")},
}
SAME = {
    "nothing": lambda a: {},
    "forget in another order": lambda a: {"forget": a["forget"][::-1]},
    "forget as an array": lambda a: {"forget": np.array(a["forget"])},
    "methods in another order": lambda a: {"approximate": dict(reversed(a["approximate"].items()))},
    "a whole strength": lambda a: {"approximate": {"newton": 1, "ssd": np.float64(2)}},
    "NumPy's numbers": lambda a: {"seed": np.int64(7), "n_clusters": np.int32(1)},
    "the recipe again": lambda a: {"recipe": Recipe(prompt="none", epochs=np.int64(1))},
    "the pool in another order": lambda a: {"pool": a["pool"][::-1], "inside": a["inside"][:, ::-1]},
    "public samples in another order": lambda a: {"public": a["public"][::-1]},
    "workers": lambda a: {"n_jobs": 1},
}


@pytest.mark.parametrize("what", OTHERS)
def test_kept_shadow_logits_are_not_those_of_other_models(what, models_fitted):
    first, count = models_fitted
    assert count(**OTHERS[what](first)) == 1


@pytest.mark.parametrize("what", SAME)
def test_kept_shadow_logits_are_found_again(what, models_fitted):
    first, count = models_fitted
    assert count(**SAME[what](first)) == 0


def test_shadow_models_of_ones_own_are_kept_by_their_arguments(models_fitted):
    _, count = models_fitted

    def one_shard(backbone, n_clusters, recipe, **options):
        return two_shards(backbone, n_clusters, recipe, **options).set_params(partition=SingleCluster())

    own = {"method": two_shards, "approximate": None}
    assert [count(**own), count(**own), count(**own | {"method": one_shard})] == [1, 0, 1]
    with pytest.raises(ValueError, match="what the method returns is None"):
        count(method=lambda *_, **__: None, approximate=None)


def test_kept_shadow_logits_are_those_of_this_code_and_this_machine(models_fitted, monkeypatch):
    _, count = models_fitted
    here = shadow_module.environment("cpu", threads=1)
    monkeypatch.setattr(shadow_module, "environment", lambda *_, **__: here | {"kit": "changed"})
    assert "kit" in here and count() == 1 and count() == 0


def test_wrong_arguments_of_shadow_models_are_refused_before_any_is_fitted(models_fitted):
    first, count = models_fitted
    for changes, message in (
        ({"inside": first["inside"].astype(int)}, "inside is an array of int64"),
        ({"inside": first["inside"][:, :19]}, r"expected bool \(n_models, 20\)"),
        ({"inside": first["inside"] & False}, "a sample in each model"),
        ({"forget": [first["pool"].uids[0]]}, "lacks samples that it is to forget"),
        ({"forget": ["nobody"]}, "unknown uid 'nobody'"),
        ({"forget": None}, "approximate methods need forget"),
        ({"approximate": {"newton": -1}}, "strength of newton is -1"),
        ({"approximate": {"newto": 1}}, "Did you mean 'newton'"),
        ({"method": "one heads"}, "Did you mean 'one head'"),
        ({"n_clusters": 0}, "n_clusters is 0"),
        ({"seed": 0.5}, "seed is 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            count(**changes)
    with pytest.raises(ValueError, match="n_models is 0"):
        halves(0, 4, seed=0)
