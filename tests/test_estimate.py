"""What a profile will take: counted as its notebooks count, for every profile that there is; changes by SET."""

import pytest
import yaml

from lmeraser_kit.experiments import estimate, profiles, results
from lmeraser_kit.experiments.results import PROJECT


def profile(name):
    return yaml.safe_load((PROJECT / "workflow" / "config" / f"{name}.yaml").read_text())


@pytest.fixture
def quick_pace(monkeypatch):
    """A backbone that passes 100 samples a second forward, 40 forward and backward."""
    monkeypatch.setattr(estimate, "pace", lambda backbone, precision: estimate.Pace(100.0, 40.0, 2**30, 2**20))


@pytest.mark.parametrize("name", results.profiles())
def test_every_profile_has_a_plan_and_an_estimate(name, quick_pace):
    table = estimate.estimate(profile(name))
    assert len(table) == len(profiles.plan(profile(name))) and (table["minutes"] > 0).all()
    forward = table.loc[table["notebook"] == "10_frontier", "forward"]
    assert (forward >= 0).all() and table["forward"].sum() > 0


def test_features_that_runs_share_are_counted_once(quick_pace):
    grid = {"dataset": "cifar10/paper", "backbone": "tf_efficientnet_lite0@96", "methods": [["ridge head"]]}
    grid |= {"sweep": [[8]], "seed": [0, 1]}
    table = estimate.estimate({"notebooks": {"10_frontier": grid}})
    assert table["forward"].tolist() == [2 * 60_000, 0] and table["minutes"].min() > 0.25
    assert table["run"].tolist() == ["seed-0", "seed-1"]  # as their folders


def test_heads_alone_take_time_too(quick_pace):
    grid = {"dataset": "cifar10/paper", "backbone": "tf_efficientnet_lite0@96", "prompt": "none", "seed": [0, 1]}
    minutes = estimate.estimate({"notebooks": {"07_peers": grid, "08_attacks": grid}})["minutes"]
    assert minutes.min() > 1 and estimate.head_fits("03_prompts", {}) == 0


def test_the_estimate_of_unlearning_counts_three_fits_and_the_requests(quick_pace):
    grid = {"dataset": "cifar10/paper", "n_clusters": 10, "epochs": 50, "n_requests": 20, "seed": [0]}
    (row,) = estimate.estimate({"notebooks": {"04_unlearning": grid}}).to_dict("records")
    fit = 40_000 * 50
    assert row["forward and backward"] == 3 * fit + 20 * 2 * fit / 10
    assert row["forward"] == 3 * 60_000 + 2 * 20 * 10_000
    assert row["minutes"] == pytest.approx((row["forward"] / 100 + row["forward and backward"] / 40 + 15) / 60)
    assert row["GiB"] == pytest.approx(1 + 32 / 2**10)


def test_an_emulated_precision_is_timed_as_float32_and_said(monkeypatch, capsys):
    timed = []

    def pace(backbone, precision):
        timed.append(precision)
        return estimate.Pace(100.0, 40.0, 2**30, 2**20)

    monkeypatch.setattr(estimate, "pace", pace)
    for native in (["float32"], ["float32", "bfloat16"]):
        monkeypatch.setattr(estimate, "native_precisions", lambda native=native: native)
        estimate.estimate({"notebooks": {"04_unlearning": {"precision": "bfloat16", "seed": [0]}}})
        assert set(timed) == {native[-1]}
        assert ("this is for float32" in capsys.readouterr().err) == (native == ["float32"])
        timed.clear()


def test_a_backbone_is_timed_without_its_weights(capsys):
    pace = estimate.pace("test_vit@32", "float32")
    assert pace.forward > pace.gradient > 0 and pace.weights > 10**5 and pace.kept > 10**4
    assert estimate.main(["nothing"]) == 2 and "one of: cifar10" in capsys.readouterr().err
    assert estimate.main(["tiny", "--set", "{sed: 1}"]) == 2 and "did you mean 'seed'?" in capsys.readouterr().err
    assert estimate.main(["tiny", "--cores", "0"]) == 2 and "expected at least 1" in capsys.readouterr().err
    assert estimate.main(["tiny", "--set", "{seed: "]) == 2 and "tiny: " in capsys.readouterr().err
    one = "{seed: [7], backbone_epochs: 1, dataset: digits}"
    assert estimate.main(["tiny", "--set", one]) == 0 and "about" in capsys.readouterr().out


def test_changes_reach_every_notebook_that_has_the_parameter():
    changed = profiles.changed(profile("tiny"), {"seed": [4, 5], "n_requests": 1})
    planned = profiles.plan(changed)
    assert {run["seed"] for run in planned.values()} == {4, 5}
    assert {run.get("n_requests") for (notebook, _), run in planned.items() if notebook == "04_unlearning"} == {1}
    assert all("n_requests" not in run for (notebook, _), run in planned.items() if notebook == "02_clusters")
    with pytest.raises(ValueError, match="no notebook of the profile has a parameter 'sed'"):
        profiles.changed(profile("tiny"), {"sed": [1]})
    with pytest.raises(ValueError, match="expected names and values"):
        profiles.changed(profile("tiny"), ["seed"])
    same = {"notebooks": {"01_backbone": [{"seed": [0]}, {"seed": [1]}]}}
    assert profiles.changed(same, {"seed": [3]})["notebooks"]["01_backbone"] == [{"seed": [3]}]  # two grids become one
