"""What a notebook leaves behind, and many runs as one data frame. Light, because every notebook imports it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pandas as pd

PROJECT = Path(__file__).parents[1]


def output_folder(output: str, notebook: str) -> Path:
    """The folder that a notebook writes to: its parameter `output`, or results/lab/NOTEBOOK when that is empty."""
    folder = Path(output) if output else PROJECT / "results" / "lab" / notebook
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_metrics(folder: Path | str, metrics: dict, **context) -> Path:
    """Write a notebook's answer, to be collected; the context (device, hashes, ...) goes to the manifest."""
    return write_json(Path(folder) / "metrics.json", {"metrics": metrics, "context": context})


def write_json(path: Path, content: dict) -> Path:
    """Write JSON, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False) as partial:
        json.dump(content, partial, indent=1, default=float)
        partial.write("\n")
    os.chmod(partial.name, 0o644)
    os.replace(partial.name, path)
    return path


def manifests(root: Path | str, notebook: str = "*", only: list[str] | None = None) -> dict[Path, dict]:
    """The manifests of successful runs below a folder, by the run's folder.

    Args:
        root: A profile's folder, results/PROFILE.
        notebook: The notebook's name, without `.ipynb`; by default all.
        only: Runs that count, as `NOTEBOOK/RUN`; by default all that are there, those of an older grid too.
    """
    found = {
        path.parent: json.loads(path.read_text())
        for path in sorted(Path(root).glob(f"runs/{notebook}/*/manifest.json"))
    }
    return {
        folder: manifest
        for folder, manifest in found.items()
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
            rows = pd.DataFrame([json.loads((folder / "metrics.json").read_text())["metrics"]])
        elif not (folder / table).is_file():
            continue
        else:
            rows = pd.read_csv(folder / table)
        parameters = {name: value for name, value in manifest["parameters"].items() if name not in rows}
        rows.insert(0, "run", folder.name)
        rows.insert(0, "notebook", notebook)
        frames.append(rows.assign(**{k: str(v) if isinstance(v, list) else v for k, v in parameters.items()}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
