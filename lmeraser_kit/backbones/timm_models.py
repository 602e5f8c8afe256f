"""timm's models by name, without their classifiers: made, or read from a file of weights."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import timm
import torch

from lmeraser_kit import checks
from lmeraser_kit.backbones.weights import read_weights
from lmeraser_kit.data.inputs import PAPER

LEAST_SIDE = 8  # pixels


def create_model(name: str, pretrained: bool = False, **arguments) -> torch.nn.Module:
    """A timm model without its classifier. Raises ValueError, naming the nearest one, for an unknown name."""
    check_model(name)
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)


def check_model(name: str) -> None:
    """Refuse a name that timm does not know. Raises ValueError, naming the nearest one."""
    known = timm.list_models() if "." not in name else timm.list_models(pretrained=True)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() lists them"
        raise ValueError(f"unknown timm model {name!r}: {hint}")


def timm_name(name: str) -> tuple[str, list[int]]:
    """Timm's name of one of PAPER, or of any other model, and the sides of the input that `@96` after it asks for.

    Raises:
        ValueError: If what comes after the @ is no number of pixels, nor several with + between them.
    """
    name, at, asked = checks.text("name", name).partition("@")
    sides = asked.split("+") if at else []
    if any(not (side.isascii() and side.isdigit() and int(side) >= LEAST_SIDE) for side in sides):
        what = f"the side of the input in pixels, at least {LEAST_SIDE}, or several, as in @96+224"
        raise ValueError(f"backbone {name}@{asked}: after the @ goes {what}")
    return PAPER.get(name, name), [int(side) for side in sides]


def read_timm(
    name: str,
    pretrained: bool = True,
    weights: Path | str | None = None,
    size: int | None = None,
    beside: Sequence[int] = (),
    **arguments,
) -> tuple[str, dict, dict[str, torch.Tensor], dict]:
    """A timm model with its weights and its own preprocessing.

    Args:
        name: A timm model name, maybe with the side of its input (`NAME@96`), or one of PAPER.
        pretrained: Download its weights (timm keeps them).
        weights: A safetensors file with timm's key names, instead of a download.
        size: Side of the square input in pixels, instead of the model's own.
        beside: Other sides at which all stages look at an image too, for networks that take any: their outputs come
            before those of `size` (`layers=True`); what a prompt or a single feature sees is `size`.
        **arguments: Further arguments of `timm.create_model`.

    Returns:
        The architecture's name, the arguments of `timm.create_model`, the weights, and timm's data config.

    Raises:
        ValueError: If the name is unknown, or the file's weights do not fit the model.
        ConnectionError: If the download fails.
    """
    checks.flag("pretrained", pretrained)
    if size is not None:
        checks.whole("size", size, LEAST_SIDE)
    name, asked = timm_name(name)
    size, download, file = size or (asked[-1] if asked else None), pretrained and weights is None, {}
    beside = tuple(checks.whole("beside", side, LEAST_SIDE) for side in checks.instance("beside", beside, Sequence))
    beside = beside or tuple(asked[:-1])
    if weights is not None:
        read, _ = read_weights(checks.path("weights", weights))
        file = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights)}}
    try:
        if size is not None:  # ViTs and Swins have to be told; others take any size
            with contextlib.suppress(TypeError):
                create_model(name, img_size=size, **arguments)
                arguments["img_size"] = size
        model = create_model(name, pretrained=download, **arguments)
    except ValueError:
        raise
    except (TypeError, AssertionError) as error:
        raise ValueError(f"timm makes no {name!r} with the arguments {arguments}: {error}") from error
    except Exception as error:
        if not download:
            raise
        raise ConnectionError(
            f"could not get pretrained weights of {name!r} ({type(error).__name__}); connect to a network, or pass "
            f"weights='FILE', the model.safetensors of {timm.models.get_pretrained_cfg(name).hf_hub_id!r} "
            "(backbones.backbone_for finds it as data/weights/NAME.safetensors), "
            "or pretrained=False for an untrained model"
        ) from error
    if weights is not None:
        wrong = [k for k, tensor in model.state_dict().items() if k not in read or read[k].dim() != tensor.dim()]
        try:
            if not wrong:
                model = create_model(name, **file, **arguments)  # fits position embeddings to the size
        except RuntimeError as error:
            wrong = re.findall("size mismatch for ([^:]+)", str(error)) or [str(error)]
        if wrong:
            raise ValueError(f"{weights} does not fit {name!r}: {wrong[0]!r} is missing or has another shape")
    config = timm.data.resolve_model_data_config(model)
    if size := size or arguments.get("img_size"):
        config = {**config, "input_size": (3, size, size)}
    if beside:
        if "img_size" in arguments or getattr(getattr(model, "patch_embed", None), "img_size", None) is not None:
            raise ValueError(f"{name} takes images of one size alone, and not of {beside} px beside it")
        config = {**config, "beside": beside}
    return name, arguments, model.state_dict(), config
