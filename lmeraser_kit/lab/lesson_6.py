"""Checks of lesson 6's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exercise_1(round_rows: Callable) -> str:
    """Features as whole numbers of steps."""
    features = np.array([[0.0, 1.0, -2.0], [0.26, 5.0, -9.0]])
    found = round_rows(features, 2.0, 4)
    if not isinstance(found, tuple) or len(found) != 2:
        return "two things were expected, the rows and the step: return rows, step."
    rows, step = np.asarray(found[0]), float(found[1])
    if not np.isclose(step, 2 / 7):
        return f"4 bits go to 7: for a largest feature of 2 the step is 2/7 = 0.2857, and yours is {step:.4g}."
    if rows.dtype != np.int64:
        return f"rows are {rows.dtype}: they must be int64, or their sums are not exact."
    if np.abs(rows).max() > 7:
        return f"a row has {np.abs(rows).max()}: what is beyond 7 is cut off (np.clip)."
    right = np.array([[0, 4, -7], [1, 7, -7]])
    if (rows == np.clip(np.trunc(features * 3.5), -7, 7)).all():
        return "you cut digits off: take the nearest whole number (np.rint)."
    return "" if (rows == right).all() else f"expected {right.tolist()}, and your rows are {rows.tolist()}."


def exercise_2(combined_head: Callable) -> str:
    """A head from the sums of two hospitals."""
    rng = np.random.default_rng(0)
    rows, labels, step = rng.integers(-50, 50, (60, 4)), np.eye(3, dtype=np.int64)[rng.integers(0, 3, 60)], 0.1
    parts = [(q.T @ q, q.T @ t) for q, t in ((rows[:25], labels[:25]), (rows[25:], labels[25:]))]
    found = combined_head(*parts, step, 2.0)
    x, found = step * rows, np.asarray(found)
    right = np.linalg.solve(x.T @ x + 2.0 * np.eye(4), x.T @ labels)
    if found.shape != right.shape:
        return f"weights of shape {right.shape} were expected, and yours are {found.shape}."
    if np.allclose(found, right):
        return ""
    if np.allclose(found, np.linalg.solve(rows.T @ rows + 2.0 * np.eye(4), rows.T @ labels)):
        return "your sums are still in steps: multiply X'X by the step twice, and X'Y once."
    if np.allclose(found, np.linalg.solve(x.T @ x, x.T @ labels)):
        return "the penalty is missing."
    if np.allclose(found, np.linalg.solve(x.T @ x + np.eye(4), x.T @ labels)):
        return "you add 1 to the diagonal whatever `penalty` is: add penalty * np.eye(len(gram))."
    if np.allclose(found, np.linalg.solve(x.T @ x + step**2 * 2.0 * np.eye(4), x.T @ labels)):
        return "you add the penalty to sums in steps: bring them to units of features first."
    heads = [np.linalg.solve(step**2 * g + 2.0 * np.eye(4), step * p) for g, p in parts]
    if np.allclose(found, np.mean(heads, axis=0)):
        return "that is the mean of two heads: add the sums, and solve once."
    return "these are not the weights of a fit on all patients: add both sums, bring them to units of features, solve."
