"""The store keeps its promise on disk: exact, nothing left behind, damage has a name, one writer and many readers."""

import gc
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmeraser_kit import (
    ExactnessError,
    HashClusters,
    HierarchicalClusters,
    HyperplaneClusters,
    Samples,
    SingleCluster,
    Store,
)
from lmeraser_kit.store import certificate
from lmeraser_kit.store.certificate import Certificate, merkle_root
from lmeraser_kit.store.files import DamagedError, StoreError
from lmeraser_kit.store.locks import lock

PARTITIONS = {
    "public": HierarchicalClusters(5),
    "private": HierarchicalClusters(5, fit_on="private"),
    "hyperplanes": HyperplaneClusters(2),
    "hashed": HashClusters(5),
    "single": SingleCluster(),
}


@pytest.fixture(params=PARTITIONS)
def clusters(request):
    return PARTITIONS[request.param]


@pytest.fixture
def make_store(make_eraser, private, split, tmp_path):
    """A new store of 40 samples, open; the fixtures' erasers with two slices."""
    stores = []

    def make(clusters=None, samples=private[:40], **options):
        eraser = make_eraser(clusters, recipe={"epochs": 2, "slices": 2, **options.pop("recipe", {})}, **options)
        stores.append(Store.create(tmp_path / f"store-{len(stores)}", eraser, samples, split.public[:120]))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def fresh_hash(make_eraser, split):
    def fresh(clusters, samples, **recipe):
        eraser = make_eraser(clusters, recipe={"epochs": 2, "slices": 2, **recipe})
        return eraser.fit(samples, public=split.public[:120]).state_hash()

    return fresh


