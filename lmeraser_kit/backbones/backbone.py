"""The frozen backbone: a timm model with its own preprocessing, trained on public samples or taken from timm.

LMEraser (arXiv 2404.11056) trains the backbone on public data, freezes it, and uses it twice: its features decide which
cluster a private sample belongs to, and prompts are tuned through it. Nothing private ever changes it.
"""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from lmeraser_kit import checks
from lmeraser_kit.backbones import frozen, networks
from lmeraser_kit.backbones.display import DisplayedBackbone
from lmeraser_kit.backbones.fast_forward import shortened, suited
from lmeraser_kit.backbones.networks import Architecture, build, name_of, outputs, own_module, same_module
from lmeraser_kit.backbones.preprocessing import CONFIG, NOTED, ROUNDING, STANDARD, beside, clean_views, measured
from lmeraser_kit.backbones.pretraining import pretrain_vit
from lmeraser_kit.backbones.timm_models import read_timm
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground.determinism import exact_arithmetic, memory_errors, native_precisions, pick_device, progress
from lmeraser_kit.ground.held import HELD, by_name, key_of
from lmeraser_kit.ground.samples import Samples

FEATURE_BATCH = 64  # at most; kernels may round differently for other shapes, and in one of 31, say, for other places
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAST_UNPICKLED: dict[tuple[str, str], dict] = {}


