"""The lessons as students get them, made from notebooks/lessons/solutions: there is one source for both.

    python -m lmeraser_kit.lab.handout              # notebooks/lessons/*.ipynb, for the repository
    python -m lmeraser_kit.lab.handout FOLDER       # a copy to give away

Solutions are nbgrader's: what lies between BEGIN SOLUTION and END SOLUTION goes, and so do answers to open questions.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)
need("class", __name__)

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearOutput, ClearSolutions

from lmeraser_kit.experiments.results import PROJECT

SOLUTIONS = PROJECT / "notebooks" / "lessons" / "solutions"
CODE, TEXT = "# your code", "*Your answer.*"
README = """# Machine unlearning: eight lessons

Install the kit (`pip install "lmeraser-kit[lab]"`, or clone its repository and say `make .venv/ready`), and open the
lessons with `jupyter lab`, in the order of their numbers. They need no data and no network. Exercises are at the end of
each; a check below an exercise says what is wrong with an answer.
"""


def unsolved(path: Path) -> NotebookNode:
    """A lesson without solutions and outputs.

    Args:
        path: The notebook with solutions.

    Raises:
        RuntimeError: If a solution has no end, or is in a cell that is not marked as one.
    """
    notebook = nbformat.read(path, as_version=4)
    for clear in (ClearSolutions(code_stub={"python": CODE}, text_stub=TEXT), ClearOutput()):
        notebook, _ = clear.preprocess(notebook, {})
    return notebook


def with_links(notebook: NotebookNode, pattern: str, replacement: str) -> NotebookNode:
    """The notebook with other links in its texts; changed in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(pattern, replacement, cell.source)
    return notebook


def write_lessons(folder: Path) -> list[Path]:
    """Write all lessons, with links into the repository as from there. Returns the files."""
    written = []
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        notebook = with_links(unsolved(path), r"\]\(\.\./\.\./\.\./", "](../../")
        nbformat.write(notebook, folder / path.name)
        written.append(folder / path.name)
    return written


def student_copy(folder: Path) -> list[Path]:
    """Write a folder to give away: lessons without solutions, and how to start. Returns the files.

    Args:
        folder: A folder that is not there, or is empty.

    Raises:
        ValueError: If there is something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder, so that nobody's answers are lost")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        written = [folder / "README.md"]
        written[0].write_text(README)
        for path in sorted(SOLUTIONS.glob("*.ipynb")):
            elsewhere = r"\[([^\]]+)\]\(\.\./\.\./\.\./([^)]+)\)"
            nbformat.write(with_links(unsolved(path), elsewhere, r"\1 (`\2` of the kit)"), folder / path.name)
            written.append(folder / path.name)
    except BaseException:
        shutil.rmtree(folder)  # nothing half-written
        raise
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.lab.handout", description="Lessons without solutions."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where a copy to give away goes; by default notebooks/lessons"
    )
    folder = parser.parse_args(arguments).folder
    try:
        written = student_copy(folder) if folder else write_lessons(SOLUTIONS.parent)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} files in {written[0].parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
