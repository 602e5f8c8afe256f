"""Checks of lesson 5's exercises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable

import numpy as np

SALTED = "Python's hash() of names and bytes is another in its next run: take hashlib."


def salted(function: Callable) -> bool:
    """Whether a function calls Python's own `hash`."""
    return "hash" in getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ())


def exercise_1(draw_batches: Callable) -> str:
    """Batches that depend on the names alone."""
    names = [f"person-{i}" for i in range(40)]
    found = draw_batches(list(names), 5)
    if np.shape(found) != (5, 16):
        return f"5 batches of 16 positions were expected, and the shape is {np.shape(found)}."
    found = np.array(found)
    if found.dtype.kind not in "iu":
        return f"positions are whole numbers, and yours are {found.dtype}: draw from range(len(names))."
    if found.min() < 0 or found.max() >= len(names):
        return f"positions go from 0 to {len(names) - 1}, and yours from {found.min()} to {found.max()}."
    np.random.default_rng(0).random(3)  # what others draw must not matter
    np.random.random(3)  # noqa: NPY002 - a student may have used the global one
    if not np.array_equal(found, draw_batches(list(names), 5)):
        return "a second call draws others: make the generator anew in each call, from the names."
    if not np.array_equal(found, draw_batches(names[::-1], 5)):
        return "another order of the names draws others: sort them first."
    for other in ([*names[1:], "somebody else"], [*names[:-1], "somebody else"]):
        if np.array_equal(found, draw_batches(other, 5)):
            return "other names of the same number draw the same: let the generator start from a hash of the names."
    if len({tuple(batch) for batch in found.tolist()}) < 5:
        return "some batches are the same: draw each of them."
    return SALTED if salted(draw_batches) else ""


def exercise_2(cache_key: Callable) -> str:
    """A key that covers names, pixels and digits, in any order."""
    rng = np.random.default_rng(0)
    members = {f"person-{i}": (rng.random(64), int(rng.integers(10))) for i in range(6)}
    key = cache_key(dict(members))
    if not isinstance(key, Hashable):
        return f"a {type(key).__name__} cannot be a key of a dict: return a string or a number."
    if cache_key(dict(members)) != key:
        return "the same people have another key the second time."
    if cache_key(dict(reversed(members.items()))) != key:
        return "the same people in another order have another key: sort them."
    pixels, digit = members["person-3"]
    turned, faint = pixels[::-1].copy(), pixels.copy()
    faint[60] += 1e-9
    others = {
        "a person has left": {uid: person for uid, person in members.items() if uid != "person-5"},
        "a person has another name": {("other" if uid == "person-3" else uid): p for uid, p in members.items()},
        "a digit is another": members | {"person-3": (pixels, (digit + 1) % 10)},
        "one pixel is a little different": members | {"person-3": (faint, digit)},
        "an image is turned by half a turn": members | {"person-3": (turned, digit)},
        "two people have changed their images": members
        | {"person-1": members["person-2"], "person-2": members["person-1"]},
    }
    for what, changed in others.items():
        if cache_key(changed) == key:
            return f"{what}, and the key is the same."
    return SALTED if salted(cache_key) else ""
