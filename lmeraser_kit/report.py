"""An executed notebook as one HTML page that needs nothing else: figures inside, code folded away, no network.

python -m lmeraser_kit.report executed.ipynb report.html
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter


def write_report(notebook: Path | str, page: Path | str) -> Path:
    """Convert an executed notebook to a self-contained page, whole or not at all."""
    content = nbformat.read(notebook, as_version=4)
    title = content.cells[0].source.splitlines()[0].lstrip("# ")
    exporter = HTMLExporter(
        exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
    )
    for script in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url"):
        setattr(exporter, script, "")  # the page must open without a network
    body, _ = exporter.from_notebook_node(content, resources={"metadata": {"name": title}})
    partial = Path(f"{page}.partial")
    partial.write_text(body)
    os.replace(partial, page)
    return Path(page)


if __name__ == "__main__":
    print("report:", write_report(*sys.argv[1:3]))
