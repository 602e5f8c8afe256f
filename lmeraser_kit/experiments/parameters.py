"""The parameters of a notebook, refused before its kernel starts: a wrong name may cost a backbone's training."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from typing import Any

from lmeraser_kit.experiments.extras import need

need("batch", __name__)

import nbformat
import papermill

from lmeraser_kit import checks
from lmeraser_kit.data.inputs import TRAINED_HERE
from lmeraser_kit.experiments.results import NOTEBOOKS, PROJECT

TYPES: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list}


def check_parameters(notebook: Path | str, parameters: dict) -> dict:
    """All of the notebook's parameters, with these values and its defaults for the rest; or a refusal.

    Raises:
        ValueError: If the notebook cannot be read or has no parameters cell, or a parameter is unknown, ill-typed,
            or below 0 where it counts something.
    """
    if not Path(notebook).is_file():
        moved = NOTEBOOKS / Path(notebook).name
        raise ValueError(f"no notebook {notebook}" + f": it is {moved.relative_to(PROJECT)} now" * moved.is_file())
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:
        raise ValueError(f"{notebook} is not a readable notebook ({type(error).__name__}: {error})") from error
    if not any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise ValueError(f"{notebook} has no cell tagged 'parameters'")
    if not isinstance(parameters, dict):
        raise ValueError(f"parameters are {parameters!r}, expected names and values, such as {{n_clusters: 4}}")
    for name, value in parameters.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}"
            raise ValueError(f"{Path(notebook).name} has no parameter {name!r}; {hint}")
        kind = known[name]["inferred_type_name"]
        expected = TYPES.get(kind, object)
        if not isinstance(value, expected) or (isinstance(value, bool) and kind in ("int", "float")):
            raise ValueError(f"parameter {name!r} of {Path(notebook).name} is {value!r}, expected {kind}")
        if kind == "int" and name != "n_jobs" and value < 0:
            raise ValueError(f"parameter {name!r} of {Path(notebook).name} is {value}, expected 0 or more")
    defaults = {name: ast.literal_eval(about["default"]) for name, about in known.items() if name != "output"}
    return defaults | parameters


def check_names(notebook: Path | str, given: dict) -> None:
    """Refuse names of methods, attacks, datasets, backbones and the like that nothing has.

    It imports what has them, torch for most, and so takes seconds; `check_parameters` does not.

    Args:
        notebook: The notebook, for the message.
        given: Values for its parameters.

    Raises:
        ValueError: If one is unknown.
    """
    try:
        _check_names(given)
    except ValueError as error:
        raise ValueError(f"{Path(notebook).name}: {error}") from error


def _check_names(given: dict) -> None:
    if named := given.keys() & {"method", "methods", "exact_methods", "timed"}:
        from lmeraser_kit.baselines.methods import check_methods

        for name in sorted(named):
            check_methods([given[name]] if name == "method" else given[name])
    if "approximate_methods" in given:
        from lmeraser_kit.baselines.approximate import APPROXIMATE
        from lmeraser_kit.baselines.methods import check_methods

        check_methods(given["approximate_methods"], APPROXIMATE)
    if "attack_names" in given:
        from lmeraser_kit.baselines.methods import check_methods
        from lmeraser_kit.evaluation.attacks import ATTACKS

        check_methods(given["attack_names"], ATTACKS, "attack")
    if "dataset" in given:
        from lmeraser_kit.data.datasets import check_dataset

        check_dataset(given["dataset"])
    if given.get("backbone", TRAINED_HERE[0]) not in TRAINED_HERE:
        from lmeraser_kit.backbones.named import check_backbone

        check_backbone(given["backbone"])
    if given.keys() & {"prompt", "recipe_name"}:
        from lmeraser_kit.learners.prompts import PROMPTS
        from lmeraser_kit.learners.recipe import RECIPES

        checks.choice("prompt", given.get("prompt", PROMPTS[0]), PROMPTS)
        checks.choice("recipe_name", given.get("recipe_name", "default"), RECIPES)
    if "precision" in given:
        from lmeraser_kit.backbones.backbone import PRECISIONS

        checks.choice("precision", given["precision"], PRECISIONS)
    if "linkage" in given:
        from lmeraser_kit.partitions.hierarchical import LINKAGES

        checks.choice("linkage", given["linkage"], LINKAGES)
