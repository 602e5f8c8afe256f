"""Two published versions of a model, from before and after a request, as the arrays that an attacker reads.

`evaluation.reconstruction` attacks them. Nobody is forgotten here: the version after a request is computed and not
taken on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.learners.protocol import ClusterModel
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.lmeraser import LMEraser
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser
from lmeraser_kit.unlearning.state import State


def head_inputs(eraser: RidgeEraser, samples: Samples) -> np.ndarray:
    """What a shared ridge head sees of samples, with a one for the bias as the last input: float64 (N, L + D + 1)."""
    samples = checks.instance("samples", samples, Samples)
    return _sums_of(eraser).inputs(samples, eraser.rebuild().context)


def ridge_penalty(eraser: RidgeEraser) -> float:
    """What a shared ridge head's regression adds to the diagonal of `X^T X`; it follows from public samples."""
    return _sums_of(eraser).penalty(eraser.rebuild().context)


def ridge_versions(eraser: RidgeEraser, uids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The shared ridge head before and after some samples leave, each (L + D + 1, n_classes).

    Args:
        eraser: Fitted.
        uids: Who leaves, not everybody.

    Raises:
        ValueError: If a uid is not held, or named twice, or nobody would be left.
    """
    learner, sums = _sums_of(eraser), _after(eraser, uids).sums
    assert sums is not None  # somebody is held
    return eraser.head(), learner.head(sums, eraser.rebuild().context)


def cluster_versions(eraser: LMEraser, uids: Iterable[str]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The heads before and after some samples leave, of each cluster whose head has changed and is still there.

    Args:
        eraser: Fitted.
        uids: Who leaves, not everybody.

    Returns:
        A cluster's number -> two heads, each (D + 1, n_classes), the last row the bias.

    Raises:
        ValueError: As for `ridge_versions`.
    """
    checks.instance("eraser", eraser, LMEraser).check_unchanged()
    before, after = eraser.state_.models, _after(eraser, uids).models
    changed = [k for k in before if k in after and before[k].digest != after[k].digest]
    return {k: (_head(before, k), _head(after, k)) for k in changed}


def _after(eraser: BaseEraser, uids: Iterable[str]) -> State:
    state = eraser.successor(uids).state
    if not len(state):
        raise ValueError("uids name everybody: there is no version after that")
    return state


def _head(models: Mapping[int, ClusterModel], k: int) -> np.ndarray:
    arrays = models[k].arrays
    return np.vstack([arrays["weight"].T, arrays["bias"]]).astype(np.float64)


def _sums_of(eraser: RidgeEraser) -> ExactSums:
    checks.instance("eraser", eraser, RidgeEraser).check_unchanged()
    return checks.instance("the learner", eraser.choices().learner, ExactSums)
