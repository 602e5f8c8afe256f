"""Partitions, learners and votes as plain data, and back: names and numbers, never code or a path to some.

Names are those of the kit's own classes, and of classes that an installed package offers (see `ground.plugins`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmeraser_kit.ground.plugins import installed
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.learners.ridge_statistics import RidgeStatistics
from lmeraser_kit.partitions.hashed import HashClusters, SingleCluster
from lmeraser_kit.partitions.hierarchical import HierarchicalClusters
from lmeraser_kit.partitions.hyperplanes import HyperplaneClusters
from lmeraser_kit.unlearning.votes import ClusterVote, SharedHead

PARTITIONS = (HierarchicalClusters, HyperplaneClusters, HashClusters, SingleCluster)
KIT = {kind.__name__: kind for kind in (*PARTITIONS, PromptTuning, RidgeStatistics, ClusterVote, SharedHead, Recipe)}


def to_plain(value: Any) -> Any:
    """A part as its name and parameters, and NumPy's numbers as Python's. The name is None if it has none."""
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value):
        parameters = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "get_params"):
        parameters = value.get_params(deep=False)
    else:
        return value
    return {"part": name_of_class(type(value)), "parameters": {name: to_plain(one) for name, one in parameters.items()}}


def from_plain(value: Any) -> Any:
    """What `to_plain` has described. Raises ValueError if a part has no name here."""
    if not isinstance(value, dict):
        return value
    return class_of_name(value["part"])(**{name: from_plain(one) for name, one in value["parameters"].items()})


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
