"""`make reproduce`: one profile through Snakemake, stopped and taken up again at will, and how it agrees.

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
from collections.abc import Iterator

from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)

import yaml

from lmeraser_kit.data.inputs import DATA, absent_inputs
from lmeraser_kit.experiments import agreement, runs
from lmeraser_kit.experiments.parameters import check_names
from lmeraser_kit.experiments.results import PROJECT, profile_file, run_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a request to end, a closed terminal


def planned_runs(profile: str, changes: str = "{}") -> dict[tuple[str, str], dict]:
    """The runs of a profile, with other values for parameters.

    Args:
        profile: A file's name in workflow/config.
        changes: Names and values as YAML, such as `{seed: [0]}`.

    Raises:
        ValueError: If there is no such profile, or as for `runs.plan` and `runs.changed`.
    """
    path = profile_file(profile)
    try:
        return runs.plan(runs.changed(yaml.safe_load(path.read_text()), yaml.safe_load(changes) or {}))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{profile}: {error}") from error


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


def reproduce(profile: str, name: str, cores: int, changes: str, lock: int) -> int:
    """Run what is missing of a profile, and say what became of it.

    Args:
        profile: The profile.
        name: The folder below results/.
        cores: Runs at a time.
        changes: Other values for parameters, as YAML.
        lock: Descriptor of a locked file, which Snakemake keeps open, so that it stays locked while that lives.

    Returns:
        An exit status.
    """
    plan, root = planned_runs(profile, changes), run_folder(name)
    if name == profile and (yaml.safe_load(changes) or {}):
        raise ValueError(f"SET changes the profile {profile!r}, whose runs it would replace: give NAME=mine, too")
    for (notebook, _), given in plan.items():
        check_names(notebook, given)
    fetch(plan)
    stopped, child = False, None

    def stop(*_) -> None:
        nonlocal stopped
        stopped = True
        if child is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(child.pid, signal.SIGINT)  # Snakemake and its runs are a group of their own: told once, by us

    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    command += ["--config", f"profile={profile}", f"name={name}", "--cores", str(cores)]
    command += ["--keep-going", "--rerun-incomplete", "--nolock", "--quiet", "rules", "host", "reason"]
    environment = {**os.environ, "SET": changes}
    # A shell's background job ignores SIGINT, and would hand that down; with a handler here, the child has the default.
    before = [signal.signal(number, stop) for number in SIGNALS]
    child = subprocess.Popen(command, cwd=PROJECT, env=environment, start_new_session=True, pass_fds=[lock])
    if stopped:
        stop()
    status = child.wait()
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    done = sum((root / "runs" / notebook / run / "executed.ipynb").is_file() for notebook, run in plan)
    if stopped or status:
        what = "Stopped" if stopped else "Not finished, see above"
        print(f"\n{what}: {done} of {len(plan)} runs are done, and stay done; the same command goes on with the rest.")
        return 130 if stopped else status
    print("\n".join(agreement.report(root, profile)[1]))
    print(f"The report: {(root / 'report.html').relative_to(PROJECT)}")
    return 0


@contextlib.contextmanager
def only_one() -> Iterator[int]:
    """One call at a time in a repository; the lock is the kernel's, so that a killed call leaves none.

    Yields:
        Descriptor of the locked file.

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
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield file.fileno()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lmeraser_kit.experiments.reproduce", description="Run a profile.")
    parser.add_argument("profile")
    parser.add_argument("--name", help="the folder below results/; by default the profile's name")
    parser.add_argument("--cores", default="1", help="runs at a time")
    options = parser.parse_args(arguments)
    try:
        profile_file(options.profile)
        if not options.cores.isdigit() or int(options.cores) < 1:
            raise ValueError(f"CORES is {options.cores!r}, expected a whole number from 1")
        with only_one() as lock:
            changes = os.environ.get("SET") or "{}"
            return reproduce(options.profile, options.name or options.profile, int(options.cores), changes, lock)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
