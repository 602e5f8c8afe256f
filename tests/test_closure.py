"""The closure of a request: near copies of every kind are found, and none is deleted; public twins are announced."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from test_arguments import ABOVE_0, ASKED, NOT_SAMPLES

from lmeraser_kit import HashClusters, LMEraser, Recipe, RidgeEraser, Samples
from lmeraser_kit.backbones import CachedFeatures
from lmeraser_kit.data import copies
from lmeraser_kit.unlearning import closure

N = 12  # originals


@pytest.fixture(scope="module")
def noisy():
    """Images in colour with a few large random patches, and a small backbone's view of them."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (240, 3, 4, 4)).astype(np.uint8)
    images = patches.repeat(6, axis=2).repeat(6, axis=3)
    return Samples(images, np.arange(240) % 10, [f"n{i:03d}" for i in range(240)], 10)


def samples_of(name, split, noisy):
    return (split.private[:120], split.public[:200]) if name == "digits" else (noisy[:80], noisy[80:])


@pytest.fixture(scope="module")
def fitted(backbone, split, noisy):
    """By name, an eraser that holds all kinds of copies of its first samples; nobody may change it."""
    erasers = {}
    for name in ("digits", "noisy"):
        private, public = samples_of(name, split, noisy)
        planted = [copies.altered(private[:N], kind, seed=1) for kind in copies.KINDS]
        held = sum(planted, private)
        rounded = backbone if name == "digits" else backbone.standardised(public)
        erasers[name] = RidgeEraser(rounded, HashClusters(5), verbose=False).fit(held, public=public)
    return erasers


@pytest.mark.parametrize("name", ["digits", "noisy"])
@pytest.mark.parametrize("kind", copies.KINDS)
def test_each_kind_of_copy_is_found_and_nothing_is_deleted(name, kind, fitted):
    eraser = fitted[name]
    originals = [uid for uid in eraser.state_.samples.uids.tolist() if f"{uid}+{kind}" in eraser.state_.samples]
    before, held = eraser.state_hash(), len(eraser.state_)
    found = eraser.closure(originals)
    pairs = set(zip(found["copy_of"], found["uid"], strict=True))
    share = np.mean([(uid, f"{uid}+{kind}") in pairs for uid in originals])
    assert len(originals) == N and share >= {"cropped": 0.5, "brightened": 0.7, "re-encoded": 0.7}.get(kind, 1.0)
    assert eraser.state_hash() == before and len(eraser.state_) == held
    assert not set(found["uid"]) & set(originals), "who is named is no candidate"
    same = found[found["kind"] == copies.SAME]
    assert set(same["uid"]) == {f"{uid}+{copies.SAME}" for uid in originals}
    assert same.index.tolist() == list(range(N)), "the likeliest come first"
    assert found["same_pixels"].equals(found["kind"] == copies.SAME)


def test_the_kind_of_change_is_guessed(noisy):
    for kind in copies.KINDS:
        changed = copies.altered(noisy[:40], kind, seed=3).images
        guesses = [copies.guessed_kind(*pair) for pair in zip(noisy.images, changed, strict=False)]
        assert guesses.count(kind) >= 34, (kind, guesses)
    pairs = zip(noisy.images[:40], noisy.images[40:80], strict=True)
    assert {copies.guessed_kind(*pair) for pair in pairs} == {copies.SIMILAR}
    flat = np.zeros((1, 8, 8), np.uint8)
    assert copies.guessed_kind(flat, flat + 9) == copies.SIMILAR  # of flat images nobody can tell


def test_a_larger_threshold_gives_the_same_candidates_and_more(fitted, noisy):
    eraser, tables = fitted["noisy"], []
    for threshold in (0, 0.3, 1, 5, 20):
        tables.append(eraser.closure(noisy[:N].uids, threshold))
        table = tables[-1]
        assert (table["strangers"] <= threshold).all()
        order = (table["kind"] != copies.SAME).astype(int) + (table["kind"] == copies.SIMILAR)
        assert order.is_monotonic_increasing and table.groupby(order)["strangers"].is_monotonic_increasing.all()
    pairs = [set(zip(t["uid"], t["copy_of"], strict=True)) for t in tables]
    assert all(few <= more for few, more in itertools.pairwise(pairs)) and len(pairs[1]) < len(pairs[-1])


def test_few_strangers_are_candidates(fitted, noisy):
    asked = noisy[40:80]  # nobody has copies of these
    assert len(fitted["noisy"].closure(asked.uids)) <= 3 * len(asked)


def test_images_that_are_not_held_are_compared_too(fitted, noisy):
    asked = replace(noisy[:3], uids=np.array(["a", "b", "c"]))
    found = fitted["noisy"].closure(asked)
    assert {"n000", f"n000+{copies.SAME}"} <= set(found[found["copy_of"] == "a"]["uid"])
    assert found["same_pixels"].sum() == 6


