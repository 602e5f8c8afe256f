"""Backbones by name (the notebooks' parameter `backbone`): the paper's, any other of timm's, or a small ViT."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from filelock import SoftFileLease

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import PRECISIONS, Backbone
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.backbones.pretraining import VITS, new_vit
from lmeraser_kit.backbones.timm_models import check_model, timm_name
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.ground.determinism import environment, pick_device
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.plugins import installed
from lmeraser_kit.ground.samples import Samples, not_empty


def backbone_for(
    name: str,
    public: Samples,
    epochs: int = 70,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    root: Path | str = DATA,
    cached: bool = False,
) -> Backbone:
    """The backbone that a name stands for.

    Args:
        name: One of VITS (trained on `public`, once, and kept under data/backbones); one of PAPER; a path of
            a safetensors file that `Backbone.save` wrote; or a timm name, whose weights are read from
            data/weights/NAME.safetensors if they are there, and downloaded otherwise. `NAME@96` sets the side of the
            input of the last kind, in pixels; with `NAME@96+224` heads see both (`timm_models.read_timm`). Or a name
            that an installed package offers (see `ground.plugins`).
        public: Public samples: what ViTs are trained on, and what the features of timm's models are standardised by.
        epochs: Passes over them, for VITS.
        seed: Seed of the training.
        device: `auto`, or a torch device.
        precision: One of `backbone.PRECISIONS`.
        root: Where data lie.
        cached: Whether features are computed once, and kept under data/features: see `cached.CachedFeatures`.

    Raises:
        ValueError: If an argument is none of these; nothing has been trained or downloaded then.
    """
    _check(name, seed, device, precision)
    epochs, root = checks.whole("epochs", epochs, 0), checks.path("root", root)
    checks.flag("cached", cached)

    def kept(backbone: Backbone) -> Backbone:
        return CachedFeatures(backbone, root / "features") if cached else backbone

    if Path(name).suffix == ".safetensors":
        return kept(Backbone.load(name, device).at(precision))
    not_empty("public", public)
    if name in VITS:
        made_from = (name, public.sorted().digests.tobytes(), public.n_classes, epochs, seed)
        here = json.dumps(environment(pick_device(device), 1))
        path = root / "backbones" / f"{digest(*made_from, here)[:24]}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with SoftFileLease(path.with_suffix(".lock"), lease_duration=60):  # on a shared disk, too: others wait
                if not path.is_file():
                    Backbone.train(public, epochs, seed, device, **VITS[name]).save(path)
        return kept(Backbone.load(path, device).at(precision))
    if name in (others := installed("backbones")):
        return kept(others[name].load()(device).at(precision)).standardised(public)
    weights = root / "weights" / f"{timm_name(name)[0]}.safetensors"
    try:
        backbone = Backbone.from_timm(name, weights=weights if weights.is_file() else None, device=device)
    except ConnectionError as error:
        raise ConnectionError(f"{error}; or put them into {weights}") from error
    return kept(backbone.at(precision)).standardised(public)


def untrained(name: str, seed: int = 0, device: str = "auto", precision: str = "float32") -> Backbone:
    """The backbone of a name (one of VITS or PAPER, or timm's) with random weights: as fast, and it knows nothing.

    Raises:
        ValueError: If an argument is none of these.
    """
    _check(name, seed, device, precision)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in VITS:
            return Backbone(*new_vit(VITS[name]), device).at(precision)
        return Backbone.from_timm(name, pretrained=False, device=device).at(precision)


def check_backbone(name: str) -> None:
    """Refuse a name that `backbone_for` does not know, before anything is read.

    Raises:
        ValueError: If it is none of VITS, of PAPER, of timm's, of an installed package's, and no file.
    """
    checks.text("name", name)
    if Path(name).suffix == ".safetensors":
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}: expected one that Backbone.save wrote")
    elif name not in VITS and name not in installed("backbones"):
        check_model(timm_name(name)[0])


def _check(name: str, seed: int, device: str, precision: str) -> None:
    checks.text("name", name), checks.seed(seed), pick_device(device)
    checks.choice("precision", precision, PRECISIONS)
