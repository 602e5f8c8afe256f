"""What a store notes of the eraser that it keeps: names and numbers, never code or a path to some.

Names are those of the kit's own classes, and of classes that an installed package offers as entry points of the group
`lmeraser_kit.parts`. Of other classes, and of a backbone made of a module, the store has no name: `Store.open` is given
an eraser like the one that the store was created with, and compares.
"""

from __future__ import annotations

import dataclasses
import functools
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground.determinism import pick_device
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.learners.ridge_statistics import RidgeStatistics
from lmeraser_kit.partitions.hashed import HashClusters, SingleCluster
from lmeraser_kit.partitions.hierarchical import HierarchicalClusters
from lmeraser_kit.partitions.hyperplanes import HyperplaneClusters
from lmeraser_kit.store.files import StoreError
from lmeraser_kit.unlearning.arguments import check_unchanged, made_with
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.eraser import Eraser
from lmeraser_kit.unlearning.lmeraser import LMEraser
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser
from lmeraser_kit.unlearning.votes import ClusterVote, SharedHead

ERASERS = (LMEraser, RidgeEraser, Eraser)
PARTITIONS = (HierarchicalClusters, HyperplaneClusters, HashClusters, SingleCluster)
KIT = {c.__name__: c for c in (*ERASERS, *PARTITIONS, PromptTuning, RidgeStatistics, ClusterVote, SharedHead, Recipe)}
GROUP = "lmeraser_kit.parts"
ELSEWHERE = ("backbone", "n_jobs", "verbose")  # arguments that are kept as files, or given to Store.open


def noted(eraser: BaseEraser) -> dict[str, Any]:
    """What is noted of a prepared eraser, as plain data."""
    arguments = eraser.arguments() | {"n_classes": eraser.n_classes_}
    return {
        "eraser": _name(type(eraser)),
        "arguments": {name: _to_plain(value) for name, value in arguments.items() if name not in ELSEWHERE},
        "made_with": eraser.made_with_,
    }


def remade(made: dict[str, Any], file: Path, device: str, given: BaseEraser | None, **options) -> BaseEraser:
    """The eraser that was noted, unfitted; requests to it are refused.

    Args:
        made: What `noted` has returned.
        file: The backbone's.
        device: `auto`, or a torch device.
        given: An eraser with the same arguments, if the store cannot name all parts.
        **options: `n_jobs` and `verbose`.

    Raises:
        StoreError: If a part has no name here, and `given` is None.
        ValueError: If `given` is another eraser.
    """
    if given is not None:
        check_unchanged(made["made_with"], made_with(given.arguments()))
        eraser = clone(given).set_params(n_classes=made["arguments"]["n_classes"], **options)
        return stored(type(eraser))(**eraser.get_params(deep=False))
    kind, device = _kind(made["eraser"]), str(pick_device(device))
    arguments = {name: _from_plain(value) for name, value in made["arguments"].items()}
    try:
        backbone = Backbone.load(file, device)
    except ValueError as error:
        raise StoreError(f"the store's backbone cannot be made ({error}): open it with eraser=") from error
    return stored(kind)(backbone=backbone, **arguments, **options)


class Stored:
    """An eraser that a store keeps: it predicts; requests go through the store, which writes them down."""

    def fit(self, private: Samples, public: Samples | None = None) -> BaseEraser:
        """Refused. Raises StoreError."""
        raise StoreError("this eraser belongs to a store: requests go through store.forget and store.add")

    forget = add = fit


@functools.cache
def stored(kind: type[BaseEraser]) -> type[BaseEraser]:
    """An eraser's class, with requests refused."""
    return type(f"Stored{kind.__name__}", (Stored, kind), {})


def _installed() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _name(kind: type) -> str | None:
    """The name of a class, if it has one in every process."""
    if KIT.get(kind.__name__) is kind:
        return kind.__name__
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, entry in _installed().items() if entry.value == path), None)


def _kind(name: str | None) -> type:
    installed = _installed()
    if name in KIT:
        return KIT[name]
    if name in installed:
        return installed[name].load()
    what = "a part of this store's eraser is of your own" if name is None else f"no installed package offers {name!r}"
    raise StoreError(f"{what}: open it with eraser=, an unfitted eraser like the one that it was created with")


def _to_plain(value: Any) -> Any:
    """A part as its name and parameters, and NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value):
        parameters = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "get_params"):
        parameters = value.get_params(deep=False)
    else:
        return value
    return {"part": _name(type(value)), "parameters": {name: _to_plain(one) for name, one in parameters.items()}}


def _from_plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return _kind(value["part"])(**{name: _from_plain(one) for name, one in value["parameters"].items()})
