"""A run beside its reference: equal, within, or different, with the rows; and what may become a reference."""

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lmeraser_kit.experiments import agreement, parameters, reference, reproduce, results, runs
from lmeraser_kit.experiments.results import PROJECT, read_json, write_json

TABLE = pd.DataFrame(
    {
        "method": ["one head", "one head", "lmeraser"],
        "n_clusters": [1, 8, 8],
        "accuracy_mean": [0.1 + 0.2, 0.5, 0.6],
        "accuracy_ci95": [0.01, np.nan, 0.02],
        "seconds_fit_mean": [1.0, 2.0, 3.0],
        "seeds": [3, 1, 3],
        "exact": [True, True, True],
    }
)


@pytest.fixture
def sides(tmp_path, monkeypatch):
    """Folders of a run and of its reference, with one table each; both are results of a profile `p`."""
    monkeypatch.setattr(agreement, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")

    def put(side, table=TABLE, name="methods", environment=None, **parameters):
        root = tmp_path / ("reference/p" if side == "reference" else side)
        (root / "tables").mkdir(parents=True, exist_ok=True)
        table.to_csv(root / "tables" / f"{name}.csv", index=False)
        manifest = {"status": "ok", "parameters": {"seed": 0, **parameters}, "environment": environment or {}}
        manifest["machine"] = {"platform": "Linux", "cores": 2 if side == "reference" else 16}
        write_json(root / "runs" / "01_backbone" / "seed-0" / "manifest.json", manifest)
        return root

    put("reference")
    return put


def changed(column, row, value):
    table = TABLE.copy()
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    "table, verdict, row",
    [
        (TABLE, "equal", None),
        (changed("seconds_fit_mean", 0, 99.0), "equal", None),  # times are never compared
        (changed("accuracy_mean", 0, np.nextafter(0.1 + 0.2, 1)), "within", None),  # one bit is rounding
        (changed("accuracy_mean", 0, 0.3 + 1e-10), "differs", None),
        (changed("accuracy_mean", 2, 0.61), "differs", "lmeraser, 8: accuracy_mean is 0.61, 0.6 in the reference"),
        (changed("accuracy_ci95", 1, 0.3), "differs", "one head, 8: accuracy_ci95"),  # NaN there
        (changed("exact", 1, False), "differs", "exact is False, True in the reference"),
        (changed("seeds", 1, 2), "differs", "seeds is 2, 1 in the reference"),
        (TABLE[:2], "differs", "lmeraser, 8: the row is False, True in the reference"),
        (TABLE.drop(columns="seeds"), "differs", "seeds is no such column"),
        (TABLE[::-1], "equal", None),  # the order of rows says nothing
    ],
)
def test_a_table_is_equal_or_differs_and_the_rows_are_named(table, verdict, row, sides):
    (found,) = agreement.compare(sides("run", table), "p")
    assert found.verdict == verdict
    assert (found.unequal == 0) == (verdict == "equal")
    assert row is None or row in found.rows[0]


def test_what_other_kernels_made_of_a_column_is_within(sides):
    other = changed("accuracy_mean", 2, 0.63)
    assert [one.verdict for one in agreement.compare(sides("run", other), "p")] == ["differs"]
    sides("kernel-a", changed("accuracy_mean", 1, 0.52), environment={"chip": "AVX2", "blas": "openblas Nehalem"})
    sides("kernel-b", changed("accuracy_mean", 0, 0.3), environment={"chip": "DEFAULT", "blas": "openblas Haswell"})
    base, folder = agreement.REFERENCE / "p", agreement.REFERENCE.parent
    measured = reference.measure_tolerance(base, [folder / "kernel-a", folder / "kernel-b"]).set_index("column")
    for changes, message in (
        ({"seed": 7}, "parameters are not"),
        ({"environment": {"torch": "2.8"}}, "torch: 2.8 here"),
    ):
        with pytest.raises(ValueError, match=f"kernel-a says nothing about kernels: {message}"):
            reference.measure_tolerance(base, [sides("kernel-a", **changes)])
    assert measured.loc["accuracy_mean", "largest"] == pytest.approx(0.02)
    assert measured.loc["accuracy_mean", "root_mean_square"] == pytest.approx(0.02 / np.sqrt(6))
    assert measured.loc["accuracy_mean", "values"] == 6 and "AVX2, openblas Nehalem" in measured["kernels"].iloc[0]
    measured.reset_index().to_csv(agreement.REFERENCE / "p" / "tolerance.csv", index=False)
    allowed = 3 * 0.02 / np.sqrt(6)
    for shift, verdict in ((0.9 * allowed, "within"), (1.1 * allowed, "differs")):
        (found,) = agreement.compare(sides("run", changed("accuracy_mean", 2, 0.6 + shift)), "p")
        assert found.verdict == verdict and found.tolerance == pytest.approx(allowed)
    (found,) = agreement.compare(sides("run", changed("exact", 2, False)), "p")
    assert found.verdict == "differs"  # words and truth values have no tolerance


