"""Checks of lesson 7's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exercise_1(auc_by_pairs: Callable) -> str:
    """The share of pairs in which the member scores higher."""
    truth = np.array([True, True, True, False, False])
    for scores, right in (([3.0, 4, 5, 1, 2], 1.0), ([1.0, 2, 3, 4, 5], 0.0), ([3.0, 1, 2, 2, 0], 0.75)):
        found = auc_by_pairs(np.array(scores), truth)
        found = float(found)
        if np.isclose(found, right):
            continue
        if np.isclose(found, right * 6):
            return "that is a number of pairs: divide by how many there are."
        if np.isclose(found, 1 - right):
            return "the other way round: count pairs in which the one who was in has the higher score."
        if scores == [3.0, 1, 2, 2, 0]:
            return f"with scores {scores} it is {right}, and your function says {found:.3g}: equal scores count half."
        return f"with scores {scores} of three who were in and two who were not it is {right}, not {found:.3g}."
    return ""


def exercise_2(found_at: Callable) -> str:
    """The true positive rate at a false positive rate."""
    scores = np.r_[np.arange(10.0) + 5.5, np.arange(20.0)]  # ten members from 5.5 to 14.5, others from 0 to 19
    truth = np.arange(30) < 10
    for share, right in ((0.0, 0.0), (0.5, 0.6), (0.25, 0.1), (0.3, 0.2), (0.95, 1.0)):
        found = found_at(scores, truth, share)
        found = float(found)
        if np.isclose(found, right):
            continue
        if share == 0 and found > 0:
            return (
                "with a share of 0 nobody who was not in may be above the threshold: it is the largest of their scores."
            )
        return f"at a share of {share} it is {right}, and your function says {found:.3g}: sort the others' scores."
    return ""
