"""Sphinx: `make docs` builds these pages and an API from the docstrings into docs/_build/html."""

import re
from importlib import metadata
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

HERE = Path(__file__).parent

project = "lmeraser-kit"
author = "The lmeraser-kit developers"
release = metadata.version("lmeraser-kit")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lmeraser-kit"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
project_copyright = "the lmeraser-kit developers; MIT licence"
napoleon_google_docstring = True
html_math_renderer = "mathml"


def other_files(app, name, source):
    """Links to files and folders outside the documents become their paths: a page is not where they are."""

    def as_path(match):
        text, target = match.groups()
        path = (HERE / target.partition("#")[0]).resolve()
        inside = path.is_relative_to(HERE)
        return match.group(0) if inside else f"{text} (`{path.relative_to(HERE.parent)}`)"

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
    app.add_html_math_renderer("mathml", (equation, None), (equation, None))
    app.connect("source-read", other_files)
    app.connect("autodoc-skip-member", borrowed)