def test_what_is_not_the_same_is_said(sides):
    sides("reference", environment={"chip": "AVX2", "blas": "openblas 0.3.30 Haswell", "threads": 1})
    root = sides("run", environment={"chip": "AVX512", "blas": "openblas 0.3.30 SkylakeX", "threads": 1}, seed=4)
    text = "\n".join(agreement.report(root, "p")[1])
    assert "methods              equal to the bit" in text and "In short: 1 equal to the bit." in text
    assert "parameters are not the reference's: seed (0 in the reference, 4 here)" in text
    assert "chip: AVX512 here, AVX2 in the reference" in text and "threads" not in text
    assert "cores: 16 here, 2 in the reference" in text
    assert read_json(root / "agreement.json")["tables"][0]["verdict"] == "equal"
    sides("run", name="extra")
    (root / "tables" / "methods.csv").unlink()
    assert {one.table: one.verdict for one in agreement.compare(root, "p")} == {"methods": "missing", "extra": "new"}


def test_nothing_to_compare_is_said(tmp_path, sides):
    with pytest.raises(ValueError, match="there are no tables in"):
        agreement.report(tmp_path / "nowhere", "p")
    assert agreement.report(sides("run"), "q") == (
        [],
        ["No reference is committed for the profile 'q': there is nothing to compare with."],
    )


@pytest.mark.committed
@pytest.mark.parametrize("profile", sorted(path.parent.name for path in agreement.REFERENCE.glob("*/runs")))
def test_a_reference_agrees_with_itself_and_says_what_made_it(profile):
    root = agreement.REFERENCE / profile
    found = agreement.compare(root, profile)
    assert found and {one.verdict for one in found} <= {"equal", "times"} and not agreement.caveats(root, root)
    manifests = results.manifests(root)
    assert manifests and all(m["commit"] and m["versions"] for m in manifests.values())


@pytest.mark.committed
def test_every_committed_json_is_strict():
    paths = sorted(agreement.REFERENCE.rglob("*.json"))
    assert len(paths) > 100
    for path in paths:
        read_json(path)


def test_json_is_strict_and_null_is_not_a_number(tmp_path):
    content = {
        "nan": float("nan"),
        "deep": [np.inf, {"x": np.float32("nan")}],
        "n": np.int64(3),
        4: np.array([1.5, np.nan]),
    }
    text = write_json(tmp_path / "x.json", content).read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None,
        "deep": [None, {"x": None}],
        "n": 3,
        "4": [1.5, None],
    }
    write_json(tmp_path / "runs" / "count" / "a" / "manifest.json", {"status": "ok", "parameters": {}})
    write_json(tmp_path / "runs" / "count" / "a" / "metrics.json", {"metrics": {"x": float("nan")}, "context": {}})
    frame = results.collect(tmp_path, "count")
    assert frame["x"].dtype.kind == "f" and np.isnan(frame["x"].item())
    (tmp_path / "y.json").write_text('{"x": NaN}')
    with pytest.raises(ValueError, match=r"y\.json is no readable JSON \(it holds NaN"):
        read_json(tmp_path / "y.json")


# --- what may become a reference


