"""Checks of lesson 8's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def deletion(seed: int, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A ridge regression before and after one person has left: A, both weights, and the person's image."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((40, 6)), np.eye(3)[rng.integers(0, 3, 40)]
    y[0] = np.eye(3)[label]
    a, b = x.T @ x + np.eye(6), x.T @ y
    return a, np.linalg.solve(a, b), np.linalg.solve(a - np.outer(x[0], x[0]), b - np.outer(x[0], y[0])), x[0]


def exercise_1(direction: Callable) -> str:
    """The direction of the deleted image."""
    for seed in range(3):
        a, before, after, image = deletion(seed, 1)
        found = direction(a, before, after)
        found = np.asarray(found)
        if found.shape != image.shape:
            return f"a vector of {len(image)} numbers was expected, and yours has the shape {found.shape}."
        right = image / np.linalg.norm(image)
        if np.allclose(found, right):
            continue
        if not np.isclose(np.linalg.norm(found), 1):
            return f"its length is {np.linalg.norm(found):.3g}: divide by it."
        if np.allclose(found, -right):
            return "the sign is turned: the sum of its entries must not be negative."
        change = np.linalg.svd(after - before)[0][:, 0]
        if np.allclose(abs(found @ change), 1):
            return "that is the direction of the change of the weights: multiply by A first."
        return "not the image: every column of A (W' - W) is a multiple of it."
    return ""


def exercise_2(label_of: Callable) -> str:
    """The deleted person's class."""
    for label in (0, 1, 2, 1):
        a, before, after, image = deletion(10 + label, label)
        found = label_of(a, before, after, 3 * image)
        if np.size(found) != 1:
            return f"one class was expected, and your function returns {np.size(found)} numbers."
        if int(found) == label:
            continue
        numbers = image @ (a @ (after - before))
        if int(found) == int(np.argmax(numbers)):
            return "you take the largest of the numbers: y is subtracted, so its class has the smallest."
        return f"the class was {label}, and your function says {int(found)}: look at image @ A @ (after - before)."
    return ""
