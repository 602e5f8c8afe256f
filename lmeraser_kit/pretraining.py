"""Backbones by name: the paper's, any other of timm's, or a small ViT that is trained here on public samples."""

from __future__ import annotations

import contextlib
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

from lmeraser_kit import checks, training
from lmeraser_kit.arithmetic import environment, exact_arithmetic, pick_device, progress
from lmeraser_kit.backbone import PRECISIONS, Backbone
from lmeraser_kit.inputs import DATA, PAPER
from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.timm_models import create_model
from lmeraser_kit.weights import read_weights

# ViTs that are trained here. The first takes a CPU a minute on digits; the second is made for CIFAR-10 on a GPU.
VITS = {
    "small-vit": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4},
    "cifar-vit": {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 8, "num_heads": 3},
}
LEAST_SIDE = 8  # pixels


def backbone_for(
    name: str,
    public: Samples,
    epochs: int = 70,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    root: Path | str = DATA,
) -> Backbone:
    """The backbone that a name stands for, as the notebooks' parameter `backbone` has it.

    Args:
        name: One of VITS (trained on `public`, and kept under data/backbones for the next run); one of PAPER; a path of
            a safetensors file that `Backbone.save` wrote; or a timm name, whose weights are read from
            data/weights/NAME.safetensors if they are there, and downloaded otherwise. `NAME@96` sets the side of the
            input of the last kind, in pixels.
        public: Public samples: what ViTs are trained on, and what the features of timm's models are standardised by.
        epochs: Passes over them, for VITS.
        seed: Seed of the training.
        device: `auto`, or a torch device.
        precision: One of `backbone.PRECISIONS`.
        root: Where data lie.

    Raises:
        ValueError: If an argument is none of these; nothing has been trained or downloaded then.
    """
    _check(name=name, epochs=epochs, seed=seed, device=device, precision=precision, root=root)
    if Path(name).suffix == ".safetensors":
        return Backbone.load(name, device).at(precision)
    _check(public=public)
    if name in VITS:
        made_from = (name, public.sorted().digests.tobytes(), public.n_classes, epochs, seed)
        here = json.dumps(environment(pick_device(device), 1))
        path = Path(root) / "backbones" / f"{digest(*made_from, here)[:24]}.safetensors"
        if not path.is_file():
            train_vit(public, epochs, seed, device, **VITS[name]).save(path)
        return Backbone.load(path, device).at(precision)
    name, size = timm_name(name)
    weights = Path(root) / "weights" / f"{name}.safetensors"
    try:
        backbone = from_timm(name, weights=weights if weights.is_file() else None, device=device, size=size)
    except ConnectionError as error:
        raise ConnectionError(f"{error}; or put them into {weights}") from error
    return backbone.at(precision).standardised(public)


def timm_name(name: str) -> tuple[str, int | None]:
    """Timm's name of one of PAPER, or of any other model, and the side of the input that `@96` after it asks for.

    Raises:
        ValueError: If what comes after the @ is no number of pixels.
    """
    name, at, side = checks.text("name", name).partition("@")
    if at and not (side.isascii() and side.isdigit() and int(side) >= LEAST_SIDE):
        raise ValueError(
            f"backbone {name}@{side}: after the @ goes the side of the input in pixels, at least {LEAST_SIDE}"
        )
    return PAPER.get(name, name), int(side) if at else None


def untrained(name: str, seed: int = 0, device: str = "auto", precision: str = "float32") -> Backbone:
    """The backbone of a name (one of VITS or PAPER, or timm's) with random weights: as fast, and it knows nothing."""
    _check(name=name, seed=seed, device=device, precision=precision)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in VITS:
            return _new_vit(VITS[name], device).at(precision)
        name, size = timm_name(name)
        return from_timm(name, pretrained=False, device=device, size=size).at(precision)


