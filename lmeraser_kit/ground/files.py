"""Files that are there whole or not at all, also after a power cut: written beside, flushed, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # the end of what is being written


def flush_folder(folder: Path) -> None:
    """Make creations, renames and removals in a folder durable."""
    _flush(folder, os.O_RDONLY)


def flush_tree(folder: Path) -> None:
    """Make everything in a folder durable, whoever has written it."""
    for path in [*folder.rglob("*"), folder]:
        _flush(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _flush(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place, where one process alone writes: what a killed one has left beside is written over."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise type(error)(error.errno, error.strerror, str(path)) from error  # which disk?
    flush_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path | str, mode: int = 0o644) -> Iterator[Path]:
    """Put a file in place, where several processes may: each writes its own beside, and the last one stays.

    Args:
        path: The file. Its folder is made; what processes that were killed have left there is taken away.
        mode: Who may read it; the umask does not matter.

    Yields:
        Where to write it: a file of the same name. If that fails, nothing of it is left, and what was there stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clean(path.parent)
    with _folder_of_its_own(path.parent) as folder:
        yield (partial := folder / path.name)
        partial.chmod(mode)
        _flush(partial, os.O_RDONLY)
        os.replace(partial, path)
        flush_folder(path.parent)


def clean(folder: Path) -> None:
    """Take away what `replacing` was writing here in processes that are gone, on whatever machine they were."""
    for partial in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):  # somebody writes it, or has taken it away; or there are no such locks here
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(partial)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _folder_of_its_own(parent: Path) -> Iterator[Path]:
    """A folder that is locked for as long as this process writes in it, and gone afterwards."""
    while True:
        folder = Path(tempfile.mkdtemp(PARTIAL, ".", parent))
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a shared disk without such locks: nothing is taken away there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():  # else it was cleaned away before it was locked
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
