"""Backups of a store, and what keeps them from bringing back who was forgotten since.

A backup is a copy of all files that the present version names, consistent while others read and write. It is no store:
`Store.open` refuses it. `Store.restore` makes a store of it, from which those who were forgotten after the backup leave
again before anything is answered: they are known by tombstones, or have to be named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterable
from pathlib import Path

from lmeraser_kit import checks
from lmeraser_kit.ground.commitments import fresh_nonce
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.files import flush_folder, flush_tree
from lmeraser_kit.ground.html import some_of
from lmeraser_kit.store.asked import stage_forget
from lmeraser_kit.store.files import (
    RESTORE,
    DamagedError,
    StoreError,
    check_vacant,
    make_folders,
    read_file,
    unpack,
)
from lmeraser_kit.store.ledger import Ledger, seal_ledger
from lmeraser_kit.store.locks import empty, lock, making
from lmeraser_kit.store.recorded import RECORD
from lmeraser_kit.store.snapshot import StoreFolder
from lmeraser_kit.store.times import clock, text_of
from lmeraser_kit.store.tombstones import tombstones_of

MARK, NAMES = "backup", "backup_files"  # the facts that make a folder a backup: when it was made, and of which files


def back_up(files: StoreFolder, ledger: Ledger, folder: Path) -> Path:
    """Copy a store; see `Store.backup`."""
    if folder.exists():
        raise StoreError(f"{folder} exists already: a backup is made into a new folder, and replaces none")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(mode=0o700, parents=True, exist_ok=True)
    alone = lock(partial)
    empty(partial, keep="lock")  # of an interrupted attempt
    try:
        make_folders(partial)
        _copy_ledger(ledger.path, partial / "first.sqlite", {})
        names = sorted(files.named(_staged_in(partial / "first.sqlite", files.version["name"])))
        _copy_ledger(
            partial / "first.sqlite", partial / "ledger.sqlite", {MARK: text_of(clock()), NAMES: json.dumps(names)}
        )
        (partial / "first.sqlite").unlink()
        _copy_files(files.folder, partial, names)
        seal_ledger(partial)
        (partial / "lock").unlink()
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # it holds private samples
        raise
    finally:
        alone.close()
    flush_folder(folder.parent)
    return folder


def put_back(backup: Path, folder: Path, forgotten: Iterable[str] | None) -> None:
    """Make a store of a backup, in which those who left since are to leave first; see `Store.restore`."""
    if not (backup / "ledger.sqlite").is_file():
        raise StoreError(f"there is no backup in {backup}: store.backup(folder) makes one")
    if backup in (folder, *folder.parents):
        raise StoreError(f"{folder} lies in the backup: choose another folder for the store")
    check_vacant(folder)
    with contextlib.closing(Ledger(backup, readonly=True)) as ledger:
        when = ledger.facts.get(MARK)
        if not when:
            raise StoreError(f"{backup} is a store, and no backup: Store.open opens it")
        known = bool(ledger.facts["tombstones"]) and tombstones_of(folder).complete
        if forgotten is None and not known:
            raise StoreError(
                f"who was forgotten after {when} would come back, and no tombstones say who that was: name them, "
                "Store.restore(..., forgotten=[uids]); forgotten=[] says that there was nobody"
            )
        named = [] if forgotten is None else checks.names("forgotten", getattr(forgotten, "uids", forgotten))
        names = json.loads(ledger.facts[NAMES])
        with making(folder):
            try:
                _copy_files(backup, folder, names)
                if absent := sorted({*named} - _held(folder, names)):
                    warnings.warn(
                        f"{len(absent)} of the {len({*named})} names in forgotten are not in this backup: "
                        f"{some_of(map(repr, absent), len(absent))}. If one is mistyped, whoever is meant is held "
                        "again",
                        stacklevel=3,
                    )
                recorded = [_to_forget(folder, sorted(set(named)))] if named else []
                _copy_ledger(ledger.path, folder / "ledger.partial", {MARK: "", NAMES: ""}, recorded, True)
                os.replace(folder / "ledger.partial", folder / "ledger.sqlite")  # from here on it is a store
                flush_folder(folder)
            except BaseException:
                empty(folder)
                raise


def check_no_backup(facts: dict[str, str], folder: Path) -> None:
    """Refuse to open a backup (StoreError)."""
    if when := facts.get(MARK):
        raise StoreError(
            f"{folder} is a backup of {when}: Store.restore({str(folder)!r}, FOLDER) makes a store of it, without "
            "those who were forgotten since"
        )


def backup_folder(store: Path, folder: Path | str) -> Path:
    """Where a backup goes: not into the store's own folder (StoreError)."""
    folder = checks.path("folder", folder).absolute()
    if store in (folder, *folder.parents):
        raise StoreError(f"{folder} lies in the store's folder, which is its own: choose another for the backup")
    return folder


def _copy_files(source: Path, folder: Path, names: list[str]) -> None:
    """Copy files, comparing their hashes. Raises DamagedError that names all that are missing or changed."""
    damaged = []
    for name in progress(names, desc="copying", unit="file"):
        try:
            (folder / name).write_bytes(read_file(source / name))
        except DamagedError as error:
            damaged += error.files
    if damaged:
        raise DamagedError(damaged, f"they are of {source}: take another backup, or {RESTORE}")
    flush_tree(folder)


def _held(folder: Path, names: list[str]) -> set[str]:
    """The uids of samples that files of a backup hold: members of clusters, and what waits to be added."""
    held = set[str]()
    for name in names:
        if (name.startswith("samples/") and ".index-" in name) or name.startswith("staged/add-"):
            held |= set(json.loads(unpack(read_file(folder / name))[0]["uids"].tobytes()))
    return held


def _staged_in(ledger: Path, version: str) -> list[str]:
    """The staged files of a copied ledger, which has to be of the version that is copied with it (StoreError)."""
    with contextlib.closing(sqlite3.connect(ledger)) as copied:
        if copied.execute("SELECT value FROM facts WHERE name = 'version'").fetchone() != (version,):
            raise StoreError("a writer has changed the store since it was opened for reading: open it again")
        return [staged for (staged,) in copied.execute("SELECT staged FROM requests WHERE certificate IS NULL")]


def _to_forget(folder: Path, uids: list[str]) -> tuple:
    """A request to forget, as a row; of names that need not be held, for the backup may be older than they are."""
    staged, now = stage_forget(folder, "uid", uids, {uid: fresh_nonce() for uid in uids}), text_of(clock())
    return "forget", len(uids), now, now, None, False, staged


def _copy_ledger(
    source: Path, target: Path, facts: dict[str, str], recorded: Iterable[tuple] = (), at_once: bool = False
) -> None:
    """A consistent copy of a ledger, with other facts and further requests; it is there when this returns, or not.

    With `at_once` nothing waits in it: what waited in the backup may have been carried out since.
    """
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    ledger = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)
    with contextlib.closing(ledger), contextlib.closing(sqlite3.connect(target)) as copy:
        copy.execute("PRAGMA synchronous=EXTRA")
        ledger.backup(copy)
        copy.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
        copy.executemany(RECORD, recorded)
        if at_once:
            copy.execute("UPDATE requests SET begun = 1 WHERE certificate IS NULL")
        copy.commit()
