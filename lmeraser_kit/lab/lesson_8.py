"""Checks of lesson 8's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEEDS_AND_LABELS = ((10, 0), (11, 1), (36, 0), (36, 1), (0, 0))  # the usual mistakes have different answers here


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
    mistakes: dict[str, list[int]] = {
        "you take the largest of the numbers: y is subtracted, so its class has the smallest.": [],
        "you take the number that is largest in size: a model that is sure of another class has one as large.": [],
        "you ask the model before what it says of the image: that is its prediction, and not the label.": [],
    }
    labels, answers = [], []
    for seed, label in SEEDS_AND_LABELS:
        a, before, after, image = deletion(seed, label)
        found = label_of(a, before, after, 3 * image)
        if np.size(found) != 1:
            return f"one class was expected, and your function returns {np.size(found)} numbers."
        numbers = image @ (a @ (after - before))
        wrong = np.argmax(numbers), np.argmax(abs(numbers)), np.argmax(image @ before)
        for given, one in zip(mistakes.values(), wrong, strict=True):
            given.append(int(one))
        labels.append(label)
        answers.append(int(found))
    if answers == labels:
        return ""
    said = next((text for text, given in mistakes.items() if given == answers), "")
    at = next(i for i, (one, other) in enumerate(zip(answers, labels, strict=True)) if one != other)
    return (
        said
        or f"the class was {labels[at]}, and your function says {answers[at]}: look at image @ A @ (after - before)."
    )
