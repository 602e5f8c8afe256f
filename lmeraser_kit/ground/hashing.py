"""Hashes and keyed random numbers: pure functions of what is named, which no call before can change."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable
from types import CodeType

import numpy as np

from lmeraser_kit import checks


def _has_text(part: object) -> bool:
    """Whether `str` says all of it, and says the same in the next process."""
    kind = type(part)
    abbreviated = hasattr(part, "__array__") and not isinstance(part, np.generic)
    by_address = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    return not (abbreviated or by_address or isinstance(part, (set, frozenset, bytearray, memoryview)))


def digest(*parts) -> str:
    """SHA-256 over parts, in hex. Every part is preceded by its length, so that no two lists of parts run together.

    Args:
        *parts: Bytes, or what has one text: strings, numbers, names, lists of them.

    Raises:
        ValueError: If a part's text is not all of it (an array's), or another one in the next process (a set's).
    """
    total = hashlib.sha256()
    for part in parts:
        if not isinstance(part, (str, bytes, int)) and not _has_text(part):
            raise ValueError(f"a part is {part!r:.80} ({type(part).__name__}), expected bytes: take array.tobytes()")
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def described(part: object) -> str:
    """A partition's, learner's or vote's class and parameters as JSON, in which order and NumPy's scalars do not count.

    Of classes outside the kit, a hash of their methods' code is part of it (the environment has the kit's own);
    functions that these call elsewhere are not seen.

    Args:
        part: A scikit-learn estimator, whose parameters are numbers, text, lists, dataclasses or estimators of these.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.dumps(_plain_description(part), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{part} has a parameter that is no number, text, True, False, None or list") from error


def _plain_description(value: object) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 0 and 0.0 are one argument
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            type(value).__name__,
            {f.name: _plain_description(getattr(value, f.name)) for f in dataclasses.fields(value)},
        ]
    if hasattr(value, "get_params") and not isinstance(value, type):
        parameters = {name: _plain_description(one) for name, one in value.get_params(deep=False).items()}
        code = code_of(type(value), skipped=("lmeraser_kit", "sklearn"))
        return [type(value).__name__, parameters, *([digest(*code)] if code else [])]
    return value


def code_of(kind: type, skipped: tuple[str, ...]) -> list[str]:
    """The compiled methods of a class and of its parents, but for packages whose versions are known.

    Not their source: a class that was defined in a notebook goes to other processes, which have no source of it.
    """
    own = [c for c in kind.__mro__ if c.__module__.partition(".")[0] not in (*skipped, "builtins", "typing", "abc")]
    members = [(name, member) for c in own for name, member in sorted(vars(c).items())]
    accessors = [(name, f) for name, m in members if isinstance(m, property) for f in (m.fget, m.fset, m.fdel) if f]
    functions = [(name, getattr(member, "__func__", member)) for name, member in members] + accessors
    return [f"{name}: {_compiled(function)}" for name, function in functions if inspect.isfunction(function)]


def _compiled(function: Callable) -> str:
    def plain(value: object) -> object:
        if isinstance(value, CodeType):
            return [value.co_code.hex(), value.co_names, value.co_freevars, [plain(one) for one in value.co_consts]]
        if isinstance(value, frozenset):  # its order changes from process to process
            return sorted(map(repr, value))
        return [plain(one) for one in value] if isinstance(value, tuple) else repr(value)

    defaults = re.sub(" at 0x[0-9a-f]+", "", repr((function.__defaults__, function.__kwdefaults__)))
    return f"{plain(function.__code__)} {defaults}"


def keyed_uniform(purpose: str, seed: int, keys: np.ndarray, epoch: int = 0, columns: int = 1) -> np.ndarray:
    """Random numbers of each sample: a pure function of (purpose, seed, uid, epoch), one row a sample.

    A generator object has a state, and whoever draws first changes what the next one gets. Here row i depends on
    keys[i] and nothing else. The mixing function is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        purpose: What they are for; without it, two uses with one seed would draw the same numbers.
        seed: The run's seed.
        keys: `Samples.keys`, (N,) uint64.
        epoch: Which epoch, from 0.
        columns: How many numbers per sample.

    Returns:
        Uniform in [0, 1), float64 (N, columns).

    Raises:
        ValueError: If an argument is none of these.
    """
    purpose, seed = checks.text("purpose", purpose), checks.seed(seed)
    epoch, columns = checks.whole("epoch", epoch, 0, checks.MOST_SEED), checks.whole("columns", columns)
    keys = checks.array("keys", keys, "N", empty=True)
    if keys.dtype != np.uint64:
        raise ValueError(f"keys are {keys.dtype}, expected uint64: Samples.keys")

    def mix(x: np.ndarray) -> np.ndarray:
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is wanted
        use = np.frombuffer(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), dtype=np.uint64)
        run = mix(mix(use ^ mix(np.array([seed], dtype=np.uint64))) + np.uint64(epoch))
        state = mix(keys ^ run)[:, None] + mix(np.arange(columns, dtype=np.uint64))
        return (mix(state) >> np.uint64(11)) * 2.0**-53