class Backbone(DisplayedBackbone):
    """A frozen feature extractor: see `train`, `load`, `from_timm` and `from_module`.

    Args:
        architecture: A timm model name, or a module, which is copied.
        arguments: Further arguments of `timm.create_model` (img_size, depth, ...); for a module its `stages`.
        state: The weights by name; and what public samples have given: a standardisation, a rounding, a start.
        data_config: timm's data config: those of `preprocessing.CONFIG`.
        device: `auto`, or a torch device.
        precision: One of PRECISIONS: what weights and activations are in. Features, prompts and heads are float32.

    Raises:
        ValueError: If the precision or the device is unknown, or a weight is not finite.
    """

    def __init__(
        self,
        architecture: Architecture,
        arguments: dict,
        state: dict,
        data_config: dict,
        device: str = "auto",
        precision: str = "float32",
    ):
        checks.choice("precision", precision, PRECISIONS)
        self.arguments, self.precision = dict(arguments), precision
        self.data_config = MappingProxyType({k: tuple(v) if isinstance(v, list) else v for k, v in data_config.items()})
        self.model = build(architecture, arguments)
        self.noted = {name: tensor.cpu() for name, tensor in state.items() if name.startswith(NOTED)}
        self.model.load_state_dict({name: tensor for name, tensor in state.items() if name not in self.noted})
        self.model.requires_grad_(False).eval()
        self.is_timm = isinstance(architecture, str)
        self.architecture = architecture if self.is_timm else self.model
        self.name = name_of(self.architecture)
        frozen.check_finite_weights(self.name, state)
        self.standard, self._frozen = [self.noted[name].float() for name in STANDARD if name in state], None
        self.rounding = [self.noted[name] for name in ROUNDING if name in state]
        self.to(device)

    def __sklearn_clone__(self) -> Backbone:
        return self  # frozen

    def __getstate__(self) -> dict:
        key = key_of(self)
        return {"key": key, "args": None if by_name(key) else self.made_of()}

    def __setstate__(self, pickled: dict) -> None:
        if (key := pickled["key"]) not in LAST_UNPICKLED:  # a worker process gets the same one with every cluster
            LAST_UNPICKLED.clear()
            LAST_UNPICKLED[key] = vars(Backbone(*(pickled["args"] or HELD[key])))
        self.__dict__.update(LAST_UNPICKLED[key])

    def made_of(self) -> tuple:
        """All that it is, as arguments that make the same one in another process."""
        made_of = self.architecture, self.arguments, self.state_dict(), dict(self.data_config)
        return (*made_of, str(self.device), self.precision)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights on the CPU, and what public samples have given."""
        return {name: tensor.cpu().contiguous() for name, tensor in (self.model.state_dict() | self.noted).items()}

    def at(self, precision: str) -> Backbone:
        """The same backbone in another precision; what it computes, and its fingerprint, are others."""
        return Backbone(*self.made_of()[:-1], precision)

    def to(self, device: str) -> Backbone:
        """Move the model, in place."""
        self._check_frozen()
        LAST_UNPICKLED.clear()  # it may be that one
        self.device = pick_device(device)
        self.model.to(self.device, PRECISIONS[self.precision])
        suited(self.model, self.device, self.precision, self.is_timm)
        if self.precision not in native_precisions(str(self.device)):
            warnings.warn(f"{self.precision} is emulated on this {self.device.type}: it will be slow", stacklevel=3)
        self.standard = [tensor.to(self.device) for tensor in self.standard]
        self.short = shortened(self.model) if self.is_timm else self.model  # the same weights
        self._frozen = frozen.write_counts(self.model, self.standard)  # changed weights are refused
        return self

    def _check_frozen(self) -> None:
        frozen.check_frozen(self.model, self._frozen, frozen.write_counts(self.model, self.standard))

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.data_config["input_size"][-1]

    @property
    def micro_batch(self) -> int:
        """How many images go forward and backward at once: what a CPU's caches like; everything on a GPU."""
        return max(1, 16 * 224**2 // self.size**2) if self.device.type == "cpu" else sys.maxsize

    @property
    def feature_batch(self) -> int:
        """How many images features come in at once, always: a power of two, where an image's place changes no bit."""
        return 1 << min(FEATURE_BATCH, self.micro_batch).bit_length() - 1

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        own = getattr(self.model, "head_hidden_size", None) or getattr(self.model, "num_features", None)
        return own if self.is_timm else self.layer_widths[-1]

    @functools.cached_property
    def layer_widths(self) -> list[int]:
        """Lengths of the stages' outputs, and of the feature, as `__call__` puts them one after another."""
        blank = torch.zeros(1, 3, self.size, self.size, dtype=PRECISIONS[self.precision], device=self.device)
        with torch.inference_mode():
            return [part.shape[1] for part in self._layers(blank)]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture, the preprocessing and every weight, in hex."""
        return frozen.fingerprint(self.description(), self.state_dict())

    def description(self) -> str:
        """Architecture, arguments, preprocessing and precision, as JSON; with the weights, all that a backbone is."""
        config = {key: value for key, value in self.data_config.items() if key in CONFIG}
        return json.dumps([self.name, self.arguments, config, self.precision], sort_keys=True)

    def views(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """The clean view of a batch: resized, centre-cropped and normalised on the device, as timm's config says.

        Args:
            images: Pixels, uint8 (B, C, H, W), C = 1 or 3; here or on the device already.

        Returns:
            Normalised pixels, (B, 3, S, S).
        """
        return clean_views(images, self.data_config, self.device)

    def __call__(self, views: torch.Tensor, layers: bool = False) -> torch.Tensor:
        """Features of views, (B, 3, S, S) -> float32 (B, D); gradients flow to the views.

        Args:
            views: Normalised pixels.
            layers: Whether the outputs of the stages, averaged over positions, come before the feature, as in Head2Toe
                (Evci et al. 2022): (B, L + D), of the same single pass. Of more than five stages, four are taken.
        """
        self._check_frozen()
        views = views.to(PRECISIONS[self.precision])
        features = torch.cat(self._layers(views), 1) if layers else self.short(views).float()
        mean_and_scale = [tensor[-features.shape[1] :] for tensor in self.standard]
        return (features - mean_and_scale[0]) / mean_and_scale[1] if mean_and_scale else features

    def _layers(self, views: torch.Tensor) -> list[torch.Tensor]:
        sides, stages = beside(views, self.data_config), None if self.is_timm else self.arguments["stages"]
        return [part for view in (*sides, views) for part in outputs(self.model, view, stages)]

    def standardised(self, public: Samples, threads: int = 1) -> Backbone:
        """The same backbone, its features standardised by public samples, and rounded as these say for exact sums."""
        return self.rounded(public, threads, standardise=True)

    def rounded(self, public: Samples, threads: int = 1, standardise: bool = False) -> Backbone:
        """The same backbone, with what `preprocessing.measured` notes of public samples."""
        images = np.asarray(checks.instance("public", public, Samples).images)
        plain = self.noting({})
        features = plain.features(images, threads, show_progress=True, layers=True)
        return self.noting(measured(features, plain.layer_widths, checks.flag("standardise", standardise)))

    def noting(self, noted: dict[str, torch.Tensor]) -> Backbone:
        """The same backbone, with what public samples have given in place of what it has noted itself."""
        architecture, arguments, state, *others = self.made_of()
        weights = {name: tensor for name, tensor in state.items() if name not in self.noted}
        return Backbone(architecture, arguments, weights | noted, *others)

    def drop(self, images: np.ndarray) -> None:
        """Delete what is kept of images that were forgotten: nothing is, but see `cached.CachedFeatures`."""

    def features(
        self,
        images: np.ndarray,
        threads: int = 1,
        show_progress: bool = False,
        batch_size: int | None = None,
        layers: bool = False,
        uids: Sequence[str] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Features of clean images, always computed in batches of one fixed shape (the last one is padded).

        A sample's features must not depend on which other samples are there, bit for bit.

        Args:
            images: Pixels, uint8 (N, C, H, W).
            threads: Intra-op threads.
            show_progress: Show a bar.
            batch_size: Images in a batch; by default `feature_batch`. Bits may depend on it: leave it, wherever company
                must not matter.
            layers: Whether the stages' outputs come before the feature.
            uids: The images' names, (N,), for the message if a feature is not finite; by default their positions.

        Returns:
            Features, float32 (N, D), or (N, L + D).

        Raises:
            ValueError: If the images are not as above, a feature is not finite, or the model is not as it was made.
        """
        frozen.check_images(images)
        batch_size = checks.whole("batch_size", self.feature_batch if batch_size is None else batch_size)
        batch = np.zeros((batch_size, *images.shape[1:]), dtype=np.uint8)
        widths = self.layer_widths if layers else [self.n_features]
        features = np.empty((len(images), sum(widths)), dtype=np.float32)
        bar = progress(range(0, len(images), batch_size), desc="features", unit="batch", disable=not show_progress)
        fits = memory_errors(f"a batch of {batch_size} images", "use precision='bfloat16', or a larger device")
        with exact_arithmetic(threads), torch.inference_mode(), fits:
            for start in bar:
                part = images[start : start + batch_size]
                batch[: len(part)] = part
                computed = self(self.views(batch), layers)[: len(part)].cpu().numpy()
                names = [f"image {start + i}" if uids is None else f"uid {uids[start + i]}" for i in range(len(part))]
                frozen.check_finite_features(computed, names, widths, self.precision)
                features[start : start + len(part)] = computed
        return features

    def save(self, path: Path | str) -> Path:
        """Write weights and configuration to one safetensors file, whole or not at all."""
        description = {"lmeraser_kit.backbone": self.description()}
        return write_weights(checks.path("path", path), self.state_dict(), description, mode=0o644)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto", module: torch.nn.Module | None = None) -> Backbone:
        """Read a file that `save` wrote; for a backbone `from_module`, with that module, because files hold no code.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is truncated, damaged, or no backbone of this kit; or of another module.
        """
        state, metadata = read_weights(checks.path("path", path))
        if "lmeraser_kit.backbone" not in metadata:
            raise ValueError(f"{path} is no backbone of this kit: Backbone.from_timm(name, weights=...) reads weights")
        return cls.described_by(metadata["lmeraser_kit.backbone"], state, device, module)

    @classmethod
    def described_by(
        cls, description: str, state: dict, device: str, module: torch.nn.Module | None = None
    ) -> Backbone:
        """The backbone of a `description` and a `state_dict`; of a module, that module is needed. Raises ValueError."""
        architecture, arguments, config, precision = networks.described(description)
        own = "stages" in arguments
        architecture = same_module(architecture, module) if own else networks.checked(architecture, arguments, state)
        return cls(architecture, arguments, state, config, device, precision)

    @classmethod
    def from_timm(cls, name: str, *args, device: str = "auto", **options) -> Backbone:
        """Any timm model, with timm's own preprocessing; arguments and errors are those of `timm_models.read_timm`."""
        pick_device(device)
        return cls(*read_timm(name, *args, **options), device)

    @classmethod
    def train(cls, public: Samples, epochs: int = 70, seed: int = 0, device: str = "auto", **options) -> Backbone:
        """A small ViT, pre-trained on public samples; arguments and errors are those of `pretraining.pretrain_vit`."""
        made_of = pretrain_vit(public, epochs, seed, device, **options)
        return cls(*made_of, device).rounded(public, options.get("threads", 1))

    @classmethod
    def from_module(
        cls, module: torch.nn.Module, size: int, *args, device: str = "auto", precision: str = "float32", **options
    ) -> Backbone:
        """Any module that makes features, (B, D), of views; arguments and errors are those of `networks.own_module`."""
        backbone = cls(*own_module(module, size, *args, **options), device, precision)
        with exact_arithmetic(1), torch.inference_mode():
            frozen.check_pure(backbone, backbone.size, layers=bool(backbone.arguments["stages"]))
        return backbone
