"""What Jupyter shows of an object, the last line of a cell: a title, some facts, a few pictures. Text is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

import numpy as np

PICTURES, ITEMS = 8, 10  # at most
SIDE = 64  # of a picture on the page, in pixels


def card(title: str, facts: Mapping[str, object], below: str = "") -> str:
    """A title, and facts as a table with a row each.

    Args:
        title: What it is.
        facts: Names and values.
        below: What comes after the table: HTML already, and not escaped.
    """
    cell = "style='text-align: left; vertical-align: top'"
    shown = {escape(name): escape(str(value)) for name, value in facts.items()}
    rows = [f"<tr><th {cell[:-1]}; white-space: nowrap'>{k}</th><td {cell}>{v}</td></tr>" for k, v in shown.items()]
    return f"<div><strong>{escape(title)}</strong><table>{''.join(rows)}</table>{below}</div>"


def some_of(items: Iterable[str], n: int) -> str:
    """The first few of n items, and how many more there are."""
    return ", ".join(islice(items, ITEMS)) + f", and {n - ITEMS:,} more" * (n > ITEMS)


def class_counts(samples: Any, classes: Sequence[str] = ()) -> str:
    """How many of some Samples each class has, by its name or its number; from the labels alone."""
    counts = np.bincount(samples.labels, minlength=samples.n_classes)
    return some_of((f"{_class_name(k, classes)}: {n:,}" for k, n in enumerate(counts)), len(counts))


def gallery(samples: Any, classes: Sequence[str] = ()) -> str:
    """The first few of some Samples, each with its class below; the uids are alternative texts. No others are read."""
    some, shown = samples[:PICTURES], []
    for image, label, uid in zip(np.asarray(some.images), some.labels.tolist(), some.uids.tolist(), strict=True):
        name = _class_name(label, classes)
        caption = f"<figcaption>{escape(name)}</figcaption>"
        style = "display: inline-block; margin: 4px; text-align: center"
        shown.append(f"<figure style='{style}'>{picture(image, f'{uid}, class {name}')}{caption}</figure>")
    return "".join(shown)


def picture(image: np.ndarray, name: str) -> str:
    """An image, uint8 (C, H, W), as a PNG inside the page, smaller if it is large; the name is its alternative text."""
    style = f"height: {SIDE}px; image-rendering: pixelated; margin: auto"
    return f"<img alt='{escape(name)}' style='{style}' src='{data_uri(image)}'>"


def data_uri(image: np.ndarray) -> str:
    """An image, uint8 (C, H, W), C = 1 or 3, as a PNG in a data URI; smaller if it is large."""
    from PIL import Image  # only who looks at something waits for it

    drawn, written = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)), io.BytesIO()
    drawn.thumbnail((2 * SIDE, 2 * SIDE))
    drawn.save(written, "png")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def _class_name(number: int, classes: Sequence[str]) -> str:
    return classes[number] if classes else str(number)
