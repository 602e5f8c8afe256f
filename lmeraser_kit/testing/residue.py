"""What deleted samples may leave behind: what to look for, and where."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np

from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import SummedLearner
from lmeraser_kit.unlearning.base import BaseEraser

LIBRARIES = ("lmeraser_kit", "sklearn", "builtins", "abc", "typing")  # the kit's own parts are tested with the kit


def traces_of(samples: Samples, eraser: BaseEraser) -> dict[str, list[bytes]]:
    """What tells that something was computed from samples, as bytes, by kind.

    Args:
        samples: The samples.
        eraser: Fitted on them and others: a feature's last bits depend on the batch, and a batch on the cluster's size.
    """
    most = eraser.backbone.feature_batch
    batches = {most} | {n for n in eraser.sizes().values() if n < most}
    images, width = np.asarray(samples.images), eraser.backbone.n_features
    stages = [row for n in batches for row in eraser.backbone.features(images, batch_size=n, layers=True)]
    alone = [row for n in batches for row in eraser.backbone.features(images, batch_size=n)]
    rows = [*alone, *stages, *(row[-width:] for row in stages)]
    pixels = [np.ascontiguousarray(image) for image in images]
    learner, context = eraser.choices().learner, eraser.rebuild().context
    summed = list(learner.rows(samples, context)) if isinstance(learner, SummedLearner) else []
    return {
        "rounded row": [row.tobytes() for row in summed],
        "uid": [f"{uid}".encode() for uid in samples.uids],
        "owner": [f"{owner}".encode() for owner in samples.owners],
        "hash": [one.tobytes() for one in samples.digests],
        "pixels": [image.astype(kind).tobytes() for image in pixels for kind in ("u1", "f4", "f8")],
        "features": [row.astype(kind).tobytes() for row in rows for kind in ("f4", "f8")],
    }


def kept_outside(eraser: BaseEraser) -> dict[str, bytes]:
    """What the classes of its parts, and the modules of these, keep, as bytes by place.

    Of a notebook or a script (`__main__`), where the samples themselves lie, containers alone.
    """
    places = {}
    for part in vars(eraser.choices()).values():
        for kind in (c for c in type(part).__mro__ if c.__module__.partition(".")[0] not in LIBRARIES):
            for name, value in vars(kind).items():
                if not name.startswith("_") and not callable(value):
                    places[f"{kind.__name__}.{name}"] = bytes_of(value)
            module = sys.modules.get(kind.__module__)
            for name, value in list(vars(module).items()) if module else []:
                container = isinstance(value, (dict, list, set)) and name not in ("In", "Out")
                if not name.startswith("_") and (container or (kind.__module__ != "__main__" and not callable(value))):
                    places[f"{name} of the learner's module"] = bytes_of(value)
    return places


def bytes_of(value: Any) -> bytes:
    """All of it that can be pickled, as bytes."""
    try:
        return pickle.dumps(value)
    except Exception:  # locks, modules, open files: they hold no sample
        return repr(value).encode()
