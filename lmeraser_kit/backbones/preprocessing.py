"""Before and after the network: the clean view of an image, as timm's data config says, and standardised features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from lmeraser_kit import checks

STANDARD = ("lmeraser_kit.mean", "lmeraser_kit.scale")  # names of a standardisation among a backbone's weights
ROUNDING = ("lmeraser_kit.step", "lmeraser_kit.mean_square")  # and of a rounding
CONFIG = ("input_size", "interpolation", "mean", "std", "crop_pct", "beside")  # the last is the kit's own
START = {
    "prompt": "lmeraser_kit.start.prompt",
    "weight": "lmeraser_kit.start.weight",
    "bias": "lmeraser_kit.start.bias",
}
NOTED = "lmeraser_kit."  # what the names of all of these begin with
MOST_SIDE = 4096  # pixels; timm's largest are of 1,024
MOST = 2**15 - 1  # the largest whole number that a rounded feature can be: 16 bits, without the most negative one


def check_config(config: dict) -> None:
    """Refuse a data config that is none, or asks for views that take more memory than any network has use for.

    Raises:
        ValueError: If it is.
    """
    try:
        sides = [*config["input_size"][1:], *(config.get("beside") or ())]
        moments = [*config["mean"], *config["std"], config["crop_pct"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the data config {config!r:.200} lacks {error}, expected what timm calls one") from error
    for side in sides:
        checks.whole("a side of the input in pixels", side, 1, MOST_SIDE)
    for value in moments:
        checks.number("mean, std and crop_pct", value, -math.inf)


def data_config(
    size: int,
    mean: tuple[float, float, float] = (0.5,) * 3,
    std: tuple[float, float, float] = (0.5,) * 3,
    interpolation: str = "bicubic",
) -> dict:
    """What timm calls a data config: views of `size` pixels a side, of the whole image."""
    return {
        "input_size": (3, size, size),
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
        "crop_pct": 1.0,
    }


def clean_views(images: np.ndarray | torch.Tensor, config: Mapping, device: torch.device) -> torch.Tensor:
    """The clean views of a batch of images, computed on the device.

    Args:
        images: Pixels, uint8 (B, C, H, W), C = 1 or 3; here or on the device already.
        config: timm's data config: input_size, interpolation, mean, std, crop_pct.
        device: Where views are wanted.

    Returns:
        Normalised pixels, float32 (B, 3, S, S).
    """
    if not isinstance(images, torch.Tensor):
        images = torch.from_numpy(np.ascontiguousarray(images))
    size = config["input_size"][-1]
    pixels = images.to(device).float().div_(255).expand(-1, 3, -1, -1)
    scaled, mode = math.floor(size / config["crop_pct"]), transforms.InterpolationMode(config["interpolation"])
    pixels = transforms.resize(pixels, [scaled], interpolation=mode, antialias=True)
    pixels = transforms.center_crop(pixels, [size, size])
    return transforms.normalize(pixels, list(config["mean"]), list(config["std"]))


def beside(views: torch.Tensor, config: Mapping) -> list[torch.Tensor]:
    """Views, (B, 3, S, S), at each of the sides that `config` has beside S, in their own precision."""
    mode, sides = transforms.InterpolationMode(config["interpolation"]), config.get("beside", ())
    resized = [transforms.resize(views.float(), [side], interpolation=mode, antialias=True) for side in sides]
    return [view.to(views.dtype) for view in resized]


def standardisation(features: np.ndarray, widths: Sequence[int]) -> list[torch.Tensor]:
    """What brings features to mean 0 and deviation 1: mean and scale, float32 (D,) each.

    A column that hardly varies is scaled by a thousandth of the mean deviation at least. Stages are scaled so that each
    weighs as much as the feature, however wide it is.

    Args:
        features: Of public samples, (N, D): the stages' outputs, and the feature, the last.
        widths: How many columns each of these has.
    """
    features, scales = features.astype(np.float64), []
    for part in np.split(features, np.cumsum(widths)[:-1], axis=1):
        deviation = part.std(axis=0)
        floored = np.maximum(deviation, 1e-3 * deviation.mean() + 1e-12)
        scales.append(floored * math.sqrt(part.shape[1] / widths[-1]))
    return [torch.from_numpy(x.astype(np.float32)) for x in (features.mean(axis=0), np.concatenate(scales))]


def rounding(features: np.ndarray) -> list[torch.Tensor]:
    """How features become whole numbers that add up exactly, in any order (`learners.exact_sums`).

    A step is a power of two, so that it divides and multiplies exactly, and at least a 2^14th of the largest public
    value of its column: twice that value still fits into 16 bits.

    Args:
        features: Of public samples, (N, D), N from 1.

    Returns:
        The step and the mean square of each column, float64 (D,) each.
    """
    features = features.astype(np.float64)
    largest = np.abs(features).max(axis=0)
    largest = np.maximum(largest, 1e-3 * largest.mean() + 1e-12)  # a column may be 0 on all public samples
    steps = np.exp2(np.ceil(np.log2(2 * largest / MOST)))
    return [torch.from_numpy(steps), torch.from_numpy(np.square(features).mean(axis=0))]


def measured(features: np.ndarray, widths: Sequence[int], standardise: bool) -> dict[str, torch.Tensor]:
    """What a backbone notes of public features: a `rounding`, and a `standardisation` if there should be one.

    Standardised features let one head rate serve all backbones; rounded ones add up exactly.

    Args:
        features: Of public samples, as the network makes them, (N, D).
        widths: How many columns each stage has, and the feature, the last.
        standardise: Whether to standardise.
    """
    noted = {}
    if standardise:
        mean, scale = standardisation(features, widths)
        noted |= dict(zip(STANDARD, (mean, scale), strict=True))
        features = (features - mean.numpy()) / scale.numpy()
    return noted | dict(zip(ROUNDING, rounding(features), strict=True))
