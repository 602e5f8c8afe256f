"""An executed notebook as one HTML page that needs nothing else: figures inside, code folded away, no network.

python -m lmeraser_kit.experiments.report executed.ipynb report.html
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from lmeraser_kit.experiments.extras import need
from lmeraser_kit.ground.files import replacing

need("batch", __name__)

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

# nbconvert's own template, less the scripts that it would load from the network. It is no wider than a page; columns
# have their names on one line, and a table that is wider all the same has a scroll bar of its own.
OFFLINE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}{{ super() }}<style>
main {max-width: 60rem; margin: auto}
.jp-RenderedHTMLCommon th {white-space: nowrap}
.jp-RenderedHTMLCommon {overflow-x: auto}
</style>{% endblock %}
"""


def write_report(notebook: Path | str, page: Path | str) -> Path:
    """Convert an executed notebook to a self-contained page, whole or not at all; text about nothing is left out."""
    content = nbformat.read(notebook, as_version=4)
    title = content.cells[0].source.splitlines()[0].lstrip("# ")
    content.cells = [cell for i, cell in enumerate(content.cells) if not _is_about_nothing(content.cells[i:])]
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"report.html.j2": OFFLINE})],
        template_file="report.html.j2",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(content, resources={"metadata": {"name": title}})
    with replacing(page) as partial:
        partial.write_text(body)
    return Path(page)


def _is_about_nothing(cells: list[nbformat.NotebookNode]) -> bool:
    """Whether the first cell is text, and the code up to the next text has put nothing out."""
    code = list(itertools.takewhile(lambda cell: cell.cell_type == "code", cells[1:]))
    return cells[0].cell_type == "markdown" and bool(code) and not any(cell.outputs for cell in code)


if __name__ == "__main__":
    print("report:", write_report(*sys.argv[1:3]))
