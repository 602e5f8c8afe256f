"""What the page "press Forget" shows: thumbnails, prompts, tiles of hashes, scores as distributions. HTML, escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmeraser_kit.figures.theme import set_theme
from lmeraser_kit.ground.html import data_uri
from lmeraser_kit.ground.samples import Samples

SAME, OTHER = "#dbe4ee", "#b34700"  # of a tile; its sign says the same without colour
WITH, WITHOUT = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
STYLE = """
@media (min-width: 1600px) {#rendered_cells > div {zoom: 1.25}}
@media (min-width: 1920px) {#rendered_cells > div {zoom: 1.5}}
@media (min-width: 2560px) {#rendered_cells > div {zoom: 2}}
@media (min-width: 3840px) {#rendered_cells > div {zoom: 3}}
.lmk {font-size: 18px; line-height: 1.35; max-width: 1260px; color: #111}
.lmk .widget-html-content, .lmk .jupyter-widget-html-content {font-size: 18px; line-height: 1.35}
.lmk .jupyter-button, .lmk select, .lmk input, .lmk label {font-size: 18px !important; height: auto}
.lmk .jupyter-button, .lmk select, .lmk input[type=text], .lmk input[type=number] {min-height: 38px}
.lmk .widget-dropdown, .lmk .widget-text {height: auto; min-height: 42px}
.lmk .widget-radio-box {margin: 2px 0; height: auto} .lmk .widget-radio-box label {line-height: 28px; height: 28px}
.lmk .widget-radio-box input {width: 18px; margin: 0 8px 0 2px}
.lmk .jupyter-button {border-radius: 4px; padding: 2px 12px; border: 1px solid #667}
.lmk .jupyter-button:focus-visible, .lmk select:focus-visible, .lmk input:focus-visible
    {outline: 4px solid #0b57d0 !important; outline-offset: 1px}
.lmk .jupyter-button:disabled {opacity: .45}
.jp-RenderedMarkdown h1 {margin: 0 !important} .jp-Notebook .jp-Cell {padding: 2px 8px !important}
.lmk, .lmk .widget-box, #rendered_cells .jp-InputArea, #rendered_cells .jp-RenderedMarkdown {overflow: visible}
.lmk-beat {overflow: hidden}
#rendered_cells .jp-RenderedMarkdown p {font-size: 16px}
.lmk h2 {font-size: 22px; margin: 4px 0}
.lmk p {margin: 4px 0} .lmk table {border-collapse: collapse}
.lmk th, .lmk td {padding: 2px 14px 2px 0; text-align: left}
.lmk td.n {text-align: right; font-variant-numeric: tabular-nums}
.lmk-image {width: 66px !important; height: 66px !important; padding: 0 !important; margin: 2px; overflow: hidden;
    background-size: cover; image-rendering: pixelated; color: transparent !important; font-size: 1px !important;
    border: 3px solid #99a !important; position: relative}
.lmk-chosen {border: 5px solid #b34700 !important}
.lmk-chosen::after {content: "✓"; position: absolute; right: 1px; top: -2px; color: #fff; background: #b34700;
    font-size: 20px; line-height: 22px; padding: 0 3px}
.lmk-gone {opacity: .3; border-style: dashed !important}
.lmk-looked {box-shadow: 0 0 0 4px #0b57d0}
.lmk-row {display: flex; gap: 6px; flex-wrap: wrap; align-items: flex-end; margin: 4px 0}
.lmk-row figure {margin: 0; text-align: center; font-size: 16px}
.lmk-row img {image-rendering: pixelated; border: 1px solid #99a}
.lmk ul.tiles {list-style: none; display: flex; flex-wrap: wrap; gap: 3px; padding: 0; margin: 6px 0}
.lmk ul.tiles li {font-size: 16px; padding: 1px 5px; border-radius: 3px; background: """
STYLE += f"{SAME}; color: #111}}\n.lmk ul.tiles li.other {{background: {OTHER}; color: #fff; font-weight: 700}}\n"
STYLE += """
.lmk code {font-size: 16px; background: #eef; padding: 0 4px}
.lmk-words summary {cursor: pointer; padding: 4px 0}
.lmk-words div {columns: 480px 2; column-gap: 40px} .lmk-words p {break-inside: avoid}
.lmk-words summary:focus-visible {outline: 4px solid #0b57d0; outline-offset: 1px}
.lmk-said {border-left: 6px solid #0b57d0; padding: 4px 10px; background: #f2f6ff}
.lmk-wrong {border-left: 6px solid #b34700; padding: 4px 10px; background: #fff3ea}
"""
SCRIPT = """
(() => {  // says aloud what changes, and that a kernel has stopped: widgets have no way to
  if (!/\\b_xsrf=/.test(document.cookie)) {  // without one Voila refuses to end the kernel of a window that is closed
    const random = [...crypto.getRandomValues(new Uint8Array(16))].map(n => n.toString(16).padStart(2, "0"));
    document.cookie = `_xsrf=${random.join("")}; SameSite=Strict`;
  }
  let beat = "", at = Date.now();
  setInterval(() => {
    for (const e of document.querySelectorAll(".lmk-status")) {
      e.setAttribute("role", "status"); e.setAttribute("aria-live", "polite"); }
    for (const e of document.querySelectorAll(".lmk-step, .lmk-image"))
      e.setAttribute("aria-pressed", e.matches(".lmk-now, .lmk-looked"));
    const now = document.querySelector(".lmk-beat");
    if (!now) return;
    const said = document.querySelector("#lmk-dead");
    if (now.textContent !== beat) { beat = now.textContent; at = Date.now(); said?.remove(); }
    else if (Date.now() - at > 15000 && !said) {
      const box = document.createElement("div");
      box.id = "lmk-dead"; box.setAttribute("role", "alert");
      box.style = "position:fixed;top:0;left:0;right:0;padding:16px;z-index:9;font-size:22px";
      box.style.background = "#b34700"; box.style.color = "#fff";
      box.textContent = "The program behind this page has stopped. Reload the page to start it again.";
      document.body.append(box);
    }
  }, 1000);
})();
"""


def thumbnails(samples: Samples) -> str:
    """Style rules: image i of the samples, in their order, is the background of what has the class `lmk-i`."""
    rules = (
        f".lmk-{i} {{background-image: url({data_uri(image)})}}" for i, image in enumerate(np.asarray(samples.images))
    )
    return f"<style>{STYLE}{''.join(rules)}</style>"


def row(pictures: Iterable[tuple[np.ndarray, str, str]], side: int = 72) -> str:
    """Pictures beside each other: pixels, uint8 (C, H, W), caption, alternative text."""
    shown = (
        f'<figure><img src="{data_uri(pixels)}" width="{side}" height="{side}" alt="{escape(alt, quote=True)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for pixels, caption, alt in pictures
    )
    return f'<div class="lmk-row">{"".join(shown)}</div>'


def prompt_pixels(canvas: np.ndarray) -> np.ndarray:
    """A prompt as an image: grey is 0, the largest absolute value black or white. (3, H, W) to uint8 (3, H, W)."""
    return np.rint(127.5 + 127.5 * canvas / max(np.abs(canvas).max(), 1e-12)).astype(np.uint8)


def tiles(changed: dict[str, bool]) -> str:
    """One tile a piece of the state: ≠ where its hash is another one, = where it is the same."""
    order = sorted(changed, key=lambda name: (not changed[name], name.split()[0], len(name), name))
    made = (
        f'<li class="{"other" if changed[n] else "same"}">{"≠" if changed[n] else "="} {escape(n)}</li>' for n in order
    )
    n = sum(changed.values())
    said = f"<p>The hash of <b>{n} of {len(changed)}</b> pieces of the model's state changed (≠).</p>"
    return f'{said}<ul class="tiles" aria-label="Pieces of the state">{"".join(made)}</ul>'


def distribution(inside: np.ndarray, outside: np.ndarray, marks: dict[str, float]) -> Figure:
    """Membership scores of one image in reference models, and in the attacked model.

    Args:
        inside: In models that were trained with the image, (n,), in nats.
        outside: In models that were not, (m,).
        marks: The attacked model's, by what it is called.

    Returns:
        The figure; its label says what it shows, for its alternative text.
    """
    set_theme()
    figure, ax = plt.subplots(figsize=(8.2, 6))
    everything = np.r_[inside, outside, list(marks.values())]
    bins = np.linspace(everything.min() - 0.5, everything.max() + 0.5, 22).tolist()
    for values, colour, hatch, name in (
        (inside, WITH, "//", "trained with it"),
        (outside, WITHOUT, "..", "without it"),
    ):
        label = f"{len(values)} models {name}"
        ax.hist(values, bins, color=colour, alpha=0.55, hatch=hatch, edgecolor="white", label=label)
    for (name, value), line in zip(marks.items(), ("-", "--", ":"), strict=False):
        ax.axvline(value, color="black", linestyle=line, linewidth=3, label=f"{name}: {value:.1f}")
    ax.set(xlabel="membership score (ln p - ln(1 - p) of its class, in nats)", ylabel="models")
    ax.legend(fontsize=16, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    ax.set_ylim(0, max(ax.get_ylim()[1], 3))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    middle = (
        f"{len(inside)} reference models trained with the image have a median score of {np.median(inside):.1f} nats"
    )
    alt = f"{middle}, {len(outside)} without it of {np.median(outside):.1f}."
    alt += "".join(f" The model {name}: {value:.1f}." for name, value in marks.items())
    figure.set_label(alt)
    return figure
