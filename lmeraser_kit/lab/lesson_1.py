"""Checks of lesson 1's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exercise_1(retrain_without: Callable, fit: Callable, points: np.ndarray, labels: np.ndarray) -> str:
    """A function that fits without some people."""
    seen = points.copy(), labels.copy()
    forget = np.array([3, 7, len(points) - 1])
    found = retrain_without(points, labels, forget)
    if not (np.array_equal(points, seen[0]) and np.array_equal(labels, seen[1])):
        return "your function changes the data that it is given: work on a copy, or select rows."
    stay = np.setdiff1d(np.arange(len(points)), forget)
    found, right = np.asarray(found), fit(points[stay], labels[stay])
    if found.shape != right.shape:
        return f"the weights have shape {found.shape}, expected {right.shape}: return what fit returns."
    if np.array_equal(found, fit(points, labels)):
        return "these are the weights with everybody in: select the rows that stay, before the fit."
    if np.array_equal(found, fit(points[forget], labels[forget])):
        return "these are the weights of the people who leave: select those who stay."
    if np.array_equal(found, right):
        return ""
    if np.allclose(found, right):
        return "nearly, but not to the bit: keep those who stay in their order, and fit from the start."
    return (
        "not the weights of a fit on those who stay: forget has positions, it is no mask; delete these rows, then fit."
    )


def exercise_2(distance: Callable, model: np.ndarray, retrained: np.ndarray, grid: np.ndarray, expected: float) -> str:
    """A share of places at which two models decide differently."""
    found = distance(model, retrained, grid)
    if np.size(found) != 1:
        return f"your function returns {np.size(found)} numbers, expected one: take the mean."
    found = float(found)
    if np.isclose(found, expected):
        same, other = float(distance(model, model, grid)), float(distance(retrained, model, grid))
        if same != 0:
            return f"the distance of a model to itself is {same:.3g}, expected 0."
        return "" if other == found else "the distance there and back differ: use no order of the two."
    if np.isclose(found, 100 * expected) or np.isclose(found, expected * len(grid)):
        return f"{found:.3g} is no share: divide so that it lies from 0 to 1."
    if np.isclose(found, 1 - expected):
        return "that is the share of places at which they agree."
    return f"{found:.3g} is not right: compare the signs of features(grid) @ w, place by place."
