"""A frozen network stays what its fingerprint says: training mode, changed weights and broken numbers are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from lmeraser_kit.ground.hashing import digest


def fingerprint(description: str, state: dict[str, torch.Tensor]) -> str:
    """A hash of a description and of every weight on the CPU, in hex."""
    named = sorted(state.items())
    each = [(n, w.dtype, tuple(w.shape), w.reshape(-1).view(torch.uint8).numpy().tobytes()) for n, w in named]
    return digest("backbone", description, *(part for one in each for part in one))


def check_finite_weights(name: str, state: dict[str, torch.Tensor]) -> None:
    """Refuse weights that hold NaN or infinity. Raises ValueError, naming the tensor."""
    for part, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"the weights {part!r} of {name} are not finite: the file is broken, fetch it again")


def check_images(images: np.ndarray) -> None:
    """Refuse what is no batch of images, uint8 (N, C, H, W) with C = 1 or 3. Raises ValueError."""
    if getattr(images, "ndim", 0) != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3):
        given = f"{getattr(images, 'dtype', type(images).__name__)} {getattr(images, 'shape', '')}"
        raise ValueError(f"images are {given}, expected uint8 pixels of shape (N, C, H, W) with C = 1 or 3")


def write_counts(model: torch.nn.Module, others: Iterable[torch.Tensor] = ()) -> tuple[tuple[int, int], ...]:
    """Which tensors a model has, and PyTorch's count of what was written to each: they change when it is trained."""
    tensors = (*model.parameters(), *model.buffers(), *others)
    return tuple((id(tensor), tensor._version) for tensor in tensors)  # noqa: SLF001 - PyTorch has no public name


def check_frozen(model: torch.nn.Module, then: tuple, now: tuple) -> None:
    """Refuse to compute features of which a fingerprint is no longer true.

    Args:
        model: The network.
        then: Its `write_counts` when it was frozen; None if it is just being made.
        now: Its `write_counts` now.

    Raises:
        ValueError: If a part of it is in training mode, or its weights were changed.
    """
    if any(module.training for module in model.modules()):
        raise ValueError(
            "the backbone's model is in training mode, in which features depend on the batch: a backbone is frozen; "
            "call backbone.model.eval(), or train a copy of the model"
        )
    if then not in (None, now):
        raise ValueError(
            "the backbone's weights were changed since it was made, and its fingerprint is that of the old ones: "
            "make a new Backbone of them, and fit again"
        )


def check_pure(network: Callable[..., torch.Tensor], size: int, layers: bool) -> None:
    """Refuse a network whose features are not a function of one image alone. Exact arithmetic has to be switched on.

    Args:
        network: Views, (B, 3, S, S), and whether `layers` are wanted -> features, (B, D); with its `device`.
        size: S.
        layers: Whether it has stages.

    Raises:
        ValueError: If features have another shape, are not finite, change from pass to pass, or with the other images.
    """
    views = torch.linspace(-1, 1, 4 * 3 * size * size).sin().mul(1e4).frac().view(4, 3, size, size)
    others = views.clone()
    others[1:] = views[1:].flip(0) * 0.5
    features = network(views.to(network.device), layers)
    if features.ndim != 2 or len(features) != len(views) or not features.shape[1]:
        raise ValueError(f"the module's features are {tuple(features.shape)} for 4 images, expected (4, D)")
    if not torch.isfinite(features).all():
        raise ValueError("the module's features are not finite (NaN or infinity)")
    if not torch.equal(features, network(views.to(network.device), layers)):
        raise ValueError("the module's features change from pass to pass: it draws random numbers, or keeps a state")
    if not torch.equal(features[:1], network(others.to(network.device), layers)[:1]):
        raise ValueError(
            "the module's features of an image depend on the other images of its batch: does it normalise over them?"
        )


def check_finite_features(features: np.ndarray, names: Sequence[str], widths: Sequence[int], precision: str) -> None:
    """Refuse features that hold NaN or infinity.

    Args:
        features: Features, (B, D).
        names: What the samples are called, (B,).
        widths: How many columns each stage of the backbone has, the feature last; they add up to D.
        precision: What they were computed in.

    Raises:
        ValueError: Naming the first sample and the first layer that are not finite.
    """
    if np.isfinite(features).all():
        return
    row, column = np.argwhere(~np.isfinite(features))[0]
    stage = int(np.searchsorted(np.cumsum(widths), column, side="right"))
    where = "the feature" if stage == len(widths) - 1 else f"stage {stage + 1} of {len(widths) - 1}"
    raise ValueError(
        f"{where} of {names[row]} is not finite (NaN or infinity): the backbone's weights are broken, or its precision "
        f"({precision}) overflows; nothing can be learnt from it"
    )
