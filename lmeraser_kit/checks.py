"""Arguments are checked before they cost time: one clear ValueError that says what was given and what was expected.

Each function returns the plain Python value, so that `np.int64(3)` and `3` are the same argument with the same address.
Arrays are returned as they are: a check changes no bit.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import numpy as np

Kind = TypeVar("Kind")
MOST_SEED = 2**63 - 1
MOST_CLASSES = 10**6  # labels beyond are something else: prices, years, ids


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number of a range, as an int.

    Args:
        name: The argument's name, for the message.
        value: What was given; Python's and NumPy's integers will do, a bool or a float will not.
        least: The smallest value allowed.
        most: The largest; None for no limit.

    Raises:
        ValueError: If it is none.
    """
    fits = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not fits or value < least or (most is not None and value > most):
        upto = "" if most is None else f" to {most}"
        raise ValueError(f"{name} is {value!r:.80}, expected a whole number from {least}{upto}")
    return int(value)


def seed(value: object, name: str = "seed") -> int:
    """A seed, as an int: a whole number from 0 to 2^63 - 1. Raises ValueError."""
    return whole(name, value, 0, MOST_SEED)


def number(
    name: str, value: object, least: float = 0.0, most: float = math.inf, beyond: bool = False, below: bool = False
) -> float:
    """A finite number of a range, as a float.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: The smallest value allowed.
        most: The largest.
        beyond: Whether it has to be larger than `least`, and not equal to it.
        below: Whether it has to be smaller than `most`, and not equal to it.

    Raises:
        ValueError: If it is none.
    """
    plain = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        with contextlib.suppress(OverflowError):
            plain = float(value)
    fits = math.isfinite(plain) and least <= plain <= most
    if not fits or (beyond and plain == least) or (below and plain == most):
        lower = f"above {least:g}" if beyond else f"from {least:g}"
        upper = "" if math.isinf(most) else f" to {'below ' * below}{most:g}"
        raise ValueError(f"{name} is {value!r:.80}, expected a finite number {lower}{upper}")
    return plain


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """One of several names. Raises ValueError, with the nearest one and all that are known."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        near = difflib.get_close_matches(value, known, 1) if isinstance(value, str) else []
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} is {value!r:.80}, expected one of: {', '.join(known)}{hint}")
    return str(value)


def flag(name: str, value: object) -> bool:
    """True or False. Raises ValueError."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r:.80}, expected True or False")
    return bool(value)


def text(name: str, value: object) -> str:
    """A string that is not empty. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r:.80}, expected a string that is not empty")
    return str(value)


def path(name: str, value: object) -> Path:
    """A path, as one of pathlib's. Raises ValueError."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{name} is {value!r:.80} ({type(value).__name__}), expected a path")
    return Path(value)


def instance(name: str, value: object, kind: type[Kind], advice: str = "") -> Kind:
    """An object of a class. Raises ValueError, with advice on where to get one."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r:.80} ({type(value).__name__}), expected {kind.__name__}{advice}")
    return value


def as_array(name: str, value: object) -> np.ndarray:
    """What NumPy makes of it. Raises ValueError for rows of unequal lengths, masked entries, tensors on a GPU, ..."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries, expected an array without")
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(f"{name} is no array ({type(error).__name__}: {error})") from error


def array(
    name: str, value: object, *shape: int | str | EllipsisType, inf: bool = False, empty: bool = False
) -> np.ndarray:
    """An array of numbers.

    Args:
        name: The argument's name, for the message.
        value: What was given: an array, or what becomes one.
        *shape: The length of each axis; a letter for any length, `...` for any axes before.
        inf: Whether infinity will do.
        empty: Whether an axis with a letter may have length 0.

    Returns:
        The array, of the type that was given.

    Raises:
        ValueError: If it has no numbers, another shape, or holds NaN.
    """
    found = as_array(name, value)
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {value!r:.80} ({found.dtype}), expected an array of numbers")
    wanted = ", ".join("..." if n is ... else str(n) for n in shape) + "," * (len(shape) == 1)
    axes = found.shape
    if shape and shape[0] is ...:
        shape, axes = shape[1:], axes[max(0, len(axes) - len(shape) + 1) :]
    fits = (
        empty or have > 0 if isinstance(want, str) else have == want for have, want in zip(axes, shape, strict=False)
    )
    if len(axes) != len(shape) or not all(fits):
        raise ValueError(f"{name} has shape {found.shape}, expected ({wanted}){'' if empty else ', not empty'}")
    if found.dtype.kind == "f" and not np.isfinite(found).all() and (not inf or np.isnan(found).any()):
        raise ValueError(f"{name} holds NaN{'' if inf else ' or infinity'}, expected numbers")
    return found


