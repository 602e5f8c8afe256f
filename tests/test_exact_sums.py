"""Exact sums: equal to the bit whatever the order, batches, threads and kernel, and taken back to the bit."""

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from threadpoolctl import threadpool_info, threadpool_limits

from lmeraser_kit import (
    Eraser,
    ExactnessError,
    HashClusters,
    HierarchicalClusters,
    RidgeEraser,
    SingleCluster,
    Store,
)
from lmeraser_kit.backbones.preprocessing import MOST, rounding
from lmeraser_kit.ground.determinism import one_thread
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.learners import Context, ExactSums, exact_sums
from lmeraser_kit.learners.exact_sums import BLOCK, PANEL
from lmeraser_kit.store.certificate import Certificate
from lmeraser_kit.store.files import DamagedError
from lmeraser_kit.testing import NotExactError, check_eraser
from lmeraser_kit.unlearning import SharedHead, buckets
from lmeraser_kit.unlearning.state import State

WIDTH, CLASSES = PANEL + 40, 7


def rows(n, seed=0):
    """Rows as large as 16 bits allow, so that sums in float32, or rounded ones, would differ."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(-MOST, MOST + 1, (n, WIDTH)).astype(np.int16)
    return {"rows": whole, "labels": rng.integers(0, CLASSES, n)}


def summed(parts):
    learner = ExactSums()
    total = learner.nothing(parts[0], CLASSES)
    for part in parts:
        learner.accumulate(total, part, 1)
    return total


def part_of(learnt, chosen):
    return {name: array[chosen] for name, array in learnt.items()}


def test_the_sums_are_those_of_whole_numbers():
    learnt = rows(300)
    total, x = summed([learnt]), np.c_[learnt["rows"], np.ones(300)].astype(np.int64)
    gram, moments = x.T @ x, x.T @ np.eye(CLASSES, dtype=np.int64)[learnt["labels"]]  # NumPy's own loops, without BLAS
    assert total.dtype == np.int64
    np.testing.assert_array_equal(np.triu(total[:, : WIDTH + 1]), np.triu(gram))
    np.testing.assert_array_equal(total[:, WIDTH + 1 :], moments)


def test_order_batches_and_threads_do_not_matter():
    learnt, n = rows(BLOCK + 500), BLOCK + 500
    order = np.random.default_rng(1).permutation(n)
    expected = summed([learnt])
    parts = [part_of(learnt, some) for some in np.split(order, [1, 2, 700, BLOCK])]
    with threadpool_limits(1):
        np.testing.assert_array_equal(summed(parts), expected)
    with threadpool_limits(2):
        np.testing.assert_array_equal(summed(parts[::-1]), expected)


KERNEL = """
import sys
sys.path.insert(0, "tests")
from test_exact_sums import digest, rows, summed
print(digest(summed([rows(700)]).tobytes()))
"""


@pytest.mark.parametrize("kernel", ["Haswell", "Nehalem", "Sandybridge", "SkylakeX"])
def test_another_kernel_of_the_blas_gives_the_same_sums(kernel):
    """On a chip that cannot run a kernel there is nothing to compare."""
    environment = os.environ | {"OPENBLAS_CORETYPE": kernel}
    done = subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, env=environment)
    if done.returncode == -signal.SIGILL:
        pytest.skip(f"this chip has no instructions for {kernel}")
    assert not done.returncode, done.stderr
    assert done.stdout.strip() == digest(summed([rows(700)]).tobytes())


def test_who_is_taken_back_leaves_no_bit():
    learnt, learner = rows(400), ExactSums()
    total = summed([learnt])
    rng = np.random.default_rng(2)
    held = np.ones(400, dtype=bool)
    for _ in range(200):  # they leave and come back, by ones and in groups
        chosen = rng.choice(400, rng.integers(1, 9), replace=False)
        for sign, some in ((-1, chosen[held[chosen]]), (1, chosen[~held[chosen]])):
            learner.accumulate(total, part_of(learnt, some), sign)
        held[chosen] = ~held[chosen]
    np.testing.assert_array_equal(total, summed([part_of(learnt, held)]))
    learner.accumulate(total, part_of(learnt, held), -1)
    assert not total.any()


def test_random_requests_then_a_fresh_fit(backbone, private, split, tmp_path):
    eraser = RidgeEraser(backbone, HashClusters(6), verbose=False).fit(private[:60], public=split.public)
    rng, held = np.random.default_rng(3), set(private.uids[:60].tolist())
    for _ in range(60):
        some = rng.choice(private.uids, rng.integers(1, 4), replace=False).tolist()
        if leaving := [uid for uid in some if uid in held]:
            eraser.forget(leaving)
        if joining := [uid for uid in some if uid not in held]:
            eraser.add(private[private.positions(joining)])
        held ^= set(some)
    there = private[private.positions(sorted(held))]
    fresh = RidgeEraser(backbone, HashClusters(6), verbose=False).fit(there, public=split.public)
    assert eraser.state_hash() == fresh.state_hash()
    np.testing.assert_array_equal(eraser.head(), fresh.head())
    eraser.verify()
    with Store.create(tmp_path / "store", clone(eraser), private[:60], split.public) as store:
        store.forget(sorted(set(private.uids[:60].tolist()) - held))
        assert store.eraser.state_hash() != fresh.state_hash()
        store.add(private[private.positions(sorted(held - set(private.uids[:60].tolist())))])
        assert store.eraser.state_hash() == fresh.state_hash() == store.verify().state_hash


@pytest.mark.parametrize("where", ["row", "sums"])
def test_memory_that_has_changed_is_noticed(where, backbone, private):
    eraser = RidgeEraser(backbone, SingleCluster(), verbose=False).fit(private[:20])
    array = eraser.state_.sums if where == "sums" else eraser.state_.models[0].arrays["rows"]
    array.setflags(write=True)
    array[0, 0] += 1
    with pytest.raises(ExactnessError, match="sums" if where == "sums" else "bucket 0"):
        eraser.verify()
    if where == "row":  # before it is taken back, which would leave its difference for ever
        with pytest.raises(ExactnessError, match="the rows of bucket 0 have changed in memory"):
            eraser.forget(private.uids[0])


def test_no_public_feature_saturates_and_a_private_one_is_counted(backbone, private, split):
    features = backbone.features(split.public.images, layers=True)
    step, square = (part.numpy() for part in rounding(features))
    assert np.abs(features / step).max() <= MOST / 2 and (np.log2(step) % 1 == 0).all()
    assert (np.abs(features).max(axis=0) / step > MOST / 4.1).mean() > 0.9  # and no bit is given away
    np.testing.assert_allclose(square, np.square(features.astype(float)).mean(axis=0))
    np.testing.assert_array_equal(step, backbone.rounding[0].numpy())
    small = rounding(features / 40)
    narrow = backbone.rounded(split.public)
    assert narrow.fingerprint == backbone.fingerprint
    narrow.rounding = small
    eraser = RidgeEraser(narrow, SingleCluster(), verbose=False)
    with pytest.warns(UserWarning, match=r"\d+ of \d+ features are more than twice the largest public one"):
        eraser.fit(private[:20])
    assert eraser.saturated() > 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RidgeEraser(backbone, SingleCluster(), verbose=False).fit(private[:20]).saturated() == 0


def test_a_rounded_row_does_not_depend_on_its_company(backbone, private):
    learner, context = ExactSums(mirrored=True), Context(backbone)
    together = learner.rows(private, context)
    for some in (slice(0, 1), slice(5, 70), slice(119, 120)):
        np.testing.assert_array_equal(learner.rows(private[some], context), together[some])


@pytest.mark.parametrize("clusters", [HashClusters(4), HierarchicalClusters(3, softness=0.2)])
def test_one_sample_none_and_more_classes_than_samples(clusters, backbone, private, split):
    eraser = RidgeEraser(backbone, clusters, verbose=False).fit(private[:1], public=split.public)
    assert eraser.predict(private[:1]).tolist() == private.labels[:1].tolist()
    assert np.isfinite(eraser.predict_proba(split.test)).all()
    eraser.forget(private.uids[0])
    assert eraser.state_.sums is None and len(eraser.state_) == 0
    with pytest.raises(ValueError, match="no private sample is held"):
        eraser.predict(split.test)
    eraser.add(private[:2])
    assert eraser.state_hash() == eraser.fit(private[:2], public=split.public).state_hash()


def test_what_is_derived_goes_with_the_state(backbone, private, split):
    eraser = RidgeEraser(backbone, HierarchicalClusters(3, softness=0.2), verbose=False)
    eraser.fit(private, split.public)
    eraser.predict(split.test)
    old = eraser.state_
    assert old.derived and any(model.derived for model in old.models.values())
    uid = private.uids[0]
    (touched,) = old.clusters_of(uid).values()
    eraser.forget(uid)
    assert not eraser.state_.derived and not eraser.state_.models[touched].derived
    others = old.models.keys() - {touched}
    assert all(eraser.state_.models[k] is old.models[k] for k in others)  # their factors are kept


def test_features_are_the_same_in_several_processes(backbone, private, split):
    for clusters in (HashClusters(3), HierarchicalClusters(3, softness=0.1)):
        one = RidgeEraser(backbone, clusters, verbose=False).fit(private, public=split.public)
        two = RidgeEraser(backbone, clusters, n_jobs=2, verbose=False).fit(private, public=split.public)
        assert one.state_hash() == two.state_hash()


class Hoarder(ExactSums):
    """Rows that stay where they were made."""

    kept: ClassVar[list] = []

    def rows(self, samples, context):
        self.kept.append(super().rows(samples, context))
        return self.kept[-1]


def test_a_row_that_is_kept_is_found(backbone, private, split):
    eraser = Eraser(backbone, HashClusters(3), Hoarder(), SharedHead(), verbose=False)
    with pytest.raises(NotExactError, match=r"Hoarder\.kept still holds the rounded row of a sample that has left"):
        check_eraser(eraser, private[:48], split.public[:80], verbose=False)


def test_one_thread_within_one_thread_gives_the_others_back_at_the_end():
    def threads():
        return [library["num_threads"] for library in threadpool_info()]

    with threadpool_limits(2):
        before = threads()
        for error in (None, KeyError):
            with pytest.raises(error) if error else contextlib.nullcontext(), one_thread:
                with one_thread:
                    assert set(threads()) == {1}
                assert set(threads()) == {1}
                if error:
                    raise error
            assert threads() == before


def test_a_few_uids_are_found_without_a_list_of_all(private):
    uids = np.array(["a", "ab", "b", "ba", "c", "ca"] + [f"d{i}" for i in range(14)])
    parts = {k: replace(private[:5], uids=np.sort(uids[k::4])) for k in range(4)}
    state = State(None, parts, {}, {}, private[:0])
    for uid in ("ca", "abc", "", "a", "caa", "d13", "z" * 9):
        assert state.find([uid]) == ({uid: uids.tolist().index(uid) % 4} if uid in uids else {}), uid
    assert state.find([]) == {} and state.find(["ca", "b"]) == {"ca": 1, "b": 2}


@pytest.mark.parametrize("clusters", [HashClusters(8), HierarchicalClusters(4)], ids=str)
def test_a_request_looks_at_nobody_outside_its_bucket(clusters, backbone, private, split, monkeypatch):
    """What a request costs must not grow with the number of samples held."""
    eraser = RidgeEraser(backbone, clusters, verbose=False).fit(private, public=split.public)
    largest = max(eraser.state_.members.values(), key=len)
    monkeypatch.setattr(State, "cluster_by_uid", lambda state: pytest.fail("everybody was looked at"))
    eraser.forget(largest.uids[0])
    monkeypatch.undo()
    eraser.verify()


def test_rows_of_a_whole_bucket_are_compared_before_they_are_taken_back(backbone, private):
    eraser = RidgeEraser(backbone, HashClusters(4), verbose=False).fit(private[:20])
    held = eraser.state_
    k, part = next(iter(held.members.items()))
    rows = held.models[k].arrays["rows"]
    rows.setflags(write=True)
    rows[0, 0] += 1
    with pytest.raises(ExactnessError, match=f"the rows of bucket {k} have changed in memory"):
        eraser.forget(part.uids)  # nobody stays in it
    assert eraser.state_ is held


@pytest.mark.parametrize("partition", [HashClusters(4), HierarchicalClusters(4)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rows_and_sums_may_be_made_in_parts(partition, mirrored, backbone, private, split, monkeypatch):
    def fitted():
        return RidgeEraser(backbone, clone(partition), mirrored=mirrored, verbose=False).fit(private, split.public)

    expected = fitted()
    monkeypatch.setattr(exact_sums, "BLOCK", 7)
    monkeypatch.setattr(buckets, "TOGETHER", 11)
    found = fitted()
    np.testing.assert_array_equal(found.state_.sums, expected.state_.sums)
    assert found.state_hash() == expected.state_hash()


def test_images_of_those_who_join_are_not_copied_again(backbone, private, monkeypatch):
    """Of a million samples a copy takes gigabytes."""
    given, rows = [], ExactSums.rows
    monkeypatch.setattr(
        ExactSums, "rows", lambda self, samples, context: given.append(samples) or rows(self, samples, context)
    )
    RidgeEraser(backbone, HashClusters(4), verbose=False).fit(private)
    assert [len(samples) for samples in given] == [len(private)]
    assert np.shares_memory(given[0].images, private.images)


def test_more_samples_than_64_bits_have_room_for_are_refused(backbone, private, monkeypatch):
    monkeypatch.setattr(exact_sums, "MOST_SAMPLES", 20)
    eraser = RidgeEraser(backbone, HashClusters(4), verbose=False).fit(private[:20])
    before = eraser.state_hash()
    with pytest.raises(ValueError, match="21 samples are too many for sums of 64 bits: at most 20"):
        eraser.add(private[20])
    assert eraser.state_hash() == before


@pytest.mark.parametrize("where", ["versions/sums", "clusters/"])
def test_a_store_makes_damaged_sums_and_rows_anew(where, backbone, private, tmp_path):
    eraser = RidgeEraser(backbone, HashClusters(4), verbose=False)
    with Store.create(tmp_path / "store", eraser, private[:20]) as store:
        expected = store.eraser.state_hash()
    path = next(p for p in sorted((tmp_path / "store").rglob("*.safetensors")) if where in p.as_posix())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"repair=True"):
        Store.open(tmp_path / "store", verbose=False)
    with Store.open(tmp_path / "store", verbose=False, repair=True) as store:
        assert store.eraser.state_hash() == expected == store.verify().state_hash
        store.forget(private.uids[0])
        assert store.eraser.state_hash() == eraser.fit(private[1:20]).state_hash()


def test_sums_alone_speak_of_no_cluster(backbone, split, private):
    alone = RidgeEraser(backbone, verbose=False).fit(private, public=split.public)
    receipt = alone.forget(private.uids[0])
    assert receipt.summed and "sums changed, rows of 1 of" in str(receipt) and "learnt" not in str(receipt)
    assert alone.plan(private, split.public) == dict.fromkeys(range(len(private)), 1)
    corrected = RidgeEraser(backbone, clusters=HierarchicalClusters(3), verbose=False).fit(private, public=split.public)
    receipt = corrected.forget(private.uids[0])
    assert not receipt.summed and "1 of 3 clusters learnt" in str(receipt)
    assert len(corrected.plan(private, split.public)) == 3


def test_what_a_ridge_eraser_and_its_store_say_is_of_buckets_and_sums_and_short(backbone, private, tmp_path):
    eraser = RidgeEraser(backbone, HashClusters(64), verbose=False).fit(private[:60])
    buckets = sorted(eraser.sizes())
    first_few = f"{', '.join(map(str, buckets[:10]))}, and {len(buckets) - 10} more"
    assert len(buckets) > 20
    with Store.create(tmp_path / "store", eraser, private[:60]) as store:
        fitted, done = str(store.certificates()[0]), store.forget(private.uids[0])
        verified = str(store.verify())
    assert f"sums changed, rows written in buckets: {first_few}; " in fitted
    assert "1 forgotten, 0 added, 59 samples held; sums changed, rows written in buckets: " in str(done)
    assert "sums, and rows in buckets, computed again: " in verified and " more; 59 samples held" in verified
    assert not any("cluster" in text for text in (fitted, str(done), verified))
    assert Certificate.read(done.record()).hash == done.hash
    for array in (model.arrays["rows"] for model in eraser.state_.models.values()):
        array.setflags(write=True)
        array[0, 0] += 1
    with pytest.raises(ExactnessError, match=r"gives: (sums, )?(bucket \d+, ){9,10}.*and \d+ more$") as raised:
        eraser.verify()
    assert len(raised.value.pieces) >= len(buckets) and {"cluster 0", "bucket 0"} & {*raised.value.pieces} <= {
        "cluster 0"
    }
    with pytest.raises(ValueError, match=rf"no bucket 99; there are: {first_few}$"):
        eraser.verify([99])


def test_clusters_that_correct_a_ridge_head_are_called_clusters(backbone, split, private, tmp_path):
    eraser = RidgeEraser(backbone, HierarchicalClusters(4), verbose=False)
    with Store.create(tmp_path / "store", eraser, private[:40], split.public) as store:
        assert "clusters learnt again: " in str(store.forget(private.uids[0]))
