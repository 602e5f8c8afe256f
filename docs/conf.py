"""Sphinx: `make docs` builds these pages and an API from the docstrings into docs/_build/html."""

import json
import re
from importlib import metadata
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

HERE = Path(__file__).parent

project = "lmeraser-kit"
author = "The lmeraser-kit developers"
release = metadata.version("lmeraser-kit")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # notebooks are shown as the quick profile has left them
nb_output_stderr = "remove"
nb_ipywidgets_js = {}
html_theme = "furo"
html_title = "lmeraser-kit"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
project_copyright = "the lmeraser-kit developers; MIT licence"
napoleon_google_docstring = True
html_math_renderer = "mathml"


def notebooks():
    """The notebooks as they stand after `make reproduce`, without what names this machine; else without outputs."""
    folder = HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    for stripped in sorted((HERE.parent / "notebooks" / "experiments").glob("*.ipynb")):
        runs = HERE.parent / "results" / "quick" / "runs" / stripped.stem
        source = min(runs.glob("*/executed.ipynb"), default=stripped)
        content = json.loads(source.read_text())
        cells = [cell for cell in content["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
        text = json.dumps(content | {"cells": cells, "metadata": {"kernelspec": content["metadata"]["kernelspec"]}})
        target = folder / stripped.name
        if not target.is_file() or target.read_text() != text:
            target.write_text(text)


def other_files(app, name, source):
    """Links to files and folders outside the documents become their paths: a page is not where they are."""

    def as_path(match):
        text, target = match.groups()
        path = (HERE / target.partition("#")[0]).resolve()
        inside = path.is_relative_to(HERE)
        return match.group(0) if inside else f"{text} (`{path.relative_to(HERE.parent)}`)"

    if name.startswith("notebooks/"):
        return  # they have no links

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", as_path, source[0])


def borrowed(app, what, name, obj, skip, options):
    """Methods that scikit-learn adds to estimators are documented there."""
    return skip or bool(re.fullmatch(r"set_\w+_request|get_metadata_routing", name))


def equation(self, node):
    """Equations as MathML, which browsers draw by themselves: nothing is loaded from elsewhere."""
    display = "block" if node.tagname == "math_block" else "inline"
    self.body.append(convert(node.astext(), display=display))
    raise SkipNode


def setup(app):
    """Connect them."""
    notebooks()
    app.add_html_math_renderer("mathml", (equation, None), (equation, None))
    app.connect("source-read", other_files)
    app.connect("autodoc-skip-member", borrowed)
