"""Samples: what travels through the kit. Images, labels, and for each sample a uid that is its name for life.

A uid is a name, not a hash of the content: two people may give the same image, and one of them may leave.
Everything random about a sample is keyed by its uid (never by its position in a dataset, never by what it shows), so
that deleting one sample does not change a single draw of another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images with uids.

    Args:
        images: Pixels, uint8 (N, C, H, W), C = 1 or 3. Memory-mapped arrays are kept as they are, and so is anything
            that has an array's shape and index and becomes one when it is used (the store's images do).
        labels: Class indices, (N,), each in [0, n_classes).
        uids: Names, (N,), unique; integers are turned into strings.
        n_classes: Number of classes of the task; by default the largest label plus one. It stays with every slice,
            so that the classes do not depend on who has left.

    Raises:
        ValueError: If a shape, a type, a label or a uid is not as above.
    """

    images: np.ndarray
    labels: np.ndarray
    uids: np.ndarray
    n_classes: int | None = None

    def __post_init__(self) -> None:
        images = self.images if hasattr(self.images, "__array__") else np.asarray(self.images)
        labels = np.atleast_1d(np.asarray(self.labels))
        uids = np.atleast_1d(np.asarray(self.uids))
        if len(uids) and uids.dtype.kind not in "USTiuO":
            raise ValueError(f"uids are {uids.dtype}, expected strings or whole numbers")
        uids = uids.astype(str)
        if images.dtype != np.uint8:
            bad = images.dtype.kind == "f" and not np.isfinite(images).all()
            raise ValueError(
                f"images are {images.dtype}{' and hold NaN or infinity' if bad else ''}, expected uint8 in [0, 255]; "
                "scale and convert them first, for instance (255 * x).round().astype('uint8')"
            )
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images have shape {images.shape}, expected (N, C, H, W) with C = 1 or 3")
        if 0 in images.shape[2:]:
            raise ValueError(f"images have shape {images.shape}: they have no pixels")
        if labels.shape != (len(images),) or uids.shape != (len(images),):
            raise ValueError(f"{len(images)} images, labels of shape {labels.shape}, uids of shape {uids.shape}")
        if len(labels) and (not np.isfinite(labels.astype(float)).all() or (labels != np.floor(labels)).any()):
            raise ValueError("labels must be whole numbers, and some are not")
        labels = labels.astype(np.int64)
        n_classes = int(labels.max(initial=0)) + 1 if self.n_classes is None else int(self.n_classes)
        outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
        if len(outside):
            label = labels[outside[0]]
            raise ValueError(
                f"label {label} of uid {str(uids[outside[0]])!r} is outside the range 0 to {n_classes - 1}"
            )
        if (twice := _repeated(uids)) is not None:
            raise ValueError(f"uid {str(twice)!r} occurs more than once; a uid names one sample for life")
        for name, value in (("images", images), ("labels", labels), ("uids", uids), ("n_classes", n_classes)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f"Samples({len(self)} images of {self.images.shape[1:]}, {self.n_classes} classes)"

    def __getitem__(self, index) -> Samples:
        """A part of the samples: by slice, index array, mask, or one position (a part of one)."""
        index = [index] if isinstance(index, (int, np.integer)) else index
        chosen = np.arange(len(self))[index]
        if not isinstance(index, slice) and len(np.unique(chosen)) < len(chosen):
            raise ValueError(f"uid {str(_repeated(self.uids[chosen]))!r} occurs more than once in the part")
        part = object.__new__(Samples)  # what is part of checked samples needs no checks
        part.__dict__.update(
            images=self.images[index], labels=self.labels[chosen], uids=self.uids[chosen], n_classes=self.n_classes
        )
        part.__dict__.update({name: self.__dict__[name][chosen] for name in WORKED_OUT if name in self.__dict__})
        return part

    def __add__(self, other: Samples) -> Samples:
        """Both parts together. Raises ValueError if they share a uid or differ in image shape."""
        return concatenate([self, other]) if isinstance(other, Samples) else NotImplemented

    def positions(self, uids) -> np.ndarray:
        """Where the samples named by `uids` are.

        Raises:
            ValueError: If a uid is unknown, or named twice.
        """
        where = {uid: i for i, uid in enumerate(self.uids.tolist())}
        return np.array([where[uid] for uid in named(uids, where)], dtype=np.int64)

    def without(self, uids) -> Samples:
        """The samples that remain when those named by `uids` have left. Raises ValueError for an unknown uid."""
        keep = np.ones(len(self), dtype=bool)
        keep[self.positions(uids)] = False
        return self[keep]

    def sorted(self) -> Samples:
        """The same samples in the order of their uids: the order of arrival must not matter."""
        in_order = (self.uids[:-1] <= self.uids[1:]).all()
        return self if in_order else self[np.argsort(self.uids, kind="stable")]

    def afresh(self) -> Samples:
        """The same images, labels and uids, and nothing that was worked out from them before."""
        return Samples(np.asarray(self.images), self.labels, self.uids, self.n_classes)

    @cached_property
    def keys(self) -> np.ndarray:
        """A 64-bit key of each uid, (N,) uint64: the name under which its random numbers are drawn."""
        hashed = b"".join(hashlib.blake2b(uid.encode(), digest_size=8).digest() for uid in self.uids.tolist())
        return np.frombuffer(hashed, dtype=np.uint64)

    @cached_property
    def digests(self) -> np.ndarray:
        """SHA-256 of each sample's uid, label and pixels, uint8 (N, 32)."""
        hashed = b"".join(
            bytes.fromhex(digest("sample", uid, int(label), image.shape, np.ascontiguousarray(image).tobytes()))
            for uid, label, image in zip(self.uids.tolist(), self.labels, np.asarray(self.images), strict=True)
        )
        return np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 32)


