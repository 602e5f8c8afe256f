import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmeraser_kit.evaluation.costs import (
    against_undivided,
    ci95,
    cost_factors,
    expected_batch_cost,
    expected_clusters_touched,
    expected_request_cost,
    in_windows,
    poisson_stream,
    readable,
    slice_cost_share,
    summarise,
)
from lmeraser_kit.evaluation.owner_costs import owner_request_cost, placed_owner_cost, spread_owner_cost

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


def simulated(owners, clusters):
    """Clusters touched and samples relearned by each owner's request."""
    touched = [np.unique(clusters[owners == one]) for one in np.unique(owners)]
    sizes, mine = np.bincount(clusters), [np.sum(owners == one) for one in np.unique(owners)]
    return np.array([(len(k), sizes[k].sum() - m) for k, m in zip(touched, mine, strict=True)])


def test_an_owners_expected_cost_is_the_mean_over_all_owners():
    rng = np.random.default_rng(0)
    owners, clusters = rng.choice([*"abcdefgh"], 60, p=np.arange(1, 9) / 36), rng.integers(0, 5, 60)
    cost, expected = owner_request_cost(owners, clusters, epochs=3), simulated(owners, clusters).mean(axis=0)
    assert cost["clusters_touched"] == pytest.approx(expected[0])
    assert cost["sample_gradients"] == pytest.approx(3 * expected[1])
    alone = owner_request_cost(np.arange(14), np.repeat(np.arange(4), SIZES))
    assert alone == {"clusters_touched": 1, "sample_gradients": pytest.approx(expected_request_cost(SIZES))}


def test_an_owners_expected_cost_before_anything_is_placed_is_the_mean_over_placements():
    rng, sizes = np.random.default_rng(0), [1, 2, 5, 12, 20]
    owners = np.repeat(np.arange(5), sizes)
    for together in (False, True):
        runs = []
        for _ in range(4000):
            drawn = rng.integers(0, 6, 5 if together else 40)
            runs.append(simulated(owners, drawn[owners] if together else drawn).mean(axis=0))
        cost = placed_owner_cost(sizes, 6, together)
        error = 4 * np.std(runs, axis=0) / np.sqrt(len(runs))
        assert np.all(np.abs(np.mean(runs, axis=0) - [*cost.values()]) <= error + 1e-9), (cost, np.mean(runs, axis=0))
    clusters = np.repeat(np.arange(3), [25, 10, 5])
    runs = [simulated(rng.permutation(owners), clusters).mean(axis=0)[1] for _ in range(4000)]
    assert spread_owner_cost(sizes, [25, 10, 5]) == pytest.approx(np.mean(runs), abs=4 * np.std(runs) / 63)
    assert spread_owner_cost([1] * 14, SIZES) == pytest.approx(expected_request_cost(SIZES))
    assert placed_owner_cost([1] * 14, 4)["sample_gradients"] == pytest.approx(13 / 4)


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


def test_points_are_against_the_best_undivided_model_of_the_same_seed():
    rows = [("one head", 1, [0.6, 0.8]), ("one prompt", 1, [0.9, 0.4]), ("lmeraser", 8, [0.61, 0.83])]
    frame = pd.DataFrame(
        [(method, k, seed, found[seed]) for method, k, found in rows for seed in (0, 1)],
        columns=["method", "n_clusters", "seed", "accuracy"],
    ).sample(frac=1, random_state=0)
    found = against_undivided(frame)
    points = found.set_index(["method", "seed"])["points"]
    assert set(found["reference"]) == {"one head"}
    assert points["lmeraser"].to_dict() == pytest.approx({0: 1.0, 1: 3.0})
    assert points["one prompt"].to_dict() == pytest.approx({0: 30.0, 1: -40.0})
    assert against_undivided(frame[frame["n_clusters"] == 8])["points"].isna().all()


def test_a_readable_table_joins_mean_and_interval():
    table = pd.DataFrame({"method": ["a"], "cost_mean": [1.23456], "cost_ci95": [0.1], "seeds": [3], "z": [0.12345]})
    assert readable(table, 2).to_dict("records") == [{"method": "a", "cost": "1.23 ± 0.10", "seeds": 3, "z": 0.12}]


def test_slices_cost_their_closed_form_on_average():
    n = 840
    for slices in (1, 2, 4, 8):
        prefix = np.arange(1, slices + 1) * n / slices  # samples passed after each slice, in every epoch of it
        of_a_request_in = [prefix[r:].sum() for r in range(slices)]
        assert slice_cost_share(slices) == pytest.approx(np.mean(of_a_request_in) / prefix.sum())


def test_windows_touch_as_many_clusters_as_expected():
    sizes, width = [50, 30, 15, 5], 4.0
    cluster = {str(i): k for i, k in enumerate(np.repeat(np.arange(4), sizes))}
    touched = [
        len({cluster[uid] for uid in window})
        for seed in range(150)
        for window in in_windows(poisson_stream(cluster, rate=1.0, seed=seed), width)[:20]
    ]
    expected = expected_clusters_touched(sizes, width)
    assert abs(np.mean(touched) - expected) < 4 * stats.sem(touched)
    assert expected < 4 and expected_clusters_touched(sizes, 1e6) == pytest.approx(4)


def test_a_stream_asks_for_everybody_once_and_windows_lose_nobody():
    uids = [f"u{i}" for i in range(40)]
    stream = poisson_stream(uids, rate=2.0, seed=1)
    assert sorted(stream["uid"]) == sorted(uids) and stream["time"].is_monotonic_increasing
    pd.testing.assert_frame_equal(stream, poisson_stream(uids[::-1], rate=2.0, seed=1))
    assert [uid for window in in_windows(stream, 0.7) for uid in window] == stream["uid"].tolist()
    assert len(poisson_stream(uids * 1, 2.0, 2)) == 40 and not stream.equals(poisson_stream(uids, 2.0, 2))
