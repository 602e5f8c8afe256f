"""What a store notes of the eraser that it keeps: names and numbers, never code or a path to some.

Names are those of the kit's own classes, and of classes that an installed package offers as entry points of the group
`lmeraser_kit.parts`. Of other classes, and of a backbone made of a module, the store has no name: `Store.open` is given
an eraser like the one that the store was created with, and compares.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from sklearn.base import clone

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.ground.determinism import pick_device
from lmeraser_kit.store.files import StoreError
from lmeraser_kit.unlearning.arguments import check_unchanged, fit_arguments
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.eraser import Eraser
from lmeraser_kit.unlearning.lmeraser import LMEraser
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser
from lmeraser_kit.unlearning.saving import class_of_name, from_plain, name_of_class, to_plain

ERASERS = {kind.__name__: kind for kind in (LMEraser, RidgeEraser, Eraser)}
ELSEWHERE = ("backbone", "n_jobs", "verbose")  # arguments that are kept as files, or given to Store.open


def noted(eraser: BaseEraser) -> dict[str, Any]:
    """What is noted of a prepared eraser, as plain data. Raises StoreError if its backbone keeps features elsewhere."""
    check_uncached(eraser)
    arguments = eraser.arguments() | {"n_classes": eraser.n_classes_}
    return {
        "eraser": type(eraser).__name__ if type(eraser) in ERASERS.values() else name_of_class(type(eraser)),
        "arguments": {name: to_plain(value, []) for name, value in arguments.items() if name not in ELSEWHERE},
        "fitted_with": eraser.fitted_with_,
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
        check_uncached(given)
        n_classes = made["arguments"]["n_classes"]
        check_unchanged(made["fitted_with"], fit_arguments(given.arguments() | {"n_classes": n_classes}))
        eraser = clone(given).set_params(n_classes=n_classes, **options)
        return stored(type(eraser))(**eraser.get_params(deep=False))
    device = str(pick_device(device))
    try:
        kind = ERASERS.get(made["eraser"]) or class_of_name(made["eraser"])
        arguments = {name: from_plain(value, []) for name, value in made["arguments"].items()}
        backbone = Backbone.load(file, device)
    except ValueError as error:
        advice = "open it with eraser=, an unfitted eraser like the one that it was created with"
        raise StoreError(f"the store's eraser cannot be made ({error}): {advice}") from error
    return stored(kind)(backbone=backbone, **arguments, **options)


def check_uncached(eraser: BaseEraser) -> None:
    """Refuse a backbone that keeps features in another folder, where the store would forget nobody. StoreError."""
    if isinstance(eraser.backbone, CachedFeatures):
        raise StoreError("the backbone keeps features outside the store: give backbone.uncached")


class Stored:
    """An eraser that a store keeps: it predicts; requests go through the store, which writes them down."""

    def fit(self, *given: Any, **options: Any) -> BaseEraser:
        """Refused. Raises StoreError."""
        raise StoreError(
            "this eraser belongs to a store: requests go through store.forget, store.add and store.rectify"
        )

    forget = add = rectify = fit


@functools.cache
def stored(kind: type[BaseEraser]) -> type[BaseEraser]:
    """An eraser's class, with requests refused."""
    return type(f"Stored{kind.__name__}", (Stored, kind), {})
