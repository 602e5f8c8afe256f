"""Alternative texts: what a figure shows, in words, for who cannot see it.

Neither JupyterLab nor nbconvert nor myst-nb takes an alternative text from an output's metadata. So a figure is put out
as HTML, an `img` with its text, beside the PNG that IPython makes; all three prefer the HTML.
"""

from __future__ import annotations

import base64
import html
import io
import re
import sys
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

SHARPNESS = 2  # pixels of a file for each on the page: for print and projectors
MOST = 12  # values or titles that are read out
DESCRIPTION = "Description"  # the keyword in PNG files


def describe(figure: Figure) -> str:
    """What a figure shows: its label (`figures.save(..., alt=)`) and title; of each panel axes, series and values."""
    figure.draw_without_rendering()  # ticks have their labels then
    panels = [ax for ax in figure.axes if (ax.axison or ax.images) and ax.get_label() != "<colorbar>"]
    pictures = [ax for ax in panels if ax.images and not ax.axison]
    parts = [figure.get_label(), figure.get_suptitle()]
    if pictures:
        parts.append(f"{len(pictures)} image{'s' * (len(pictures) > 1)}: {_listed(ax.get_title() for ax in pictures)}")
    others = [ax for ax in panels if ax not in pictures]
    for i, ax in enumerate(others, 1):
        parts += _panel(ax, f"Panel {i} of {len(others)}: " * (len(others) > 1))
    return " ".join(_sentence(str(part)) for part in parts if part)


def show_alternative_texts() -> None:
    """In a notebook: put figures, and PNG files that `figures.save` wrote, out with their text. Elsewhere: nothing."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        plt.switch_backend(plt.get_backend())  # load it now: when the inline backend comes, it removes formatters
        formatter = shell.display_formatter.formatters["text/html"]
        formatter.for_type(Figure, as_html)
        formatter.for_type_by_name("IPython.core.display", "Image", _file_as_html)


def as_html(figure: Figure) -> str:
    """A figure as an `img` with its alternative text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=SHARPNESS * figure.dpi)
    return _img(buffer.getvalue(), describe(figure), Image.open(buffer).width // SHARPNESS)


def _file_as_html(image: Any) -> str | None:
    """None, so that IPython goes on without, if the file says nothing of itself."""
    if image.format != "png" or not image.data:
        return None
    file = Image.open(io.BytesIO(image.data))
    text = file.info.get(DESCRIPTION)
    return _img(image.data, text, image.width or file.width) if text else None


def _img(png: bytes, text: str, width: int) -> str:
    source, style = base64.b64encode(png).decode(), "max-width: 100%; height: auto"
    return f'<img src="data:image/png;base64,{source}" alt="{html.escape(text)}" width="{width}" style="{style}">'


def _panel(ax: Axes, number: str) -> list[str]:
    parts = [number + ax.get_title()]
    for name, axis, scale in (("Horizontal", ax.xaxis, ax.get_xscale()), ("Vertical", ax.yaxis, ax.get_yscale())):
        ticks = [tick.get_text() for tick in axis.get_ticklabels()]
        words = _listed(ticks) if any(re.search("[A-Za-z]{2}", tick) and "$" not in tick for tick in ticks) else ""
        label = axis.get_label_text()
        label += " (logarithmic)" * bool(label and scale == "log")
        parts.append(f"{name} axis: {': '.join(filter(None, (label, words)))}" if label or words else "")
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        said = [
            f"{label} ({values})" if (values := _values(handle)) else label
            for handle, label in zip(handles, labels, strict=True)
        ]
    else:
        said = [_values(handle) for handle in [*ax.lines, *ax.containers][:1]]
    return [*parts, f"Shown: {'; '.join(said)}" if any(said) else ""]


def _values(handle: Any) -> str:
    """The values of bars, or the ends of a line; nothing of what has none."""
    if hasattr(handle, "patches") and hasattr(handle, "datavalues"):  # a container of bars
        return _listed(f"{value:.3g}" for value in handle.datavalues)
    line = handle.lines[0] if hasattr(handle, "lines") else handle  # the line of error bars
    heights = np.atleast_1d(line.get_ydata(orig=False) if hasattr(line, "get_ydata") else ())
    return f"from {heights[0]:.3g} to {heights[-1]:.3g}" if len(heights) > 2 else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(".:")
    return text if text.endswith(("?", "!")) else f"{text}."


def _listed(texts: Iterable[str]) -> str:
    """Texts with commas; of many the first."""
    texts = [" ".join(text.split()) for text in texts if text]
    return ", ".join(texts[:MOST]) + f" and {len(texts) - MOST} more" * (len(texts) > MOST)
