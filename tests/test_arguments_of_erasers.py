"""Wrong arguments of the erasers, the backbone, tuning and the store: one clear error, and nothing is changed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_arguments import ASKED, CHOICE, DEVICE, FLAG, LABELS, NOT_SAMPLES, NUMBER, PATH, SEED, WHOLE

from lmeraser_kit import (
    Backbone,
    HashClusters,
    HierarchicalClusters,
    LMEraser,
    Recipe,
    RidgeEraser,
    Samples,
    SingleCluster,
    Store,
    tune_cluster,
)
from lmeraser_kit.ground.determinism import exact_arithmetic, pick_device
from lmeraser_kit.learners import Context, PromptTuning, cluster_addresses

KIT = str(Path(__file__).parents[1] / "lmeraser_kit")
KINDS = {"LMEraser": LMEraser, "RidgeEraser": RidgeEraser}
PARTITION = [
    8,
    "hashed",
    HashClusters,
    HashClusters(0),
    HierarchicalClusters(10**6),
    HierarchicalClusters(linkage="foo"),
]
JOBS = [0, "2", 1.5, True, float("nan")]
IMAGES = [
    None,
    "image",
    3,
    np.zeros((2, 8, 8), np.uint8),
    np.zeros((2, 1, 8, 8)),
    np.full((2, 1, 8, 8), np.nan),
    np.zeros((2, 3, 8, 8), np.uint8),
    np.zeros((2, 1, 9, 8), np.uint8),
    np.zeros((2, 1, 8, 8), bool),
    [[1, 2], [3]],
]
SMALL = Samples(np.zeros((1, 1, 4, 4), np.uint8), [0], ["small"])
STRANGE = Samples(np.zeros((1, 1, 8, 8), np.uint8), [10], ["strange"], 11)

# (argument of LMEraser and RidgeEraser, wrong values, what the message says besides its name)
ESTIMATOR = [
    ("backbone", [None, "small-vit", torch.nn.Linear(1, 1), Backbone], ""),
    ("clusters", PARTITION, "clusters|linkage|n_clusters"),
    ("recipe", ["default", 3, {"epochs": 3}, Recipe], ""),
    ("seed", SEED, ""),
    ("n_classes", [0, -1, 2.5, "3", True, 5], "n_classes|outside the range 0 to 4"),
    ("n_jobs", JOBS, ""),
    ("threads", WHOLE, ""),
    ("verbose", [*FLAG, 3], ""),
]
OF_KINDS = [(kind, *row) for row in ESTIMATOR for kind in KINDS if (kind, row[0]) != ("RidgeEraser", "recipe")]
RIDGE = [("layers", FLAG, ""), ("mirrored", FLAG, ""), ("l2", [*NUMBER, 0], "")]


def check(call, wrong, says, error=ValueError):
    """A wrong value is refused by the kit itself, and the message says what it is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as refused:
            call(wrong)
    assert str(refused.traceback[-1].path).startswith(KIT), f"not the kit's own error for {wrong!r}: {refused.value!r}"
    assert any(word in str(refused.value) for word in says.split("|")), f"{wrong!r}: {refused.value}"


@pytest.fixture(scope="module")
def fitted(backbone, split, private):
    """One fitted eraser of each kind; nobody may change them."""
    erasers = {
        "LMEraser": LMEraser(backbone, HashClusters(3), Recipe(epochs=1, prompt="none"), verbose=False),
        "RidgeEraser": RidgeEraser(backbone, HashClusters(3), verbose=False),
    }
    return {name: eraser.fit(private[:30], public=split.public[:40]) for name, eraser in erasers.items()}


@pytest.mark.parametrize("kind, argument, values, says", OF_KINDS, ids=[f"{row[1]}-{row[0]}" for row in OF_KINDS])
def test_a_wrong_argument_is_refused_by_fit_and_plan_and_by_whatever_comes_later(
    kind, argument, values, says, fitted, split, private, monkeypatch
):
    for home in ("lmeraser_kit.unlearning.rebuild.learn_cluster", "lmeraser_kit.backbones.backbone.Backbone.features"):
        monkeypatch.setattr(home, lambda *a, **k: pytest.fail("it has begun to compute"))
    changed = {name: value for name, value in vars(fitted[kind]).items() if name.endswith("_")}
    for wrong in values:
        eraser = KINDS[kind](**fitted[kind].get_params(deep=False) | {argument: wrong})
        for call in (eraser.fit, eraser.plan):
            check(lambda _, call=call: call(private[:30], public=split.public[:40]), wrong, says or argument)
        assert not hasattr(eraser, "state_")
        vars(eraser).update(changed)  # as if somebody had called set_params after the fit
        assert "forget" in dir(eraser)  # names are told, by scikit-learn's dir, whatever the model answers
        later = [lambda e: e.predict(split.test), lambda e: e.score(split.test), lambda e: e.forget(private.uids[0])]
        later += [lambda e: e.add(private[40:41]), lambda e: e.verify(), lambda e: e.forward_passes()]
        for call in later:
            check(lambda _, call=call, e=eraser: call(e), wrong, f"{says or argument}|changed since the fit")


