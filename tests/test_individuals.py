"""Single samples beside the average, on cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmeraser_kit.evaluation import distances, individuals

RNG = np.random.default_rng


def test_klom_tells_the_one_sample_that_is_not_forgotten_from_the_mean():
    rng = RNG(0)
    retrained, unlearned = rng.standard_normal((80, 30)), rng.standard_normal((40, 30))
    same = individuals.klom_row(unlearned, retrained)
    assert same["klom_mean"] == pytest.approx(same["retrained_klom_mean"], rel=0.3)
    assert (same["models"], same["samples"]) == (40, 30)
    unlearned[:, 7] += 5
    one = individuals.klom_row(unlearned, retrained)
    assert one["klom_largest"] > 2 * same["klom_largest"] and one["klom_95"] < 1.5 * same["klom_95"] + 0.1
    found = distances.klom(unlearned, retrained[:40])
    assert found.argmax() == 7 and one["klom_largest"] == found.max() and one["klom_mean"] == found.mean()
    assert one["retrained_klom_largest"] == distances.klom(retrained[40:], retrained[:40]).max()


def test_memorisation_is_the_difference_of_two_means_with_its_error():
    margins = np.array([[5.0, 1.0], [7.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    inside = np.array([[True, True], [True, False], [False, True], [False, False]])
    score, error = individuals.memorisation(margins, inside)
    np.testing.assert_allclose(score, [4, 0])
    np.testing.assert_allclose(error, [np.sqrt(2 / 2 + 2 / 2), 0])


def test_memorisation_finds_whom_models_know_by_heart():
    rng, effect = RNG(0), np.zeros(50)
    effect[:5] = 6.0
    inside = rng.random((40, 50)) < 0.5
    score, error = individuals.memorisation(rng.standard_normal((40, 50)) + effect * inside, inside)
    assert set(np.argsort(-score)[:5]) == set(range(5))
    assert (np.abs(score - effect) < 4 * error).all()


def test_the_most_certain_are_the_highest_scores_and_their_share_has_an_interval():
    scores = np.array([0.1, 9.0, 3.0, 9.0, np.inf])
    inside = np.array([True, False, True, True, True])
    table = individuals.most_certain(scores, inside, np.array(["a", "z", "c", "d", "e"]), 3)
    assert table["uid"].tolist() == ["e", "d", "z"] and table["member"].tolist() == [True, True, False]
    row = individuals.precision_row(table)
    interval = stats.binomtest(2, 3).proportion_ci(method="exact")
    assert row["precision"] == pytest.approx(2 / 3) and row["named"] == 3
    assert (row["precision_low"], row["precision_high"]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (individuals.klom_row, (np.zeros((4, 3)), np.zeros((7, 3))), "retrained has 7 models, expected twice the 4"),
        (individuals.klom_row, (np.zeros((4, 3)), np.zeros((8, 2))), "retrained has shape"),
        (individuals.klom_row, (np.zeros(3), np.zeros((8, 3))), "unlearned has shape"),
        (individuals.klom_row, (np.zeros((4, 3)), np.zeros((8, 3)), 0), "bins is 0"),
        (individuals.memorisation, (np.zeros((4, 2)), np.ones((4, 2), bool)), "in, and out of, at least two models"),
        (individuals.memorisation, (np.zeros((4, 2)), np.ones((4, 2))), "inside is an array of float64"),
        (individuals.most_certain, (np.zeros(3), np.ones(3, bool), ["a", "b"]), "uids are 2, expected one for each"),
        (individuals.most_certain, (np.zeros(3), np.ones(2, bool), ["a", "b", "c"]), "inside is an array of bool"),
        (individuals.most_certain, (np.zeros(3), np.ones(3, bool), ["a", "b", "c"], 4), "n is 4"),
        (individuals.most_certain, (np.full(3, np.nan), np.ones(3, bool), ["a", "b", "c"]), "scores holds NaN"),
        (individuals.precision_row, (pd.DataFrame({"uid": ["a"]}),), "member is an array of"),
        (individuals.precision_row, (None,), "table is None"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(*arguments)
