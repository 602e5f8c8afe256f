"""`make slurm`: what a cluster is asked for, run by run, and what its log says of a run that did not finish.

Memory and minutes come from the estimate, made where the command is given; see docs/slurm.md.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from lmeraser_kit import checks
from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)

from lmeraser_kit.experiments.estimate import estimate
from lmeraser_kit.experiments.results import PROJECT, read_json, write_json

PROFILE = PROJECT / "workflow" / "profiles" / "slurm"
PROCESS_GIB = 2.5  # Snakemake, papermill and a kernel with torch, before any image
MARGIN = 4  # the estimate's minutes are good to a factor of two, and nodes differ
LAST_LINES = 8


class Needs(TypedDict):
    """What one run asks for: MiB, minutes (0: the partition's own limit), GPUs, cores."""

    mem_mb: int
    runtime: int
    gpu: int
    cpus_per_task: int


def ready() -> None:
    """Refuse to start where no job could be given to SLURM.

    Raises:
        ValueError: If the plugin or SLURM's commands are missing.
    """
    if find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError("Snakemake's plugin for SLURM is missing: pip install 'lmeraser-kit[batch,slurm]'")
    if missing := [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]:
        raise ValueError(f"no {', '.join(missing)} here: make slurm is given on a login node of a cluster with SLURM")
    done = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"SLURM does not answer here: {done.stderr.strip() or 'sinfo failed'}")


def accounting() -> bool:
    """Whether the cluster keeps accounts of ended jobs, which its command sacct shows."""
    if shutil.which("sacct") is None:
        return False
    return subprocess.run(["sacct", "--noheader", "--starttime", "now"], capture_output=True).returncode == 0


def needs(
    config: dict, gpus: int = 0, cores: int = 1, memory: float | None = None, minutes: int | None = None
) -> dict[str, Needs]:
    """What each run of a profile asks for at its first attempt.

    Args:
        config: What a file of workflow/config holds.
        gpus: GPUs of a run. With a GPU the minutes of this machine say nothing: the partition's limit holds.
        cores: Cores of a run.
        memory: GiB, instead of the estimate's.
        minutes: Minutes, instead of the estimate's.

    Returns:
        Notebook/run -> needs.

    Raises:
        ValueError: If an argument is none of these, or as for `estimate`.
    """
    checks.whole("GPUS", gpus, 0), checks.whole("CORES", cores)
    if memory is not None:
        checks.number("MEMORY", memory, 0.1)
    if minutes is not None:
        checks.whole("MINUTES", minutes)
    asked: dict[str, Needs] = {}
    for row in estimate(config).to_dict("records"):
        gib = PROCESS_GIB + 2 * row["GiB"] if memory is None else memory
        most = max(20, math.ceil(MARGIN * row["minutes"])) if minutes is None else minutes
        asked[f"{row['notebook']}/{row['run']}"] = {
            "mem_mb": math.ceil(1024 * gib),
            "runtime": 0 if gpus and minutes is None else most,
            "gpu": gpus,
            "cpus_per_task": cores,
        }
    return asked


def command(root: Path, asked: dict[str, Needs], partition: str | None, account: str | None) -> list[str]:
    """Snakemake's options for SLURM; what runs ask for is written into their folder.

    Args:
        root: The profile's folder, results/NAME.
        asked: What `needs` gives.
        partition: The partition, or None for the cluster's default.
        account: The account, or None for none.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "slurm.json", asked)
    words = ["--workflow-profile", str(PROFILE), "--slurm-logdir", str(root / "logs")]
    words += ["--slurm-jobname-prefix", _prefix(root)]
    if not accounting():
        words += ["--slurm-status-command", "squeue"]  # knows ended jobs for as long as MinJobAge says
    given = {"slurm_partition": partition, "slurm_account": account}
    if said := [f"{name}={value}" for name, value in given.items() if value]:
        words += ["--default-resources", *said]
    return words if account else [*words, "--slurm-no-account"]


def cancel(root: Path) -> int:
    """Cancel the jobs of a profile's folder that are still in the queue, as a call leaves them that was killed.

    Args:
        root: The profile's folder, results/NAME.

    Returns:
        How many there were.
    """
    queue = subprocess.run(["squeue", "--me", "--noheader", "--format=%i %j %Z"], capture_output=True, text=True)
    jobs = [line.split(maxsplit=2) for line in queue.stdout.splitlines()]
    mine = [job for job, name, *where in jobs if name.startswith(f"{_prefix(root)}_") and where == [str(PROJECT)]]
    if mine:
        subprocess.run(["scancel", *mine])
    return len(mine)


def _prefix(root: Path) -> str:
    return "".join(c if c.isalnum() else "-" for c in root.name)[:50]


def unfinished(root: Path, planned: list[tuple[str, str]], since: float = 0) -> list[str]:
    """What is known of runs that did not finish: the error of a cell, or the last lines of the newest log.

    Args:
        root: The profile's folder, results/NAME.
        planned: Notebooks and runs.
        since: When this call began, in seconds since 1970: what is older is of another.

    Returns:
        Lines of text.
    """
    lines = []
    for notebook, run in planned:
        folder = root / "runs" / notebook / run
        if (folder / "executed.ipynb").is_file():
            continue
        file, of_run = folder / "manifest.json", root / "logs" / "rule_notebook" / f"{notebook}_{run}"
        manifest = read_json(file) if file.is_file() and file.stat().st_mtime >= since else {}
        logs = sorted(of_run.glob("*.log"), key=lambda path: path.stat().st_mtime)
        logs = [path for path in logs if path.stat().st_mtime >= since]
        if not manifest and not logs:
            continue  # it was not begun
        lines.append(f"\n{notebook}/{run}: {manifest.get('error', 'ended by the cluster, see its log')}")
        if logs:
            said = [line for line in logs[-1].read_text(errors="replace").splitlines() if line.strip()]
            lines += [f"    {line}" for line in said[-LAST_LINES:]] + [f"    (all of it: {logs[-1]})"]
    return lines
