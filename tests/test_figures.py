"""Figures show what they say: groups that can be told apart, and shares where readers compare shares."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lmeraser_kit import figures
from lmeraser_kit.figures.theme import group_styles


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def looks(ax):
    """Colour and marker of each group of points."""
    return [(tuple(dots.get_facecolor()[0][:3]), dots.get_paths()[0].vertices.tobytes()) for dots in ax.collections]


@pytest.mark.parametrize("n", [1, 8, 10, 11, 20, 40])
def test_no_two_groups_of_a_map_look_the_same_and_each_has_its_number(n):
    centres = np.stack(np.unravel_index(np.arange(n), (7, 7)), axis=1) * 10.0
    groups = np.repeat(np.arange(n), 20)
    (ax,) = figures.feature_map(centres[groups] + np.random.default_rng(0).normal(size=(20 * n, 2)), groups, "x").axes
    assert len({colour for colour, _ in looks(ax)}) == len(set(looks(ax))) == n
    assert {text.get_text() for text in ax.texts} == {str(k) for k in range(n)}
    neighbours = [marker for _, marker in group_styles(n)]
    assert all(a != b for a, b in pairwise(neighbours))


def test_each_island_of_a_group_has_its_number():
    points = np.random.default_rng(0).normal(size=(60, 2)) + np.repeat([[0, 0], [30, 0], [0, 30]], 20, axis=0)
    (ax,) = figures.feature_map(points, np.repeat([4, 4, 7], 20), "cluster").axes
    assert sorted(text.get_text() for text in ax.texts) == ["4", "4", "7"]


def test_a_confusion_matrix_has_shares_of_the_true_class():
    counts = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    ax = figures.confusion(counts, "title").axes[0]
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(3, 3), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])


def test_clusters_are_drawn_as_shares_of_the_samples():
    (ax,) = figures.cluster_sizes({0: 30, 3: 10}).axes
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0.25]
    assert [line.get_ydata()[0] for line in ax.lines] == [0.5, 0.75**2 + 0.25**2]


def test_costs_of_requests_are_shares_of_retraining():
    frame = pd.DataFrame({"request": [1, 2], "sample_gradients": [10, 40], "closed_form_sample_gradients": [10, 40]})
    (ax,) = figures.request_costs(frame, 200, 30).axes
    for dots in ax.collections:
        np.testing.assert_allclose(dots.get_offsets()[:, 1], [0.05, 0.2])
    assert [line.get_ydata()[0] for line in ax.lines] == [1, 0.15] and ax.get_ylim()[0] == 0
    assert "share" in ax.get_ylabel()


def test_costs_of_peers_are_shares_of_retraining():
    rows = [("a", "exact", 0.0, 50, 10), ("b", "approximate", 0.1, 400, np.nan)]
    frame = pd.DataFrame(rows, columns=["method", "kind", "KL_nats", "sample_gradients", "gradients_of_one"])
    frame = frame.assign(retrained_KL_nats=0.01, retrain_gradients=200)
    ax = figures.peers(frame).axes[1]
    drawn = {float(x) for line in ax.lines for x in np.ravel(line.get_xdata()) if np.isfinite(x)}
    assert {0.25, 2.0, 0.05, 1.0} <= drawn <= {0.25, 2.0, 0.05, 1.0, 0.0}
    assert "share" in ax.get_xlabel()


def test_an_accuracy_of_a_stream_is_no_more_than_1():
    frame = pd.DataFrame({"request": range(3), "accuracy": [0.9, 1.0, 1.0]})
    assert figures.accuracy_stream(frame, 1.0).axes[0].get_ylim()[1] < 1.01