@pytest.fixture
def adoptable(sides, monkeypatch):
    """A run of one notebook that may become the reference of `p`."""
    monkeypatch.setattr(runs, "git_state", lambda: {"commit": "abc", "clean": True})
    monkeypatch.setattr(reference, "_same_code", lambda commit: commit == "abc")
    monkeypatch.setattr(reference, "planned_runs", lambda profile: {("01_backbone", "seed-0"): {"seed": 0}})
    monkeypatch.setattr(parameters, "check_parameters", lambda notebook, changes: changes)

    def make(**changes):
        root = sides("run", changed("accuracy_mean", 2, 0.7))
        manifest = {"status": "ok", "parameters": {"seed": 0}, "commit": "abc", "clean": True} | changes
        write_json(root / "runs" / "01_backbone" / "seed-0" / "manifest.json", manifest)
        return root

    return make


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"commit": "def"}, "was made by another commit"),
        ({"clean": False}, "was made from a dirty tree"),
        ({"parameters": {"seed": 1}}, "other parameters than the profile's"),
        ({"status": "failed"}, "01_backbone/seed-0 is missing"),
    ],
)
def test_a_run_that_may_not_become_the_reference_is_refused(changes, message, adoptable):
    before = {path: path.read_bytes() for path in agreement.REFERENCE.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        reference.adopt(adoptable(**changes), "p")
    assert before == {path: path.read_bytes() for path in agreement.REFERENCE.rglob("*") if path.is_file()}


def test_a_dirty_tree_is_refused(adoptable, monkeypatch):
    monkeypatch.setattr(runs, "git_state", lambda: {"commit": "abc", "clean": False})
    with pytest.raises(ValueError, match="the tree is dirty"):
        reference.adopt(adoptable(), "p")


def test_a_reference_is_replaced_whole_and_says_what_changed(adoptable):
    root, target = adoptable(), agreement.REFERENCE / "p"
    (target / "tables" / "old.csv").write_text("a\n1\n")
    (target / "tolerance.csv").write_text("table,column,values,largest,root_mean_square,kernels\n")
    for extra in ("executed.ipynb", "picture.png"):
        (root / "runs" / "01_backbone" / "seed-0" / extra).write_text("{}")
    (root / "runs" / "01_backbone" / "seed-9").mkdir()  # of an earlier plan
    (root / "runs" / "01_backbone" / "seed-9" / "metrics.json").write_text("{}")
    said = "\n".join(reference.adopt(root, "p"))
    assert "lmeraser, 8: accuracy_mean is 0.7, 0.6 in the reference" in said and "old" in said
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == {
        "tables/methods.csv",
        "runs/01_backbone/seed-0/manifest.json",
        "tolerance.csv",
    }
    assert [one.verdict for one in agreement.compare(root, "p")] == ["equal"]


# --- make reproduce


@pytest.mark.parametrize("name", ["reference", "lab", "benchmarks", "../x", "a/b", "", ".hidden"])
def test_names_that_are_no_runs_folder_are_refused(name):
    with pytest.raises(ValueError, match="NAME is"):
        results.run_folder(name)


@pytest.mark.parametrize(
    "arguments, changes, message",
    [
        (["quikc"], "{}", "unknown profile 'quikc'; one of: cifar10"),
        (["tiny", "--name", "reference"], "{}", "NAME is 'reference'"),
        (["tiny", "--cores", "0"], "{}", "CORES is '0'"),
        (["tiny", "--cores", "two"], "{}", "CORES is 'two'"),
        (["tiny", "--name", ""], "{seed: [3]}", "SET changes the profile 'tiny'"),
        (["tiny"], "{seed: [3]}", "SET changes the profile 'tiny', whose runs it would replace: give NAME=mine"),
        (["tiny"], "{sed: 1}", "did you mean 'seed'?"),
        (["tiny"], "{seed: ", "SET is '{seed: ', expected names and values, such as "),
        (["tiny"], "[1]", "expected names and values"),
        (["tiny", "--name", "x"], "{method: [sisa]}", "04_unlearning: unknown method 'sisa'"),
        (["tiny", "--name", "x"], "{dataset: [digit]}", "unknown dataset 'digit'"),
    ],
)
def test_bad_calls_are_refused_before_anything_starts(arguments, changes, message, monkeypatch, capsys):
    monkeypatch.setenv("SET", changes)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("Snakemake was started"))
    assert reproduce.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number, background", [("SIGINT", False), ("SIGTERM", False), ("SIGTERM", True)])
def test_a_run_that_was_stopped_says_what_is_done_and_how_to_go_on(number, background, tmp_path):
    """A job in the background, whose shell ignores Ctrl-C for it, can be stopped, too."""
    program = f"""
import os, signal, subprocess, threading
from pathlib import Path
from lmeraser_kit.experiments import reproduce
from lmeraser_kit.experiments.results import write_json
root = Path({str(tmp_path)!r})
reproduce.run_folder = lambda name: root
real = subprocess.Popen
def popen(command, **options):
    if "snakemake" not in command:  # torch starts programs of its own when it is imported
        return real(command, **options)
    write_json(root / "runs" / "01_backbone" / "seed-0" / "executed.ipynb", {{}})
    threading.Timer(0.5, os.kill, (os.getpid(), signal.{number})).start()
    return real(["sleep", "60"], **options)
subprocess.Popen = popen
raise SystemExit(reproduce.main(["tiny", "--name", "x"]))
"""
    command = [sys.executable, "-c", program]
    ignore = signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=30)  # not the sleep's 60 s
    finally:
        signal.signal(signal.SIGINT, ignore)
    assert done.returncode == 130, done.stderr
    assert "Stopped: 1 of 15 runs are done, and stay done; the same command goes on with the rest." in done.stdout
