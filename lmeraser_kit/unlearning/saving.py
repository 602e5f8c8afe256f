"""A fitted eraser in one file: safetensors and JSON, never unpickled; its hash is compared on the way in.

The file holds the private samples, because who forgets has to learn again from those who stay. It is written whole or
not at all. Nothing deletes it: a service that has to forget for good keeps its erasers in a `Store`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground.determinism import pick_device
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import ClusterModel
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.parts import from_plain, to_plain
from lmeraser_kit.unlearning.state import State

Tensors = dict[str, torch.Tensor]
KEY = "lmeraser_kit.eraser"


def save_eraser(path: Path, eraser: Any) -> Path:
    """Write a fitted eraser. Raises ValueError if a part of it is of the user's own: a file holds no code."""
    state, public, backbone = eraser.state_, eraser.public_, eraser.backbone
    arguments = {name: to_plain(value) for name, value in eraser.arguments().items() if name != "backbone"}
    own = [name for name, value in arguments.items() if isinstance(value, dict) and value["part"] is None]
    if own or not backbone.is_timm:
        raise ValueError(f"{(own or ['backbone'])[0]} is of your own, and a file holds no code: keep it in a Store")
    noted = {"class": type(eraser).__name__, "arguments": arguments, "backbone": backbone.description()}
    noted |= {"state_hash": eraser.state_hash(), "environment": eraser.environment_, "n_classes": eraser.n_classes_}
    noted["public_hash"] = _hash_of(public)
    tensors = {f"backbone/{name}": tensor for name, tensor in backbone.state_dict().items()}
    if public is not None:
        tensors |= _samples(f"public {public.n_classes}", public)
    routing = {} if state.routing is None else vars(state.routing)
    arrays = {f"routing/{name}": np.asarray(value) for name, value in routing.items() if name.endswith("_")}
    models = {}
    for k, part in state.members.items():
        tensors |= _samples(f"members {k}", part)
        arrays |= {f"features/{k}": state.features[k]} if k in state.features else {}
        checkpoints = state.models[k].checkpoints()
        models[k] = [[c.n_samples, c.sample_gradients, c.address] for c in checkpoints]
        arrays |= {f"model {k}/{i}/{name}": a for i, c in enumerate(checkpoints) for name, a in c.arrays.items()}
    tensors |= {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    about = {"models": models, "fitted": state.routing is not None, "shape": state.empty.images.shape[1:], **noted}
    return write_weights(path, tensors, {KEY: json.dumps(about)})


def load_eraser(kind: type, path: Path, device: str) -> Any:
    """Read an eraser of a class. Raises ValueError for another file, a damaged one, or another class's."""
    device, (tensors, metadata) = str(pick_device(device)), read_weights(path)
    if KEY not in metadata:
        raise ValueError(f"{path} is no eraser of this kit: eraser.save(path) writes one")
    about = json.loads(metadata[KEY])
    if about["class"] != kind.__name__:
        raise ValueError(f"{path} is of the class {about['class']}: {about['class']}.load(path) reads it")
    try:
        weights = {n.removeprefix("backbone/"): tensors.pop(n) for n in list(tensors) if n.startswith("backbone/")}
        backbone = Backbone.described_by(about["backbone"], weights, device)
        eraser = kind(backbone=backbone, **{name: from_plain(value) for name, value in about["arguments"].items()})
        state, public = state_of(tensors, about, eraser.choices().partition)
        eraser.prepare(state.empty, public)
        eraser.state_, eraser.environment_ = state, about["environment"]
        same = (eraser.state_hash(), _hash_of(public)) == (about["state_hash"], about["public_hash"])
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): is it damaged?") from error
    if not same:
        raise ValueError(f"{path} is damaged: its hash is not that of what it holds")
    return eraser


def _hash_of(public: Samples | None) -> str:
    return "" if public is None else digest(public.n_classes, public.digests.tobytes())


def state_of(tensors: Tensors, about: dict[str, Any], partition: Partition) -> tuple[State, Samples | None]:
    """The state and the public samples of a file, given the partition, unfitted."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    empty = Samples(np.zeros((0, *about["shape"]), np.uint8), np.zeros(0), np.zeros(0, str), about["n_classes"])
    state, public = State(clone(partition) if about["fitted"] else None, {}, {}, {}, empty), None
    if state.routing is not None:
        vars(state.routing).update({n.partition("/")[2]: a for n, a in arrays.items() if n.startswith("routing/")})
    for name in arrays:
        if name.startswith("public ") and name.endswith("/images"):
            public = _samples_of(arrays, name.partition("/")[0], int(name.partition("/")[0].split()[1]))
    for k, checkpoints in ((int(k), c) for k, c in about["models"].items()):
        state.members[k] = _samples_of(arrays, f"members {k}", about["n_classes"])
        state.features.update({k: arrays[f"features/{k}"]} if f"features/{k}" in arrays else {})
        model: ClusterModel | None = None
        for i, numbers in enumerate(checkpoints):
            start = f"model {k}/{i}/"
            made = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            n_samples, cost, address = numbers
            model = state.models[k] = ClusterModel(made, n_samples, cost, address, model)
    return state, public


def _samples(name: str, samples: Samples) -> Tensors:
    uids = np.frombuffer(json.dumps(samples.uids.tolist()).encode(), dtype=np.uint8)
    arrays = {"images": np.asarray(samples.images), "labels": samples.labels, "uids": uids}
    return {f"{name}/{kind}": torch.from_numpy(np.array(array)) for kind, array in arrays.items()}


def _samples_of(arrays: dict[str, np.ndarray], name: str, n_classes: int) -> Samples:
    uids = np.array(json.loads(arrays[f"{name}/uids"].tobytes()), dtype=str)
    return Samples(arrays[f"{name}/images"], arrays[f"{name}/labels"], uids, n_classes)
