"""Lessons: their form, one source, solutions that pass every check, and checks that say what is wrong."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbgrader.nbgraderformat import MetadataValidator as ValidateAll

from lmeraser_kit.lab import check, compare, handout
from lmeraser_kit.lab.handout import SOLUTIONS, student_copy, unsolved, write_lessons

ROOT = Path(__file__).parents[1]
LESSONS = sorted(SOLUTIONS.glob("*.ipynb"))
SMALL = {
    1: {"backbone_epochs": 1},
    2: {"n_people": 200, "sweep": [1, 8, 64], "backbone_epochs": 1},
    3: {"n_people": 60, "n_steps": 5, "backbone_epochs": 1},
    4: {"n_clusters": 4, "n_requests": 3, "backbone_epochs": 1},
    5: {"n_people": 100, "backbone_epochs": 1},
    6: {"n_people": 200, "n_requests": 20, "backbone_epochs": 1},
    7: {"n_people": 100, "n_models": 16, "n_canaries": 15, "steps": 10},
    8: {"n_people": 200, "backbone_epochs": 1},
}
RUN = """
import ast, builtins, sys, json, matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
builtins.display = print
for path in json.loads(sys.argv[2]):
    names = {"__name__": "__main__"}
    print("==", path)
    for cell in json.load(open(path))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names |= json.loads(sys.argv[1])
            plt.close("all")