def indices(name: str, value: object, n: int) -> np.ndarray:
    """Positions among n, (K,), at least one. Raises ValueError."""
    found = array(name, value, "K")
    if found.dtype.kind == "f" or found.min() < 0 or found.max() >= n:
        raise ValueError(f"{name} is {value!r:.80}, expected whole numbers from 0 to {n - 1}")
    return found


def class_labels(labels: object, n: int, n_classes: int | None = None, uids: Iterable[str] | None = None) -> np.ndarray:
    """Labels as class indices.

    Args:
        labels: One for each sample, (N,) or (N, 1): whole numbers, floats without a fraction and text such as "5" will
            do, since these name a class without doubt; True and False only if there are two classes.
        n: How many samples there are.
        n_classes: Number of classes; None if the labels decide.
        uids: The samples' names, (N,), for the message; by default their positions are told.

    Returns:
        Class indices, int64 (N,), in [0, n_classes).

    Raises:
        ValueError: If a label is none; the first such label is named.
    """
    given = np.atleast_1d(as_array("labels", labels))
    given = given[:, 0] if given.shape == (n, 1) else given
    if given.shape != (n,):
        advice = "; of one row of scores a sample, take labels.argmax(axis=1)" if given.ndim == 2 else ""
        raise ValueError(f"labels have shape {given.shape}, expected one for each of the {n} samples{advice}")
    most = MOST_CLASSES if n_classes is None else n_classes
    classes: Any = given
    if given.dtype.kind in "iuf":
        no_class = ~np.isfinite(given) | (given != np.floor(given))
        outside = (given < 0) | (given >= most)
    elif given.dtype.kind not in "OUTb":
        raise ValueError(f"labels are {given.dtype}, expected whole numbers, the indices of classes")
    else:
        classes = [_class_index(label, two=n_classes in (None, 2)) for label in given.tolist()]
        no_class = np.array([label is None for label in classes], dtype=bool)
        outside = np.array([label is not None and not 0 <= label < most for label in classes], dtype=bool)
    if no_class.any() or outside.any():
        i = np.flatnonzero(no_class | outside)[0]
        who = f"at position {i}" if uids is None else f"of uid {str(list(uids)[i])!r}"
        label = given[i : i + 1].tolist()[0]
        if no_class[i]:
            raise ValueError(f"label {label!r:.80} {who}: labels are whole numbers, the indices of classes")
        raise ValueError(f"label {label} {who} is outside the range 0 to {most - 1}")
    return np.asarray(classes).astype(np.int64)


def names(name: str, values: object, what: str = "uid") -> list[str]:
    """Names of samples: one, or several of any kind of list. Text or whole numbers, which become text; none is empty.

    Args:
        name: The argument's name, for the message.
        values: What was given.
        what: What a name stands for: `uid`, or `owner`.

    Raises:
        ValueError: If there is something else.
    """
    if isinstance(values, (str, bytes, numbers.Integral)):
        values = [values]
    elif hasattr(values, "__array__") and not hasattr(values, "columns"):
        found = as_array(name, values)
        found = found.ravel() if found.ndim == 0 or (found.ndim == 2 and 1 in found.shape) else found
        values = (found.tolist() if found.dtype.kind in "OUTiu" else list(found)) if found.ndim == 1 else None
    if isinstance(values, (bytearray, Mapping)) or not isinstance(values, Iterable) or hasattr(values, "columns"):
        samples = ", or Samples" if what == "uid" else ""
        raise ValueError(f"{name} is {values!r:.80}, expected one {what}, a list of {what}s{samples}")
    values = list(values)
    for value in values:
        if not isinstance(value, (str, numbers.Integral)) or isinstance(value, bool) or value == "":
            hint = f": of a mask, take {what}s[mask]" if isinstance(value, (bool, np.bool_)) else ""
            raise ValueError(f"{what} {value!r:.80} is no name, expected a string (not empty) or a whole number{hint}")
    return [str(value) for value in values]


def _class_index(label: Any, two: bool) -> int | None:
    """A label as an int; None if it names no class."""
    if isinstance(label, str):
        return int(label) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", label, re.ASCII) else None
    if isinstance(label, (bool, np.bool_)):
        return int(label) if two else None
    if isinstance(label, numbers.Integral):
        return int(label)
    fits = isinstance(label, numbers.Real) and math.isfinite(label)
    return int(label) if fits and label == int(label) else None
