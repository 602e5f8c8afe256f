"""Networks that a backbone freezes: timm's by name, or any module; what they are made of, and what they give."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence

import numpy as np
import torch

from lmeraser_kit import checks
from lmeraser_kit.backbones.preprocessing import NOTED, check_config, data_config
from lmeraser_kit.backbones.timm_models import create_model
from lmeraser_kit.ground.hashing import code_of, digest

Architecture = str | torch.nn.Module  # timm's name, or a module that is copied
READING = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
LIBRARIES = ("torch", "torchvision", "timm")  # whose versions the environment names


def build(architecture: Architecture, arguments: dict) -> torch.nn.Module:
    """A new network: timm's without its classifier, or a copy of a module.

    Raises:
        ValueError: If arguments for timm name something to read or to download: a file of weights brings its own.
    """
    if isinstance(architecture, str):
        if reading := sorted(READING & arguments.keys()):
            raise ValueError(f"a backbone's arguments name something to read or to download: {', '.join(reading)}")
        with torch.random.fork_rng():  # the weights that creation draws are replaced at once
            return create_model(architecture, **arguments)
    return copy.deepcopy(architecture)


def described(description: str) -> tuple[str, dict, dict, str]:
    """Name, arguments, data config and precision of a backbone's description. Raises ValueError if it is none."""
    try:
        name, arguments, config, precision = json.loads(description)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"the description of a backbone is damaged: {error}") from error
    for what, value, kind in (("name", name, str), ("arguments", arguments, dict), ("config", config, dict)):
        checks.instance(f"the {what} in a backbone's description", value, kind)
    check_config(config)
    return name, arguments, config, precision


def checked(name: str, arguments: dict, state: dict[str, torch.Tensor]) -> str:
    """Refuse a network that is not that of the weights beside its description, before it takes any memory.

    Args:
        name: Timm's name.
        arguments: Further arguments of `timm.create_model`.
        state: The weights, which were read and so are as large as they say.

    Returns:
        The name.

    Raises:
        ValueError: If a number in the arguments is far beyond every size in the weights, timm makes no such network, or
            it has other weights.
    """
    most = 4 * max([256, len(state), *(side for tensor in state.values() for side in tensor.shape)])
    numbers = {key: np.ravel(value).tolist() for key, value in arguments.items()}
    if large := [key for key, value in numbers.items() if any(isinstance(x, (int, float)) and x > most for x in value)]:
        raise ValueError(f"{large[0]} is {arguments[large[0]]!r:.80}, far more than any size in the weights")
    try:
        with torch.device("meta"):  # shapes, and no memory
            expected = {key: tensor.shape for key, tensor in build(name, arguments).state_dict().items()}
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"timm makes no {name!r} with the arguments {arguments!r:.200}: {error}") from error
    found = {key: tensor.shape for key, tensor in state.items() if not key.startswith(NOTED)}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        raise ValueError(f"these are not the weights of {name!r}: {wrong[0]!r} is missing, or has another shape")
    return name


def own_module(
    module: torch.nn.Module,
    size: int,
    mean: Sequence[float] = (0.5,) * 3,
    std: Sequence[float] = (0.5,) * 3,
    stages: Sequence[str] = (),
) -> tuple[torch.nn.Module, dict, dict[str, torch.Tensor], dict]:
    """What a backbone of a user's own network is made of. The module is copied, and the copy is frozen.

    Args:
        module: Turns views, (B, 3, S, S), into features, (B, D); in evaluation mode these must be a function of one
            image, and of nothing else.
        size: Side of its input, in pixels, S.
        mean: What is subtracted from each channel of pixels in [0, 1].
        std: What each channel is divided by after that.
        stages: Names of its parts (`module.named_modules()`) whose outputs come before the feature with `layers=True`.

    Returns:
        The module, its stages, its weights, and a data config as timm has it.

    Raises:
        ValueError: If an argument is none of these. `Backbone.from_module` also refuses features that have another
            shape, are not finite, or depend on chance or on the other images of a batch.
    """
    checks.instance("module", module, torch.nn.Module)
    means = [checks.number("mean", x, -math.inf) for x in checks.array("mean", mean, 3).tolist()]
    scales = [checks.number("std", x, beyond=True) for x in checks.array("std", std, 3).tolist()]
    parts = dict(module.named_modules())
    names = [checks.choice("a stage", name, parts) for name in checks.instance("stages", stages, Sequence)]
    config = data_config(checks.whole("size", size), tuple(means), tuple(scales))
    return module, {"stages": names}, module.state_dict(), config


def same_module(name: str, module: torch.nn.Module | None) -> torch.nn.Module:
    """The module that weights were saved of. Raises ValueError if it is missing, or another one."""
    given_name = None if module is None else name_of(copy.deepcopy(module).eval())
    if module is None or given_name != name:
        given = "none was given" if module is None else f"{given_name} was given"
        raise ValueError(f"these are weights of the module {name}, and {given}: a file holds no code; pass module=")
    return module


def name_of(architecture: Architecture) -> str:
    """Timm's name; for a module its class and a hash of its code and settings."""
    if isinstance(architecture, str):
        return architecture
    return f"{type(architecture).__name__}-{code_digest_of(architecture)[:16]}"


def code_digest_of(module: torch.nn.Module) -> str:
    """A hash of the compiled code of a module and its parts, and of their settings, in hex; not of the weights.

    Of PyTorch's, torchvision's and timm's parts only the settings count: their versions are in the environment. Code
    that the module calls outside its classes is not seen.
    """
    parts = []
    for name, part in module.named_modules():
        kind = type(part)
        settings = {k: repr(v) for k, v in vars(part).items() if isinstance(v, (bool, int, float, str, tuple, list))}
        parts += [name, f"{kind.__module__}.{kind.__qualname__}", part.extra_repr(), sorted(settings.items())]
        parts += code_of(kind, LIBRARIES)
    return digest("module", *parts)


def outputs(model: torch.nn.Module, views: torch.Tensor, stages: Sequence[str] | None = None) -> list[torch.Tensor]:
    """The outputs of the stages, averaged over positions, (B, C) each, and the feature, (B, D), the last; in one pass.

    Args:
        model: The network.
        views: What goes in, (B, 3, S, S).
        stages: Names of a module's parts, whose outputs are (B, C, H, W), (B, N, C) or (B, C); None for timm's models,
            which have their own. Of more than five, four are taken.
    """
    if stages is not None:
        captured: dict[str, torch.Tensor] = {}
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: captured.update({name: out}))
            for name in stages
        ]
        try:
            feature = model(views)
        finally:
            for hook in hooks:
                hook.remove()
        axes = {2: (), 3: (1,), 4: (2, 3)}
        pooled = [captured[name].float() for name in stages]
        return [*(x.mean(axes[x.ndim]) if axes[x.ndim] else x for x in pooled), feature.float()]
    if not hasattr(model, "forward_intermediates"):  # a few of timm's models
        return [model(views).float()]
    n = len(model.feature_info)
    chosen = list(range(n)) if n <= 5 else [n * (i + 1) // 4 - 1 for i in range(4)]
    last, between = model.forward_intermediates(views, indices=chosen)
    return [*(stage.float().mean((2, 3)) for stage in between), model.forward_head(last).float()]
