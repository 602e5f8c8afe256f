import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmeraser_kit.metrics import ci95, cost_factors, expected_batch_cost, expected_request_cost, readable, summarise

SIZES = [7, 1, 4, 2]


def test_the_expected_cost_is_the_mean_over_everybody():
    assert expected_request_cost(SIZES, epochs=3) == pytest.approx(
        np.mean([n - 1 for n in SIZES for _ in range(n)]) * 3
    )


def test_the_expected_batch_cost_is_the_mean_over_every_batch():
    cluster = np.repeat(np.arange(4), SIZES)
    for m in (1, 3, 13):
        costs = [
            sum(SIZES[k] - sum(cluster[list(batch)] == k) for k in set(cluster[list(batch)]))
            for batch in itertools.combinations(range(14), m)
        ]
        assert expected_batch_cost(SIZES, m) == pytest.approx(np.mean(costs))
    assert expected_batch_cost(SIZES, 1) == pytest.approx(expected_request_cost(SIZES))
    assert expected_batch_cost(SIZES, 14) == pytest.approx(0)
    with pytest.raises(ValueError, match="15 samples cannot be drawn from 14"):
        expected_batch_cost(SIZES, 15)


def test_the_two_factors_agree_for_even_clusters_only():
    even, uneven = cost_factors([5, 5, 5]), cost_factors([13, 1, 1, 0])
    assert even["cost_factor_mean_cluster"] == even["cost_factor_size_biased"] == 3
    assert uneven["cost_factor_mean_cluster"] == 3
    assert uneven["cost_factor_size_biased"] == pytest.approx(225 / 171)


def test_means_come_with_students_interval():
    frame = pd.DataFrame({"method": ["a"] * 4 + ["b"], "accuracy": [0.5, 0.7, 0.6, 0.8, 1.0]})
    table = summarise(frame, ["method"], ["accuracy"]).set_index("method")
    low, _ = stats.t.interval(0.95, 3, loc=0.65, scale=stats.sem([0.5, 0.7, 0.6, 0.8]))
    assert table.loc["a", "accuracy_mean"] == pytest.approx(0.65)
    assert table.loc["a", "accuracy_ci95"] == pytest.approx(0.65 - low)
    assert table.loc["b", "seeds"] == 1 and np.isnan(ci95([1.0]))


def test_a_readable_table_joins_mean_and_interval():
    table = pd.DataFrame({"method": ["a"], "cost_mean": [1.23456], "cost_ci95": [0.1], "seeds": [3], "z": [0.12345]})
    assert readable(table, 2).to_dict("records") == [{"method": "a", "cost": "1.23 ± 0.10", "seeds": 3, "z": 0.12}]
