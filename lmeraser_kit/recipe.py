"""How a cluster is tuned: every number that tuning depends on, besides the samples, the seed and the backbone.

The default rates were chosen on CIFAR-10 and digits, on private samples of seeds that no table uses.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from lmeraser_kit.prompts import PROMPTS, prompt_mask
from lmeraser_kit.samples import keyed_uniform

OPTIMISERS = ("adamw", "sgd")
HEAD_STARTS = ("zero", "ridge")


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
            forward pass each), or `zero`, as published.
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
        if self.prompt not in PROMPTS:
            raise ValueError(f"unknown prompt {self.prompt!r}; one of: {', '.join(PROMPTS)}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; one of: {', '.join(OPTIMISERS)}")
        if self.head_start not in HEAD_STARTS:
            raise ValueError(f"unknown head_start {self.head_start!r}; one of: {', '.join(HEAD_STARTS)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "float") and not isinstance(value, (int, float, np.number)):
                raise ValueError(f"Recipe.{field.name} is {value!r}, expected a number")
            if field.type == "bool" and not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"Recipe.{field.name} is {value!r}, expected True or False")
        ranges = {
            "prompt_size": (self.prompt_size, 0 < self.prompt_size <= 1, "in (0, 1]"),
            "epochs": (self.epochs, self.epochs >= 1 and self.epochs == int(self.epochs), "a whole number from 1"),
            "slices": (self.slices, self.slices >= 1 and self.slices == int(self.slices), "a whole number from 1"),
            "batch_size": (self.batch_size, self.batch_size >= 1, "at least 1"),
            "min_batches": (self.min_batches, self.min_batches >= 1, "at least 1"),
            "momentum": (self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            "warmup": (self.warmup, 0 <= self.warmup < 1, "in [0, 1)"),
        }
        for name in ("prompt_lr", "head_lr", "prompt_std", "weight_decay", "shift", "rotate", "zoom"):
            ranges[name] = (getattr(self, name), 0 <= getattr(self, name) < float("inf"), "a finite number, at least 0")
        for name, (value, fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"Recipe.{name} is {value!r}, expected {expected}")
        plain = {"int": int, "float": float, "bool": bool}
        for field in dataclasses.fields(self):  # 3, 3.0 and NumPy's 3 are one recipe, with one address
            object.__setattr__(self, field.name, plain.get(field.type, str)(getattr(self, field.name)))

    @classmethod
    def published(cls, **changes) -> Recipe:
        """The recipe of the published code: SGD at 1e4 for prompt and head, 50 epochs, a prompt from N(0, 1)."""
        return cls(**{"optimiser": "sgd", "prompt_lr": 1e4, "head_lr": 1e4, "epochs": 50, "batch_size": 128,
                      "min_batches": 1, "prompt_std": 1.0, "head_start": "zero", "flip": True} | changes)  # fmt: skip

    def batch_of(self, n: int) -> int:
        """The largest batch of a cluster of n samples."""
        return min(self.batch_size, max(4, math.ceil(n / self.min_batches)))

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


RECIPES = {"default": Recipe, "published": Recipe.published}


def named_recipe(name: str, **changes) -> Recipe:
    """One of RECIPES, with changes. Raises ValueError for an unknown name."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; one of: {', '.join(RECIPES)}")
    return RECIPES[name](**changes)


def optimiser_for(recipe: Recipe, parameters: dict[str, torch.Tensor], share: float = 1.0) -> torch.optim.Optimizer:
    """The recipe's optimiser, at a share of its rates, over weight, bias, and prompt if there is one."""
    adam = recipe.optimiser == "adamw"
    head_lr = recipe.head_lr / (parameters["weight"].shape[1] if adam else 1)
    head = [parameters["weight"], parameters["bias"]]
    groups = [{"params": head, "lr": share * head_lr, "weight_decay": recipe.weight_decay}]
    if "prompt" in parameters:
        groups.append({"params": [parameters["prompt"]], "lr": share * recipe.prompt_lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups) if adam else torch.optim.SGD(groups, momentum=recipe.momentum)
