"""The ledger of a store: requests and certificates in SQLite, one writer, sealed whenever it is at rest.

It holds no uid and no sample, only names of files and salted hashes. A rollback journal rather than a write-ahead log:
a log would keep old pages for as long as anybody reads. `synchronous=EXTRA` is FULL that flushes the folder, too:
without it the last commit could be undone by a power cut. `secure_delete` overwrites what is deleted with zeros.

SQLite does not notice every changed byte. So a seal, the hash of the file's bytes, lies beside it; it is taken away
before a change and renewed after it. Without a seal (the writer was killed) SQLite recovers by its own means.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

from lmeraser_kit.ground.files import flush_folder, replace_file
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.store.certificate import Certificate
from lmeraser_kit.store.files import RESTORE, DamagedError, StoreError
from lmeraser_kit.store.locks import lock
from lmeraser_kit.store.recorded import RECORD, TABLES, Recorded
from lmeraser_kit.store.times import SLACK, clock, moment_of, text_of


class Ledger:
    """Facts, requests and certificates of the store in a folder.

    Args:
        folder: The store's folder.
        readonly: Read only; then others may write.
        trust: Renew the seal if it is damaged itself.

    Attributes:
        facts: What the store is made with, and its present version's name.
        last: The last certificate.

    Raises:
        StoreError: If there is no ledger, somebody else writes, or a reader finds it interrupted.
        DamagedError: If the ledger or its seal is damaged.
    """

    def __init__(self, folder: Path, readonly: bool = False, trust: bool = False):
        self.closed, self.readonly, self.path, self._seal = (
            False,
            readonly,
            folder / "ledger.sqlite",
            folder / "ledger.seal",
        )
        if not self.path.is_file():
            if any((folder / "versions").glob("*")):
                raise DamagedError([self.path.name], f"all else of the store in {folder} is there: {RESTORE}")
            raise StoreError(f"no store in {folder}: Store.create makes one")
        self._lock = None if readonly else lock(folder)
        try:
            self._check_seal(trust)
            self._database = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=r{'o' if readonly else 'w'}", uri=True, check_same_thread=False
            )  # threads of a server call one after another (docs/store.md)
            self._database.isolation_level = None  # transactions are written out below
            self._database.executescript("PRAGMA synchronous=EXTRA; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY")
            if self._database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise DamagedError(["ledger.sqlite"])
            self._database.execute("BEGIN")  # one consistent view
            self.facts = dict(self._database.execute("SELECT name, value FROM facts"))
            self.last = self._check_chain()
            self._database.execute("COMMIT")
            if not readonly:
                self._drop_journal()
        except sqlite3.OperationalError as error:
            self.close()
            if readonly:
                raise StoreError(
                    f"{folder} was interrupted ({error}): open it for writing, which finishes it"
                ) from error
            raise DamagedError(["ledger.sqlite"]) from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            self.close()
            raise DamagedError(["ledger.sqlite"]) from error
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(folder: Path, facts: dict[str, str], n: int, staged: str) -> None:
        """Make a ledger in which the fit is the first request. It is there when this returns, or not at all."""
        partial = folder / "ledger.partial"
        partial.unlink(missing_ok=True)  # of an interrupted attempt
        partial.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(partial)) as database:
            database.executescript(TABLES)
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            now = text_of(clock())
            database.execute(RECORD, ("fit", n, now, now, None, False, staged))
            database.commit()
        os.replace(partial, folder / "ledger.sqlite")
        flush_folder(folder)

    def record(
        self, action: str, n: int, staged: str, arrived: str = "", deadline: str | None = None, again: bool = False
    ) -> int:
        """Record a request; when this returns it will be carried out, whatever happens. Returns its number."""
        now = self.finished()
        with self._change() as database:
            done = database.execute(RECORD, (action, n, arrived or now, now, deadline, again, staged))
        self.seal()
        return done.lastrowid

    def now(self) -> datetime:
        """The time now. Raises StoreError if the clock has been set back to before what is recorded."""
        if back := self.set_back():
            raise StoreError(
                f"{back}: set the clock right. If it is right now, and was wrong then, nothing can wait until then: "
                "requests without a deadline are carried out at once, and so is what waited. Nothing has been recorded"
            )
        return moment_of(self.finished())

    def set_back(self) -> str:
        """In words, that the clock has been set back to before what is recorded; empty if it has not."""
        now, last = clock(), self._last_time()
        if now >= moment_of(last) - SLACK:
            return ""
        return f"the clock says {text_of(now)}, and a request or certificate of this store is of {last}"

    def finished(self) -> str:
        """The time to record: now, or the last time recorded if the clock has been set back since."""
        return max(text_of(clock()), self._last_time())

    def _last_time(self) -> str:
        (last,) = self._database.execute("SELECT MAX(recorded) FROM requests").fetchone()
        return max(last, self.last.finished if self.last is not None else "")

    def begin(self, requests: Iterable[Recorded]) -> None:
        """Note which requests that could wait are being carried out: after a crash it goes on with these."""
        if rows := [(one.id,) for one in requests if one.deadline and not one.begun]:
            with self._change() as database:
                database.executemany("UPDATE requests SET begun = 1 WHERE id = ?", rows)
            self.seal()

    def pending(self) -> list[Recorded]:
        """Requests that have not been carried out, in order."""
        return self._rows("WHERE certificate IS NULL")

    def commit(self, certificate: Certificate, version: str, staged: Mapping[int, tuple[str, int]]) -> None:
        """The one step that makes a new version the present one, and its requests done.

        Args:
            certificate: What has been done.
            version: The new version's name.
            staged: For requests that wait on, and name samples that have been forgotten now: the file of what is left
                of them, and of how many samples.
        """
        with self._change() as database:
            database.execute("INSERT INTO certificates VALUES (?, ?)", (certificate.id, certificate.record()))
            rows = [(certificate.id, request) for request in certificate.requests]
            database.executemany("UPDATE requests SET staged = NULL, certificate = ? WHERE id = ?", rows)
            rows = [(file, n, request) for request, (file, n) in staged.items()]
            database.executemany("UPDATE requests SET staged = ?, n = ? WHERE id = ?", rows)
            database.execute("UPDATE facts SET value = ? WHERE name = 'version'", (version,))
        # in memory, as on disk, the salts are nobody's but the receiver's
        self.facts["version"], self.last = version, replace(certificate, salts={}, owner_salts=[])

    def certificates(self) -> list[Certificate]:
        """All certificates, in order; without the salts, which are not kept."""
        rows = self._database.execute("SELECT record FROM certificates ORDER BY id")
        return [Certificate.read(record) for (record,) in rows]

    def requests(self) -> list[Recorded]:
        """All requests, in order."""
        return self._rows("")

    def _rows(self, where: str) -> list[Recorded]:
        columns = [one.name for one in fields(Recorded)]
        rows = self._database.execute(f"SELECT {', '.join(columns)} FROM requests {where} ORDER BY id")
        return [Recorded(**dict(zip(columns, row, strict=True))) for row in rows]

    def check(self) -> None:
        """Are the ledger's bytes those that were sealed? And the certificates those of a chain? Raises DamagedError."""
        self._check_seal(trust=False)
        self._check_chain()

    def moved_on(self) -> bool:
        """Whether a writer has made another version the present one since this was opened."""
        row = self._database.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
        return row != (self.facts["version"],)

    def seal(self) -> None:
        """Note the hash of the ledger's bytes beside it."""
        if not self._seal.exists():
            seal_ledger(self.path.parent)

    def close(self) -> None:
        """Close the ledger, and let others write."""
        self.closed = True
        if hasattr(self, "_database"):
            self._database.close()
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk when this is left, or nothing."""
        if self._seal.exists():
            self._seal.unlink()
            flush_folder(self._seal.parent)
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _drop_journal(self) -> None:
        """Take away the journal of a writer that was killed before it wrote: SQLite ignores it, and leaves it there.

        One that has to be rolled back is gone: reading has done that. And only who holds the lock writes another.
        """
        journal = self.path.with_name(f"{self.path.name}-journal")
        if journal.exists():
            journal.unlink()
            flush_folder(journal.parent)

    def _check_seal(self, trust: bool) -> None:
        for _ in range(100):  # a writer may be at work: only what stays wrong while the seal stays the same is damage
            seal = self._read_seal()
            if seal is None:
                return
            actual = _seal_of(_hash_of(self.path))
            if seal == actual:
                return
            if self._read_seal() == seal:
                if seal == _seal_of(seal[:64].decode("ascii", "replace")):
                    raise DamagedError(["ledger.sqlite"], "restore it from a copy")
                if not trust:
                    raise DamagedError(["ledger.seal"], "Store.open(..., repair=True) renews it")
                self._seal.unlink()
            time.sleep(0.01)

    def _read_seal(self) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):  # a writer may take it away at any moment
            return self._seal.read_bytes()

    def _check_chain(self) -> Certificate | None:
        """Does every certificate follow the one before? Returns the last."""
        last = None
        for certificate in self.certificates():
            if last is not None and (certificate.previous, certificate.root_before) != (last.hash, last.root_after):
                raise DamagedError(["ledger.sqlite"], f"certificate {certificate.id} does not follow the one before")
            last = certificate
        return last


def seal_ledger(folder: Path) -> None:
    """Note the hash of the bytes of a folder's ledger beside it."""
    replace_file(folder / "ledger.seal", _seal_of(_hash_of(folder / "ledger.sqlite")))


def _hash_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal_of(hashed: str) -> bytes:
    return f"{hashed} {digest('seal', hashed)}\n".encode()
