"""What fails in a store holds nothing else up: who leaves does not wait for who joins."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from lmeraser_kit import HashClusters, Samples, Store
from lmeraser_kit.ground import determinism
from lmeraser_kit.unlearning import rebuild

LEARN = rebuild.learn_cluster


def strange(*uids, seed=0):
    """Samples from which nothing can be learnt, as `fails` has it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(uids), 1, 8, 8), dtype=np.uint8)
    return Samples(pixels, [3] * len(uids), uids, 10)


@pytest.fixture
def fails(monkeypatch):
    """Learning fails where a strange sample is a member."""

    def learn(learner, samples, *others):
        if any(uid.startswith("strange") for uid in samples.uids.tolist()):
            raise FloatingPointError("the loss is not finite")
        return LEARN(learner, samples, *others)

    monkeypatch.setattr(rebuild, "learn_cluster", learn)
    return monkeypatch


@pytest.fixture
def store(make_eraser, private, tmp_path):
    eraser = make_eraser(HashClusters(5), recipe={"epochs": 1})
    with Store.create(tmp_path / "store", eraser, private[:40]) as store:
        yield store


def opened_again(store, **options):
    store.close()
    return Store.open(store.folder, verbose=False, **options)


def waiting(store):
    return [(one["action"], one["n"]) for one in store.requests() if one["state"] != "done"]


def same_as_fit_on(store, samples, make_eraser):
    fresh = make_eraser(HashClusters(5), recipe={"epochs": 1}).fit(samples)
    return store.eraser.state_hash() == fresh.state_hash()


def test_an_addition_that_fails_holds_up_no_deletion(store, fails, private, make_eraser):
    with pytest.raises(FloatingPointError, match="not finite"):
        store.add(strange("strange-0", "strange-1"))
    certificate = store.forget(private.uids[0])
    assert certificate.n_forgotten == 1 and waiting(store) == [("add", 2)]
    store.request_forget(private.uids[1])
    with pytest.warns(UserWarning, match=r"request 2 has failed \(FloatingPointError: .*forgetting its samples"):
        assert store.run().n_forgotten == 1
    assert same_as_fit_on(store, private[2:40], make_eraser)
    with pytest.warns(UserWarning, match="request 2 has failed"), opened_again(store) as again:
        again.forget(private.uids[2])
        assert same_as_fit_on(again, private[3:40], make_eraser) and waiting(again) == [("add", 2)]
        again.verify()


def test_what_is_forgotten_of_a_failed_addition_is_left_in_no_file(store, fails, private, make_eraser):
    bad = strange("strange-0", "strange-1")
    with pytest.raises(FloatingPointError):
        store.add(bad)
    store.forget("strange-0")
    assert waiting(store) == [("add", 1)]
    everything = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert bad.images[0].tobytes() not in everything and bad.images[1].tobytes() in everything
    store.check()
    store.forget("strange-1")
    assert waiting(store) == []
    assert bad.images[1].tobytes() not in b"".join(p.read_bytes() for p in store.folder.rglob("*") if p.is_file())
    assert same_as_fit_on(store, private[:40], make_eraser)
    with warnings.catch_warnings(action="error"), opened_again(store) as again:
        again.verify()


def test_of_several_additions_those_that_can_be_are_made(store, fails, private, make_eraser):
    store.request_add(private[40:42])
    store.request_add(strange("strange-0"))
    store.request_add(private[42:44])
    with pytest.warns(UserWarning, match="request 3 has failed"):
        store.run()
    assert same_as_fit_on(store, private[:44], make_eraser) and waiting(store) == [("add", 1)]
    fails.undo()
    assert store.run().n_added == 1
    assert store.eraser.state_.find(["strange-0"]) and waiting(store) == []


def test_a_rectification_that_fails_leaves_what_was_there(store, fails, private, make_eraser):
    with pytest.raises(FloatingPointError):
        store.add(strange("strange-0"))
    held = private[:1]
    right = Samples(held.images, (held.labels + 1) % 10, held.uids, 10)
    assert store.rectify(right).n_rectified == 1
    expected = Samples(private.images[:40], [right.labels[0], *private.labels[1:40]], private.uids[:40], 10)
    assert same_as_fit_on(store, expected, make_eraser)
    label = Samples(strange("strange-0").images, [4], ["strange-0"], 10)
    store.request_rectify(label)
    with pytest.warns(UserWarning, match="of the same samples, has failed before"):
        store.request_forget(private.uids[1])
        store.run()
    assert waiting(store) == [("add", 1), ("rectify", 1)]
    assert same_as_fit_on(store, expected.without([private.uids[1]]), make_eraser)
    fails.undo()
    store.run()
    state = store.eraser.state_.samples
    assert state.labels[state.positions(["strange-0"])].tolist() == [4] and waiting(store) == []


def test_a_deletion_that_fails_is_said_at_once(store, private, monkeypatch):
    store.request_add(private[40:41])
    before = store.eraser.state_hash()
    monkeypatch.setattr(rebuild, "learn_cluster", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.forget(private.uids[0])
    assert store.eraser.state_hash() == before and waiting(store) == [("add", 1), ("forget", 1)]


def test_nobody_else_can_read_a_store(make_eraser, private, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o755)
    for folder in (tmp_path / "new" / "store", tmp_path / "mine"):
        Store.create(folder, make_eraser(HashClusters(2), recipe={"epochs": 1}), private[:10]).close()
        inside = [path for path in folder.iterdir() if path.name not in ("lock", "ledger.seal")]
        assert len(inside) == 6 and not any(path.stat().st_mode & 0o077 for path in inside)
    assert not (tmp_path / "new" / "store").stat().st_mode & 0o077


def test_what_an_upgrade_costs_is_said_before(store, private, monkeypatch, make_eraser):
    monkeypatch.setattr(determinism, "code_digest", lambda: "other-code")
    cost = "kit: .* then, other-code now.*the next request learns all 40 samples again"
    with pytest.warns(UserWarning, match=cost), opened_again(store) as again:
        assert sum(again.forget(private.uids[0]).clusters_tuned.values()) == 39
        again.verify()
    with warnings.catch_warnings(action="error"), Store.open(store.folder, verbose=False) as again:
        assert sum(again.forget(private.uids[1]).clusters_tuned.values()) < 39


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc libc6-dev")
def test_a_disk_that_fails_loses_nothing_and_brings_nobody_back():
    """Some of the points of `make fault-test`."""
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), "--points", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and "72 points" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
