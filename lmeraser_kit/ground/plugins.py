"""What other installed packages add, by name: entry points of the groups `lmeraser_kit.GROUP`.

    parts      a class: a partition, a learner or a vote that a store or a file names
    methods    a function (backbone, n_clusters, recipe, **options) -> an unfitted eraser
    datasets   a function () -> Samples, or (Samples to train on, Samples to test on)
    backbones  a function (device) -> Backbone

A profile, a store or a file holds such a name, and never code or a path to some.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; `.load()` gives what they stand for."""
    return {entry.name: entry for entry in entry_points(group=f"lmeraser_kit.{group}")}
