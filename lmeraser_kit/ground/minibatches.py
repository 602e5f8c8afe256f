"""What pre-training and tuning share: the loop, its schedule, its batches, and augmentation keyed by sample.

Nothing here has a state of its own: order and augmentation are keyed by (seed, uid, epoch), the schedule's length by
the samples at hand, so that training one set of samples cannot be felt in the training of another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import keyed_uniform

AUGMENTATION_DRAWS = 5


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Learning rate factor: linear over the first `warmup` share of the steps, then cosine to 0 (the paper's).

    Args:
        step: Which step, from 0 to `total`.
        total: How many there are.
        warmup: A share in [0, 1].
    """
    total, warmup = checks.whole("total", total, 0), checks.number("warmup", warmup, 0, 1)
    step = checks.whole("step", step, 0, total)
    warm = warmup * total
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def augment(
    views: torch.Tensor, draws: np.ndarray, shift: float = 0.0, rotate: float = 0.0, zoom: float = 0.0, flip=False
) -> torch.Tensor:
    """Move, turn, zoom and mirror every image by its own draws, the whole batch at once.

    Args:
        views: Normalised pixels, (B, 3, S, S).
        draws: Keyed uniform numbers, (B, 5).
        shift: Largest translation, as a share of the side (at most 1), in each direction; pixels at the border are
            repeated.
        rotate: Largest rotation in degrees.
        zoom: Largest change of size, as a share below 1.
        flip: Mirror left and right with probability one half.

    Returns:
        The augmented views, (B, 3, S, S); the views themselves if nothing is to be done.
    """
    checks.number("shift", shift, 0, 1), checks.number("rotate", rotate), checks.number("zoom", zoom, 0, 1, below=True)
    checks.flag("flip", flip)
    if checks.instance("views", views, torch.Tensor).ndim != 4 or not views.is_floating_point():
        raise ValueError(f"views are {views.dtype} {tuple(views.shape)}, expected normalised pixels (B, 3, S, S)")
    draws = checks.array("draws", draws, len(views), AUGMENTATION_DRAWS)
    if not (shift or rotate or zoom or flip):
        return views
    signed = 2 * torch.as_tensor(draws, dtype=torch.float32).to(views.device) - 1
    angle, size = signed[:, 0] * math.radians(rotate), 1 + signed[:, 1] * zoom
    mirror = torch.where((signed[:, 4] < 0) & flip, -1.0, 1.0)
    cos, sin = size * torch.cos(angle), size * torch.sin(angle)
    offset = 2 * shift * signed[:, 2:4]  # affine_grid's side is 2 long
    matrix = torch.stack([cos * mirror, -sin, offset[:, 0], sin * mirror, cos, offset[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)


def minibatches(keys: np.ndarray, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch's batches: the samples in the order of their own random numbers, in parts of nearly equal size.

    Args:
        keys: `Samples.keys`, (N,), of one sample at least.
        seed: Keys the order and the draws.
        epoch: Which epoch.
        batch_size: Largest batch.

    Yields:
        Positions (B,), and these samples' draws for `augment`, (B, 5).
    """
    checks.array("keys", keys, "N")
    checks.whole("batch_size", batch_size)
    draws = keyed_uniform("minibatches", seed, keys, epoch, AUGMENTATION_DRAWS + 1)
    order = np.argsort(draws[:, -1], kind="stable")
    for rows in np.array_split(order, math.ceil(len(keys) / batch_size)):
        yield rows, draws[rows, :-1]


def train(
    loss_of: Callable[[np.ndarray, np.ndarray], torch.Tensor],
    optimiser: torch.optim.Optimizer,
    keys: np.ndarray,
    epochs: Iterable[int],
    batch_size: int,
    seed: int,
    warmup: float,
    micro_batch: int = sys.maxsize,
) -> list[float]:
    """Minimise a loss over minibatches, with warm-up and cosine.

    Args:
        loss_of: Mean loss of a batch, from its positions (B,) and draws (B, 5).
        optimiser: Holds the parameters, and for each group its peak learning rate.
        keys: `Samples.keys`, (N,).
        epochs: The numbers of the epochs; a progress bar may be wrapped round them.
        batch_size: Largest batch.
        seed: Keys the order and the draws.
        warmup: Share of the steps over which the rate rises.
        micro_batch: Samples that pass at once; the gradients of a batch's parts are added up.

    Returns:
        The mean loss over each epoch's samples.
    """
    checks.instance("optimiser", optimiser, torch.optim.Optimizer)
    checks.instance("loss_of", loss_of, Callable)  # type: ignore[arg-type]
    checks.array("keys", keys, "N")
    checks.whole("batch_size", batch_size), checks.whole("micro_batch", micro_batch)
    numbered: Any = epochs if hasattr(epochs, "__len__") else list(checks.instance("epochs", epochs, Iterable))
    total = len(numbered) * math.ceil(len(keys) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, total, warmup))
    losses = []
    for epoch in numbered:
        summed = []
        for rows, draws in minibatches(keys, seed, epoch, batch_size):
            optimiser.zero_grad()
            for part in np.array_split(np.arange(len(rows)), math.ceil(len(rows) / micro_batch)):
                loss = loss_of(rows[part], draws[part])
                (loss * (len(part) / len(rows))).backward()
                summed.append(loss.detach() * len(part))  # read once an epoch: a GPU need not wait for it
            optimiser.step()
            schedule.step()
        losses.append(float(torch.stack(summed).cpu().double().sum()) / len(keys))
    return losses
