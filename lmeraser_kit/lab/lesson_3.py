"""Checks of lesson 3's exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch


def exercise_1(frame_values: Callable) -> str:
    """`C (S^2 - (S - 2 w)^2)`."""
    for size, width, channels in ((16, 2, 3), (224, 30, 3), (8, 1, 1), (8, 4, 1)):
        found = frame_values(size, width, channels)
        right = channels * (size**2 - (size - 2 * width) ** 2)
        if found == right:
            continue
        if found * channels == right:
            return "each pixel has a value for each channel."
        if found == channels * 4 * size * width:
            return "you count the corners twice: subtract the inside from the whole."
        if found == channels * (size**2 - (size - width) ** 2):
            return "the frame is on both sides: the inside is size - 2 * width wide."
        return f"for size {size}, width {width} and {channels} channels it is {right}, and your function says {found}."
    return ""


def exercise_2(prompt_step: Callable) -> str:
    """One step of gradient descent on a masked prompt."""
    mask = torch.ones(1, 1, 4, 4)
    mask[..., 1:-1, 1:-1] = 0
    target = torch.arange(16.0).reshape(1, 1, 4, 4)

    def loss(picture: torch.Tensor) -> torch.Tensor:
        return ((picture - target) ** 2).sum()

    start = mask.clone()
    found = prompt_step(start, mask, loss, 0.25)
    if not torch.equal(start, mask) or start.requires_grad:
        return "your function changes the prompt that it is given: work on a copy (clone)."
    right = mask * (start - 0.25 * 2 * (mask * start - target))
    if not isinstance(found, torch.Tensor) or found.shape != right.shape:
        return f"a tensor {tuple(right.shape)} was expected."
    if found.requires_grad:
        return "the new prompt still carries a gradient: detach it."
    if torch.allclose(found, mask * (start + 0.25 * 2 * (mask * start - target))):
        return "that step goes uphill: subtract the gradient."
    if (found * (1 - mask)).abs().sum() > 0:
        return "the prompt is not zero inside the frame: multiply by the mask."
    return (
        "" if torch.allclose(found, right) else "not the right step: prompt - rate * gradient of loss(mask * prompt)."
    )
