"""The frozen backbone: a timm model with its own preprocessing, trained on public samples or taken from timm.

LMEraser (arXiv 2404.11056) trains the backbone on public data, freezes it, and uses it twice: its features decide which
cluster a private sample belongs to, and prompts are tuned through it. Nothing private ever changes it.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as transforms

from lmeraser_kit import training
from lmeraser_kit.arithmetic import environment, exact_arithmetic, pick_device, progress
from lmeraser_kit.datasets import DATA
from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.weights import read_weights, write_weights

# The embedded default: timm's ViT, small enough to be trained on a laptop's CPU in a minute.
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}
FEATURE_BATCH = 64  # kernels may round differently for different batch shapes: features always come in this one


class Backbone:
    """A frozen feature extractor. Build one with `train`, `load` or `from_timm`.

    Args:
        architecture: A timm model name.
        arguments: Further arguments of `timm.create_model` (img_size, depth, ...).
        state: The weights, timm's names.
        data_config: timm's data config: input_size, interpolation, mean, std, crop_pct.
        device: `auto`, or a torch device.
    """

    def __init__(self, architecture: str, arguments: dict, state: dict, data_config: dict, device: str = "auto"):
        self.architecture, self.arguments = architecture, dict(arguments)
        self.data_config = {k: tuple(v) if isinstance(v, list) else v for k, v in data_config.items()}
        with torch.random.fork_rng():  # the weights that creation draws are replaced at once
            self.model = create_model(architecture, **arguments)
        self.model.load_state_dict(state)
        self.model.requires_grad_(False).eval()
        self.to(device)

    def __repr__(self) -> str:
        return f"Backbone({self.architecture}, {self.size} px, {self.n_features} features, {self.fingerprint[:12]})"

    def __sklearn_clone__(self) -> Backbone:
        return self  # frozen: a clone of an estimator may share it

    def __getstate__(self) -> dict:
        state = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        return {"args": (self.architecture, self.arguments, state, self.data_config, str(self.device))}

    def __setstate__(self, pickled: dict) -> None:
        self.__init__(*pickled["args"])

    def to(self, device: str) -> Backbone:
        """Move the model, in place."""
        self.device = pick_device(device)
        self.model.to(self.device)
        return self

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.data_config["input_size"][-1]

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return self.model.num_features

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture, the preprocessing and every weight, in hex."""
        weights = sorted(self.model.state_dict().items())
        return digest(
            "backbone",
            self._description(),
            *(part for name, w in weights for part in (name, w.dtype, tuple(w.shape), w.cpu().numpy().tobytes())),
        )

    def _description(self) -> str:
        keep = ("input_size", "interpolation", "mean", "std", "crop_pct")
        config = {key: self.data_config[key] for key in keep}
        return json.dumps([self.architecture, self.arguments, config], sort_keys=True)

    def views(self, images: np.ndarray) -> torch.Tensor:
        """The clean view of a batch: resized, centre-cropped and normalised on the device, as timm's config says.

        Args:
            images: Pixels, uint8 (B, C, H, W), C = 1 or 3.

        Returns:
            Normalised pixels, (B, 3, S, S).
        """
        config = self.data_config
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).float().div_(255)
        pixels = pixels.expand(-1, 3, -1, -1)
        scaled = math.floor(self.size / config["crop_pct"])
        mode = transforms.InterpolationMode(config["interpolation"])
        pixels = transforms.resize(pixels, [scaled], interpolation=mode, antialias=True)
        pixels = transforms.center_crop(pixels, [self.size, self.size])
        return transforms.normalize(pixels, list(config["mean"]), list(config["std"]))

    def __call__(self, views: torch.Tensor) -> torch.Tensor:
        """Features of views, (B, 3, S, S) -> (B, D); gradients flow to the views."""
        return self.model(views)

    def features(self, images: np.ndarray, threads: int = 1, show_progress: bool = False) -> np.ndarray:
        """Features of clean images, always computed in batches of one fixed shape (the last one is padded).

        A sample's features must not depend on which other samples are there, bit for bit.

        Args:
            images: Pixels, uint8 (N, C, H, W).
            threads: Intra-op threads.
            show_progress: Show a bar.

        Returns:
            Features, float32 (N, D).
        """
        batch = np.zeros((FEATURE_BATCH, *images.shape[1:]), dtype=np.uint8)
        features = np.empty((len(images), self.n_features), dtype=np.float32)
        starts = range(0, len(images), FEATURE_BATCH)
        with exact_arithmetic(threads), torch.inference_mode():
            for start in progress(starts, desc="features", unit="batch", disable=not show_progress):
                part = images[start : start + FEATURE_BATCH]
                batch[: len(part)] = part
                features[start : start + len(part)] = self(self.views(batch))[: len(part)].cpu().numpy()
        return features

    def save(self, path: Path | str) -> Path:
        """Write weights and configuration to one safetensors file, whole or not at all."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        return write_weights(path, state, {"lmeraser_kit.backbone": self._description()})

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Backbone:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is truncated, damaged, or no backbone of this kit.
        """
        state, metadata = read_weights(path)
        if "lmeraser_kit.backbone" not in metadata:
            raise ValueError(
                f"{path} holds weights but no backbone of this kit; use Backbone.from_timm(name, weights=...)"
            )
        architecture, arguments, config = json.loads(metadata["lmeraser_kit.backbone"])
        return cls(architecture, arguments, state, config, device)

    @classmethod
    def from_timm(
        cls, name: str, pretrained: bool = True, weights: Path | str | None = None, device: str = "auto", **arguments
    ) -> Backbone:
        """Any timm model, with timm's own preprocessing.

        Args:
            name: A timm model name.
            pretrained: Download its weights (timm keeps them).
            weights: A safetensors file with timm's key names, instead of a download.
            device: `auto`, or a torch device.
            **arguments: Further arguments of `timm.create_model`, such as img_size.

        Raises:
            ValueError: If the name is unknown, or the file's weights do not fit the model.
            RuntimeError: If the download fails.
        """
        download = pretrained and weights is None
        try:
            model = create_model(name, pretrained=download, **arguments)
        except ValueError:
            raise
        except Exception as error:
            if not download:
                raise
            raise RuntimeError(
                f"could not get pretrained weights of {name!r} ({type(error).__name__}); connect to a network, or pass "
                "weights='file.safetensors', or pretrained=False for an untrained model"
            ) from error
        state = model.state_dict()
        if weights is not None:
            read, _ = read_weights(weights)
            wrong = [k for k in state if k not in read or read[k].shape != state[k].shape]
            if wrong:
                raise ValueError(f"{weights} does not fit {name!r}: {wrong[0]!r} is missing or has another shape")
            state = {key: read[key] for key in state}
        config = timm.data.resolve_model_data_config(model)
        if "img_size" in arguments:
            config = {**config, "input_size": (3, arguments["img_size"], arguments["img_size"])}
        return cls(name, arguments, state, config, device)

    @classmethod
    def train(
        cls, public: Samples, epochs: int = 70, seed: int = 0, device: str = "auto", threads: int = 1, **arguments
    ) -> Backbone:
        """Pre-train a small ViT (timm's class) on public samples, supervised, with augmentation.

        Args:
            public: Public samples; nothing private may be among them.
            epochs: Passes over the public samples.
            seed: Keys the initial weights, the order and the augmentation.
            device: `auto`, or a torch device.
            threads: Intra-op threads; bits may depend on it.
            **arguments: Replace entries of SMALL_VIT (img_size, patch_size, embed_dim, depth, num_heads).

        Returns:
            The backbone, frozen, without its classifier.
        """
        arguments = {**SMALL_VIT, **arguments}
        side = arguments["img_size"]
        config = {
            "input_size": (3, side, side),
            "interpolation": "bicubic",
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "crop_pct": 1.0,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            start = create_model("vit_tiny_patch16_224", **arguments)
            head = torch.nn.Linear(start.num_features, public.n_classes)
        backbone = cls("vit_tiny_patch16_224", arguments, start.state_dict(), config, device)
        model, head = backbone.model.requires_grad_(True).train(), head.to(backbone.device)
        optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.05)
        labels = torch.from_numpy(public.labels).to(backbone.device)

        def loss_of(rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
            views = training.augment(backbone.views(public.images[rows]), draws, shift=0.12, rotate=15, zoom=0.15)
            return F.cross_entropy(head(model(views)), labels[rows], label_smoothing=0.1)

        bar = progress(range(epochs), desc="pre-training on public samples", unit="epoch")
        with exact_arithmetic(threads):
            training.train(loss_of, optimiser, public.keys, bar, batch_size=64, seed=seed, warmup=0.1)
        model.zero_grad()
        model.requires_grad_(False).eval()
        return backbone


def create_model(name: str, pretrained: bool = False, **arguments) -> torch.nn.Module:
    """A timm model without its classifier. Raises ValueError, naming the nearest one, for an unknown name."""
    known = timm.list_models() if "." not in name else timm.list_models(pretrained=True)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() lists them"
        raise ValueError(f"unknown timm model {name!r}: {hint}")
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)


def backbone_for(name: str, public: Samples, epochs: int = 70, seed: int = 0, device: str = "auto") -> Backbone:
    """The backbone that a name stands for, as the notebooks' parameter `backbone` has it.

    Args:
        name: `small-vit` (trained on `public`, and kept under data/backbones for the next run), the path of a
            safetensors file that `Backbone.save` wrote, or a timm name (pretrained).
        public: Public samples to train on.
        epochs: Passes over them.
        seed: Seed of the training.
        device: `auto`, or a torch device.
    """
    if Path(name).suffix == ".safetensors":
        return Backbone.load(name, device)
    if name != "small-vit":
        return Backbone.from_timm(name, device=device)
    made_from = (
        public.sorted().digests.tobytes(),
        public.n_classes,
        epochs,
        seed,
        json.dumps(environment(pick_device(device), 1)),
    )
    path = DATA / "backbones" / f"{digest(*made_from)[:24]}.safetensors"
    if not path.is_file():
        Backbone.train(public, epochs, seed, device).save(path)
    return Backbone.load(path, device)
