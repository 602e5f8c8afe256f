"""From a dataset's name to public, private and test Samples.

The split is a fixed rule: a sample's part depends on its owner (by default it is its own, named by its uid) and the
seed, on nothing else, so that an owner's samples stay together. A keyed uniform number u puts it in public (u < 0.4),
private (u < 0.8) or test (the rest); of a dataset with an official test part, which stays what it is, in public
(u < 0.4) or private. The parts are disjoint for every seed, and a sample that is added or removed never moves another
one between parts.

`NAME/paper` is the published split (arXiv 2404.11056): the first 80% of the official training part are private. Its
code chooses the best epoch on the rest; here nothing is chosen on private data, and the rest is the public part.
"""

from __future__ import annotations

import difflib
import itertools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.data.readers import Source, read_source, source_names
from lmeraser_kit.ground import html
from lmeraser_kit.ground.hashing import digest, keyed_uniform
from lmeraser_kit.ground.samples import Samples

PUBLIC_BELOW, PRIVATE_BELOW = 0.4, 0.8
PAPER_SHARE = 0.8


@dataclass(frozen=True)
class Split:
    """The three parts of a dataset.

    Attributes:
        public: What the backbone and the routing may be trained on; it is never deleted.
        private: What people may ask to have forgotten.
        test: What models are scored on, and nothing else.
        name: The dataset's name.
        classes: What each class is called, by its number; empty if nobody says.
    """

    public: Samples
    private: Samples
    test: Samples
    name: str
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("public", "private", "test"):
            checks.instance(name, getattr(self, name), Samples)
        checks.text("name", self.name)
        n, classes = self.public.n_classes, checks.instance("classes", self.classes, tuple)
        _check_sides({name: getattr(self, name) for name in ("public", "private", "test")})
        if classes and len([checks.text("one of classes", name) for name in classes]) < n:
            raise ValueError(f"classes are {classes!r:.80}, expected {n} names, or none")

    def _repr_html_(self) -> str:
        parts = {"public": "never deleted", "private": "may be forgotten", "test": "for scores alone"}
        facts: dict[str, str] = {name: f"{len(getattr(self, name)):,} samples, {what}" for name, what in parts.items()}
        facts["public, of each class"] = html.class_counts(self.public, self.classes)
        return html.card(f"Split of {self.name}", facts, html.gallery(self.public, self.classes))

    @property
    def digest(self) -> str:
        """A hash of every sample and of the part that it is in, in hex."""
        return digest(*(part.sorted().digests.tobytes() for part in (self.public, self.private, self.test)))

    def take(self, public: int = 0, private: int = 0, test: int = 0, seed: int = 0) -> Split:
        """A smaller split: of each part so many samples, those with the smallest keyed numbers; 0 for all.

        Raises:
            ValueError: If a part has fewer, or a number is none.
        """
        parts = []
        for name, n in (("public", public), ("private", private), ("test", test)):
            part = getattr(self, name)
            if checks.whole(f"the number of {name} samples", n, 0) > len(part):
                raise ValueError(f"{n} {name} samples of {self.name!r} were asked for, and there are {len(part)}")
            chosen = np.argsort(keyed_uniform("take", seed, part.keys)[:, 0], kind="stable")[:n]
            parts.append(part[np.sort(chosen)] if n else part)
        return Split(*parts, name=self.name, classes=self.classes)


def _check_sides(parts: Mapping[str, Samples]) -> None:
    """Refuse parts that share an owner: who is public cannot be forgotten, who is tested was learnt. ValueError."""
    if not any(part.owned for part in parts.values()):
        return
    for one, other in itertools.combinations(parts, 2):
        if len(shared := np.intersect1d(parts[one].owners, parts[other].owners)):
            raise ValueError(
                f"owner {str(shared[0])!r} has {one} and {other} samples, expected an owner's samples in one part"
            )


def dataset_names(root: Path | str = DATA) -> list[str]:
    """The names that `load_dataset` knows: `digits`, torchvision's, and what lies under `root` (see data/README.md)."""
    return source_names(checks.path("root", root))