def contents(folder):
    """Every byte under a folder, ledger, journals and free pages included, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- exact


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sequence_of_requests_equals_a_fresh_fit(data, clusters, make_store, fresh_hash, private):
    pool = private[:40]
    held, store = set(pool.uids[:20].tolist()), make_store(clusters, pool[:20])
    for _ in range(data.draw(st.integers(1, 3), label="requests")):
        outside = sorted(set(pool.uids.tolist()) - held)
        forget = len(held) > 6 and (not outside or data.draw(st.booleans(), label="forget?"))
        uids = data.draw(
            st.lists(st.sampled_from(sorted(held) if forget else outside), min_size=1, max_size=4, unique=True)
        )
        held = held - set(uids) if forget else held | set(uids)
        if data.draw(st.booleans(), label="closed before it is carried out?"):
            store.request_forget(uids) if forget else store.request_add(pool[pool.positions(uids)])
            store.close()
            store = Store.open(store.folder, verbose=False)
            assert len(store.recovered.requests) == 1
        else:
            store.forget(uids) if forget else store.add(pool[pool.positions(uids)])
    remaining = pool[np.isin(pool.uids, list(held))]
    expected = fresh_hash(clusters, remaining)
    assert store.eraser.state_hash() == expected == store.verify().state_hash
    store.close()


def test_the_store_is_the_eraser_on_disk(make_store, make_eraser, private, split):
    store = make_store()
    eraser = make_eraser(recipe={"epochs": 2, "slices": 2}).fit(private[:40], public=split.public[:120])
    assert store.eraser.state_hash() == eraser.state_hash()
    done, receipt = store.forget(private.uids[:2]), eraser.forget(private.uids[:2])
    assert done.clusters_tuned == receipt.clusters_tuned and done.sample_gradients == receipt.sample_gradients
    assert (done.n_forgotten, done.n_added, done.n_samples, done.exact) == (2, 0, 38, True)
    np.testing.assert_array_equal(store.eraser.predict_proba(split.test), eraser.predict_proba(split.test))
    with pytest.raises(StoreError, match="there is a store"):
        Store.create(store.folder, eraser, private)


def test_a_fitted_eraser_brings_nobody_back_into_a_store(make_eraser, split, private, tmp_path):
    eraser = make_eraser().fit(private[:40], public=split.public[:120])
    gone = private.uids[7]
    eraser.forget(gone)
    with pytest.raises(ValueError, match=f"39 samples, and 40 are given: '{gone}' is given and not held"):
        Store.create(tmp_path / "store", eraser, private[:40], split.public[:120])
    with pytest.raises(ValueError, match="is held and not given"):
        Store.create(tmp_path / "store", eraser, eraser.state_.samples[:38], split.public[:120])
    assert not (tmp_path / "store").exists()
    with Store.create(tmp_path / "store", eraser, eraser.state_.samples, split.public[:120]) as store:
        assert store.eraser.state_hash() == eraser.state_hash()


def test_a_window_touches_each_cluster_once(make_store, fresh_hash, private):
    store = make_store()
    cluster = store.eraser.state_.cluster_by_uid()
    largest = max(store.eraser.sizes(), key=store.eraser.sizes().get)
    leaving = [uid for uid, k in cluster.items() if k == largest][:3]
    for uid in leaving:
        store.request_forget(uid)
    store.request_add(private[40:41])
    store.request_forget(private.uids[40])  # comes and goes in one window: it never trains
    store.request_forget(private.uids[5])
    store.request_add(private[5:6])  # goes and comes back
    before = store.eraser.sizes()
    done = store.run()
    assert done.clusters_tuned == {largest: before[largest] - 3}
    assert done.requests == [2, 3, 4, 5, 6, 7, 8] and store.run() is None
    assert (done.n_forgotten, done.n_added) == (4, 1)
    assert [row["certificate"] for row in store.requests()] == [1] + [2] * 7
    assert store.eraser.state_hash() == fresh_hash(None, private[:40].without(leaving))


def test_everything_can_leave_and_others_come(make_store, clusters, fresh_hash, private, split):
    store = make_store(clusters)
    done = store.forget(private.uids[:40])
    assert done.n_samples == 0 and done.sample_gradients == 0
    with pytest.raises(ValueError, match="no private sample is held"):
        store.eraser.predict(split.test)
    store.close()
    with Store.open(store.folder, verbose=False) as store:
        store.verify()
        store.add(private[40:60])
        assert store.eraser.state_hash() == fresh_hash(clusters, private[40:60])


def test_in_another_environment_a_request_builds_everything_anew(make_store, private, monkeypatch):
    store = make_store()
    store.close()
    monkeypatch.setattr("lmeraser_kit.ground.determinism.versions", lambda: {"torch": "0.1"})
    with Store.open(store.folder, verbose=False) as store:
        with pytest.raises(RuntimeError, match=r"torch: .* then, 0\.1 now"):
            store.verify()
        done = store.forget(private.uids[0])
        assert done.clusters_tuned == store.eraser.sizes()
        store.verify()


# --- durable


@pytest.mark.parametrize("points", [18])
def test_killed_at_random_points_nothing_is_lost_or_left_behind(points):
    """The full test is `make kill-test`."""
    command = [sys.executable, Path(__file__).with_name("kill.py"), "--points", str(points)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{points} kills, nothing lost" in done.stdout


@pytest.mark.parametrize("left", [b"", bytes(512) + b"pages of before"], ids=["empty", "without a header"])
def test_a_journal_that_sqlite_ignores_is_taken_away(make_store, left):
    """A writer that is killed at the start of a transaction leaves one; there is nothing to roll back."""
    store = make_store()
    before = store.eraser.state_hash()
    store.close()
    (store.folder / "ledger.seal").unlink()
    journal = store.folder / "ledger.sqlite-journal"
    journal.write_bytes(left)
    Store.open(store.folder, verbose=False, readonly=True).close()
    assert journal.exists(), "a reader changes nothing"
    with Store.open(store.folder, verbose=False) as store:
        assert not journal.exists()
        store.check()
        assert store.eraser.state_hash() == before and len(store.requests()) == 1


def test_a_failed_request_is_kept_and_carried_out_later(make_store, private, monkeypatch):
    store = make_store()
    before = store.eraser.state_hash()
    with monkeypatch.context() as patch:
        patch.setattr("lmeraser_kit.unlearning.rebuild.learn_cluster", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.forget(private.uids[0])
        assert store.eraser.state_hash() == before
        with pytest.raises(ValueError, match="forgotten already"):  # it is recorded, and will be done
            store.forget(private.uids[0])
    store.close()
    with Store.open(store.folder, verbose=False) as store:
        assert store.recovered.n_forgotten == 1 and store.recovered.concerns(*next(iter(store.recovered.salts.items())))
        assert private.uids[0] not in store.eraser.state_.samples.uids
        store.verify()


# --- nothing is left


@pytest.mark.parametrize("fit_on", ["public", "private"])
def test_nothing_of_a_forgotten_sample_is_left_in_any_file(fit_on, make_store, private, split, backbone):
    marker = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    planted = Samples(marker, [3], ["planted-uid-7351"], 10)
    store = make_store(HierarchicalClusters(5, fit_on=fit_on), private[:40])
    store.add(planted)
    k = store.eraser.state_.clusters_of(planted.uids)["planted-uid-7351"]
    model = store.eraser.state_.models[k]
    saw_it = [c for c in model.checkpoints() if planted.digests[0].tobytes() in _covered(store, k, c)]
    assert saw_it
    traces = {
        "pixels": marker.tobytes(),
        "uid": b"planted-uid-7351",
        "label, uid and pixels": planted.digests[0].tobytes(),
        "key": planted.keys.tobytes(),
        "head": saw_it[-1].arrays["weight"].tobytes()[:64],
        "prompt": saw_it[-1].arrays["prompt"].tobytes()[:64],
        "address": saw_it[-1].address.encode(),
    }
    if fit_on == "private":  # the only routing for which features are kept
        traces["feature"] = backbone.features(marker).tobytes()
    index = next(path.name for path in (store.folder / "samples").glob(f"{k:05d}.index-*"))
    hashes = {"index": index[-44:-12].encode(), "root": store.verify([k]).root.encode()}

    def found(traces):
        everything = contents(store.folder)
        names = "\n".join(map(str, everything)).encode()
        return {name for name, trace in traces.items() if any(trace in b for b in [names, *everything.values()])}

    assert found(traces) == set(traces) and found(hashes) == set(hashes)
    done = store.forget("planted-uid-7351")
    assert done.concerns("planted-uid-7351", done.salts["planted-uid-7351"])
    assert found(traces) == set() and found(hashes) == {"root"}  # a root hides what is under it, by its nonces
    assert found({"salt": done.salts["planted-uid-7351"].encode()}) == set()
    store.close()
    assert found(traces) == set()


def _covered(store, k, checkpoint):
    """The digests of the samples that a checkpoint was tuned on."""
    part = store.eraser.state_.members[k]
    slices = store.eraser.recipe.slices_of(part.keys, store.eraser.seed)
    r = [c.address for c in store.eraser.state_.models[k].checkpoints()].index(checkpoint.address)
    first = slices.min()
    return part.digests[slices <= first + r].tobytes()


def test_a_request_under_way_leaves_nothing_either(make_store, private, monkeypatch):
    """Between the record and the commit the uid is in a staged file; never in the ledger."""
    store, uid = make_store(), private.uids[7]
    monkeypatch.setattr("lmeraser_kit.unlearning.rebuild.learn_cluster", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.forget(uid)
    there = {path.name for path, content in contents(store.folder / "staged").items() if uid.encode() in content}
    assert len(there) == 1
    assert not any(uid.encode() in content for path, content in contents(store.folder).items() if "ledger" in path.name)


# --- damage


def test_every_changed_or_truncated_file_is_detected_by_name_and_mended_or_refused(make_store, tmp_path):
    store = make_store()
    expected = store.eraser.state_hash()
    store.close()
    rng, trial, tried, mended = np.random.default_rng(0), tmp_path / "trial", 0, 0
    for path in sorted(contents(store.folder)):
        if path.name == "lock":  # holds nothing
            continue
        size = path.stat().st_size
        damages = [("flip", int(at)) for at in {0, size - 1, *rng.integers(0, size, 3)}]
        for kind, at in [*damages, ("truncate", int(rng.integers(0, size))), ("truncate", 0)]:
            shutil.rmtree(trial, ignore_errors=True)
            shutil.copytree(store.folder, trial)
            name = str(path.relative_to(store.folder))
            damaged = bytearray(path.read_bytes())
            damaged[at] ^= 1 << int(rng.integers(8))
            (trial / name).write_bytes(damaged if kind == "flip" else damaged[:at])
            with pytest.raises(DamagedError) as caught, Store.open(trial, verbose=False) as found:
                found.check()
            assert name in str(caught.value) and name in caught.value.files, (name, kind, at, caught.value)
            tried += 1
            if name.startswith("clusters") or name == "ledger.seal":
                with Store.open(trial, verbose=False, repair=True) as found:
                    assert found.verify().state_hash == expected
                with Store.open(trial, verbose=False) as found:
                    found.check()
                mended += 1
    assert tried >= 100 and mended >= 20


def test_missing_files_have_names_and_strange_ones_too(make_store):
    store = make_store()
    store.close()
    for folder, advice in (("clusters", "repair=True"), ("samples", "from a copy"), ("versions", "from a copy")):
        path = sorted((store.folder / folder).iterdir())[0]
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(DamagedError, match=f"{folder}/{path.name[:12]}.*{advice}"):
            Store.open(store.folder, verbose=False)
        path.write_bytes(kept)
    with Store.open(store.folder, verbose=False) as store:
        (store.folder / "clusters" / "copy-of-a-cluster.safetensors").write_bytes(b"x")
        with pytest.raises(StoreError, match=r"copy-of-a-cluster.*does not belong"):
            store.check()
        (store.folder / "clusters" / "copy-of-a-cluster.safetensors").unlink()
        (store.folder / "copy-of-everybody.npz").write_bytes(b"x")
        with pytest.raises(StoreError, match=r"copy-of-everybody.*does not belong"):
            store.verify()
        (store.folder / "copy-of-everybody.npz").unlink()
        (store.folder / "ledger.sqlite").write_bytes(b"y" + (store.folder / "ledger.sqlite").read_bytes()[1:])
        with pytest.raises(DamagedError, match=r"ledger\.sqlite"):
            store.check()


def test_what_lies_in_the_stores_folders_does_not_stop_forgetting(make_store, private):
    store = make_store()
    strange = store.folder / "samples" / ".ipynb_checkpoints"
    strange.mkdir()
    (strange / "copy.safetensors").write_bytes(b"somebody")
    store.forget(private.uids[0])
    assert not strange.exists()
    store.check()


def test_one_damaged_images_file_stops_nobody_else(make_store, private, fresh_hash):
    store = make_store()
    k = max(store.eraser.sizes(), key=store.eraser.sizes().get)
    cluster = store.eraser.state_.cluster_by_uid()
    path = next((store.folder / "samples").glob(f"{k:05d}.images-*"))
    path.write_bytes(path.read_bytes()[:-1])
    mine, others = ([uid for uid in cluster if (cluster[uid] == k) is own] for own in (True, False))
    before = store.requests()
    with pytest.raises(DamagedError, match=f"{k:05d}.images"):
        store.forget(mine[0])
    assert store.requests() == before  # refused, not recorded
    store.forget(others[0])
    store.forget(mine)  # everybody in it leaves: its images are not needed
    store.verify()
    assert store.eraser.state_hash() == fresh_hash(None, private[:40].without([others[0], *mine]))


def test_a_recorded_request_that_cannot_be_carried_out_can_be_overtaken(make_store, private, fresh_hash):
    """An images file is damaged after the request was recorded: the whole cluster can still leave."""
    store = make_store()
    cluster = store.eraser.state_.cluster_by_uid()
    k = cluster[private.uids[0]]
    store.request_forget(private.uids[0])
    path = next((store.folder / "samples").glob(f"{k:05d}.images-*"))
    path.write_bytes(b"")
    store.close()
    with pytest.raises(DamagedError, match="images"):
        Store.open(store.folder, verbose=False)
    with Store.open(store.folder, verbose=False, finish=False) as store:
        rest = [uid for uid in cluster if cluster[uid] == k and uid != private.uids[0]]
        with pytest.raises(ValueError, match="forgotten already"):
            store.request_forget(private.uids[0])
        done = store.forget(rest)
        assert done.n_forgotten == len(rest) + 1
        store.verify()


def test_a_fit_that_cannot_succeed_leaves_no_store(make_eraser, private, split, tmp_path):
    wild = make_eraser(recipe={"optimiser": "sgd", "head_lr": 1e38, "epochs": 3})
    with pytest.raises(FloatingPointError, match="not finite"):
        Store.create(tmp_path / "store", wild, private[:40], split.public[:120])
    assert not list((tmp_path / "store").iterdir())
    Store.create(tmp_path / "store", make_eraser(), private[:40], split.public[:120]).close()


def test_an_inexact_partition_is_announced(make_store, private):
    with pytest.warns(UserWarning, match="does not forget"):
        store = make_store(HierarchicalClusters(5, fit_on="private-once"))
    assert not store.forget(private.uids[:10]).exact
    with pytest.raises(ExactnessError, match="prototype"):
        store.verify()


def test_a_certificate_taken_out_or_changed_is_noticed(make_store, private):
    store = make_store()
    for uid in private.uids[:3]:
        store.forget(uid)
    store.close()
    honest = (store.folder / "ledger.sqlite").read_bytes()
    database = sqlite3.connect(store.folder / "ledger.sqlite")
    database.execute("UPDATE certificates SET record = replace(record, '\"n_forgotten\": 1', '\"n_forgotten\": 7')")
    database.commit()
    database.close()
    for repair in (False, True):  # the seal is genuine: nothing excuses the change
        with pytest.raises(DamagedError, match=r"ledger\.sqlite"):
            Store.open(store.folder, verbose=False, repair=repair)
    (store.folder / "ledger.sqlite").write_bytes(honest)
    (store.folder / "ledger.seal").unlink()  # who can write can also remove the seal
    kept = (store.folder / "ledger.sqlite").read_bytes()
    for tampering in (
        "DELETE FROM certificates WHERE id = 2",
        "UPDATE certificates SET record = replace(record, '\"n_forgotten\": 1', '\"n_forgotten\": 0') WHERE id = 2",
        "DELETE FROM certificates WHERE id = 4",
    ):
        database = sqlite3.connect(store.folder / "ledger.sqlite")
        database.execute(tampering)
        database.commit()
        database.close()
        with pytest.raises(DamagedError, match=r"ledger\.sqlite"):
            Store.open(store.folder, verbose=False)
        (store.folder / "ledger.sqlite").write_bytes(kept)
    Store.open(store.folder, verbose=False).close()


# --- one writer, many readers


def test_nobody_comes_between_the_making_of_a_store_and_its_opening(make_eraser, private, tmp_path, monkeypatch):
    """Else one that fails to open it would take away the files of another, who has."""
    folder, opened = tmp_path / "store", Store.open.__func__

    def opening(cls, *arguments, **options):
        with ThreadPoolExecutor(1) as others, pytest.raises(StoreError, match="open for writing elsewhere"):
            others.submit(lock, folder).result()
        return opened(cls, *arguments, **options)

    monkeypatch.setattr(Store, "open", classmethod(opening))
    store = Store.create(folder, make_eraser(HashClusters(2), recipe={"epochs": 1}), private[:20])
    with store, pytest.raises(StoreError, match="open for writing elsewhere"):
        lock(folder)
    lock(folder).close()


def test_two_backups_into_one_folder_do_not_take_each_others_files(make_store, tmp_path):
    store, partial = make_store(), tmp_path / ".backup.partial"
    partial.mkdir()
    with lock(partial), pytest.raises(StoreError, match="open for writing elsewhere"):
        store.backup(tmp_path / "backup")
    (partial / "samples").mkdir()  # of one that was killed
    assert {path.name for path in store.backup(tmp_path / "backup").iterdir()} >= {"ledger.sqlite", "samples"}
    assert not partial.exists()


def test_a_store_without_its_ledger_is_no_empty_folder(make_store):
    store = make_store()
    store.close()
    (store.folder / "ledger.sqlite").unlink()
    with pytest.raises(DamagedError, match=r"ledger.sqlite; all else of the store in .* is there: restore"):
        Store.open(store.folder)


def test_a_store_says_in_a_line_what_it_holds(make_store):
    store = make_store()
    n = len(store.eraser.state_)
    assert repr(store) == f"Store({str(store.folder)!r}, {n} samples)"
    with Store.open(store.folder, readonly=True, verbose=False) as reader:
        assert repr(reader).endswith(f"{n} samples, readonly)")
    store.close()
    assert repr(store).endswith(f"{n} samples, closed)")


def test_one_writer_at_a_time_and_readers_see_one_version(make_store, private, split):
    store = make_store()
    with pytest.raises(StoreError, match="open for writing elsewhere"):
        Store.open(store.folder)
    program = f"from lmeraser_kit import Store; Store.open({str(store.folder)!r})"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "open for writing elsewhere" in other.stderr
    seen, problems, valid, stop = [], [], {store.eraser.state_hash()}, threading.Event()

    def read():
        while not stop.is_set():
            try:
                with Store.open(store.folder, verbose=False, readonly=True) as reader:
                    seen.append(reader.eraser.state_hash())
            except Exception as error:  # a reader must never fail
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for uid in private.uids[:12]:
        store.forget(uid)
        valid.add(store.eraser.state_hash())
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems and len(seen) > 2 and set(seen) <= valid


def test_a_reader_predicts_and_verifies_and_may_do_no_more(make_store, private, split):
    store = make_store()
    with Store.open(store.folder, verbose=False, readonly=True) as reader:
        assert reader.eraser.score(split.test) == store.eraser.score(split.test)
        assert reader.verify([sorted(reader.eraser.sizes())[0]]).clusters == sorted(reader.eraser.sizes())[:1]
        for request in (lambda: reader.forget(private.uids[0]), lambda: reader.add(private[50:51]), reader.run):
            with pytest.raises(StoreError, match="opened for reading"):
                request()
        before = reader.eraser.state_hash()
        store.forget(private.uids[0])
        assert reader.eraser.state_hash() == before  # it stays with what it has opened, and says so when asked
        for look in (reader.verify, reader.check):
            with pytest.raises(StoreError, match="changed the store since"):
                look()


# --- certificates


def test_certificates_follow_each_other_and_name_nobody(make_store, private):
    store = make_store()
    done = [store.forget(private.uids[:2]), store.forget(private.uids[2]), store.add(private[40:42])]
    kept = store.certificates()
    assert [c.record() for c in kept[1:]] == [c.record() for c in done]
    assert all(after.previous == before.hash for before, after in itertools.pairwise(kept))
    assert all(after.root_before == before.root_after for before, after in itertools.pairwise(kept))
    uid, salt = next(iter(done[0].salts.items()))
    assert done[0].concerns(uid, salt) and kept[1].concerns(uid, salt) and not kept[2].concerns(uid, salt)
    assert not done[0].concerns(private.uids[9], salt)
    assert all(c.salts == {} for c in kept) and not any(uid in json.dumps(c.record()) for c in kept)
    assert Certificate.read(done[0].record()).clusters_tuned == done[0].clusters_tuned
    text = str(store.verify())
    assert "It proves" in text and "does not prove" in text and done[-1].root_after in text
    assert f"clusters learnt again: {', '.join(map(str, sorted(store.eraser.sizes())))}; 39 samples held" in text
    learnt = (
        f"2 forgotten, 0 added, 38 samples held; clusters learnt again: {', '.join(map(str, done[0].clusters_tuned))}"
    )
    assert f"certificate {done[0].id}: {learnt}; " in str(done[0]) and uid not in str(done[0])


def test_a_merkle_root_covers_every_leaf_in_its_place():
    leaves = [certificate.digest("leaf", i) for i in range(13)]
    roots = {merkle_root(leaves[:n]) for n in range(14)} | {merkle_root(leaves[::-1])}
    roots |= {merkle_root([*leaves[:i], "other", *leaves[i + 1 :]]) for i in range(13)}
    assert len(roots) == 14 + 1 + 13
    node = certificate.digest("node", leaves[0], leaves[1])
    assert merkle_root(leaves[:3]) == certificate.digest("node", node, leaves[2])


def test_a_root_tells_nothing_to_who_guesses(make_store, private):
    """The same samples in two stores: the same state, other roots; an old root's nonces are gone."""
    one, other = make_store(), make_store()
    assert one.eraser.state_hash() == other.eraser.state_hash()
    assert one.verify().root != other.verify().root


