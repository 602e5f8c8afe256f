"""One papermill run made strict.

papermill warns about an unknown parameter and goes on, and passes on any type. Here a run is refused before its kernel
starts if a parameter is refused (`parameters`). A run leaves a folder: `executed.ipynb`, `params.yaml`, `manifest.json`
(where, when, with what, on which data), `metrics.json` and what else the notebook saves there.

    python -m lmeraser_kit.experiments.runs notebooks/experiments/04_unlearning.ipynb results/mine -y "{n_clusters: 4}"
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from lmeraser_kit.experiments.extras import need

need("batch", __name__)

# jsonschema would build a grammar of URIs that no notebook needs; it takes seconds in every process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lmeraser_kit.data.inputs import input_digests
from lmeraser_kit.experiments.parameters import check_names, check_parameters
from lmeraser_kit.experiments.results import PROJECT, read_json, write_json
from lmeraser_kit.ground.files import PARTIAL, flush_folder, flush_tree, replacing

VERSIONS = ("lmeraser-kit", "torch", "torchvision", "timm", "numpy", "scikit-learn", "papermill")
PARAMETERS = "params.yaml"  # its name marks a run's folder
MEMORY = ("MemoryError", "OutOfMemoryError")  # with more of it the same cell may pass
KERNEL_STARTS = 3  # parallel kernels now and then collide on a port, or die at their start
QUIET = ["--IPKernelApp.log_level=40"]  # no warning that local sockets are not encrypted


def run_notebook(notebook: Path | str, folder: Path | str, parameters: dict, checked: bool = False) -> dict:
    """Execute a notebook with papermill, strictly, and leave a manifest.

    Args:
        notebook: The notebook.
        folder: Where the run's files go; the notebook gets it as its parameter `output`.
        parameters: Values for its parameters.
        checked: Whether names in them have been checked, which takes seconds.

    Returns:
        The manifest.

    Raises:
        ValueError: If a parameter is refused, or the folder holds something else than an earlier run; nothing has
            started then. Or if a data file was replaced while the run read it.
        PapermillExecutionError: If a cell fails; `failed.ipynb` and the manifest are left to look at.
    """
    effective = check_parameters(notebook, parameters)
    if not checked:
        check_names(notebook, parameters)
    folder = Path(folder).resolve()
    make_run_folder(folder)
    inputs = input_digests(effective)
    manifest = {
        "notebook": Path(notebook).name,
        "parameters": effective,
        **git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
        "status": "failed",
    }
    with replacing(folder / PARAMETERS) as mark:
        mark.write_text(yaml.safe_dump(effective, sort_keys=True))
    partial, started = folder / "partial.ipynb", time.perf_counter()
    try:
        _execute(notebook, partial, {**parameters, "output": str(folder)})
        if not (folder / "metrics.json").is_file():
            raise FileNotFoundError(f"{Path(notebook).name} ended without an answer: it must call results.save_metrics")
        manifest |= read_json(folder / "metrics.json")["context"]
        manifest["inputs"] = _unchanged(inputs, input_digests(effective))
        os.replace(partial, folder / "executed.ipynb")
        flush_tree(folder)  # a manifest that says ok is the last that is written
        manifest["status"] = "ok"
    except BaseException as error:
        name, said = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        manifest |= {
            "error": f"{name}: {said}",
            "lasting": isinstance(error, PapermillExecutionError) and name not in MEMORY,
        }
        if partial.is_file():
            os.replace(partial, folder / "failed.ipynb")
        raise
    finally:
        manifest["seconds"] = round(time.perf_counter() - started, 2)
        write_json(folder / "manifest.json", manifest)
    return manifest


def make_run_folder(folder: Path) -> None:
    """Make a run's folder, or empty that of an earlier run: no file of an old run may pass for one of a new run.

    Raises:
        ValueError: If there is something in it, and it is no run's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.iterdir())
    if any(path.suffix != PARTIAL for path in there) and not (folder / PARAMETERS).is_file():
        raise ValueError(
            f"{folder} is not empty, and no run's folder (it has no {PARAMETERS}): a run empties its folder when it "
            "starts; name another one"
        )
    order = {"manifest.json": 0, PARAMETERS: 2}  # what says that the run is whole goes first, and the mark last
    for path in sorted(there, key=lambda path: order.get(path.name, 1)):
        if path.name == PARAMETERS:
            flush_folder(folder)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if path.name == "manifest.json":
            flush_folder(folder)


def _unchanged(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """The files read, with their hashes; what was downloaded is there only afterwards."""
    for path, hashed in before.items():
        if after.get(path) != hashed:
            raise ValueError(f"{path} was replaced or removed while the run read it: run again")
    return after


def stale(root: Path | str, planned: dict[tuple[str, str], dict]) -> dict[tuple[str, str], str]:
    """Finished runs of a plan that were made from a file with other contents than today's: run -> the file's path.

    Args:
        root: A profile's folder, results/PROFILE.
        planned: What `plan` gives.
    """
    stale = {}
    for notebook, run in planned:
        path = Path(root) / "runs" / notebook / run / "manifest.json"
        manifest = read_json(path) if path.is_file() else {}
        then = manifest.get("inputs", {})
        now = input_digests(manifest["parameters"]) if manifest.get("status") == "ok" else then
        changed = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
        if changed:
            stale[notebook, run] = changed[0]
    return stale


def _execute(notebook: Path | str, executed: Path, parameters: dict) -> None:
    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters,
                kernel_name="python3",
                progress_bar=False,
                start_timeout=180,
                extra_arguments=QUIET,
            )
            return
        except (DeadKernelError, RuntimeError) as error:
            if isinstance(error, PapermillExecutionError) or attempt == KERNEL_STARTS:
                raise
            print(f"the kernel died ({error}); starting again", file=sys.stderr)


def git_state() -> dict:
    """The commit, and whether the tree was clean (the reference aside); None outside a git checkout."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ".", ":!results/reference")
    return {"commit": git("rev-parse", "HEAD"), "clean": None if status is None else status == ""}


def main(arguments: list[str] | None = None) -> int:
    """The command line: run one notebook."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.experiments.runs", description="Run one notebook, strictly."
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path, help="where the run's files go")
    parser.add_argument("-y", "--yaml", default="{}", help="parameters, as YAML: '{n_clusters: 4}'")
    parser.add_argument("--checked", action="store_true", help="names in the parameters have been checked")
    parser.add_argument("--attempt", type=int, default=1, help="a second one ends at once if a cell has failed")
    options = parser.parse_args(arguments)
    name = f"{options.notebook.stem}/{options.folder.name}"
    manifest = options.folder / "manifest.json"
    before = read_json(manifest) if options.attempt > 1 and manifest.is_file() else {}
    if before.get("lasting"):
        print(f"{name}: not tried again, it would fail again: {before['error']}", file=sys.stderr)
        return 1
    try:
        parameters = check_parameters(options.notebook, yaml.safe_load(options.yaml) or {})
        print(f"{name}: started", flush=True)
        manifest = run_notebook(options.notebook, options.folder, parameters, options.checked)
    except (ValueError, FileNotFoundError, yaml.YAMLError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130
    except PapermillExecutionError as error:
        what = f"{error.ename}: {error.evalue}\n(all of it: {options.folder}/failed.ipynb)"
        print(f"{name}: FAILED in this cell:\n\n{error.source}\n\n{what}", file=sys.stderr)
        return 1
    print(f"{name}: done in {manifest['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
