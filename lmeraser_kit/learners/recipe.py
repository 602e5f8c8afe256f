"""How a cluster is tuned: every number that tuning depends on, besides the samples, the seed and the backbone.

The default rates were chosen on CIFAR-10 and digits, on private samples of seeds that no table uses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.learners.prompts import PROMPTS, prompt_mask

CHOICES = {"prompt": PROMPTS, "optimiser": ("adamw", "sgd"), "head_start": ("zero", "ridge", "public")}
LIMITS: dict[str, dict[str, Any]] = {  # of what is not just a finite number from 0
    "prompt_size": {"most": 1, "beyond": True},
    "momentum": {"most": 1, "below": True},
    "warmup": {"most": 1, "below": True},
    "shift": {"most": 1},
    "zoom": {"most": 1, "below": True},
}


@dataclass(frozen=True)
class Recipe:
    """How a cluster is tuned: linear warm-up then cosine; prompt and head have rates of their own.

    With AdamW, the default, a step does not depend on the size of gradients, so one setting serves many backbones, and
    small clusters as well as large ones. `Recipe.published()` is what the published code does.

    Attributes:
        prompt: `frame` (the paper), `patch`, `random-patch` or `none` (the head alone).
        prompt_size: The frame's width, or the patch's side, as a share of the input's side (the paper: 30 / 224).
        prompt_std: Standard deviation of the prompt's start, in normalised pixel units (the paper: 1).
        optimiser: `adamw`, or `sgd` with momentum (the paper's).
        prompt_lr: Peak learning rate of the prompt; with AdamW in normalised pixel units a step.
        head_lr: Peak learning rate of the head; with AdamW that of a logit: a weight's is this over the number of
            features.
        head_start: What the head starts from: `ridge`, the closed-form solution on the cluster's clean features (a
            forward pass each); `zero`, as published; or `public`: head and prompt, if there is one, start from those
            that `public_start` has tuned on public samples, with their labels.
        epochs: Passes over the cluster's samples.
        slices: Slices of a cluster, R. Tuning passes over the slices so far after each, `2 epochs / (R + 1)` times
            (rounded, at least once), so that the whole costs as much as without slices.
        batch_size: Largest batch, in samples.
        min_batches: Batches of an epoch at least, so that small clusters learn too; but a batch has 4 samples or more.
        momentum: SGD's momentum.
        weight_decay: The optimiser's weight decay, on the head only.
        warmup: Share of the steps over which the rates rise.
        shift: Augmentation: largest translation, as a share of the side.
        rotate: Augmentation: largest rotation, in degrees.
        zoom: Augmentation: largest change of size, as a share.
        flip: Augmentation: mirror left and right with probability one half.

    Raises:
        ValueError: If a value is out of its range.
    """

    prompt: str = "frame"
    prompt_size: float = 30 / 224
    prompt_std: float = 0.0
    optimiser: str = "adamw"
    prompt_lr: float = 0.01
    head_lr: float = 0.3
    head_start: str = "ridge"
    epochs: int = 10
    slices: int = 1
    batch_size: int = 32
    min_batches: int = 4
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.2
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # 3, 3.0 and NumPy's 3 are one recipe, with one address
            name, value = f"Recipe.{field.name}", getattr(self, field.name)
            if field.type == "int":
                integral = isinstance(value, (float, np.floating)) and float(value).is_integer()
                value = checks.whole(name, int(value) if integral else value)
            elif field.type == "float":
                value = checks.number(name, value, **LIMITS.get(field.name, {}))
            elif field.type == "bool":
                value = checks.flag(name, value)
            else:
                value = checks.choice(name, value, CHOICES[field.name])
            object.__setattr__(self, field.name, value)

    @classmethod
    def published(cls, **changes: Any) -> Recipe:
        """The recipe of the published code: SGD at 1e4 for prompt and head, 50 epochs, a prompt from N(0, 1)."""
        sgd = {"optimiser": "sgd", "prompt_lr": 1e4, "head_lr": 1e4, "epochs": 50, "batch_size": 128, "min_batches": 1}
        start = {"prompt_std": 1.0, "head_start": "zero", "flip": True}
        as_published: dict[str, Any] = sgd | start
        return cls(**as_published | changes)

    def batch_of(self, n: int) -> int:
        """The largest batch of a cluster of n samples."""
        return min(self.batch_size, max(4, math.ceil(checks.whole("n", n, 0) / self.min_batches)))

    @property
    def slice_epochs(self) -> int:
        """Passes over the slices so far, after each slice."""
        return max(1, round(2 * self.epochs / (self.slices + 1)))

    def slices_of(self, keys: np.ndarray, seed: int) -> np.ndarray:
        """The slice of each sample, from 0, (N,) int: a hash of its uid."""
        return (keyed_uniform("slice", seed, keys)[:, 0] * self.slices).astype(int)

    def mask(self, size: int, seed: int) -> np.ndarray:
        """The pixels that the prompt covers, bool (size, size)."""
        return prompt_mask(self.prompt, self.prompt_size, size, seed)


RECIPES: dict[str, Callable[..., Recipe]] = {"default": Recipe, "published": Recipe.published}


def named_recipe(name: str, **changes: Any) -> Recipe:
    """One of RECIPES, with changes. Raises ValueError for an unknown name, or a change that makes no sense."""
    checks.choice("name", name, RECIPES)
    for change in changes:
        checks.choice("an argument of Recipe", change, Recipe.__dataclass_fields__)
    return RECIPES[name](**changes)


def optimiser_for(recipe: Recipe, parameters: dict[str, torch.Tensor], share: float = 1.0) -> torch.optim.Optimizer:
    """The recipe's optimiser, at a share of its rates, over weight, bias, and prompt if there is one."""
    checks.instance("recipe", recipe, Recipe)
    checks.number("share", share)
    if not {"weight", "bias"} <= set(checks.instance("parameters", parameters, dict)):
        raise ValueError(f"parameters are {', '.join(parameters) or 'none'}, expected weight, bias, and maybe prompt")
    adam = recipe.optimiser == "adamw"
    head_lr = recipe.head_lr / (parameters["weight"].shape[1] if adam else 1)
    head = [parameters["weight"], parameters["bias"]]
    groups = [{"params": head, "lr": share * head_lr, "weight_decay": recipe.weight_decay}]
    if "prompt" in parameters:
        groups.append({"params": [parameters["prompt"]], "lr": share * recipe.prompt_lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups) if adam else torch.optim.SGD(groups, momentum=recipe.momentum)