@pytest.mark.parametrize("argument, values, says", RIDGE, ids=[row[0] for row in RIDGE])
def test_a_wrong_argument_of_a_ridge_eraser(argument, values, says, fitted, private):
    for wrong in values:
        eraser = RidgeEraser(**fitted["RidgeEraser"].get_params(deep=False) | {argument: wrong})
        check(lambda _: eraser.fit(private[:30]), wrong, argument)  # noqa: B023


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_argument_of_a_request_changes_nothing(kind, fitted, split, private):
    eraser = fitted[kind]
    before, held = eraser.state_hash(), eraser.state_
    for wrong in [w for w in NOT_SAMPLES if w is not None]:
        check(lambda w: eraser.fit(private[:30], public=w), wrong, "public", TypeError)
    for wrong in NOT_SAMPLES:
        check(lambda w: eraser.fit(w), wrong, "private", TypeError)
        check(lambda w: eraser.plan(w), wrong, "private", TypeError)
        check(eraser.add, wrong, "Samples")
    for wrong in ASKED:
        check(eraser.forget, wrong, "uid|boolean|mask")
    for wrong in (SMALL, STRANGE, private[:1]):
        check(eraser.add, wrong, "cannot join|outside the range|already")
    for wrong in (["a"], [0.5], [99], "x", 7.5, [True], [None]):
        check(eraser.verify, wrong, "cluster|bucket")
    for wrong in IMAGES:
        for call in (eraser.predict, eraser.predict_proba, lambda w: eraser.score(w, [0, 1])):
            check(call, wrong, "images")
    test = split.test[:2]
    for wrong in [*LABELS, [0, 10], np.eye(10)[:2], [True, False]]:
        check(lambda w: eraser.score(test.images, w), wrong, "label")
        check(lambda w: eraser.score(test, w), wrong, "label")
    check(lambda w: eraser.score(w), test.images, "labels are missing")
    check(lambda w: eraser.score(w), split.test[:0], "no sample")
    assert eraser.state_ is held and eraser.state_hash() == before


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_name_the_classes_without_doubt_give_the_same_score(kind, fitted, split):
    eraser, test = fitted[kind], split.test[:50]
    expected = eraser.score(test)
    assert expected == np.mean(eraser.predict(test) == test.labels)
    for labels in (test.labels, test.labels.tolist(), test.labels.astype(float), test.labels[:, None]):
        assert eraser.score(test.images, labels) == expected
    assert eraser.score(test.images, test.labels.astype(str)) == expected
    assert eraser.score(test, (test.labels + 1) % 10) == np.mean(eraser.predict(test) == (test.labels + 1) % 10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_number_in_another_type_is_the_same_argument(kind, fitted, private, split):
    eraser = fitted[kind]
    same = clone(eraser).set_params(seed=np.int64(0), threads=np.int32(1), clusters=HashClusters(np.int64(3)))
    assert same.fit(private[:30], public=split.public[:40]).state_hash() == eraser.state_hash()
    assert eraser.set_params(seed=np.int32(0)).verify() == same.state_hash()
    eraser.set_params(seed=0)
    gone = clone(eraser).fit(private[:30])
    gone.forget(private[:2])  # samples are named as well as their uids
    assert gone.state_hash() == clone(eraser).fit(private[2:30]).state_hash()


def test_arguments_that_were_changed_after_the_fit_do_not_predict_under_the_old_hash(fitted, split):
    changes = [("LMEraser", {"seed": 5}), ("LMEraser", {"threads": 2}), ("LMEraser", {"n_classes": 12})]
    changes += [
        ("LMEraser", {"clusters": HashClusters(3, vote="majority")}),
        ("LMEraser", {"recipe": Recipe(epochs=2)}),
    ]
    changes += [
        ("RidgeEraser", {"l2": 1.0}),
        ("RidgeEraser", {"mirrored": True}),
        ("RidgeEraser", {"layers": False}),
    ]
    for kind, change in changes:
        eraser = fitted[kind]
        before, hashed = eraser.get_params(deep=False), eraser.state_hash()
        eraser.set_params(**change)
        for call in (eraser.predict, eraser.predict_proba, eraser.score, eraser.forget):
            with pytest.raises(ValueError, match=f"changed since the fit.*{next(iter(change))} from"):
                call(split.test)
        eraser.set_params(**{name: before[name] for name in change})
        assert eraser.state_hash() == hashed and len(eraser.predict(split.test[:3])) == 3


def test_wrong_arguments_of_a_backbone(backbone, split, tmp_path):
    images = split.test.images[:2]
    for wrong in [w for w in IMAGES if not (isinstance(w, np.ndarray) and w.dtype == np.uint8 and w.ndim == 4)]:
        check(backbone.features, wrong, "images")
    for name in ("threads", "batch_size"):
        for wrong in [w for w in WHOLE if name == "threads" or w is not None]:
            check(lambda w, name=name: backbone.features(images, **{name: w}), wrong, name)
    for wrong in CHOICE:
        check(backbone.at, wrong, "precision")
    for wrong in DEVICE:
        check(backbone.to, wrong, "device")
        check(pick_device, wrong, "device")
    for wrong in NOT_SAMPLES:
        check(backbone.standardised, wrong, "public")
    for wrong in PATH:
        check(backbone.save, wrong, "path")
        check(Backbone.load, wrong, "path")
    for wrong in WHOLE:
        check(lambda w: exact_arithmetic(w).__enter__(), wrong, "threads")
    assert backbone.features(images).shape == (2, backbone.n_features)  # it stands where it stood


def test_wrong_arguments_of_tuning(backbone, private):
    right = {"backbone": backbone, "samples": private[:5], "recipe": Recipe(epochs=1), "seed": 0, "threads": 1}
    table = {"backbone": [None, "x"], "samples": [*NOT_SAMPLES, private[:0]], "recipe": [None, "default", {}]}
    table |= {"seed": SEED, "threads": WHOLE}
    for argument, values in table.items():
        for wrong in values:
            check(lambda w, a=argument: tune_cluster(**right | {a: w}), wrong, argument)
    for wrong in NOT_SAMPLES:
        check(lambda w: cluster_addresses(PromptTuning(), w, Context(backbone)), wrong, "samples")
        check(Context(backbone).features, wrong, "samples")
    for wrong in (3, "x", True):
        check(lambda w: tune_cluster(**right, start=w), wrong, "start")


def test_wrong_arguments_of_a_store_change_no_byte(backbone, private, split, tmp_path):
    eraser = LMEraser(backbone, HashClusters(3), Recipe(epochs=1, prompt="none"), verbose=False)
    for wrong in PATH:
        check(lambda w: Store.create(w, eraser, private[:12]), wrong, "folder")
        check(Store.open, wrong, "folder")
    for wrong in (None, "x", LMEraser):
        check(lambda w: Store.create(tmp_path / "no", w, private[:12]), wrong, "eraser")
    for wrong in NOT_SAMPLES:
        check(lambda w: Store.create(tmp_path / "no", eraser, w), wrong, "private", TypeError)
    for name, values, _ in ESTIMATOR:
        for wrong in values:
            changed = LMEraser(**eraser.get_params(deep=False) | {name: wrong})
            check(lambda _, c=changed: Store.create(tmp_path / "no", c, private[:12], split.public[:9]), wrong, "")
    for wrong in FLAG:
        check(lambda w: Store.create(tmp_path / "no", eraser, private[:12], tombstones=w), wrong, "tombstones")
    assert not (tmp_path / "no").exists()
    with Store.create(tmp_path / "store", eraser, private[:12]) as store:
        before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
        for wrong in [*ASKED, []]:
            check(store.forget, wrong, "uid|boolean|mask")
            check(store.request_forget, wrong, "uid|boolean|mask")
        for wrong in (*NOT_SAMPLES, SMALL, STRANGE, private[:1], private[:0]):
            check(store.add, wrong, "Samples|cannot join|outside the range|already|no sample")
            check(store.request_add, wrong, "Samples|cannot join|outside the range|already|no sample")
        for wrong in FLAG:
            check(lambda w: store.add(private[12:13], again=w), wrong, "again")
            check(lambda w: store.report(tmp_path / "report", verify=w), wrong, "verify")
        for wrong in [w for w in NUMBER if w is not None]:
            check(store.plan, wrong, "rate")
        for wrong in PATH:
            check(store.report, wrong, "folder")
        assert before == {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    for name, values in (("device", DEVICE), ("n_jobs", JOBS), ("verbose", [3]), ("readonly", FLAG)):
        for wrong in values:
            check(lambda w, n=name: Store.open(tmp_path / "store", **{n: w}), wrong, name)
    for name in ("repair", "finish", "forget_again"):
        for wrong in FLAG:
            check(lambda w, n=name: Store.open(tmp_path / "store", **{n: w}), wrong, name)
    with Store.open(tmp_path / "store", verbose=False) as store:  # nobody has left it locked
        store.verify()


# --- a frozen backbone


def test_a_backbone_in_training_mode_or_with_other_weights_computes_nothing(split):
    backbone = Backbone.from_timm("test_efficientnet", pretrained=False)  # with batch normalisation
    with pytest.raises(ValueError, match=r"no rounding for exact sums: backbone\.standardised\(public\) measures one"):
        RidgeEraser(backbone, verbose=False).fit(split.private[:10])
    backbone = backbone.standardised(split.public[:40])
    eraser = RidgeEraser(backbone, HashClusters(2), verbose=False).fit(split.private[:10])
    before, hashed = eraser.predict_proba(split.test[:4]), eraser.state_hash()
    backbone.model.train()
    with pytest.raises(ValueError, match="in training mode"):
        eraser.predict(split.test)
    backbone.model.eval()
    np.testing.assert_array_equal(eraser.predict_proba(split.test[:4]), before)
    backbone.model.blocks[0].train()
    with pytest.raises(ValueError, match="in training mode"):
        backbone.features(split.test.images[:2])
    with torch.no_grad():
        backbone.model(torch.zeros(2, 3, backbone.size, backbone.size, device=backbone.device))  # moves running means
    backbone.model.eval()
    for call in (eraser.predict, eraser.forget, lambda test: backbone.features(test.images)):
        with pytest.raises(ValueError, match=r"weights were changed since it was made|unknown uid"):
            call(split.test)
    with pytest.raises(TypeError, match="does not support item assign"):
        backbone.data_config["mean"] = (0.0, 0.0, 0.0)
    assert eraser.state_hash() == hashed


def test_features_that_are_not_finite_are_refused_by_sample_and_layer(split, monkeypatch):
    backbone = Backbone.from_timm("test_vit", pretrained=False).standardised(split.public[:40])
    bad = split.private.uids[7]
    real = Backbone._layers

    def broken(self, views):
        *stages, feature = real(self, views)
        dark = views.flatten(1).sum(1) == self.views(split.private[7:8].images).flatten(1).sum(1)
        stages[1] = torch.where(dark[:, None], torch.nan, stages[1])
        return [*stages, feature]

    monkeypatch.setattr(Backbone, "_layers", broken)
    eraser = RidgeEraser(backbone, HashClusters(1), verbose=False)
    stages = len(backbone.layer_widths) - 1
    with pytest.raises(ValueError, match=rf"stage 2 of {stages} of uid {bad} is not finite"):
        eraser.fit(split.private[:20])
    assert not hasattr(eraser, "state_")
    eraser.fit(split.private[:7])
    with pytest.raises(ValueError, match=rf"stage 2 of {stages} of uid {bad} is not finite"):
        eraser.predict(split.private[:20])


def test_weights_that_are_not_finite_are_refused_by_name(backbone, split):
    architecture, arguments, state, config = backbone.made_of()[:4]
    state = {name: tensor.clone() for name, tensor in state.items()}
    state["blocks.0.attn.qkv.weight"][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"weights 'blocks\.0\.attn\.qkv\.weight' of .* are not finite"):
        Backbone(architecture, arguments, state, config)


# --- a partition that puts nearly everybody into one cluster


def test_uneven_clusters_are_announced_with_what_they_cost_and_what_to_set(backbone, split, private):
    def eraser(clusters):
        return LMEraser(backbone, clusters, Recipe(epochs=1, prompt="none"), verbose=False)

    alike = split.private[split.private.labels == 0][:60]
    uneven = eraser(HierarchicalClusters(12, linkage="average", unit_length=False))
    with pytest.warns(UserWarning, match=r"of the samples are in one of 12 clusters: .* only \d\.\d times cheaper"):
        sizes = uneven.plan(alike, public=split.public)
    share, factor = max(sizes.values()) / 60, 60**2 / sum(n**2 for n in sizes.values())
    advice = rf"{share:.0%} of the samples .* only {factor:.1f} times .*HierarchicalClusters\(\).*bound=10"
    with pytest.warns(UserWarning, match=advice):
        uneven.fit(alike, public=split.public)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uneven.verify()  # said once, not at every request
        uneven.forget(alike.uids[0])
        for even in (HashClusters(6), SingleCluster(), HierarchicalClusters(6)):
            eraser(even).plan(private, public=split.public)


def test_a_whole_float_is_the_same_argument(backbone, private, split):
    eraser = RidgeEraser(backbone, HashClusters(3), verbose=False, l2=1).fit(private[:30])
    expected, hashed = eraser.predict_proba(split.test), eraser.state_hash()
    for same in (1.0, np.float32(1), np.int64(1)):
        np.testing.assert_array_equal(eraser.set_params(l2=same).predict_proba(split.test), expected)
        assert eraser.state_hash() == hashed == clone(eraser).fit(private[:30]).state_hash()
    with pytest.raises(ValueError, match="l2 from 1 to 2"):
        eraser.set_params(l2=2.0).predict(split.test)
