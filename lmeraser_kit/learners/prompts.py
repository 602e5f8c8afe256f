"""Visual prompts: learnable pixels that are added to the normalised image.

`frame` is LMEraser's (arXiv 2404.11056) and DAM-VP's: a border, 30 of 224 pixels wide in the published code. `patch`
and `random-patch` are those of Bahng et al. 2022 (arXiv 2203.17274); there the random patch moves at every forward
pass, at prediction too, which makes a prediction random. Here its place is drawn once, from the seed: public, and the
same for every cluster. A prompt is kept as the values of its pixels, (3, P), not as a whole image.
"""

from __future__ import annotations

import numpy as np
import torch

from lmeraser_kit import checks

PROMPTS = ("frame", "patch", "random-patch", "none")


def prompt_mask(kind: str, share: float, size: int, seed: int = 0) -> np.ndarray:
    """Which pixels a prompt covers.

    Args:
        kind: One of PROMPTS.
        share: The frame's width, or the patch's side, as a share of the image's side, in (0, 1]. A pixel at least.
        size: Side of the image, in pixels.
        seed: Seed of the random patch's place.

    Returns:
        Mask, bool (size, size).

    Raises:
        ValueError: If the kind is unknown, or another argument is none of these.
    """
    checks.choice("kind", kind, PROMPTS)
    share, size = checks.number("share", share, 0, 1, beyond=True), checks.whole("size", size)
    seed = checks.seed(seed)
    pixels = min(max(1, round(share * size)), size)
    mask = np.zeros((size, size), dtype=bool)
    if kind == "frame":
        mask[:] = True
        mask[pixels : size - pixels, pixels : size - pixels] = False
    elif kind == "patch":
        mask[:pixels, :pixels] = True
    elif kind == "random-patch":
        top, left = np.random.default_rng(seed).integers(0, size - pixels + 1, size=2)
        mask[top : top + pixels, left : left + pixels] = True
    return mask


def prompt_canvas(prompt: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """A prompt, or one for each sample, as an image that can be added to a view; gradients flow to the prompt.

    Args:
        prompt: Values of the prompted pixels, (..., 3, P).
        mask: Which pixels they are, bool (S, S) with P true ones.

    Returns:
        Zero outside the mask, (..., 3, S, S).

    Raises:
        ValueError: If the prompt has not one value for each pixel of the mask.
    """
    if checks.instance("mask", mask, np.ndarray).dtype != bool or mask.ndim != 2:
        raise ValueError(f"mask is {mask.dtype} {mask.shape}, expected bool (S, S)")
    covered = int(np.count_nonzero(mask))
    if checks.instance("prompt", prompt, torch.Tensor).ndim < 2 or prompt.shape[-2:] != (3, covered):
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}, expected (..., 3, {covered}) for the mask's pixels")
    where = torch.from_numpy(np.flatnonzero(mask)).to(prompt.device)
    canvas = prompt.new_zeros(*prompt.shape[:-1], mask.size).index_copy(-1, where, prompt)
    return canvas.view(*prompt.shape[:-1], *mask.shape)
