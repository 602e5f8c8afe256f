"""The closure of a deletion request: which other samples show the same picture, and might have to go, too.

Forgetting is exact for the samples that a request names. Another copy of the same picture, under another uid, is held
until it is named as well ("Unlearning at Scale", arXiv 2508.12220, calls all that has to go the forget closure). Here
candidates are found, and nothing is deleted: a person looks at them, and decides.

Two images are compared in two ways: by the cosine distance of their features, and by the bits in which their perceptual
hashes differ. Of the image that is asked about, `copies.views` are compared, so that a mirrored or cropped copy is
found. What is near, public images say: distances between different public images are those of strangers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.data import copies
from lmeraser_kit.ground import workers
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.ground.samples import Samples, named, not_empty
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.unlearning.arguments import as_queries

if TYPE_CHECKING:
    import pandas as pd

STRANGERS = 1.0  # by each measure; chosen on public images of CIFAR-10 and Fashion-MNIST: docs/closure.md
PUBLIC, ASKED = 4000, 200  # public images that are compared, and how many of them are asked about, at most
TOGETHER, HASHED = 16, 2000  # images that are asked about, and that are hashed, at a time
COLUMNS = ["uid", "copy_of", "strangers", "distance", "hash_distance", "kind", "same_pixels"]


@dataclass(frozen=True, eq=False)
class Strangers:
    """Distances of different public images, in order: of features, (P,), and of perceptual hashes, (P,)."""

    distances: np.ndarray
    hash_distances: np.ndarray

    def limits(self, threshold: float, n_held: int) -> tuple[float, float]:
        """Below which distances so many strangers among `n_held` samples are expected at most, by either measure."""
        allowed = int(threshold / max(1, n_held) * len(self.distances))
        ends = (np.append(part, np.inf)[min(allowed, len(part))] for part in (self.distances, self.hash_distances))
        return tuple(map(float, ends))  # type: ignore[return-value]

    def expected(self, distance: float, hash_distance: float, n_held: int) -> float:
        """How many strangers among `n_held` are expected to be as near, by the measure that says fewer."""
        pairs = ((self.distances, distance), (self.hash_distances, hash_distance))
        return min(np.searchsorted(part, value, "right") for part, value in pairs) / len(self.distances) * n_held


def near_copies(
    eraser: Any, uids: Iterable[str] | Samples, threshold: float = STRANGERS, public: Samples | None = None
) -> pd.DataFrame:
    """Samples held that may be near copies of those that a request names. A person decides: nothing is deleted.

    Near copies are the same pixels, a file that was saved again, and a mirrored, cropped, brightened or darkened
    picture. Rotated ones, other photographs of the same person, and several changes at once are not looked for. A
    sample that is not listed may be a copy all the same, and one that is listed may be a stranger's: look at both
    pictures. Copies of a copy may be farther away than it: ask again about those that you have confirmed.

    Args:
        eraser: A fitted eraser.
        uids: Names of samples held; or Samples, held or not, which are compared by their images.
        threshold: How many strangers per image asked about, by each of two measures, may be among the candidates. The
            default is one. A larger number gives the same candidates, and more.
        public: Samples that say how near strangers are, two at least; by default those of the fit.

    Returns:
        A row for each pair, the likeliest first (the same pixels; then pixels that agree after the guessed change;
        then others, by `strangers`): `uid` of the candidate; `copy_of`, who was asked about; `strangers`,
        how many samples as near are expected among those held, if none is a copy; `distance`, the cosine distance of
        their features, from 0 to 2; `hash_distance`, how many of the 64 bits of their perceptual hashes differ;
        `kind`, a guess at what was changed; `same_pixels`, whether all pixels are equal.

    Raises:
        ValueError: If an argument is none of these, nobody is held, or there are no public samples.
    """
    threshold, held = checks.number("threshold", threshold), eraser.state_.samples
    asked = _asked(uids, held)
    strangers, hashes = _known(eraser, held, public)
    features, rows = _unit(_held_features(eraser, held)), []
    limit, hash_limit = strangers.limits(threshold, len(held))
    never = set(asked.uids.tolist())
    steps = _compared(eraser, asked, features, hashes)
    for i, (distances, bits) in enumerate(progress(steps, total=len(asked), desc="near copies", unit="image")):
        for j in np.flatnonzero((distances < limit) | (bits < hash_limit)).tolist():
            if (uid := str(held.uids[j])) not in never:
                pair = np.asarray(asked.images[i]), np.asarray(held.images[j])
                expected, kind = strangers.expected(distances[j], bits[j], len(held)), copies.guessed_kind(*pair)
                same = kind == copies.SAME
                rows.append((uid, str(asked.uids[i]), expected, max(0.0, distances[j]), int(bits[j]), kind, same))
    return _table(rows)


def _table(rows: list[tuple]) -> pd.DataFrame:
    import pandas as pd  # only who asks waits for it

    table = pd.DataFrame(rows, columns=COLUMNS)
    order = ["same_pixels", "unlike", "strangers", "distance", "hash_distance", "uid", "copy_of"]
    table = table.assign(unlike=table["kind"] == copies.SIMILAR)
    return table.sort_values(order, ascending=[False, *[True] * 6], ignore_index=True)[COLUMNS]


def _asked(uids: Iterable[str] | Samples, held: Samples) -> Samples:
    if isinstance(uids, Samples):
        as_queries(uids, held, held.n_classes)  # checks the shape
        asked = uids
    else:
        asked = held[held.positions(named(uids, set(held.uids.tolist())))]
    if not len(held):
        raise ValueError("no private sample is held (any more): there is nobody to compare with")
    return asked


def _known(eraser: Any, held: Samples, public: Samples | None) -> tuple[Strangers, np.ndarray]:
    """How near strangers are, and the hashes of all held: kept with the state, and gone when it changes."""
    known = eraser.state_.derived.setdefault("closure", {})
    public = eraser.public_ if public is None else checks.instance("public", public, Samples)
    if public is None:
        raise ValueError("public is None, and so it was in the fit: give public samples, which say what is near")
    as_queries(not_empty("public", public), held, held.n_classes)
    if len(public) < 2:
        raise ValueError("public has 1 sample, expected two at least: their distance says what is near")
    if "hashes" not in known:
        parts = [np.asarray(held.images[start : start + HASHED]) for start in range(0, len(held), HASHED)]
        jobs = workers.each(copies.perceptual_hashes, [(part,) for part in parts], eraser.n_jobs, "cpu")
        bar = progress(jobs, total=len(parts), desc="perceptual hashes", unit=f"{HASHED} images")
        known["hashes"] = np.concatenate(list(bar))
    if "strangers" not in known or known["public"] is not public:
        known |= {"public": public, "strangers": _strangers(eraser, public)}
    return known["strangers"], known["hashes"]


def _strangers(eraser: Any, public: Samples) -> Strangers:
    """How far different public images are from each other."""
    order = np.argsort(keyed_uniform("closure", 0, public.keys)[:, 0], kind="stable")[:PUBLIC]
    some = public[order]
    features, hashes = _unit(_features(eraser, some)), copies.perceptual_hashes(np.asarray(some.images))
    found = []
    for i, pair in enumerate(_compared(eraser, some[:ASKED], features, hashes)):
        found.append([np.delete(part, i) for part in pair])
    distances, hash_distances = (np.sort(np.concatenate(part)) for part in zip(*found, strict=True))
    return Strangers(distances, hash_distances)


def _compared(
    eraser: Any, asked: Samples, features: np.ndarray, hashes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each image asked about the distances to others: of features, of unit length (N, D), and of hashes, (N,)."""
    backbone = getattr(eraser.backbone, "uncached", eraser.backbone)  # no cache may keep a view of a private image
    for start in range(0, len(asked), TOGETHER):
        shown = copies.views(np.asarray(asked.images[start : start + TOGETHER]))
        flat = shown.reshape(-1, *shown.shape[2:])
        theirs = _unit(backbone.features(flat, eraser.threads))
        near = (theirs @ features.T).reshape(len(shown), -1, len(features)).max(axis=1)
        bits = copies.perceptual_hashes(flat).reshape(len(shown), -1, 1)
        yield from zip(1 - near, (np.bitwise_count(one ^ hashes).min(axis=0) for one in bits), strict=True)


def _held_features(eraser: Any, held: Samples) -> np.ndarray:
    """Features of all held, (N, D): from the rows of exact sums, where there are any; or computed, or cached."""
    learner, models = eraser.choices().learner, eraser.state_.models
    if not isinstance(learner, ExactSums) or learner.mirrored:
        return _features(eraser, held)
    width = eraser.backbone.n_features
    rows = np.concatenate([models[k].arrays["rows"][:, -width:] for k in eraser.state_.members])
    uids = np.concatenate([part.uids for part in eraser.state_.members.values()])
    steps = learner.steps(eraser.rebuild().context)[:-1][-width:]
    return rows[np.argsort(uids, kind="stable")] * steps.astype(np.float32)


def _features(eraser: Any, samples: Samples) -> np.ndarray:
    context = replace(eraser.rebuild().context, verbose=eraser.verbose, n_jobs=eraser.n_jobs).of(samples)
    layers = bool(getattr(eraser.choices().learner, "layers", False))
    return context.features(samples, layers)[:, -eraser.backbone.n_features :]


def _unit(features: np.ndarray) -> np.ndarray:
    """Features at length 1, float32; one of length 0 stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
