"""What a worker was sent once, and has under a name from then on: a backbone need not travel with every call."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import cloudpickle

Key = tuple[str, ...]
HELD: dict[Key, Any] = {}  # in a worker
_by_name: ContextVar[frozenset[Key]] = ContextVar("_by_name", default=frozenset())


def key_of(backbone: Any) -> Key:
    """The name of a backbone in a process that holds it."""
    return backbone.fingerprint, str(backbone.device)


def by_name(key: Key) -> bool:
    """Whether this is pickled for workers that hold it, so that its name will do."""
    return key in _by_name.get()


def packed(call: Any, held: Iterable[Key]) -> bytes:
    """A call as bytes, for workers that hold what these keys name."""
    token = _by_name.set(frozenset(held))
    try:
        return cloudpickle.dumps(call)
    finally:
        _by_name.reset(token)
