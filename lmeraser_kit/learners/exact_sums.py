"""Exact sums: what one head for everybody needs, as whole numbers that can be added and taken back to the bit.

Ridge regression over the features X and one-hot labels Y of all samples solves `(X^T X + l2 I) W = X^T Y` (Hoerl and
Kennard 1970), and needs no more of them than these two sums. That makes forgetting a subtraction on paper (unlearning
in summation form, Cao and Yang 2015), and in floating point it does not: the result has another rounding than a sum
that never had the sample. So each feature is rounded once to a whole multiple of a step that public samples have given
(quantisation: one of four principles of Ginart et al. 2019). Whole numbers below 2^53 are added exactly by float64, and
so by every BLAS, in any order, on any number of threads. They are kept as int64, which has one zero.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.preprocessing import MOST
from lmeraser_kit.ground import workers
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import Arrays, Context
from lmeraser_kit.learners.ridge import factor, probabilities, solve

L2 = 400.0  # the best of five, or within 0.3 points of it, for fits on 300 to 4,000 public samples: docs/choosing.md
BLOCK, PANEL = 4096, 256  # rows and columns at a time: of so many rows the sums stay below 2^42
MOST_SAMPLES = 2**63 // MOST**2  # what int64 has room for: 8.6 billion


class ExactSums(BaseEstimator):
    """The sums `X^T X` and `X^T Y` over rounded features.

    A cluster is a bucket: it keeps the `rows` of its members, int16 (N, L + D), and their `labels`, int64 (N,).

    Args:
        layers: Whether the outputs of all stages of the backbone come before the feature (Head2Toe, Evci et al. 2022),
            in the same pass.
        mirrored: Whether an image's features are the mean of its own and of its mirror image's: two passes.
        l2: The penalty on the diagonal, in mean squares of a public feature. It does not depend on how many samples
            there are, so that nothing has to be chosen again when some leave.
    """

    def __init__(self, layers: bool = True, mirrored: bool = False, l2: float = L2):
        self.layers = layers
        self.mirrored = mirrored
        self.l2 = l2

    uses_features = True

    def check(self) -> None:
        """Refuse arguments that make no sense. Raises ValueError."""
        checks.flag("layers", self.layers)
        checks.flag("mirrored", self.mirrored)
        checks.number("l2", self.l2, beyond=True)

    @property
    def passes(self) -> int:
        """Passes through the backbone that the features of one image take."""
        return 1 + bool(self.mirrored)

    def features(self, samples: Samples, context: Context) -> np.ndarray:
        """What heads see of samples, float32 (N, L + D): of each a pure function, because batches have one shape."""
        context = context.of(samples) if context.queries is None else context
        features = context.features(samples, self.layers)
        if self.mirrored:
            mirror = replace(samples, images=np.ascontiguousarray(np.asarray(samples.images)[..., ::-1]))
            features = (features + context.of(mirror, context.any_batch).features(mirror, self.layers)) / 2
        return features

    def steps(self, context: Context) -> np.ndarray:
        """The step of each feature and 1 for the bias, float64 (L + D + 1,). Raises ValueError if there is none."""
        return np.append(self._rounding(context)[0], 1.0)

    def penalty(self, context: Context) -> float:
        """What is added to the diagonal of `X^T X`. Raises ValueError if the backbone has no rounding."""
        return self.l2 * float(self._rounding(context)[1].mean())

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone without a rounding. Raises ValueError."""
        if not backbone.rounding:
            raise ValueError("the backbone has no rounding for exact sums: backbone.standardised(public) measures one")

    def _rounding(self, context: Context) -> list[np.ndarray]:
        self.check_backbone(context.backbone)
        width = None if self.layers else -context.backbone.n_features
        return [part.numpy()[width:] for part in context.backbone.rounding]

    def rows(self, samples: Samples, context: Context) -> np.ndarray:
        """The rounded features of samples, int16 (N, L + D): of each a pure function of its image and the backbone.

        Values beyond what 16 bits hold, twice the largest public one at least, become the largest; a warning counts
        them.
        """
        steps, n = self.steps(context)[:-1], 0
        rows, known = np.empty((len(samples), len(steps)), np.int16), context.knows(self.layers)
        size = BLOCK * workers.n_at_once(context.n_jobs)  # float32 of a million samples would take 7 GB, float64 14
        starts, several = range(0, len(samples), size), len(samples) > size and not known
        bar = {"desc": "features", "unit": f"{size} images", "disable": not (several and context.verbose)}
        for start in progress(starts, **bar):
            some = samples[start : start + size]
            features = self.features(
                some, context if known else replace(context.of(some), verbose=context.verbose and not several)
            )
            for first in range(0, len(some), BLOCK):
                part = slice(start + first, start + first + BLOCK)
                whole = np.rint(features[first : first + BLOCK] / steps)
                n += int((np.abs(whole) > MOST).sum())
                rows[part] = np.clip(whole, -MOST, MOST)
        if n:
            warnings.warn(
                f"{n} of {rows.size} features are more than twice the largest public one, and are kept as the largest "
                "that 16 bits hold: are the public samples like the private ones?",
                stacklevel=2,
            )
        return rows

    def learn(self, samples: Samples, context: Context) -> tuple[dict[str, np.ndarray], int]:
        """The rows and labels of a bucket; each sample has passed once, without gradients."""
        return self.bucket(self.rows(samples, context), samples)

    def bucket(self, rows: np.ndarray, samples: Samples) -> tuple[dict[str, np.ndarray], int]:
        """What `learn` gives, from rows that are known."""
        return {"rows": rows, "labels": samples.labels.astype(np.int64)}, self.passes * len(samples)

    @staticmethod
    def saturated(learnt: Arrays) -> int:
        """How many values of a bucket's rows are the largest that 16 bits hold."""
        return int((np.abs(learnt["rows"].astype(np.int32)) == MOST).sum())

    def nothing(self, learnt: Arrays, n_classes: int) -> np.ndarray:
        """The sums of no sample, int64 (L + D + 1, L + D + 1 + n_classes), for rows like those of a bucket."""
        inputs = learnt["rows"].shape[1] + 1
        return np.zeros((inputs, inputs + n_classes), dtype=np.int64)

    def accumulate(self, sums: np.ndarray, learnt: Arrays, sign: int) -> None:
        """Add members of buckets to the sums, or take them back, in place and to the bit.

        Args:
            sums: The upper triangle of `X^T X`, and `X^T Y` beside it; what is left of the triangle's blocks stays 0.
            learnt: The members' rows and labels.
            sign: 1 to add, -1 to take back.

        Raises:
            ValueError: If there would be more samples than 64 bits have room for; nothing is added then.
        """
        rows, inputs = learnt["rows"], len(sums)
        _check_room(sums, sign * len(rows))
        labels = np.eye(sums.shape[1] - inputs)[learnt["labels"]]
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            xy = np.c_[rows[part], np.ones(len(labels[part])), labels[part]]
            for top in range(0, inputs, PANEL):
                panel = slice(top, min(top + PANEL, inputs))
                sums[panel, top:] += sign * (xy[:, panel].T @ xy[:, top:]).astype(np.int64)

    def combine(self, sums: np.ndarray, others: np.ndarray, sign: int) -> None:
        """Add the sums of other rows (1), whoever has added them up, or take them back (-1), in place and to the bit.

        Raises:
            ValueError: As for `accumulate`.
        """
        _check_room(sums, sign * _count(others))
        sums += sign * others

    def head(self, sums: np.ndarray, context: Context) -> np.ndarray:
        """The head for everybody, float64 (L + D + 1, n_classes), the last row the bias, from the sums."""
        steps, inputs = self.steps(context), len(sums)
        gram = sums[:, :inputs] * steps[:, None] * steps
        return solve(factor(gram, self.penalty(context)), sums[:, inputs:] * steps[:, None])

    def inputs(self, samples: Samples, context: Context) -> np.ndarray:
        """What heads see of samples that are asked about, and a one for the bias, float64 (N, L + D + 1)."""
        features = self.features(samples, context)
        return np.c_[features, np.ones(len(features))].astype(np.float64)

    def predict_proba(self, learnt: Arrays, samples: Samples, context: Context) -> np.ndarray:
        """The class probabilities of a head from one bucket alone, float64 (N, n_classes)."""
        sums = self.nothing(learnt, samples.n_classes)
        self.accumulate(sums, learnt, 1)
        return probabilities(self.inputs(samples, context) @ self.head(sums, context))


def _count(sums: np.ndarray) -> int:
    """How many samples are in the sums: the bias counts them."""
    return int(sums[len(sums) - 1, len(sums) - 1])


def _check_room(sums: np.ndarray, joining: int) -> None:
    if (n := _count(sums) + joining) > MOST_SAMPLES:
        raise ValueError(f"{n} samples are too many for sums of 64 bits: at most {MOST_SAMPLES}")