def check_dataset(name: str, root: Path | str = DATA) -> tuple[str, str]:
    """What `load_dataset` takes a name for, before anything is read.

    Args:
        name: As in `load_dataset`.
        root: Where data lie.

    Returns:
        The dataset's name, and the split's: `paper`, or nothing.

    Raises:
        ValueError: If there is no such dataset, or it has no such split.
    """
    root = checks.path("root", root)
    dataset, _, rule = checks.text("name", name).partition("/")
    if dataset not in dataset_names(root):
        near = difflib.get_close_matches(dataset.lower(), dataset_names(root), 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Arrays go to {root}/NAME.npz, images to {root}/NAME/CLASS/"
        if Path(name).name != name and rule != "paper":
            place = "give the dataset's name (without .npz), and as root the folder it lies in"
            hint = f" {name!r} is a path: {place} (now {root})."
        raise ValueError(f"unknown dataset {dataset!r}; one of: {', '.join(dataset_names(root))}.{hint}")
    if rule not in ("", "paper"):
        raise ValueError(f"unknown split {rule!r} of {dataset!r}; nothing, or /paper for the published one")
    return dataset, rule


def load_dataset(name: str, seed: int = 0, root: Path | str = DATA, limits: list[int] | None = None) -> Split:
    """Load a dataset and split it.

    Args:
        name: One of `dataset_names(root)`; with `/paper` after it, by the published split.
        seed: Seed of the split.
        root: Where data lie; by default the environment's LMERASER_DATA, or data/ beside the package.
        limits: How many public, private and test samples to take at most (0 for all); by default all.

    Returns:
        The public, private and test parts.

    Raises:
        ValueError: If the name is unknown, files are missing or damaged, a part would be empty, or a private label is
            none of the public part's (then prepared arrays must state their `n_classes`).
    """
    seed, root, limits = checks.seed(seed), checks.path("root", root), _three(limits)
    dataset, rule = check_dataset(name, root)
    source = read_source(dataset, root)
    split = Split(*(_published(source, name) if rule else _keyed(source, seed)), name=name, classes=source.classes)
    if min(map(len, (split.public, split.private, split.test))) == 0:
        raise ValueError(
            f"dataset {name!r} has {len(source.train)} samples: too few for a public, private and test part"
        )
    if not source.stated:  # no private label may decide it
        n_classes = int(split.public.labels.max()) + 1
        if absent := sorted(set(range(n_classes)) - set(split.public.labels.tolist())):
            warnings.warn(
                f"{name!r} has {n_classes} classes by the public part's largest label, and no public sample of class "
                f"{absent[0]}: labels count from 0; state n_classes with the arrays if this is meant",
                stacklevel=2,
            )
        parts = (split.public, split.private, split.test)
        try:
            split = Split(*(replace(part, n_classes=n_classes) for part in parts), name=name, classes=source.classes)
        except ValueError as error:
            hint = "the public part's largest label decides the number of classes unless n_classes is among the arrays"
            raise ValueError(f"{error}; {hint}") from error
    return split.take(*limits, seed=seed)


def _three(limits: Iterable[int] | None) -> list[int]:
    """`load_dataset`'s limits; none and an empty list are no limits."""
    given = (0, 0, 0) if limits is None else limits
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else None
    if listed is None or len(listed) not in (0, 3):
        expected = "three numbers: public, private and test samples (0 for all)"
        raise ValueError(f"limits are {limits!r:.80}, expected {expected}")
    return [checks.whole("one of limits", n, 0) for n in listed or (0, 0, 0)]


def _keyed(source: Source, seed: int) -> list[Samples]:
    """The kit's split; samples of one group or owner stay together."""
    u = _draws(source, seed)
    if source.test is None:
        parts = np.digitize(u, [PUBLIC_BELOW, PRIVATE_BELOW])
        return [source.train[parts == part] for part in range(3)]
    return [source.train[u < PUBLIC_BELOW], source.train[u >= PUBLIC_BELOW], source.test]


def _published(source: Source, name: str) -> list[Samples]:
    """The paper's split: the first 80% in the published order; groups and owners, which it would part, by numbers."""
    if source.test is None:
        raise ValueError(f"{name!r}: the published split needs an official training and test part, which it has not")
    if source.groups is None and not source.train.owned:
        private = np.arange(len(source.train)) < PAPER_SHARE * len(source.train)
    else:
        private = _draws(source, 0) < PAPER_SHARE
    return [source.train[~private], source.train[private], source.test]


def _draws(source: Source, seed: int) -> np.ndarray:
    if source.groups is None:
        return keyed_uniform("split", seed, source.train.owner_keys)[:, 0]
    names, where = np.unique(source.groups, return_inverse=True)
    keys = Samples(np.zeros((len(names), 1, 1, 1), np.uint8), np.zeros(len(names)), names).keys
    return keyed_uniform("split", seed, keys)[where, 0]
