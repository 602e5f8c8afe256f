"""Files that are there whole or not at all, also after a power cut: written beside, flushed, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush_folder(folder: Path) -> None:
    """Make creations, renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place, where one process alone writes: what a killed one has left beside is written over."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    flush_folder(path.parent)


@contextmanager
def replacing(path: Path | str, mode: int = 0o644) -> Iterator[Path]:
    """Put a file in place, where several processes may: each writes its own beside, and the last one stays.

    Args:
        path: The file. Its folder is made.
        mode: Who may read it; the umask does not matter.

    Yields:
        Where to write it. If that fails, nothing of it is left, and what was there before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        partial = Path(file.name)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(mode)
        os.replace(partial, path)
        flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
