"""timm's models by name, without their classifiers."""

from __future__ import annotations

import difflib

import timm
import torch


def create_model(name: str, pretrained: bool = False, **arguments) -> torch.nn.Module:
    """A timm model without its classifier. Raises ValueError, naming the nearest one, for an unknown name."""
    known = timm.list_models() if "." not in name else timm.list_models(pretrained=True)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() lists them"
        raise ValueError(f"unknown timm model {name!r}: {hint}")
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
