"""A fitted eraser in one file: safetensors and JSON, never unpickled; its hash is compared when it is read.

The file holds the private samples, because a deletion learns a cluster again from the samples that stay. It is written
whole or not at all. Nothing deletes it: a service that has to forget for good keeps its erasers in a `Store`.

A file holds names and numbers, never code or a path to some. Names are those of the kit's own classes, and of classes
that an installed package offers (see `ground.plugins`).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground.determinism import pick_device
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.plugins import installed
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.learners.protocol import ClusterModel
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.partitions.hashed import HashClusters, SingleCluster
from lmeraser_kit.partitions.hierarchical import HierarchicalClusters
from lmeraser_kit.partitions.hyperplanes import HyperplaneClusters
from lmeraser_kit.unlearning.state import State
from lmeraser_kit.unlearning.votes import ClusterVote, SharedHead

PARTITIONS = (HierarchicalClusters, HyperplaneClusters, HashClusters, SingleCluster)
PARTS = (*PARTITIONS, PromptTuning, ExactSums, ClusterVote, SharedHead, Recipe, State, ClusterModel, Samples)
KIT = {kind.__name__: kind for kind in PARTS}
KEY = "lmeraser_kit.eraser"


def to_plain(value: Any, arrays: list[np.ndarray]) -> Any:
    """An object as plain data that JSON can hold: its class by name (None if it has none) and its parameters.

    Args:
        value: Numbers, text, arrays, lists, dicts, dataclasses, or scikit-learn estimators, fitted or not.
        arrays: Arrays are appended here, and stand in the plain data as their positions.
    """
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = np.array(value, order="C")
        if array.dtype.kind == "U":
            return {"text": array.tolist()}
        arrays.append(array)
        return {"array": len(arrays) - 1}
    if isinstance(value, (list, tuple)):
        return [to_plain(one, arrays) for one in value]
    if isinstance(value, dict):
        return {"dict": [[key, to_plain(one, arrays)] for key, one in value.items()]}
    learnt = {}
    if dataclasses.is_dataclass(value):
        parameters = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    elif hasattr(value, "get_params"):
        parameters = value.get_params(deep=False)
        learnt = {name: np.asarray(one) for name, one in vars(value).items() if name.endswith("_")}
    else:
        return value
    both = [{name: to_plain(one, arrays) for name, one in part.items()} for part in (parameters, learnt)]
    return {"part": name_of_class(type(value)), "parameters": both[0], "learnt": both[1]}


def from_plain(value: Any, arrays: list[np.ndarray]) -> Any:
    """What `to_plain` has described. Raises ValueError if a class has no name here."""
    if isinstance(value, list):
        return [from_plain(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    if "text" in value:
        return np.array(value["text"], dtype=str)
    if "array" in value:
        return arrays[value["array"]]
    if "dict" in value:
        return {key: from_plain(one, arrays) for key, one in value["dict"]}
    part = class_of_name(value["part"])(**{n: from_plain(one, arrays) for n, one in value["parameters"].items()})
    vars(part).update({name: from_plain(one, arrays) for name, one in value["learnt"].items()})
    return part


def name_of_class(kind: type) -> str | None:
    """The name of a class, if it has one in every process."""
    if KIT.get(kind.__name__) is kind:
        return kind.__name__
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, entry in installed("parts").items() if entry.value == path), None)


def class_of_name(name: str | None) -> type:
    """The class of a name. Raises ValueError if there is none."""
    if name in KIT:
        return KIT[name]
    if name in (others := installed("parts")):
        return others[name].load()
    raise ValueError("a part of the eraser is of your own" if name is None else f"no installed package offers {name!r}")


def save_eraser(path: Path, eraser: Any) -> Path:
    """Write a fitted eraser. Raises ValueError if a part of it is of the user's own: a file holds no code."""
    backbone, arrays = eraser.backbone, list[np.ndarray]()
    arguments = {name: to_plain(value, arrays) for name, value in eraser.arguments().items() if name != "backbone"}
    own = [name for name, value in arguments.items() if '"part": null' in json.dumps(value)]
    if own or not backbone.is_timm:
        raise ValueError(f"{(own or ['backbone'])[0]} is of your own, and a file holds no code: keep it in a Store")
    about = {
        "class": type(eraser).__name__,
        "arguments": arguments,
        "backbone": backbone.description(),
        "state": to_plain(eraser.state_, arrays),
        "public": to_plain(eraser.public_, arrays),
        "environment": eraser.environment_,
        "hash": _hash_of(eraser),
    }
    tensors = {f"array/{i}": torch.from_numpy(array) for i, array in enumerate(arrays)}
    tensors |= {f"backbone/{name}": tensor for name, tensor in backbone.state_dict().items()}
    return write_weights(path, tensors, {KEY: json.dumps(about)})


def load_eraser(kind: type, path: Path, device: str) -> Any:
    """Read an eraser of a class. Raises ValueError for another file, a damaged one, or another class's."""
    device, (tensors, metadata) = str(pick_device(device)), read_weights(path)
    if KEY not in metadata:
        raise ValueError(f"{path} is no eraser of this kit: eraser.save(path) writes one")
    try:
        about = json.loads(metadata[KEY])
        named = about["class"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): is it damaged?") from error
    if named != kind.__name__:
        raise ValueError(f"{path} is of the class {named}: {named}.load(path) reads it")
    try:
        weights = {n.removeprefix("backbone/"): tensors.pop(n) for n in list(tensors) if n.startswith("backbone/")}
        arrays = [tensors[f"array/{i}"].numpy() for i in range(len(tensors))]
        arguments = {name: from_plain(value, arrays) for name, value in about["arguments"].items()}
        eraser = kind(backbone=Backbone.described_by(about["backbone"], weights, device), **arguments)
        state = from_plain(about["state"], arrays)
        eraser.prepare(state.empty, from_plain(about["public"], arrays))
        eraser.state_, eraser.environment_ = state, about["environment"]
        same = _hash_of(eraser) == about["hash"]
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): is it damaged?") from error
    if not same:
        raise ValueError(f"{path} is damaged: its hash is not that of what it holds")
    return eraser


def _hash_of(eraser: Any) -> str:
    public = () if eraser.public_ is None else (eraser.public_.n_classes, eraser.public_.digests.tobytes())
    return digest("eraser", eraser.state_hash(), *public)