def from_timm(
    name: str,
    pretrained: bool = True,
    weights: Path | str | None = None,
    device: str = "auto",
    size: int | None = None,
    **arguments,
) -> Backbone:
    """Any timm model, with timm's own preprocessing.

    Args:
        name: A timm model name, maybe with the side of its input (`NAME@96`), or one of PAPER.
        pretrained: Download its weights (timm keeps them).
        weights: A safetensors file with timm's key names, instead of a download.
        device: `auto`, or a torch device.
        size: Side of the square input in pixels, instead of the model's own.
        **arguments: Further arguments of `timm.create_model`.

    Raises:
        ValueError: If the name is unknown, or the file's weights do not fit the model.
        ConnectionError: If the download fails.
    """
    optional = {"weights": weights, "size": size}
    _check(pretrained=pretrained, device=device, **{k: v for k, v in optional.items() if v is not None})
    name, asked = timm_name(name)
    size, download, file = size or asked, pretrained and weights is None, {}
    if weights is not None:
        read, _ = read_weights(weights)
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
            "weights='file.safetensors', or pretrained=False for an untrained model"
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
    return Backbone(name, arguments, model.state_dict(), config, device)


def _check(**arguments) -> None:
    """Refuse wrong values of the arguments that the functions here share. Raises ValueError."""
    for name, value in arguments.items():
        CHECKS[name](name, value)


def _check_public(name: str, public: Samples) -> None:
    if not len(checks.instance(name, public, Samples, "(images, labels, uids)")):
        raise ValueError(f"{name} has no samples, expected one at least")


CHECKS = {
    "name": checks.text,
    "public": _check_public,
    "epochs": partial(checks.whole, least=0),
    "seed": lambda name, value: checks.seed(value),
    "device": lambda name, value: pick_device(value),
    "precision": partial(checks.choice, known=PRECISIONS),
    "root": checks.path,
    "threads": checks.whole,
    "batch_size": checks.whole,
    "pretrained": checks.flag,
    "weights": checks.path,
    "size": partial(checks.whole, least=LEAST_SIDE),
}


def _new_vit(arguments: dict, device: str) -> Backbone:
    side = arguments["img_size"]
    config = {
        "input_size": (3, side, side),
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "crop_pct": 1.0,
    }
    start = create_model("vit_tiny_patch16_224", **arguments)
    return Backbone("vit_tiny_patch16_224", arguments, start.state_dict(), config, device)


def train_vit(
    public: Samples,
    epochs: int = 70,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
    batch_size: int = 64,
    **arguments,
) -> Backbone:
    """Pre-train a small ViT (timm's class) on public samples, supervised, with augmentation.

    Args:
        public: Public samples; nothing private may be among them.
        epochs: Passes over the public samples.
        seed: Keys the initial weights, the order and the augmentation.
        device: `auto`, or a torch device.
        threads: Intra-op threads; bits may depend on it.
        batch_size: Largest batch.
        **arguments: Replace entries of `VITS["small-vit"]` (img_size, patch_size, embed_dim, depth, num_heads).

    Returns:
        The backbone, frozen, without its classifier.

    Raises:
        ValueError: If an argument is none of these.
    """
    _check(public=public, epochs=epochs, seed=seed, device=device, threads=threads, batch_size=batch_size)
    for name, value in arguments.items():
        checks.whole(checks.choice("an argument of a small ViT", name, VITS["small-vit"]), value)
    arguments = {**VITS["small-vit"], **arguments}
    if arguments["embed_dim"] % arguments["num_heads"] or arguments["img_size"] < arguments["patch_size"]:
        expected = "embed_dim a multiple of num_heads, and patch_size at most img_size"
        raise ValueError(f"the small ViT's arguments are {arguments}, expected {expected}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = _new_vit(arguments, device)
        head = torch.nn.Linear(backbone.n_features, public.n_classes)
    model, head = backbone.model.requires_grad_(True).train(), head.to(backbone.device)
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.05)
    labels = torch.from_numpy(public.labels).to(backbone.device)

    def loss_of(rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        views = training.augment(backbone.views(public.images[rows]), draws, shift=0.12, rotate=15, zoom=0.15)
        return F.cross_entropy(head(model(views)), labels[rows], label_smoothing=0.1)

    bar = progress(range(epochs), desc="pre-training on public samples", unit="epoch")
    with exact_arithmetic(threads):
        training.train(loss_of, optimiser, public.keys, bar, batch_size=batch_size, seed=seed, warmup=0.1)
    return Backbone(*backbone._made_of(), str(backbone.device))  # frozen
