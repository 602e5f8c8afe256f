"""A profile's grid made a plan of runs, each with a name that a person reads."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from pathlib import Path
from typing import Any

from lmeraser_kit.experiments.extras import need

need("batch", __name__)

import papermill
import yaml

from lmeraser_kit.experiments.parameters import check_parameters
from lmeraser_kit.experiments.results import NOTEBOOKS, profile_file

MOST_RUNS, MOST_VALUES = 10_000, 10**5


def expand(grid: dict) -> list[dict]:
    """Every combination of a grid: a list is swept over, anything else is fixed; `[[a, b]]` passes a list.

    Raises:
        ValueError: If the grid, or a list in it, is empty.
    """
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"an empty parameter grid: {grid!r}; give at least one parameter, such as seed: [0]")
    for name, values in grid.items():
        if isinstance(values, list) and not values:
            raise ValueError(f"parameter {name!r} of the grid has an empty list of values")
    swept = [values if isinstance(values, list) else [values] for values in grid.values()]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*swept)]


def plan(config: dict, notebooks: Path | str = NOTEBOOKS) -> dict[tuple[str, str], dict]:
    """The runs of a profile: (notebook, run's name) -> parameters. All but names is checked (`parameters`).

    A profile's entry may be a list of grids. A run is named by the parameters that are swept, in the profile's order:
    `lmeraser_n_clusters-8_seed-0`. Grids that differ in nothing that is swept get names: `{grid: prompts, ...}`.

    Raises:
        ValueError: If a grid is empty, a notebook or a parameter is unknown, or two runs have one name, or a long one.
    """
    runs: dict[tuple[str, str], dict] = {}
    if not config or not config.get("notebooks"):
        raise ValueError("the profile names no notebooks: nothing would run")
    for notebook, grids in config["notebooks"].items():
        grids = grids if isinstance(grids, list) else [grids]
        swept = {name for grid in grids for name, values in (grid or {}).items() if _swept(values)}
        for grid in grids:
            title = [_title(grid["grid"])] if grid and "grid" in grid else []
            for parameters in expand({k: v for k, v in (grid or {}).items() if k != "grid"}):
                name = "_".join([*title, *(_said(k, v) for k, v in parameters.items() if k in swept)]) or "only"
                name = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
                if (notebook, name) in runs:
                    raise ValueError(
                        f"two runs of {notebook} are named {name!r}: a value occurs twice in a grid, or two grids "
                        "differ in nothing swept; give each grid a name of its own: {grid: NAME, ...}"
                    )
                if len(name) > 150:  # file systems have a limit
                    raise ValueError(f"a run of {notebook} would be named {name}: give its grid a name, and sweep less")
                check_parameters(Path(notebooks) / f"{notebook}.ipynb", parameters)
                runs[notebook, name] = parameters
    return runs


def _checked(profile: Any) -> dict:
    """What a file holds, if it has the form of a profile, and a size that can be run. Raises ValueError."""
    notebooks = profile.get("notebooks") if isinstance(profile, dict) else None
    if not isinstance(notebooks, dict) or not notebooks:
        raise ValueError(
            "the profile names no notebooks: nothing would run; expected notebooks: {NAME: {PARAMETER: ...}}"
        )
    if _size(profile) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    known = [path.stem for path in NOTEBOOKS.glob("*.ipynb")]
    for notebook, grids in notebooks.items():
        if notebook not in known:
            near = difflib.get_close_matches(str(notebook), known, 1)
            raise ValueError(f"there is no notebook {notebook!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        several = grids if isinstance(grids, list) else [grids]
        if not several or not all(isinstance(grid, dict) for grid in several):
            raise ValueError(
                f"{notebook} has {grids!r:.80}, expected a grid, {{PARAMETER: VALUES, ...}}, or a list of them"
            )
        n = sum(math.prod(len(v) for v in grid.values() if isinstance(v, list)) for grid in several)
        if n > MOST_RUNS:
            raise ValueError(
                f"{notebook} would run {n:,} times, and a profile has at most {MOST_RUNS:,} runs: sweep less"
            )
    return profile


def _size(value: Any, left: int = MOST_VALUES) -> int:
    """How many values there are, each as often as it is referred to; no more than `left` are counted."""
    if not isinstance(value, (dict, list)):
        return 1
    n = 1
    for one in [*value, *value.values()] if isinstance(value, dict) else value:
        n += _size(one, left - n)
        if n > left:
            break
    return n


def _title(name: Any) -> str:
    """A grid's name, for the folders of its runs. Raises ValueError."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9 _.-]*", str(name)):
        raise ValueError(f"a grid is named {name!r}: expected letters, digits, spaces and - _ .")
    return str(name)


def _swept(values: Any) -> bool:
    """Whether a grid's entry is swept; a list alone in a list is only the way to pass one."""
    return isinstance(values, list) and (len(values) != 1 or not isinstance(values[0], (list, dict)))


def _said(name: str, value: Any) -> str:
    """A parameter in a run's name: words speak for themselves, numbers need their parameter's name."""
    if isinstance(value, str):
        return value
    return f"{name}-{'-'.join(map(str, value)) if isinstance(value, list) else value}"


def changed(profile: dict, values: dict) -> dict:
    """A profile with other values for some parameters, wherever a notebook has them.

    Args:
        profile: What a file of workflow/config holds.
        values: Names and values, such as `{seed: [0], epochs: 1}`. A list is swept over.

    Raises:
        ValueError: If they are no names and values, or no notebook of the profile has such a parameter.
    """
    if not isinstance(values, dict):
        raise ValueError(f"changes are {values!r}, expected names and values, such as {{seed: [0]}}")
    notebooks, used, everything = dict[str, Any](), set[str](), set[str]()
    for notebook, grids in (profile.get("notebooks") or {}).items():
        known = papermill.inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb"))
        mine = {name: value for name, value in values.items() if name in known}
        used |= mine.keys()
        everything |= known.keys()
        several = grids if isinstance(grids, list) else [grids]
        renewed = [{**grid, **mine} for grid in several]
        once = {repr({k: v for k, v in grid.items() if k != "grid"}): grid for grid in renewed}  # SET makes some alike
        notebooks[notebook] = list(once.values())
    if unknown := values.keys() - used:
        near = difflib.get_close_matches(min(unknown), everything, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no notebook of the profile has a parameter {min(unknown)!r}{hint}")
    return {**profile, "notebooks": notebooks}


def planned_runs(profile: str, changes: str = "{}") -> dict[tuple[str, str], dict]:
    """The runs of a profile, with other values for parameters.

    Args:
        profile: A file's name in workflow/config.
        changes: Names and values as YAML, such as `{seed: [0]}`.

    Raises:
        ValueError: If there is no such profile, or as for `plan` and `changed`.
    """
    path = profile_file(profile)
    try:
        values = yaml.safe_load(changes) or {}
    except yaml.YAMLError as error:
        raise ValueError(
            f"SET is {changes!r:.80}, expected names and values, such as '{{seed: [0]}}': {error}"
        ) from error
    try:
        return plan(changed(_checked(yaml.safe_load(path.read_text())), values))
    except RecursionError:
        raise ValueError(f"{profile}: brackets in brackets, too deep to be a profile") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{profile}: {error}") from error
