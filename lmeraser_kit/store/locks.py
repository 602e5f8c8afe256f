"""One writer: a store's lock, also while it is being made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from lmeraser_kit.store.files import StoreError, check_vacant, make_folders

_made: ContextVar[tuple[Path, IO] | None] = ContextVar("_made", default=None)  # a new store's folder and lock


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a store in a folder, and open it: nobody else comes in between. Of a failure nothing is left.

    Raises:
        StoreError: If there is something in the folder, or somebody else makes a store there.
    """
    check_vacant(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock(folder) as file:
        check_vacant(folder)  # again: now nobody else can be making one
        token = _made.set((folder, file))
        try:
            make_folders(folder)
            yield
        except Exception:  # a fit that cannot succeed; not a crash, after which opening goes on with it
            empty(folder)
            raise
        finally:
            _made.reset(token)


def empty(folder: Path, keep: str = "") -> None:
    """Take away everything, but for one name, in a folder whose lock this process holds."""
    order = {"ledger.sqlite": 0, "lock": 2}  # without the first it is no store, whatever is left
    for path in sorted(folder.iterdir(), key=lambda path: order.get(path.name, 1)):
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def lock(folder: Path) -> IO:
    """Become the only writer; the lock is the kernel's, so it goes when the process goes. Raises StoreError."""
    if (made := _made.get()) is not None and made[0] == folder:
        return os.fdopen(os.dup(made[1].fileno()), "a")  # the same lock: it goes with the last of the two
    path = folder / "lock"
    try:
        file = open(path, "a")  # noqa: SIM115 - it is the lock for as long as it is open
    except OSError as error:
        raise StoreError(f"{folder} cannot be written to ({error}); Store.open(..., readonly=True) reads it") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StoreError(
            f"{folder} is open for writing elsewhere, and only one may write: close it there, or read it with "
            "Store.open(..., readonly=True)"
        ) from error
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()  # it was taken away before it was locked
    return lock(folder)
