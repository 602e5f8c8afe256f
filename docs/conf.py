"""Sphinx: `make docs` builds these pages and an API from the docstrings into docs/_build/html.

Notebooks are shown executed, from copies in docs/notebooks (git ignores them):

- Experiments as the quick profile has left them in results/quick, or else without outputs and with a note on top.
- Lessons as students get them, exercises open: no solution is given away, and a page is the notebook itself.
  They are executed here, each again only if it or the package has changed. One that fails ends the build.
"""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

from lmeraser_kit.experiments.runs import run_notebook
from lmeraser_kit.ground.hashing import digest

HERE = Path(__file__).parent
ROOT = HERE.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")  # lessons are small: more threads wait for each other
LESSONS = HERE / "_build" / "lessons"  # where they have been executed
CODE = [ROOT / "requirements.lock", *sorted((ROOT / "lmeraser_kit").rglob("*.py"))]
NOT_RUN = """```{admonition} Shown without its outputs
:class: note
This page is the notebook's text and code alone: it had not been run when the documents were built. For figures, tables
and the answer say `make reproduce`, which runs all experiments in half an hour, and `make docs` again.
```"""

project = "lmeraser-kit"
author = "The lmeraser-kit developers"
release = metadata.version("lmeraser-kit")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # see notebooks()
nb_render_markdown_format = "myst"  # of what cells put out: it has tables
nb_merge_streams = True  # a cell's prints are one block
nb_output_stderr = "remove"
nb_ipywidgets_js = {}
html_theme = "furo"
html_title = "lmeraser-kit"
html_static_path = ["_static"]
html_css_files = ["notebooks.css"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
project_copyright = "the lmeraser-kit developers; MIT licence"
napoleon_google_docstring = True
html_math_renderer = "mathml"


def notebooks():
    """Copies of the notebooks, which Sphinx shows; written only if they have changed."""
    found = {kind: sorted((ROOT / "notebooks" / kind).glob("*.ipynb")) for kind in ("lessons", "experiments")}
    with ThreadPoolExecutor(os.cpu_count()) as several:  # each lesson is a process of its own
        lessons = dict(zip(found["lessons"], several.map(executed_lesson, found["lessons"]), strict=True))
    run = lessons | {
        source: min((ROOT / "results" / "quick" / "runs" / source.stem).glob("*/executed.ipynb"), default=None)
        for source in found["experiments"]
    }
    pages = {HERE / source.relative_to(ROOT): json.dumps(page(source, executed)) for source, executed in run.items()}
    for gone in set((HERE / "notebooks").rglob("*.ipynb")) - pages.keys():
        gone.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def executed_lesson(source):
    """The lesson executed by this code: a folder is named by the hash of both, and older ones go."""
    folder = LESSONS / source.stem / digest(*(path.read_bytes() for path in [source, *CODE]))[:16]
    if not (folder / "executed.ipynb").is_file():
        shutil.rmtree(folder.parent, ignore_errors=True)
        print(f"{source.stem}: executed in {run_notebook(source, folder, {})['seconds']:.0f} s", flush=True)
    return folder / "executed.ipynb"


def page(source, executed):
    """A notebook as its page shows it: without what names this machine; with a note if it has not been executed."""
    content = json.loads((executed or source).read_text())
    cells = [cell for cell in content["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_links("".join(cell["source"]), source)
    if executed is None:
        title, _, rest = cells[0]["source"].partition("\n")
        cells[0]["source"] = f"{title}\n\n{NOT_RUN}\n{rest}"
    return content | {"cells": cells, "metadata": {"kernelspec": content["metadata"]["kernelspec"]}}


def with_links(text, file):
    """Links of a file of the repository as its page has them: to other pages, or else a path that is no link."""

    def link(match):
        words, target, place = match.groups()
        path = (file.parent / target).resolve()
        if path.is_relative_to(HERE):
            to = path
        elif path.match("notebooks/*/*.ipynb"):
            to = HERE / path.relative_to(ROOT)
        else:
            return f"{words} (`{path.relative_to(ROOT)}`)"
        here = HERE / file.relative_to(ROOT) if file.suffix == ".ipynb" else file
        return f"[{words}]({os.path.relpath(to, here.parent)}{place or ''})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)", link, text)


def other_files(app, name, source):
    """Links of the documents; the copies of notebooks have theirs already."""
    if not name.startswith("notebooks/"):
        source[0] = with_links(source[0], HERE / f"{name}.md")


def borrowed(app, what, name, obj, skip, options):
    """Methods that scikit-learn adds to estimators are documented there."""
    return skip or bool(re.fullmatch(r"set_\w+_request|get_metadata_routing", name))


def equation(self, node):
    """Equations as MathML, which browsers draw by themselves: nothing is loaded from elsewhere."""
    text = node.astext().replace(r"\setminus", r"\smallsetminus")  # fonts have this one
    display = "block" if node.tagname == "math_block" else "inline"
    self.body.append(convert(text, display=display))
    raise SkipNode


def setup(app):
    """Connect them."""
    notebooks()
    app.add_html_math_renderer("mathml", (equation, None), (equation, None))
    app.connect("source-read", other_files)
    app.connect("autodoc-skip-member", borrowed)
