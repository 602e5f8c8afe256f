"""Samples: what travels through the kit. Images, labels, and for each sample a uid that is its name for life.

A uid is a name, not a hash of the content: two people may give the same image, and one of them may leave. A person
may have many images: they have one owner, and who has none stated is an owner of one image, which its uid names.
Everything random about a sample is keyed by its uid (never by its position in a dataset, never by what it shows), so
that deleting one sample does not change a single draw of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.checks import class_labels
from lmeraser_kit.ground import html
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.names import keys_of, named, one_each, owned_by, repeated


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images with uids.

    Args:
        images: Pixels, uint8 (N, C, H, W), C = 1 or 3. Memory-mapped arrays are kept as they are, and so is anything
            that has an array's shape and index and becomes one when it is used (the store's images do).
        labels: Class indices, (N,), each in [0, n_classes); see `class_labels`.
        uids: Names, (N,), unique, not empty; integers are turned into strings.
        n_classes: Number of classes of the task; by default the largest label plus one. It stays with every slice,
            so that the classes do not depend on who has left.
        owners: Whom each image belongs to, (N,), not empty; integers are turned into strings. By default each image is
            its own owner, and an owner that is the image's uid is the same as none stated.

    Raises:
        ValueError: If a shape, a type, a label, a uid or an owner is not as above.
    """

    images: np.ndarray
    labels: np.ndarray
    uids: np.ndarray
    n_classes: int = None  # type: ignore[assignment]  # None is replaced below
    owners: np.ndarray = None  # type: ignore[assignment]  # None is replaced below

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(getattr(images, "dtype", None), np.dtype) or np.ma.isMaskedArray(images):
            images = checks.as_array("images", images)  # others are kept: mapped, or read when they are used
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
        n, n_classes, uids = len(images), self.n_classes, self.uids
        if n_classes is not None:
            n_classes = checks.whole("n_classes", n_classes, 1, checks.MOST_CLASSES)
        uids = one_each("uids", uids, n)
        owners = uids if self.owners is None or self.owners is self.uids else one_each("owners", self.owners, n)
        owners = uids if np.array_equal(owners, uids) else owners  # one array where nobody has an owner
        labels = class_labels(self.labels, n, n_classes, uids)
        n_classes = int(labels.max(initial=0)) + 1 if n_classes is None else n_classes
        if (twice := repeated(uids)) is not None:
            raise ValueError(f"uid {str(twice)!r} occurs more than once; a uid names one sample for life")
        checked = {"images": images, "labels": labels, "uids": uids, "n_classes": n_classes, "owners": owners}
        self.__dict__.update(checked)

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        owners = f", {len(np.unique(self.owners)):,} owners" if self.owned else ""
        return f"Samples({len(self)} images of {self.images.shape[1:]}, {self.n_classes} classes{owners})"

    def _repr_html_(self) -> str:
        channels, height, width = self.images.shape[1:]
        kind = "grey" if channels == 1 else "in colour"
        facts = {"images": f"{height} x {width} pixels, {kind}", "of each class": html.class_counts(self)}
        return html.card(f"Samples: {len(self):,} of {self.n_classes:,} classes", facts, html.gallery(self))

    def __getitem__(self, index) -> Samples:
        """A part of the samples.

        Args:
            index: A slice, positions (M,), a mask (N,), or one position (a part of one).

        Raises:
            ValueError: If it is none of these, there is no such position, or one comes twice.
        """
        if not isinstance(index, slice):
            index = chosen = self._chosen(index)
        elif index.step == 0 or not all(
            end is None or isinstance(end, (int, np.integer)) for end in (index.start, index.stop, index.step)
        ):
            raise ValueError(f"index is {index!r}, expected a slice of whole numbers, with a step that is not 0")
        else:
            chosen = np.arange(len(self))[index]
        part, uids = object.__new__(Samples), self.uids[chosen]  # what is part of checked samples needs no checks
        part.__dict__.update(
            images=self.images[index],
            labels=self.labels[chosen],
            uids=uids,
            n_classes=self.n_classes,
            owners=self.owners[chosen] if self.owned else uids,
        )
        part.__dict__.update({name: self.__dict__[name][chosen] for name in CACHED if name in self.__dict__})
        return part

    def __iter__(self) -> Iterator[Samples]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, uid: str) -> bool:
        return str(uid) in self.uids.tolist()

    def __add__(self, other: Samples) -> Samples:
        """Both parts together. Raises ValueError if they share a uid or differ in image shape."""
        return concatenate([self, other])

    def _chosen(self, index) -> np.ndarray:
        """The positions that an index other than a slice chooses, int64 (M,), each once and from 0."""
        n, given = len(self), np.atleast_1d(checks.as_array("index", index))
        if given.dtype == bool and given.shape == (n,):
            return np.flatnonzero(given)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu") or isinstance(index, tuple):
            expected = f"a slice, a position, positions (M,) or a mask ({n},)"
            raise ValueError(f"index is {index!r:.80} ({given.dtype} {given.shape}), expected {expected}")
        if len(outside := given[(given < -n) | (given >= n)]):
            raise ValueError(f"index {outside[0]} is outside the {n} samples")
        chosen = np.arange(n)[given.astype(np.int64)]
        if len(np.unique(chosen)) < len(chosen):
            raise ValueError(f"uid {str(repeated(self.uids[chosen]))!r} occurs more than once in the part")
        return chosen

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

    @property
    def owned(self) -> bool:
        """Whether an image has another owner than itself."""
        return self.owners is not self.uids

    def with_owners(self, owners) -> Samples:
        """The same images with these owners, (N,); None for none stated. Raises ValueError as `Samples` does."""
        return Samples(self.images, self.labels, self.uids, self.n_classes, owners)

    def uids_of(self, owner) -> list[str]:
        """The uids of one owner's samples, or of several owners'. Raises ValueError as `owned_by`."""
        return owned_by(owner, dict(zip(self.uids.tolist(), self.owners.tolist(), strict=True)))

    def sorted(self) -> Samples:
        """The same samples in the order of their uids: the order of arrival must not matter."""
        in_order = (self.uids[:-1] <= self.uids[1:]).all()
        return self if in_order else self[np.argsort(self.uids, kind="stable")]

    def without_cache(self) -> Samples:
        """The same images, labels, uids and owners, and nothing that was worked out from them before."""
        return Samples(np.asarray(self.images), self.labels, self.uids, self.n_classes, self.owners)

    @cached_property
    def keys(self) -> np.ndarray:
        """A 64-bit key of each uid, (N,) uint64: the name under which its random numbers are drawn."""
        return keys_of(self.uids)

    @property
    def owner_keys(self) -> np.ndarray:
        """A 64-bit key of each sample's owner, (N,) uint64; of one that is its own owner, that of its uid."""
        return keys_of(self.owners) if self.owned else self.keys

    @cached_property
    def digests(self) -> np.ndarray:
        """SHA-256 of each sample's uid, label and pixels, and of its owner if it has one, uint8 (N, 32)."""
        columns = (self.uids.tolist(), self.labels, np.asarray(self.images), self.owners.tolist())
        hashed = b"".join(
            bytes.fromhex(
                digest(
                    *("sample", uid, int(label), image.shape, np.ascontiguousarray(image).tobytes()),
                    *(() if owner == uid else (owner,)),
                )
            )
            for uid, label, image, owner in zip(*columns, strict=True)
        )
        return np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 32)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of them, in this order, in hex."""
        return digest(self.digests.tobytes())


CACHED = ("keys", "digests")  # these go with a sample from one part to the next


def concatenate(parts: Iterable[Samples]) -> Samples:
    """All parts together, at least one.

    Raises:
        ValueError: If there is none, one is something else, two share a uid (whoever owns it), or they differ in image
            shape.
    """
    parts = list(checks.instance("parts", parts, Iterable, " of Samples"))
    if not parts:
        raise ValueError("parts is empty, expected one at least: the shape of no images is not known")
    for part in parts:
        shape = checks.instance("a part", part, Samples).images.shape[1:]
        if shape != parts[0].images.shape[1:]:
            raise ValueError(f"images of shape {shape} cannot join images of {parts[0].images.shape[1:]}")
    uids = np.concatenate([part.uids for part in parts])
    if (twice := repeated(uids)) is not None:
        whose = sorted({str(owner) for part in parts for owner in part.owners[part.uids == twice]})
        two = f", of the owners {' and '.join(map(repr, whose))}" if len(whose) > 1 else ""
        raise ValueError(f"uid {str(twice)!r} is there already{two}; a uid names one sample for life")
    together = object.__new__(Samples)
    together.__dict__.update(
        images=np.concatenate([np.asarray(part.images) for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        uids=uids,
        n_classes=max(part.n_classes for part in parts),
        owners=np.concatenate([part.owners for part in parts]) if any(part.owned for part in parts) else uids,
    )
    known = [name for name in CACHED if all(name in part.__dict__ for part in parts)]
    together.__dict__.update({name: np.concatenate([part.__dict__[name] for part in parts]) for name in known})
    return together


def not_empty(name: str, samples: Samples) -> Samples:
    """Samples, at least one. Raises ValueError for none, and for something else."""
    if not len(checks.instance(name, samples, Samples, "(images, labels, uids)")):
        raise ValueError(f"{name} has no samples, expected one at least")
    return samples