def test_verify_compares_with_the_last_certificate(make_store, monkeypatch):
    store = make_store()
    with monkeypatch.context() as patch:
        patch.setattr("lmeraser_kit.store.reading.leaves", lambda version: ["other"])
        with pytest.raises(ExactnessError, match="commits to other clusters"):
            store.verify(sorted(store.eraser.sizes())[:1])
    store.verify(sorted(store.eraser.sizes())[:1])


# --- bad input


def test_bad_requests_and_bad_folders_are_refused(make_store, make_eraser, private, split, tmp_path):
    store = make_store()
    before = store.requests()
    requests = [
        (lambda: store.forget([private.uids[0], "nobody"]), "unknown uid 'nobody'"),
        (lambda: store.forget([private.uids[0]] * 2), "named twice"),
        (lambda: store.forget([]), "no uid is named"),
        (lambda: store.forget(b"abc"), "b'abc' is no name"),
        (lambda: store.forget([7.0]), "7.0 is no name"),
        (lambda: store.add(private[:0]), "no sample to add"),
        (lambda: store.add(private[:1]), "is there already"),
        (lambda: store.add(split.public[:1]), "public"),
        (lambda: store.add(Samples(np.zeros((1, 1, 4, 4), np.uint8), [0], ["small"])), "cannot join"),
        (lambda: store.add(Samples(private.images[:1], [10], ["strange"], 11)), "outside the range 0 to 9"),
    ]
    for request, message in requests:
        with pytest.raises(ValueError, match=message):
            request()
    assert store.requests() == before and not list((store.folder / "staged").iterdir())
    with pytest.raises(StoreError, match="no store in"):
        Store.open(tmp_path / "nowhere")
    salts = store.request_forget(private.uids[:2])
    done = store.run()
    assert salts == done.salts and all(done.concerns(uid, salt) for uid, salt in salts.items())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"not empty: there is 'thesis\.tex'"):
        Store.create(tmp_path / "full", make_eraser(), private[:20], split.public[:120])

    with pytest.raises(StoreError, match=r"requests go through store\.forget"):
        store.eraser.forget(private.uids[0])
    store.close()
    for request in (lambda: store.forget(private.uids[0]), lambda: store.add(private[50:51])):
        with pytest.raises(StoreError, match="has been closed"):
            request()

    with pytest.raises(ValueError, match="7000 clusters cannot be made"):
        Store.create(tmp_path / "many", make_eraser(HierarchicalClusters(7000)), private[:20], split.public[:120])
    assert not (tmp_path / "many").exists()


def test_what_a_prediction_has_computed_goes_with_the_state(make_store, private, split):
    """Prompts and heads of all clusters are gathered for prediction; after a deletion nobody holds the old ones."""
    store = make_store()
    store.eraser.predict(split.test[:5])
    old = [weakref.ref(store.eraser.state_), weakref.ref(store.eraser.gathered()[1]["prompt"])]
    store.forget(private.uids[:2])
    gc.collect()
    assert [one() for one in old] == [None, None]