def test_features_at_hand_are_used_and_no_cache_keeps_a_view(fitted, backbone, noisy, split, monkeypatch, tmp_path):
    eraser, sizes = fitted["digits"], []
    real = type(backbone).features
    monkeypatch.setattr(
        type(backbone), "features", lambda self, *a, **k: sizes.append(len(a[0])) or real(self, *a, **k)
    )
    uids = split.private[:2].uids
    first = eraser.closure(uids)
    again = sizes.copy(), sizes.clear()
    assert eraser.closure(uids).equals(first)
    assert sizes == [2 * copies.N_VIEWS], "rows, hashes and strangers were there"
    assert len(eraser.state_) not in again[0]
    assert not eraser.closure(uids, 50, split.public[100:150]).equals(eraser.closure(uids, 50)), "other public samples"
    cached = CachedFeatures(backbone, tmp_path)
    tuned = LMEraser(cached, HashClusters(3), Recipe(epochs=1, prompt="none"), verbose=False)
    tuned.fit(split.private[:80], public=split.public[:60])
    tuned.closure(uids)
    kept = {key for _, _, key in cached.rows}
    assert len(kept) <= 140, "images, and no view of one"


def test_with_prompts_from_images_the_same_is_found(backbone, split):
    private = split.private[:60] + copies.altered(split.private[:5], "mirrored")
    tuned = LMEraser(backbone, HashClusters(3), Recipe(epochs=1, prompt="none"), verbose=False).fit(private)
    found = tuned.closure(private.uids[:5], public=split.public[:100])
    assert {f"{uid}+mirrored" for uid in private.uids[:5].tolist()} <= set(found["uid"])
    tuned.forget(private.uids[0])
    assert "closure" not in tuned.state_.derived, "hashes go with the state"


@pytest.mark.parametrize("kind", copies.KINDS)
def test_a_change_is_keyed_by_seed_and_uid(kind, split):
    some = split.private[:6]
    whole, part = copies.altered(some, kind, seed=2), copies.altered(some[3:], kind, seed=2)
    np.testing.assert_array_equal(whole.images[3:], part.images)
    assert (
        whole.uids.tolist() == [f"{uid}+{kind}" for uid in some.uids.tolist()]
        and len(copies.altered(some[:0], kind)) == 0
    )
    others = copies.altered(some, kind, seed=3)
    assert (kind in (copies.SAME, "mirrored")) == np.array_equal(others.images, whole.images)
    assert (kind == copies.SAME) == np.array_equal(whole.images, some.images)


def test_wrong_arguments_are_one_clear_error(fitted, backbone, split):
    eraser = fitted["digits"]
    before = eraser.state_hash()
    for wrong in ASKED:
        with pytest.raises(ValueError, match=r"uid|boolean|mask"):
            eraser.closure(wrong)
    for wrong in [w for w in ABOVE_0 if w != 0 or isinstance(w, bool)]:
        with pytest.raises(ValueError, match="threshold is"):
            eraser.closure(split.private.uids[:1], wrong)
    for wrong in [w for w in NOT_SAMPLES if w is not None] + [split.public[:1], split.public[:0]]:
        with pytest.raises(ValueError, match="public"):
            eraser.closure(split.private.uids[:1], public=wrong)
    small = Samples(np.zeros((2, 1, 4, 4), np.uint8), [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="images are"):
        eraser.closure(small)
    with pytest.raises(ValueError, match="images are"):
        eraser.closure(split.private.uids[:1], public=small)
    alone = RidgeEraser(backbone, verbose=False).fit(split.private[:3])
    with pytest.raises(ValueError, match="public is None"):
        alone.closure(split.private.uids[:1])
    alone.forget(split.private.uids[:3])
    with pytest.raises(ValueError, match="nobody to compare with"):
        alone.closure(split.private[:1], public=split.public)
    assert eraser.state_hash() == before and closure.STRANGERS == 1


# --- public twins


@pytest.mark.parametrize("kind", [LMEraser, RidgeEraser])
def test_a_fit_counts_the_private_images_that_are_public_too(kind, backbone, split):
    twins = replace(copies.altered(split.public[:5], copies.SAME), labels=np.zeros(5, int))  # labels do not matter
    near = copies.altered(split.public[5:7], "mirrored")
    options = {"recipe": Recipe(epochs=1, prompt="none")} if kind is LMEraser else {}
    eraser = kind(backbone, HashClusters(2), verbose=False, **options)
    with pytest.warns(UserWarning, match="5 of 27 private images are also public, pixel for pixel") as said:
        eraser.fit(split.private[:20] + twins + near, public=split.public[:40])
    (sentence,) = [str(one.message) for one in said if "private images" in str(one.message)]
    assert all(uid in sentence for uid in twins.uids[:3]) and "near copies were not looked for" in sentence
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eraser.fit(split.private[:20] + near, public=split.public[:40])
        eraser.fit(split.private[:20] + twins)


def test_pixels_of_another_shape_are_no_twins():
    tall, wide = (Samples(np.zeros((1, 1, *shape), np.uint8), [0], ["a"]) for shape in ((4, 2), (2, 4)))
    assert copies.public_twins(tall, wide) == [] and copies.public_twins(tall, tall) == ["a"]
    assert copies.pixel_keys(tall.images) != copies.pixel_keys(wide.images)