"""


def number(path):
    return int(path.name.partition("_")[0])


def texts(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_there_are_eight_lessons():
    assert [number(path) for path in LESSONS] == list(range(1, 9))


@pytest.mark.committed
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_its_form(path):
    notebook = nbformat.read(path, as_version=4)
    prose, code, k = texts(notebook, "markdown"), texts(notebook, "code"), number(path)
    assert re.match(rf"# {k}\. .*\?", prose[0])
    assert all(f"**{word}" in prose[0] for word in ("Goals.", "You need**", "Time."))
    others = [other.name for other in LESSONS if abs(number(other) - k) == 1]
    assert all(f"({name})" in prose[0] and f"({name})" in prose[-1] for name in others)
    assert max(len(cell.splitlines()) for cell in code) <= 15
    assert sum(cell.startswith("guess = None") or "\nguess = None" in cell for cell in code) >= 1
    assert sum("Predict first" in cell for cell in prose) == sum("compare(guess" in cell for cell in code)
    assert any("> **" in cell for cell in prose), "no box for a term"
    exercises = re.findall(rf"^\*\*({k}\.\d)(?: \(open\))?\*\*|^\*\*({k}\.\d) \(open\)\*\*", "\n".join(prose), re.M)
    assert len(exercises) == 3 and f"**{k}.3 (open)**" in "\n".join(prose)
    assert prose[-2].startswith("## The answer") and "print(" in code[-1] and "save_metrics" in code[-1]
    assert "arxiv.org" in "\n".join(prose) or "doi.org" in "\n".join(prose)


@pytest.mark.committed
def test_lessons_are_made_from_their_solutions(tmp_path):
    written = write_lessons(tmp_path)
    assert [path.name for path in written] == [path.name for path in LESSONS]
    for path in written:
        committed = SOLUTIONS.parent / path.name
        assert committed.read_text() == path.read_text(), f"{committed}: run make lessons"
        notebook = nbformat.read(path, as_version=4)
        assert "SOLUTION" not in path.read_text() and all(not cell.get("outputs") for cell in notebook.cells)
        for link in re.findall(r"\]\(([^)#]+)\)", "\n".join(texts(notebook, "markdown"))):
            assert link.startswith("http") or (SOLUTIONS.parent / link).exists(), link


@pytest.mark.committed
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_nbgrader_reads_a_lesson(path):
    notebook = nbformat.read(path, as_version=4)
    ValidateAll().validate_nb(notebook)
    marked = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert sum(mark.get("points", 0) for mark in marked) == 5 and len(marked) == 5


def test_a_copy_to_give_away_has_no_solution_and_overwrites_nothing(tmp_path):
    written = student_copy(tmp_path / "course")
    assert set(written) == {path for path in (tmp_path / "course").rglob("*") if path.is_file()}
    texts = {path: path.read_text() for path in written if path.suffix != ".whl"}
    whole = "\n".join(texts.values())
    assert "SOLUTION" not in whole and "](../" not in whole and "of the kit)" in whole
    for path, text in texts.items():
        for link in re.findall(r"\]\(([^)#:]+\.(?:md|ipynb|png))(?:#[^)]*)?\)", text):
            assert (path.parent / link).is_file(), f"{path.name} links to {link}"
    with pytest.raises(ValueError, match="is not empty"):
        student_copy(tmp_path / "course")


def test_a_copy_to_give_away_has_the_kit_and_its_page_names_the_file(tmp_path):
    written = student_copy(tmp_path / "course")
    (wheel,) = (path for path in written if path.suffix == ".whl")
    readme = (tmp_path / "course" / "README.md").read_text()
    assert re.findall(r'pip install "\./(.*)\[lab\]"', readme) == [wheel.name] and "http" not in readme
    with zipfile.ZipFile(wheel) as kit:
        for path in (ROOT / "lmeraser_kit").rglob("*.py"):
            assert kit.read(str(path.relative_to(ROOT))) == path.read_bytes()


def test_a_copy_for_nbgrader_has_the_solutions_and_no_link_that_leads_nowhere(tmp_path):
    written = handout.graded_copy(tmp_path / "grading")
    assert [path.parent.name for path in written] == [f"lesson{k}" for k in range(1, 9)]
    whole = "\n".join(path.read_text() for path in written)
    assert whole.count("BEGIN SOLUTION") == 16 and "](../" not in whole and "of the kit)" in whole
    assert handout.main([str(tmp_path / "grading"), "--graded"]) == 2


def test_a_wheel_that_cannot_be_built_leaves_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(handout, "SOURCES", ("LICENSE",))
    with pytest.raises(RuntimeError, match="the wheel was not built"):
        student_copy(tmp_path / "course")
    assert not (tmp_path / "course").exists()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_solutions_pass_and_unsolved_lessons_run_and_say_what_is_missing(path, tmp_path):
    copy = tmp_path / path.name
    nbformat.write(unsolved(path), copy)
    parameters = json.dumps(SMALL[number(path)] | {"output": str(tmp_path / "out")})
    command = [sys.executable, "-c", RUN, parameters, json.dumps([str(path), str(copy)])]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    solved, _, open_ones = done.stdout.partition(f"== {copy}")
    k = number(path)
    assert re.findall(rf"^Exercise {k}\.(\d): (.*)$", solved, re.M) == [("1", "right."), ("2", "right.")]
    said = re.findall(rf"^Exercise {k}\.(\d): (.*)$", open_ones, re.M)
    assert [i for i, _ in said] == ["1", "2"] and all("yet" in message for _, message in said)
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_checks_report_and_are_strict_for_an_autograder(monkeypatch, capsys):
    check("1.1", None)
    assert "not answered yet" in capsys.readouterr().out
    check("7.1", lambda scores, truth: 1 / 0)
    assert "raised ZeroDivisionError" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"there is no exercise '9\.1'"):
        check("9.1", 1)
    monkeypatch.setenv("LMERASER_STRICT", "1")
    with pytest.raises(AssertionError, match="not answered yet"):
        check("1.1", ...)


def test_a_guess_stands_beside_the_answer(capsys):
    compare(None, 3.14159, "points")
    compare(5, np.float64(12.0), "points")
    compare("some", "none", "which")
    (
        compare(150, 86, "of 100", between=(0, 100)),
        compare("many", 86, "of 100"),
        compare(0, 86, "of 100", between=(0, 100)),
    )
    assert capsys.readouterr().out.splitlines() == [
        "points: 3.14. You made no guess.",
        "points: 12. You guessed 5.",
        "which: none. You guessed some.",
        "of 100: 86. You guessed 150, which is not from 0 to 100, as was asked.",
        "of 100: 86. You guessed many, which is no number.",
        "of 100: 86. You guessed 0.",
    ]


def wrong_answers():
    """Typical mistakes, and what a student reads of each."""
    points, labels, w = np.arange(20.0).reshape(10, 2), np.arange(10) % 2, np.arange(4.0)
    fit = lambda x, y: x.sum(axis=0) + y.sum() * np.array([1.0, 2.0])  # noqa: E731
    yield "1.1", (lambda x, y, forget: fit(x, y), fit, points, labels), "everybody in"
    yield "1.1", (lambda x, y, forget: fit(x[forget], y[forget]), fit, points, labels), "those who stay"
    yield "1.2", (lambda a, b, g: 25.0, w, w + 1, points, 0.25), "no share"
    yield "1.2", (lambda a, b, g: 0.75, w, w + 1, points, 0.25), "agree"
    yield "2.1", (lambda uids, uid, n: [uid],), "leave them out"
    yield "2.1", (lambda uids, uid, n: [],), "moves too"
    yield "2.2", (lambda r: (r + 1) / (2 * r),), "later passes cost more"
    yield "2.2", (lambda r: 0.5,), "expected 1"
    yield "3.1", (lambda size, width, channels: channels * 4 * size * width,), "corners twice"
    yield "3.1", (lambda size, width, channels: size**2 - (size - 2 * width) ** 2,), "each channel"
    yield "3.2", (lambda prompt, mask, loss, rate: prompt + torch.ones_like(prompt),), "not zero inside"
    yield "4.1", (lambda sizes: sum(sizes) / len(sizes),), "mean cluster"
    yield "4.1", (lambda sizes: sum(n * n for n in sizes) / sum(sizes),), "one too many"
    yield "4.2", (lambda sizes, m, rng: min(m, len(sizes)),), "count different clusters"
    yield (
        "5.1",
        (lambda names, n: [np.random.default_rng(i).choice(len(names), 16) for i in range(n)],),
        "hash of the names",
    )
    yield "5.1", (lambda names, n: [np.arange(16)] * n,), "hash of the names"
    yield "5.2", (lambda members: min(members),), "a person has left"
    yield "5.2", (lambda members: repr(list(members)),), "sort them"
    yield "6.1", (lambda x, largest, bits: (np.rint(x), 1.0),), "the step is 2/7"
    yield "6.1", (lambda x, largest, bits: (np.rint(x / (2 / 7)).astype(int), 2 / 7),), "cut off"
    yield "6.2", (lambda a, b, step, p: np.zeros((4, 3)),), "not the weights"
    ridge = lambda a, b, step, p: np.linalg.solve(step**2 * (a[0] + b[0]) + p * np.eye(4), step * (a[1] + b[1]))  # noqa: E731
    yield "6.2", (lambda a, b, step, p: ridge(a, b, step, 1.0),), "whatever `penalty` is"
    yield "6.2", (lambda a, b, step, p: ridge(a, b, step, p * step**2),), "sums in steps"
    yield "7.1", (lambda scores, truth: 0.5,), "two who were not"
    yield "7.2", (lambda scores, truth, share: 1.0,), "share of 0"
    yield "8.1", (lambda a, before, after: np.ones(6),), "divide by it"
    yield "8.2", (lambda a, before, after, x: int(np.argmax(x @ (a @ (after - before)))),), "smallest"
    yield "8.2", (lambda a, before, after, x: int(np.argmax(x @ before)),), "its prediction"
    yield "8.2", (lambda a, before, after, x: int(np.argmax(abs(x @ (a @ (after - before))))),), "largest in size"
    yield "8.2", (lambda a, before, after, x: 1,), "the class was 0"


@pytest.mark.parametrize("exercise, answers, message", list(wrong_answers()))
def test_a_wrong_answer_is_told_what_is_wrong(exercise, answers, message, capsys):
    check(exercise, *answers)
    assert message in capsys.readouterr().out


@pytest.mark.committed
def test_the_page_for_teachers_has_the_times_and_the_guesses_of_the_lessons():
    page = (ROOT / "docs" / "teaching.md").read_text()
    for path in LESSONS:
        notebook, k = nbformat.read(path, as_version=4), number(path)
        minutes, seconds = re.search(
            r"Time\.\*\* (\d+) minutes to read and to solve; it runs in (\d+ to \d+) seconds", notebook.cells[0].source
        ).groups()
        assert f"| {minutes} min | {seconds} s |" in re.search(rf"^\| \[{k}\]\(.*", page, re.M).group()
        asked = sum(cell.count("compare(guess") for cell in texts(notebook, "code"))
        assert len(re.findall(rf"^\| {k}\. ", page, re.M)) == asked, f"guesses of lesson {k}"


def test_parameters_are_what_the_small_run_sets():
    for path in LESSONS:
        cells = nbformat.read(path, as_version=4).cells
        names = {line.partition(":")[0] for line in next(c.source for c in cells if c.cell_type == "code").splitlines()}
        assert SMALL[number(path)].keys() | {"seed", "output"} <= names
