"""The lessons as students get them, made from notebooks/lessons/solutions: there is one source for both.

    python -m lmeraser_kit.lab.handout                    # notebooks/lessons/*.ipynb, for the repository
    python -m lmeraser_kit.lab.handout FOLDER             # a copy to give away
    python -m lmeraser_kit.lab.handout FOLDER --graded    # sources for nbgrader

Solutions are nbgrader's: what lies between BEGIN SOLUTION and END SOLUTION goes, and so do answers to open questions.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
PAGES = (
    "exactness",
    "cost",
    "choosing",
    "caches",
    "attacks",
    "store",
    "method",
    "limits",
    "glossary",
)  # go with a copy
ELSEWHERE = (r"!?\[([^\]]+)\]\((?:\.\./)+([^)]+)\)", r"\1 (`\2` of the kit)")  # a link that a copy cannot have
ANOTHER_PAGE = (rf"\[([^\]]+)\]\((?!(?:{'|'.join(PAGES)})\.md)([a-z-]+\.md)[^)]*\)", r"\1 (`docs/\2` of the kit)")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "lmeraser_kit")  # what a wheel is built of
README = """# Machine unlearning: eight lessons

Exercises are at the end of each lesson; a check below an exercise says what is wrong with an answer.

## Install

You need Python 3.11 or newer, a network for this once, and 2 GB of disk (7 GB without step 2). Say the commands in
this folder.

1. Make a virtual environment, and go into it:

       python3 -m venv unlearning
       . unlearning/bin/activate

2. On Linux, install the small build of PyTorch. Its own page "Start Locally" shows the command if you choose Stable,
   Linux, Pip, Python and *CPU*. Copy it as it stands: it installs `torch` and `torchvision`, and both must be of this
   build. Without this step, step 3 installs the default build, which carries CUDA. (On a Mac it carries none.)

3. Install the kit, from the file that lies here:

       python -m pip install "./{wheel}[lab]"

4. Open the lessons, in the order of their numbers:

       jupyter lab

`docs/` has the kit's pages that the lessons name.

The lessons need no data, no network and no GPU. The first that trains a network keeps it in `~/.cache/lmeraser_kit`
for the others. Each writes its figures to `results/lab`, here. Another day, say `. unlearning/bin/activate` first, and
go on with step 4.

## If something goes wrong

- *No module named 'lmeraser_kit'*: JupyterLab runs in another Python. End it, and start it as in step 4, after
  `. unlearning/bin/activate`.
- *operator torchvision::nms does not exist*: `torch` and `torchvision` are of two builds. Say
  `python -m pip uninstall torch torchvision`, and then step 2 again.

Tried on Linux (x86-64, Python 3.11) with PyTorch's default build. macOS and Windows were not tried. On Windows use
WSL, and do everything in its Linux: the kit locks files as Unix does.
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


def build_wheel(folder: Path) -> Path:
    """Build the kit's wheel from the sources here, without a network. Returns the file.

    Args:
        folder: Where it goes.

    Raises:
        RuntimeError: If it cannot be built; the message is pip's.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    with tempfile.TemporaryDirectory() as copy:  # a build leaves files beside the sources, and packs what is left there
        for path in map(PROJECT.joinpath, SOURCES):
            if path.is_dir():
                shutil.copytree(path, Path(copy, path.name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy)
        done = subprocess.run([*pip, "--wheel-dir", folder, copy], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the wheel was not built: {done.stderr.strip()}")
    (wheel,) = folder.glob("lmeraser_kit-*.whl")
    return wheel


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and take it away again if what is done inside fails: nothing is left half-written.

    Raises:
        ValueError: If there is something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder, so that nobody's answers are lost")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def write_pages(folder: Path) -> list[Path]:
    """Write the documents that lessons link to, links to what a copy lacks as text. Returns the files."""
    folder.mkdir()
    for name in PAGES:
        text = (PROJECT / "docs" / f"{name}.md").read_text()
        (folder / f"{name}.md").write_text(re.sub(*ANOTHER_PAGE, re.sub(*ELSEWHERE, text)))
    return sorted(folder.iterdir())


def student_copy(folder: Path) -> list[Path]:
    """Write a folder to give away: lessons without solutions, pages, the kit's wheel, how to start. Returns the files.

    Args:
        folder: A folder that is not there, or is empty.

    Raises:
        ValueError: If there is something in it.
        RuntimeError: If the wheel cannot be built.
    """
    with new_folder(folder):
        written = [folder / "README.md", build_wheel(folder)]
        written[0].write_text(README.format(wheel=written[1].name))
        for path in sorted(SOLUTIONS.glob("*.ipynb")):
            notebook = with_links(unsolved(path), r"\]\((?:\.\./)+docs/", "](docs/")
            nbformat.write(with_links(notebook, *ELSEWHERE), folder / path.name)
            written.append(folder / path.name)
        written += write_pages(folder / "docs")
    return written


def graded_copy(folder: Path) -> list[Path]:
    """Write a folder for nbgrader: the lessons with their solutions, each as a source. Returns the files.

    Args:
        folder: A folder that is not there, or is empty.

    Raises:
        ValueError: If there is something in it.
    """
    written = []
    with new_folder(folder):
        for path in sorted(SOLUTIONS.glob("*.ipynb")):
            written.append(folder / "source" / f"lesson{path.name.partition('_')[0]}" / path.name)
            written[-1].parent.mkdir(parents=True)
            nbformat.write(with_links(nbformat.read(path, as_version=4), *ELSEWHERE), written[-1])
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.lab.handout", description="Lessons without solutions."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where a copy to give away goes; by default notebooks/lessons"
    )
    parser.add_argument("--graded", action="store_true", help="the lessons with their solutions, for nbgrader")
    given = parser.parse_args(arguments)
    if given.graded and not given.folder:
        parser.error("--graded needs a folder")
    write = graded_copy if given.graded else student_copy
    try:
        written = write(given.folder) if given.folder else write_lessons(SOLUTIONS.parent)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} files in {given.folder or SOLUTIONS.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
