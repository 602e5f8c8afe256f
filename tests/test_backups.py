"""Backups of a store: whole, consistent, and nobody who was forgotten comes back with one."""

import shutil
import warnings

import numpy as np
import pytest

from lmeraser_kit import HashClusters, Samples, Store
from lmeraser_kit.store import backups
from lmeraser_kit.store.files import DamagedError, StoreError
from lmeraser_kit.store.tombstones import beside


@pytest.fixture
def make_store(make_eraser, private, tmp_path):
    stores = []

    def make(**options):
        eraser = make_eraser(HashClusters(5), recipe={"epochs": 1})
        stores.append(Store.create(tmp_path / "store", eraser, private[:40], **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def fit_hash(make_eraser):
    return lambda samples: make_eraser(HashClusters(5), recipe={"epochs": 1}).fit(samples).state_hash()


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def bytes_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_backup_is_no_store_and_a_store_is_made_of_it(make_store, private, fit_hash, tmp_path):
    store = make_store()
    backup = store.backup(tmp_path / "backup")
    assert backup.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StoreError, match=r"is a backup of 20.*restore"):
        Store.open(backup)
    with pytest.raises(StoreError, match="is a backup of 20"):
        Store.open(backup, readonly=True)
    with Store.restore(backup, tmp_path / "restored", forgotten=[], verbose=False) as restored:
        restored.verify()
        assert restored.eraser.state_hash() == fit_hash(private[:40])
        restored.forget(private.uids[0])
    with Store.open(tmp_path / "restored", verbose=False) as restored:
        assert len(restored.eraser.state_) == 39
    Store.restore(backup, tmp_path / "again", forgotten=[], verbose=False).close()


def test_a_mistyped_name_is_said_and_a_backup_keeps_no_store_in_it(make_store, private, tmp_path):
    store = make_store()
    store.request_add(private[40:41])
    backup, (left, joining) = store.backup(tmp_path / "backup"), private.uids[[0, 40]].tolist()
    said = r"1 of the 2 names in forgotten are not in this backup: 'digits-99'"
    with pytest.warns(UserWarning, match=said):
        restored = Store.restore(backup, tmp_path / "one", forgotten=["digits-99", left], verbose=False)
    with restored:
        assert left not in restored.eraser.state_.samples.uids
    with warnings.catch_warnings(action="error"):
        Store.restore(backup, tmp_path / "two", forgotten=[left, joining], verbose=False).close()
    with pytest.raises(StoreError, match=r"lies in the backup: choose another"):
        Store.restore(backup, backup / "store", forgotten=[])
    with pytest.raises(StoreError, match=r"there is no backup in .*bakup"):
        Store.restore(tmp_path / "bakup", tmp_path / "three", forgotten=[])
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file: expected a folder"):
        Store.restore(backup, tmp_path / "file", forgotten=[])


def test_who_was_forgotten_since_does_not_come_back_unsaid(make_store, private, fit_hash, tmp_path):
    store = make_store()
    backup = store.backup(tmp_path / "backup")
    store.add(private[40:42])
    store.forget([private.uids[0], private.uids[41]])
    with pytest.raises(StoreError, match=r"who was forgotten after 20.* would come back"):
        Store.restore(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    gone = [private.uids[0], private.uids[41]]  # of whom one came after the backup
    with Store.restore(backup, tmp_path / "restored", forgotten=gone, verbose=False) as restored:
        assert restored.recovered.n_forgotten == 1
        assert restored.eraser.state_hash() == fit_hash(private[1:40])
        restored.verify()
    assert private.uids[0].encode() not in bytes_in(tmp_path / "restored")


def test_a_restore_that_is_interrupted_forgets_when_it_is_opened(make_store, private, fit_hash, tmp_path, monkeypatch):
    backup = make_store().backup(tmp_path / "backup")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            Store, "open", classmethod(lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        )
        Store.restore(backup, tmp_path / "restored", forgotten=private[:1])
    with Store.open(tmp_path / "restored", verbose=False) as restored:
        assert restored.eraser.state_hash() == fit_hash(private[1:40])


def test_tombstones_say_who_was_forgotten(make_store, private, fit_hash, tmp_path):
    store = make_store(tombstones=True)
    backup = store.backup(tmp_path / "backup")
    store.forget(private.uids[:3])
    with pytest.raises(StoreError, match="tombstones of this store are missing"):
        Store.restore(backup, tmp_path / "restored")
    shutil.copytree(beside(store.folder), beside(tmp_path / "restored"))
    with Store.restore(backup, tmp_path / "restored", verbose=False) as restored:
        assert restored.eraser.state_hash() == fit_hash(private[3:40])
    beside(tmp_path / "other").mkdir()  # as is advised for a store whose tombstones are lost
    with pytest.raises(StoreError, match="no tombstones say who that was"):
        Store.restore(backup, tmp_path / "other")


def test_what_was_recorded_when_a_backup_was_made_is_done_but_for_who_was_forgotten(
    make_store, private, fit_hash, tmp_path
):
    store = make_store()
    store.request_add(private[40:42])
    backup = store.backup(tmp_path / "backup")
    store.run()
    store.forget(private.uids[40])
    with Store.restore(backup, tmp_path / "restored", forgotten=[private.uids[40]], verbose=False) as restored:
        assert restored.eraser.state_hash() == fit_hash(private[[*range(40), 41]])


def test_a_backup_is_whole_or_not_there(make_store, private, tmp_path, monkeypatch):
    store = make_store()
    with pytest.raises(StoreError, match="lies in the store's folder"):
        store.backup(store.folder / "backup")
    (tmp_path / "full").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        store.backup(tmp_path / "full")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        copy, n = backups.read_file, iter(range(100))
        patch.setattr(
            backups, "read_file", lambda *a: copy(*a) if next(n) < 5 else (_ for _ in ()).throw(OSError("No space"))
        )
        store.backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists() and not list(tmp_path.glob(".*"))
    assert store.backup(tmp_path / "backup").is_dir()
    assert not list(tmp_path.glob(".*"))
    file = next((tmp_path / "backup" / "clusters").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):  # truncated, then missing
        with pytest.raises(DamagedError, match=f"{file.name}; they are of .*backup: take another"):
            Store.restore(tmp_path / "backup", tmp_path / "restored", forgotten=[])
        assert not any(path.is_file() for path in (tmp_path / "restored").rglob("*"))
        file.unlink(missing_ok=True)
    with pytest.raises(StoreError, match="is a store, and no backup"):
        Store.restore(store.folder, tmp_path / "restored", forgotten=[])


def test_a_reader_makes_a_backup_of_its_version_or_says_that_it_is_gone(make_store, private, fit_hash, tmp_path):
    store = make_store()
    with Store.open(store.folder, readonly=True, verbose=False) as reader:
        reader.backup(tmp_path / "backup")
        store.forget(private.uids[0])
        with pytest.raises(StoreError, match="open it again"):
            reader.backup(tmp_path / "late")
    assert not (tmp_path / "late").exists() and not list(tmp_path.glob(".*"))
    with Store.restore(tmp_path / "backup", tmp_path / "restored", forgotten=[], verbose=False) as restored:
        assert restored.eraser.state_hash() == fit_hash(private[:40])
    assert np.array_equal(store.eraser.state_.samples.uids, private[1:40].sorted().uids)
    assert isinstance(store.eraser.state_.samples, Samples)


# --- who waited to be forgotten


def uids_held(store):
    return set(store.eraser.state_.owners_by_uid())


@pytest.mark.parametrize("tombstones", [True, False])
def test_who_waited_in_a_backup_leaves_before_the_store_answers(tombstones, make_store, private, fit_hash, tmp_path):
    """The request may have been carried out since, and its certificate be in somebody's hands."""
    store, who = make_store(tombstones=tombstones), private.uids[1]
    store.request_forget(who, deadline="gdpr")
    backup = store.backup(tmp_path / "backup")
    store.run()
    store.close()
    if tombstones:
        shutil.copytree(beside(tmp_path / "store"), beside(tmp_path / "again"))
    options = {} if tombstones else {"forgotten": []}
    with Store.restore(backup, tmp_path / "again", verbose=False, **options) as restored:
        assert restored.recovered is not None and restored.eraser.state_hash() == fit_hash(private[[0, *range(2, 40)]])


@pytest.mark.parametrize("tombstones", [True, False])
def test_names_of_the_forgotten_may_be_of_those_who_waited(tombstones, make_store, private, fit_hash, tmp_path):
    store, who = make_store(tombstones=tombstones), private.uids[1:3]
    store.request_forget(who[0], deadline="gdpr")
    backup = store.backup(tmp_path / "backup")
    store.run()
    store.forget(who[1])
    store.close()
    if tombstones:
        shutil.copytree(beside(tmp_path / "store"), beside(tmp_path / "again"))
    with Store.restore(backup, tmp_path / "again", forgotten=who, verbose=False) as restored:
        assert restored.eraser.state_hash() == fit_hash(private[[0, *range(3, 40)]])
        restored.verify()


def test_an_older_copy_in_which_somebody_waits_who_has_left_is_refused(make_store, private, fit_hash, tmp_path):
    store, who = make_store(tombstones=True), private.uids[1]
    store.request_forget(who, deadline="gdpr")
    store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "older")
    with Store.open(tmp_path / "store", readonly=True, verbose=False) as reader:  # who waits is held rightly
        assert who in uids_held(reader)
    with Store.open(tmp_path / "store", verbose=False) as store:
        assert who in uids_held(store)
        store.run()
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "older").rename(tmp_path / "store")
    for readonly in (True, False):
        with pytest.raises(StoreError, match="1 samples are held that have been forgotten: this is an older copy"):
            Store.open(tmp_path / "store", readonly=readonly, verbose=False)
    with Store.open(tmp_path / "store", forget_again=True, verbose=False) as store:
        assert store.eraser.state_hash() == fit_hash(private[[0, *range(2, 40)]])
        store.add(private[1], again=True)
        store.request_forget(who, deadline="gdpr")
    with Store.open(tmp_path / "store", verbose=False) as store:  # who came back may wait again
        assert who in uids_held(store)
        store.close()
