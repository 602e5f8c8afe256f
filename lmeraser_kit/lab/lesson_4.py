"""Checks of lesson 4's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmeraser_kit.evaluation.costs import expected_request_cost


def exercise_1(expected_cost: Callable) -> str:
    """`sum(n_k^2)/N - 1`."""
    for sizes in ([910, *[10] * 9], [10, 10, 10, 10], [1, 1, 1]):
        found = expected_cost(sizes)
        found, right, n = float(found), expected_request_cost(sizes), sum(sizes)
        if np.isclose(found, right):
            continue
        if np.isclose(found, right + 1):
            return "one too many: the person who leaves is not learned again."
        if np.isclose(found, n / len(sizes)) or np.isclose(found, n / len(sizes) - 1):
            return "that is the mean cluster: a random person is in a large one more often. Weight each by n_k / N."
        if np.isclose(found, n**2 / np.sum(np.square(sizes))):
            return "that is how many times cheaper a request is: people learned again were asked for."
        return f"for clusters of {sizes} it is {right:.4g}, and your function says {found:.4g}."
    return ""


def exercise_2(clusters_touched: Callable) -> str:
    """`sum_k 1 - C(N - n_k, m) / C(N, m)`, by simulation."""
    rng = np.random.default_rng(0)
    found = clusters_touched([5, 5, 5], 15, rng)
    said = f"and your function says {float(found):.3g}"
    if float(found) > 3:
        return f"there are 3 clusters, {said}: count different clusters in each draw, and take the mean of the draws."
    if not np.isclose(float(found), 3):
        return f"if everybody leaves, all 3 clusters are touched, {said}: draw people, without replacement."
    found = float(clusters_touched([20, 20, 20, 20], 4, rng))
    expected = 4 * (1 - np.prod([(60 - i) / (80 - i) for i in range(4)]))
    if np.isclose(found, 4):
        return "4 people are often in fewer than 4 clusters: count different clusters."
    if abs(found - expected) > 0.1:
        said = f"and your function says {found:.2f}"
        return (
            f"4 of 80 people touch {expected:.2f} of 4 even clusters on average, {said}: draw m people n_draws times."
        )
    return ""
