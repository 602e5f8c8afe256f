"""`make reproduce` and `make slurm`: one profile through Snakemake, stopped and taken up at will, and how it agrees.

SET='{seed: [0]}' python -m lmeraser_kit.experiments.reproduce quick --name mine --cores 2
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)

import yaml

from lmeraser_kit.data.inputs import DATA, absent_inputs
from lmeraser_kit.experiments import agreement, profiles
from lmeraser_kit.experiments.parameters import check_names
from lmeraser_kit.experiments.results import PROJECT, profile_file, run_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a request to end, a closed terminal


def fetch(plan: dict[tuple[str, str], dict]) -> None:
    """Download the datasets and weights of a plan that are not there, once and before any run.

    Raises:
        ValueError: If one cannot be had; the message says where its files are expected.
    """
    datasets, backbones = absent_inputs(plan.values())
    if not datasets and not backbones:
        return
    from lmeraser_kit.backbones import Backbone  # torch, which takes seconds
    from lmeraser_kit.data.datasets import load_dataset

    print(f"Not in {DATA}, to be downloaded or found elsewhere: {', '.join([*datasets, *backbones])}", flush=True)
    for name in datasets:
        load_dataset(name)
    for name in backbones:
        Backbone.from_timm(name, device="cpu")


def reproduce(profile: str, name: str, cores: int, changes: str, lock: int | None, cluster: dict | None = None) -> int:
    """Run what is missing of a profile, and say what became of it.

    Args:
        profile: The profile.
        name: The folder below results/.
        cores: Runs at a time; on a cluster, cores of a run.
        changes: Other values for parameters, as YAML.
        lock: Descriptor of a locked file, which Snakemake keeps open, so that it stays locked while that lives.
        cluster: For SLURM: `partition`, `account`, `gpus`, `memory` and `minutes`.

    Returns:
        An exit status.
    """
    plan, root = profiles.planned_runs(profile, changes), run_folder(name)
    if name == profile and (yaml.safe_load(changes) or {}):
        raise ValueError(f"SET changes the profile {profile!r}, whose runs it would replace: give NAME=mine, too")
    for (notebook, _), given in plan.items():
        check_names(notebook, given)
    where = ["--cores", str(cores)] if cluster is None else on_cluster(profile, changes, root, cores, **cluster)
    fetch(plan)
    stopped, child, began = False, None, time.time()

    def stop(*_) -> None:
        nonlocal stopped
        stopped = True
        if child is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(child.pid, signal.SIGINT)  # Snakemake and its runs are a group of their own: told once, by us

    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    command += ["--config", f"profile={profile}", f"name={name}", *where]
    command += ["--keep-going", "--rerun-incomplete", "--nolock", "--quiet", "rules", "host", "reason"]
    environment = {**os.environ, "SET": changes}
    # A shell's background job ignores SIGINT, and would hand that down; with a handler here, the child has the default.
    before = [signal.signal(number, stop) for number in SIGNALS]
    child = subprocess.Popen(
        command, cwd=PROJECT, env=environment, start_new_session=True, pass_fds=[] if lock is None else [lock]
    )
    if stopped:
        stop()
    status = child.wait()
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    done = sum((root / "runs" / notebook / run / "executed.ipynb").is_file() for notebook, run in plan)
    if stopped or status:
        if cluster is not None:
            from lmeraser_kit.experiments import slurm

            print("\n".join(slurm.unfinished(root, list(plan), began)))
            if left := slurm.cancel(root):
                print(f"{left} jobs were still in the queue, and have been cancelled.")
        what = "Stopped" if stopped else "Not finished, see above"
        print(f"\n{what}: {done} of {len(plan)} runs are done, and stay done; the same command goes on with the rest.")
        return 130 if stopped else status
    print("\n".join(agreement.report(root, profile)[1]))
    print(f"The report: {(root / 'report.html').relative_to(PROJECT)}")
    return 0


def on_cluster(
    profile: str,
    changes: str,
    root: Path,
    cores: int,
    partition: str | None,
    account: str | None,
    gpus: int,
    memory: float | None,
    minutes: int | None,
) -> list[str]:
    """Snakemake's options for a cluster, after the estimate of what each run needs."""
    from lmeraser_kit.experiments import slurm  # and with it torch, which takes seconds

    slurm.ready()
    config = profiles.changed(yaml.safe_load(profile_file(profile).read_text()), yaml.safe_load(changes) or {})
    if left := slurm.cancel(root):
        print(f"{left} jobs of an earlier call were still in the queue, and have been cancelled.")
    asked = slurm.needs(config, gpus, cores, memory, minutes)
    gib, most = max(one["mem_mb"] for one in asked.values()) / 1024, max(one["runtime"] for one in asked.values())
    print(f"{len(asked)} runs ask for up to {gib:.1f} GiB, {f'{most} minutes' if most else 'as long as there is'}:")
    print(f"{root / 'slurm.json'}. Their logs: {root / 'logs'}. In the queue:")
    print("squeue --me --format='%.9i %.10P %.70k %.2t %.10M %R'", flush=True)
    return [f"needs={root / 'slurm.json'}", *slurm.command(root, asked, partition, account)]


@contextlib.contextmanager
def only_one() -> Iterator[int | None]:
    """One call at a time in a repository; the lock is the kernel's, so that a killed call leaves none.

    Yields:
        Descriptor of the locked file, or None where the file system has no locks, which is said.

    Raises:
        BlockingIOError: If another call is at work.
    """
    lock = PROJECT / ".snakemake" / "reproduce.lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(
                "Another make reproduce is at work in this folder: wait for it, or stop it "
                f"(kill -INT {file.read().strip()})."
            ) from None
        except OSError as error:  # some shared disks have no locks
            print(f"No lock can be had here ({error}): see that no other make reproduce is at work in this folder.")
            yield None
            return
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield file.fileno()


def _number(name: str, text: str, kind: type, least: float = 1) -> Any:
    """A number of the command line. Raises ValueError: if it is none, or too small."""
    try:
        if (value := kind(text)) >= least:
            return value
    except ValueError:
        pass
    raise ValueError(f"{name} is {text!r}, expected a {'whole ' * (kind is int)}number from {least}")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lmeraser_kit.experiments.reproduce", description="Run a profile.")
    parser.add_argument("profile")
    parser.add_argument("--name", help="the folder below results/; by default the profile's name")
    parser.add_argument("--cores", default="1", help="runs at a time; on a cluster, cores of a run")
    parser.add_argument("--slurm", action="store_true", help="give the runs to SLURM; the rest is for it:")
    parser.add_argument("--partition", help="by default the cluster's")
    parser.add_argument("--account", help="by default none")
    parser.add_argument("--gpus", default="", help="GPUs of a run")
    parser.add_argument("--memory", default="", help="GiB of a run, instead of the estimate's")
    parser.add_argument("--minutes", default="", help="minutes of a run, instead of the estimate's")
    options = parser.parse_args(arguments)
    try:
        profile_file(options.profile)
        cores = _number("RUN_CORES" if options.slurm else "CORES", options.cores, int)
        cluster = {"partition": options.partition, "account": options.account}
        cluster |= {
            "gpus": _number("GPUS", options.gpus or "0", int, 0),
            "memory": _number("MEMORY", options.memory, float, 0.1) if options.memory else None,
            "minutes": _number("MINUTES", options.minutes, int) if options.minutes else None,
        }
        with only_one() as lock:
            changes, name = os.environ.get("SET") or "{}", options.name or options.profile
            return reproduce(options.profile, name, cores, changes, lock, cluster if options.slurm else None)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
