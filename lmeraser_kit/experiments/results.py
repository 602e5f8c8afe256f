"""What a notebook leaves behind, and many runs as one data frame. Light, because every notebook imports it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from lmeraser_kit.data.inputs import REPOSITORY
from lmeraser_kit.ground.files import replacing

PROJECT = REPOSITORY or Path.cwd()  # an installed package writes results/ where it is used
NOTEBOOKS = PROJECT / "notebooks" / "experiments"
PROFILES = PROJECT / "workflow" / "config"
TAKEN = ("reference", "lab", "benchmarks")  # folders below results/ that are no run's
CLONE = (
    "Profiles, notebooks and the Snakefile are in the repository of lmeraser-kit only, not in the installed package: "
    "clone it, and say make reproduce there."
)


def output_folder(output: str, notebook: str) -> Path:
    """The folder that a notebook writes to: its parameter `output`, or results/lab/NOTEBOOK when that is empty."""
    folder = Path(output) if output else PROJECT / "results" / "lab" / notebook
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """Print what is warned of inside, each sentence once, without the file and the line that it came from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for sentence in dict.fromkeys(str(warning.message) for warning in caught):
        print("Warning:", sentence)


def run_folder(name: str) -> Path:
    """Where a run of a profile is. Raises ValueError for a name that is another folder's, or no plain name."""
    if name in TAKEN or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"NAME is {name!r}, expected letters, digits, '-', '_' and '.', and none of {', '.join(TAKEN)}"
        )
    return PROJECT / "results" / name


def profiles() -> list[str]:
    """The names of the profiles that there are."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_file(profile: str) -> Path:
    """The file of a profile.

    Raises:
        ValueError: If there is no such profile, or the package was installed without the repository.
    """
    if REPOSITORY is None:
        raise ValueError(CLONE)
    if profile not in profiles():
        raise ValueError(f"unknown profile {profile!r}; one of: {', '.join(profiles())}")
    return PROFILES / f"{profile}.yaml"


def save_metrics(folder: Path | str, metrics: dict, **context) -> None:
    """Write a notebook's answer, to be collected; the context (device, hashes, ...) goes to the manifest."""
    write_json(Path(folder) / "metrics.json", {"metrics": metrics, "context": context})


def write_json(path: Path | str, content: dict) -> Path:
    """Write strict JSON, whole or not at all; NaN and infinity, which JSON does not have, become null."""
    text = json.dumps(_strict(content), indent=1, default=_plain, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n")
    return Path(path)


def _strict(content: object) -> object:
    """The same with None for every number that JSON does not have."""
    if isinstance(content, dict):
        return {str(_plain(name)): _strict(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_strict(value) for value in content]
    return None if isinstance(content, (float, np.floating)) and not math.isfinite(content) else content


def _plain(value: object) -> object:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return _strict(value.tolist())
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def read_json(path: Path | str) -> dict:
    """Read strict JSON.

    Raises:
        ValueError: If the file is damaged, or holds NaN or infinity.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"it holds {name}, which is no JSON")

    try:
        return json.loads(Path(path).read_text(), parse_constant=refuse)
    except ValueError as error:
        raise ValueError(f"{path} is no readable JSON ({error}): delete its folder, and run again") from error


def manifests(root: Path | str, notebook: str = "*", only: list[str] | None = None) -> dict[Path, dict]:
    """The manifests of successful runs below a folder, by the run's folder.

    Args:
        root: A profile's folder, results/PROFILE.
        notebook: The notebook's name, without `.ipynb`; by default all.
        only: Runs that count, as `NOTEBOOK/RUN`; by default all that are there, those of an older grid too.
    """
    paths = sorted(Path(root).glob(f"runs/{notebook}/*/manifest.json"))
    by_folder = {path.parent: read_json(path) for path in paths}
    return {
        folder: manifest
        for folder, manifest in by_folder.items()
        if manifest["status"] == "ok" and (not only or f"{folder.parent.name}/{folder.name}" in only)
    }


def collect(root: Path | str, notebook: str, table: str | None = None, only: list[str] | None = None) -> pd.DataFrame:
    """The successful runs of one notebook below a folder, in one frame.

    Args:
        root: A profile's folder, results/PROFILE.
        notebook: The notebook's name, without `.ipynb`.
        table: A CSV that runs wrote, such as `requests.csv` (those without it are left out); by default one row a
            run, from its metrics.
        only: Runs that count, as for `manifests`.

    Returns:
        Parameters, metrics (or the table's columns), and the names of the notebook and the run.
    """
    frames = []
    for folder, manifest in manifests(root, notebook, only).items():
        if table is None:
            metrics = read_json(folder / "metrics.json")["metrics"]
            rows = pd.DataFrame([{name: np.nan if value is None else value for name, value in metrics.items()}])
        elif not (folder / table).is_file():
            continue
        else:
            rows = pd.read_csv(folder / table)
        parameters = {name: value for name, value in manifest["parameters"].items() if name not in rows}
        rows.insert(0, "run", folder.name)
        rows.insert(0, "notebook", notebook)
        frames.append(rows.assign(**{k: str(v) if isinstance(v, list) else v for k, v in parameters.items()}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
