"""Names: uids, each of one sample, and owners, each of one sample or many."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from lmeraser_kit import checks


def named(uids, held: Collection[str]) -> list[str]:
    """The uids that a request names, as a list of strings.

    Args:
        uids: One uid or several, in any kind of list; integers are turned into strings. Or Samples, by their uids.
        held: The uids that may be named; a set or a dict.

    Raises:
        ValueError: If a uid is not held, or named twice, or `uids` is something else.
    """
    uids = checks.names("uids", getattr(uids, "uids", uids))
    for uid in uids:
        if uid not in held:
            longer = next((one for one in held if one.endswith(f"/{uid}")), None)  # a file's name, without its folder
            raise ValueError(
                f"unknown uid {uid!r}: not among the {len(held)} samples held. It was never added, or has been "
                "forgotten already, or a store's recorded request forgets it"
                + (f". Did you mean {longer!r}?" if longer else "")
            )
    if len(set(uids)) < len(uids):
        raise ValueError(f"uid {str(repeated(np.array(uids)))!r} is named twice in one request")
    return uids


def owned_by(owner, held: Mapping[str, str]) -> list[str]:
    """The uids of all samples held of the owners that a request names.

    Args:
        owner: One owner or several, as `named` takes uids.
        held: The owner of each sample, by uid.

    Raises:
        ValueError: If no owner is named, one is named twice or has no sample, or `owner` is something else.
    """
    owners = checks.names("owner", owner, "owner")
    found: dict[str, list[str]] = {one: [] for one in owners}
    for uid, one in held.items():
        if one in found:
            found[one].append(uid)
    if not owners:
        raise ValueError("owner is empty: whose samples are to be forgotten?")
    for one in owners:
        if not found[one]:
            raise ValueError(
                f"unknown owner {one!r}: no sample held is theirs. They never had one, or have been forgotten already, "
                "or a store's recorded request forgets them"
            )
    if len(set(owners)) < len(owners):
        raise ValueError(f"owner {str(repeated(np.array(owners)))!r} is named twice in one request")
    return [uid for one in owners for uid in found[one]]


def request(uids, owner) -> list[str]:
    """The owners that a request names, as a list of strings; none if it names uids.

    Raises:
        ValueError: If it names both or neither, or `owner` is something else than names of owners.
    """
    if (uids is None) == (owner is None):
        both = "both" if owner is not None else "neither"
        raise ValueError(f"{both} of uids and owner are given, expected one of them: samples by their uids, or owners")
    return [] if owner is None else checks.names("owner", owner, "owner")


def owner_counts(owners: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """How many samples and how many different owners each cluster has, (K,) each; and how many owners there are.

    Args:
        owners: Of each sample, (N,).
        clusters: Of each sample, (N,).
    """
    _, who = np.unique(owners, return_inverse=True)
    _, where = np.unique(clusters, return_inverse=True)
    pairs = np.unique(np.stack([where, who]), axis=1)
    return np.bincount(where), np.bincount(pairs[0]), int(who.max(initial=-1)) + 1


def one_each(name: str, names: object, n: int) -> np.ndarray:
    """Names, one a sample, as an array of text, (N,); one that is already is kept. Raises ValueError."""
    if not (isinstance(names, np.ndarray) and names.dtype.kind == "U" and names.ndim == 1 and names.all()):
        names = np.array(checks.names(name, names, name[:-1]), dtype=str)
    if len(names) != n:
        raise ValueError(f"there are {len(names)} {name} for {n} images, expected one for each")
    _check_encodable(names, name[:-1])
    return names


def keys_of(names: np.ndarray) -> np.ndarray:
    """A 64-bit key of each name, (N,) uint64."""
    hashed = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.tolist())
    return np.frombuffer(hashed, dtype=np.uint64)


def repeated(uids: np.ndarray) -> str | None:
    """A uid that occurs more than once, or None."""
    names, counts = np.unique(uids, return_counts=True)
    return names[counts > 1][0] if (counts > 1).any() else None


def _check_encodable(names: np.ndarray, what: str) -> None:
    try:
        "".join(names.tolist()).encode()
    except UnicodeEncodeError as error:
        strange = error.object[error.start : error.end]
        raise ValueError(
            f"{what} holds {strange!r}, which is no character: such names of files were decoded wrongly"
        ) from error