WORKED_OUT = ("keys", "digests")  # these go with a sample from one part to the next


def concatenate(parts: list[Samples]) -> Samples:
    """All parts together, at least one.

    Raises:
        ValueError: If two share a uid or differ in image shape.
    """
    shape = parts[0].images.shape[1:]
    for part in parts:
        if part.images.shape[1:] != shape:
            raise ValueError(f"images of shape {part.images.shape[1:]} cannot join images of {shape}")
    uids = np.concatenate([part.uids for part in parts])
    if (twice := _repeated(uids)) is not None:
        raise ValueError(f"uid {str(twice)!r} is there already; a uid names one sample for life")
    together = object.__new__(Samples)
    together.__dict__.update(
        images=np.concatenate([np.asarray(part.images) for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        uids=uids,
        n_classes=max(part.n_classes for part in parts),
    )
    known = [name for name in WORKED_OUT if all(name in part.__dict__ for part in parts)]
    together.__dict__.update({name: np.concatenate([part.__dict__[name] for part in parts]) for name in known})
    return together


def named(uids, held) -> list[str]:
    """The uids that a request names, as a list of strings.

    Args:
        uids: One uid or several; integers are turned into strings.
        held: The uids that may be named; a set or a dict.

    Raises:
        ValueError: If a uid is not held, or named twice.
    """
    uids = [uids] if isinstance(uids, (str, bytes, int, float, np.generic)) else list(uids)
    if wrong := [uid for uid in uids if not isinstance(uid, (str, int, np.integer))]:
        raise ValueError(f"uid {wrong[0]!r} is no name: expected a string or a whole number")
    uids = [str(uid) for uid in uids]
    for uid in uids:
        if uid not in held:
            raise ValueError(
                f"unknown uid {uid!r}: not among the {len(held)} samples held. It was never added, or has been "
                "forgotten already (no list of forgotten uids is kept)"
            )
    if len(set(uids)) < len(uids):
        raise ValueError(f"uid {str(_repeated(np.array(uids)))!r} is named twice in one request")
    return uids


def _repeated(uids: np.ndarray) -> str | None:
    """A uid that occurs more than once, or None."""
    names, counts = np.unique(uids, return_counts=True)
    return names[counts > 1][0] if (counts > 1).any() else None


def digest(*parts) -> str:
    """SHA-256 over parts, in hex. Every part is preceded by its length, so that no two lists of parts run together."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


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
    """

    def mix(x: np.ndarray) -> np.ndarray:
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is wanted
        use = np.frombuffer(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), dtype=np.uint64)
        run = mix(mix(use ^ mix(np.array([seed % 2**64], dtype=np.uint64))) + np.uint64(epoch))
        state = mix(keys ^ run)[:, None] + mix(np.arange(columns, dtype=np.uint64))
        return (mix(state) >> np.uint64(11)) * 2.0**-53
