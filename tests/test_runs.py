"""Runs are strict before they cost time, leave what they should, and are collected."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import warnings

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from lmeraser_kit.backbones import VITS
from lmeraser_kit.data import datasets, inputs
from lmeraser_kit.experiments import parameters, profiles, reproduce, results, runs
from lmeraser_kit.experiments.report import write_report
from lmeraser_kit.ground.determinism import progress

LOOK_UP = "from lmeraser_kit.experiments import results\n"


def notebook_of(path, *cells, parameters='n: int = 3  # how many\nname: str = "a"  # who\noutput: str = ""  # where\n'):
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[tagged, *map(new_code_cell, cells)], metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return notebook_of(
        tmp_path / "count.ipynb",
        LOOK_UP + 'if name == "boom":\n    raise RuntimeError("the name is boom")',
        "results.save_metrics(output, {'double': 2 * n}, seed=5)",
    )


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"nane": "b"}, r"count.ipynb has no parameter 'nane'; did you mean 'name'\?"),
        ({"zzz": 1}, "it has: n, name, output"),
        ({"n": "3"}, "parameter 'n' of count.ipynb is '3', expected int"),
        ({"n": True}, "is True, expected int"),
        ({"name": 7}, "is 7, expected str"),
        (["n"], "expected names and values"),
    ],
)
def test_unknown_and_ill_typed_parameters_are_refused_before_a_kernel_starts(
    notebook, parameters, message, monkeypatch
):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a kernel started"))
    folder = notebook.parent / "out"
    with pytest.raises(ValueError, match=message):
        runs.run_notebook(notebook, folder, parameters)
    assert not folder.exists()


@pytest.mark.parametrize(
    "notebook, given, message",
    [
        ("04_unlearning", {"method": "sisa"}, "unknown method 'sisa'; one of: .*Did you mean"),
        ("03_prompts", {"methods": ["lmeraser", "one haed"]}, "unknown method 'one haed'; .*Did you mean 'one head'"),
        ("10_frontier", {"timed": ["nobody's"]}, "unknown method"),
        ("07_peers", {"approximate_methods": ["ascend"]}, "unknown method 'ascend'"),
        ("08_attacks", {"attack_names": ["lyra"]}, "unknown attack 'lyra'"),
        ("01_backbone", {"dataset": "digit"}, "unknown dataset 'digit'; .*Did you mean 'digits'"),
        ("01_backbone", {"dataset": "digits/papre"}, "unknown split 'papre'"),
        ("01_backbone", {"backbone": "small-vot"}, "unknown timm model"),
        ("01_backbone", {"backbone": "nowhere.safetensors"}, "there is no file nowhere.safetensors"),
        ("01_backbone", {"precision": "float31"}, "precision is 'float31', expected one of"),
        ("02_clusters", {"linkage": "wards"}, "linkage is 'wards', expected one of: .*Did you mean 'ward'"),
        ("03_prompts", {"recipe_name": "publishd"}, "recipe_name is 'publishd'"),
        ("07_peers", {"prompt": "frames"}, "prompt is 'frames'"),
        ("01_backbone", {"seed": -5}, "'seed' of 01_backbone.ipynb is -5, expected 0 or more"),
    ],
)
def test_names_that_nothing_has_are_refused_before_a_kernel_starts(notebook, given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a kernel started"))
    with pytest.raises(ValueError, match=message):
        runs.run_notebook(results.NOTEBOOKS / f"{notebook}.ipynb", tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("notebook", sorted(results.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_in_a_kernel_too_names_are_looked_at_before_a_backbone_is_trained(notebook):
    code = [c.source for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    training = next((i for i, source in enumerate(code) if "backbone_for(backbone" in source), None)
    parameters = next(source for source in code if 'output: str = ""' in source)
    for name in ("method", "methods", "exact_methods", "approximate_methods", "attack_names"):
        if f"\n{name}:" in parameters and training is not None:
            before = "\n".join(code[:training]) + code[training].partition("backbone_for(backbone")[0]
            assert re.search(rf"check_methods\(\[?{name}\b", before), (notebook.name, name)


def test_corrupt_missing_and_untagged_notebooks_are_refused(tmp_path):
    (tmp_path / "torn.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match=r"torn\.ipynb is not a readable notebook"):
        parameters.check_parameters(tmp_path / "torn.ipynb", {})
    with pytest.raises(ValueError, match="no notebook"):
        parameters.check_parameters(tmp_path / "none.ipynb", {})
    with pytest.raises(ValueError, match=r"it is notebooks/experiments/04_unlearning\.ipynb now"):
        parameters.check_parameters("notebooks/04_unlearning.ipynb", {})
    nbformat.write(new_notebook(cells=[new_code_cell("n = 1")]), tmp_path / "bare.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        parameters.check_parameters(tmp_path / "bare.ipynb", {"n": 2})


def test_a_run_leaves_what_a_table_needs(notebook, tmp_path):
    folder = tmp_path / "profile" / "runs" / "count" / "n-4"
    runs.run_notebook(notebook, folder, {"n": 4})
    assert {p.name for p in folder.iterdir()} == {"executed.ipynb", "params.yaml", "manifest.json", "metrics.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "ok" and manifest["seed"] == 5 and manifest["seconds"] > 0
    assert manifest["parameters"] == yaml.safe_load((folder / "params.yaml").read_text()) == {"n": 4, "name": "a"}
    assert {"commit", "clean", "versions", "machine", "started"} <= manifest.keys()
    frame = results.collect(tmp_path / "profile", "count")
    assert frame.to_dict("records") == [{"notebook": "count", "run": "n-4", "double": 8, "n": 4, "name": "a"}]


def test_a_failed_run_says_where_and_does_not_count(notebook, tmp_path):
    folder = tmp_path / "profile" / "runs" / "count" / "bad"
    command = [sys.executable, "-m", "lmeraser_kit.experiments.runs", notebook, folder, "-y", "{name: boom}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAILED in this cell" in done.stderr and 'if name == "boom"' in done.stderr
    assert "RuntimeError: the name is boom" in done.stderr and "failed.ipynb" in done.stderr
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"
    assert not (folder / "executed.ipynb").exists() and (folder / "failed.ipynb").exists()
    assert results.collect(tmp_path / "profile", "count").empty
    assert subprocess.run([*command[:-1], "{nane: a}"], capture_output=True).returncode == 2


@pytest.fixture
def listing(tmp_path):
    return notebook_of(tmp_path / "count.ipynb", parameters='n: int = 3\nsome: list[int] = []\nword: str = ""\n')


def test_a_grid_becomes_runs_named_by_what_is_swept(listing):
    grids = [{"grid": "a b", "n": [2, 1], "some": [[3]]}, {"n": 3, "some": [[], [4, 5]], "word": ["b/c"]}]
    planned = profiles.plan({"notebooks": {"count": grids}}, listing.parent)
    assert planned == {
        ("count", "a-b_n-2_some-3"): {"n": 2, "some": [3]},
        ("count", "a-b_n-1_some-3"): {"n": 1, "some": [3]},
        ("count", "n-3_some-_b-c"): {"n": 3, "some": [], "word": "b/c"},
        ("count", "n-3_some-4-5_b-c"): {"n": 3, "some": [4, 5], "word": "b/c"},
    }
    only = profiles.plan({"notebooks": {"count": {"n": 1, "some": [[1, 2]]}}}, listing.parent)
    assert only == {("count", "only"): {"n": 1, "some": [1, 2]}}  # nothing is swept: a list is passed


def test_runs_of_every_profile_have_names_that_a_person_reads():
    for path in (results.PROJECT / "workflow" / "config").glob("*.yaml"):
        for notebook, name in profiles.plan(yaml.safe_load(path.read_text())):
            assert len(name) <= 80 and not re.search("[0-9a-f]{8}", name), (path.stem, notebook, name)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"notebooks": {"count": {}}}, "an empty parameter grid"),
        ({"notebooks": {"count": {"n": []}}}, "'n' of the grid has an empty list"),
        ({"notebooks": {}}, "nothing would run"),
        ({"notebooks": {"cuont": {"n": [1]}}}, "no notebook"),
        ({"notebooks": {"count": {"m": [1]}}}, "no parameter 'm'"),
        ({"notebooks": {"count": {"n": [1, 1]}}}, "a value occurs twice"),
        ({"notebooks": {"count": [{"n": [1]}, {"n": [1], "some": [[2]]}]}}, "give each grid a name of its own"),
        ({"notebooks": {"count": {"grid": "../x", "n": [1]}}}, "a grid is named '../x': expected letters"),
        ({"notebooks": {"count": {"n": [1], "word": ["w" * 200]}}}, "give its grid a name, and sweep less"),
    ],
)
def test_a_bad_profile_is_refused_before_anything_runs(listing, config, message):
    with pytest.raises(ValueError, match=message):
        profiles.plan(config, listing.parent)


def test_a_notebook_without_an_answer_fails(tmp_path):
    mute = notebook_of(tmp_path / "mute.ipynb", "n + 1")
    with pytest.raises(FileNotFoundError, match="ended without an answer"):
        runs.run_notebook(mute, tmp_path / "out", {})
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "failed"


def test_a_dead_kernel_is_started_again(notebook, tmp_path, monkeypatch):
    real, calls = papermill.execute_notebook, []

    def dies_once(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return real(*arguments, **options)

    monkeypatch.setattr(papermill, "execute_notebook", dies_once)
    assert runs.run_notebook(notebook, tmp_path / "out", {})["status"] == "ok" and len(calls) == 2


def test_tables_of_many_runs_are_joined(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / "runs" / "count" / f"seed-{seed}"
        folder.mkdir(parents=True)
        results.write_json(folder / "manifest.json", {"status": "ok", "parameters": {"seed": seed, "sweep": [1, 2]}})
        pd.DataFrame({"x": [1, 2], "seed": seed}).to_csv(folder / "t.csv", index=False)
    frame = results.collect(tmp_path, "count", "t.csv")
    assert frame["seed"].tolist() == [0, 0, 1, 1] and frame["run"].nunique() == 2
    assert results.collect(tmp_path, "count", only=["count/seed-2"]).empty  # a run of an older grid does not count


@pytest.mark.committed
def test_the_report_makes_the_committed_tables_from_the_committed_runs(tmp_path):
    committed = results.PROJECT / "results" / "reference" / "quick"
    shutil.copytree(committed / "runs" / "10_frontier", tmp_path / "runs" / "10_frontier")
    for name in ("tables/of_an_earlier_plan.csv", "figures/of_an_earlier_plan.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("old")
    report = results.NOTEBOOKS / "05_report.ipynb"
    runs.run_notebook(report, tmp_path / "runs" / "05_report" / "only", {"profile": str(tmp_path)})
    for table in (committed / "tables").glob("frontier*.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / table.name), pd.read_csv(table))
    assert (tmp_path / "figures" / "frontier.png").is_file()
    cells = nbformat.read(tmp_path / "runs" / "05_report" / "only" / "executed.ipynb", as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    shown = [data["text/markdown"] for data in outputs if data.get("text/markdown", "").startswith("|")]
    assert len(shown) > len(list((committed / "tables").glob("frontier*.csv")))  # one is in parts
    assert max(len(text.splitlines()[0]) for text in shown) < 170  # characters
    assert not list(tmp_path.rglob("of_an_earlier_plan*"))


@pytest.mark.committed
def test_seeds_are_averaged_whatever_was_listed_in_each(tmp_path):
    """The measure `precision` was taken for the parameter of that name, and every seed had a row of its own."""
    committed = results.PROJECT / "results" / "reference" / "closure"
    shutil.copytree(committed / "runs" / "15_closure", tmp_path / "runs" / "15_closure")
    report = results.NOTEBOOKS / "05_report.ipynb"
    runs.run_notebook(report, tmp_path / "runs" / "05_report" / "only", {"profile": str(tmp_path)})
    for table in (committed / "tables").glob("closure*.csv"):
        made = pd.read_csv(tmp_path / "tables" / table.name)
        pd.testing.assert_frame_equal(made, pd.read_csv(table))
        assert (made["seeds"] == 3).all(), table.name


def test_the_report_shows_the_answers_of_an_experiment_that_it_does_not_know(tmp_path):
    for seed, right in ((0, 0.5), (1, 0.7)):
        folder = tmp_path / "runs" / "99_new" / f"seed-{seed}"
        about = {
            "status": "ok",
            "parameters": {"seed": seed, "n": 3},
            "notebook": "99_new",
            "commit": "a",
            "clean": True,
        }
        results.write_json(folder / "manifest.json", about | {"seconds": 1.0})
        results.save_metrics(folder, {"right": right, "exact": True, "word": "yes"})
    report = results.NOTEBOOKS / "05_report.ipynb"
    runs.run_notebook(report, tmp_path / "runs" / "05_report" / "only", {"profile": str(tmp_path)})
    (table,) = (tmp_path / "tables").glob("*.csv")
    shown = pd.read_csv(table)
    assert table.stem == "99_new" and shown.shape == (1, 4)
    assert (shown["right_mean"][0], shown["seeds"][0]) == (0.6, 2)


def test_a_page_says_nothing_about_what_has_not_run(tmp_path):
    silent, speaking = nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell("print(2)")
    speaking.outputs = [nbformat.v4.new_output("stream", text="two")]
    text = [nbformat.v4.new_markdown_cell(f"# {name}") for name in ("Title", "Silence", "Speech")]
    cells = [text[0], speaking, text[1], silent, silent, text[2], silent, speaking]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "executed.ipynb")
    page = write_report(tmp_path / "executed.ipynb", tmp_path / "page.html").read_text()
    assert "Speech" in page and "two" in page and "Silence" not in page
    assert "th {white-space: nowrap}" in page


def test_a_bar_is_for_a_lab_or_a_terminal_and_a_batch_stores_none(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert progress(range(3)).disable  # the tests' stderr is no terminal
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    assert not progress(range(3)).disable and progress(range(3), disable=True).disable
    assert list(progress(range(3), total=3, desc="steps", disable=False)) == [0, 1, 2]


def test_a_warning_that_is_expected_is_shown_as_its_sentence(capsys):
    with results.warnings_as_sentences():
        for _ in range(2):
            warnings.warn("these clusters are uneven", stacklevel=1)
    assert capsys.readouterr().out == "Warning: these clusters are uneven\n"
    with pytest.raises(ValueError, match="wrong"), results.warnings_as_sentences():
        raise ValueError("wrong")


def test_a_runs_folder_is_emptied_when_the_run_starts(notebook, tmp_path):
    folder = tmp_path / "profile" / "runs" / "count" / "n-4"
    runs.run_notebook(notebook, folder, {"n": 4})
    (folder / "table.csv").write_text("of an earlier run\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "old.png").write_bytes(b"")
    with pytest.raises(PapermillExecutionError):
        runs.run_notebook(notebook, folder, {"name": "boom"})
    assert {p.name for p in folder.iterdir()} == {"failed.ipynb", "params.yaml", "manifest.json"}
    runs.run_notebook(notebook, folder, {"n": 5})
    assert {p.name for p in folder.iterdir()} == {"executed.ipynb", "params.yaml", "manifest.json", "metrics.json"}


def test_a_run_is_whole_when_everything_is_in_place_and_not_before(notebook, tmp_path, monkeypatch):
    def broken(folder):
        raise OSError("Input/output error")

    monkeypatch.setattr(runs, "flush_tree", broken)
    with pytest.raises(OSError, match="Input/output"):
        runs.run_notebook(notebook, tmp_path / "run", {"n": 4})
    manifest = results.read_json(tmp_path / "run" / "manifest.json")
    assert manifest["status"] == "failed" and manifest["error"] == "OSError: Input/output error"


def test_a_folder_that_cannot_be_emptied_is_no_whole_run(tmp_path, monkeypatch):
    """What says that all of it is there goes before anything else does."""
    (tmp_path / "figures").mkdir()
    for name in ("executed.ipynb", "manifest.json", "metrics.json", "params.yaml"):
        (tmp_path / name).touch()

    def broken(*_):
        raise OSError("Input/output error")

    monkeypatch.setattr(shutil, "rmtree", broken)
    with pytest.raises(OSError, match="Input/output"):
        runs.make_run_folder(tmp_path)
    assert not (tmp_path / "manifest.json").exists() and (tmp_path / "params.yaml").exists()


def test_a_folder_that_is_no_runs_is_not_emptied(notebook, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis is not empty, and no run's folder"):
        runs.run_notebook(notebook, tmp_path / "thesis", {})
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    command = [sys.executable, "-m", "lmeraser_kit.experiments.runs", notebook, tmp_path / "thesis"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "name another one" in done.stderr


def test_a_manifest_names_every_file_that_was_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    monkeypatch.setattr(runs, "input_digests", lambda parameters: inputs.input_digests(parameters, tmp_path))
    reads = notebook_of(
        tmp_path / "reads.ipynb",
        LOOK_UP + "results.save_metrics(output, {'n': 1})",
        parameters='dataset: str = "mine"  # what to read\noutput: str = ""  # where\n',
    )
    manifest = runs.run_notebook(reads, tmp_path / "runs" / "reads" / "only", {})
    assert manifest["inputs"] == {"mine.npz": hashlib.sha256((tmp_path / "mine.npz").read_bytes()).hexdigest()}
    assert runs.stale(tmp_path, {("reads", "only"): {}}) == {}
    np.savez(tmp_path / "mine.npz", x=np.ones(3))
    assert runs.stale(tmp_path, {("reads", "only"): {}}) == {("reads", "only"): "mine.npz"}


def test_absent_data_stop_a_batch_before_it_starts(tmp_path, monkeypatch):
    assert set(inputs.TRAINED_HERE) == set(VITS)
    runs = {
        ("10_frontier", "a"): {"dataset": "cifar10/paper", "backbone": "tf_efficientnet_lite0@96"},
        ("02_clusters", "b"): {"dataset": "digits", "backbone": "small-vit"},
        ("09_speed", "c"): {"backbone": "vit_base_patch16_224"},  # random weights
    }
    assert inputs.absent_inputs(runs.values(), tmp_path) == (["cifar10"], ["tf_efficientnet_lite0"])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tf_efficientnet_lite0.safetensors").write_bytes(b"")
    assert inputs.absent_inputs(runs.values(), tmp_path) == (["cifar10"], [])
    monkeypatch.setattr(inputs, "installed", lambda group: {"theirs": None} if group == "backbones" else {})
    assert inputs.absent_inputs([{"dataset": "digits", "backbone": "theirs@64"}], tmp_path) == ([], [])
    asked = []
    monkeypatch.setattr(reproduce, "absent_inputs", lambda plan: (["cifar10", "mnist"], []))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name))
    reproduce.fetch(runs)
    assert asked == ["cifar10", "mnist"]
