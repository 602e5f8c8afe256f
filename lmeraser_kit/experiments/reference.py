"""For maintainers: a run becomes the committed reference of its profile; what another chip explains is measured.

python -m lmeraser_kit.experiments.reference quick                    # results/quick -> results/reference/quick
python -m lmeraser_kit.experiments.reference quick --tolerance a b    # from results/a and results/b, of other kernels
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)

import numpy as np
import pandas as pd

from lmeraser_kit.experiments import agreement, parameters, runs
from lmeraser_kit.experiments.agreement import REFERENCE
from lmeraser_kit.experiments.profiles import planned_runs
from lmeraser_kit.experiments.results import NOTEBOOKS, PROJECT, manifests, run_folder

KEPT = {"tables": (".csv", ".md"), "figures": (".png", ".svg"), "runs": (".json", ".csv", ".yaml")}


def check_adoptable(root: Path, profile: str) -> None:
    """Refuse a run that may not become the reference.

    Raises:
        ValueError: If the tree is dirty, or the run is incomplete, of other parameters, or of another commit.
    """
    if not runs.git_state()["clean"]:
        raise ValueError("the tree is dirty (or no git checkout): commit first, and run the profile from that commit")
    by_run = {(folder.parent.name, folder.name): manifest for folder, manifest in manifests(root).items()}
    for (notebook, run), changes in planned_runs(profile).items():
        manifest = by_run.get((notebook, run))
        if manifest is None:
            raise ValueError(f"{notebook}/{run} is missing in {root}: make reproduce PROFILE={profile} runs it")
        wanted = parameters.check_parameters(NOTEBOOKS / f"{notebook}.ipynb", changes)
        if manifest["parameters"] != wanted:
            raise ValueError(f"{notebook}/{run} was run with other parameters than the profile's")
        if not manifest["clean"]:
            raise ValueError(f"{notebook}/{run} was made from a dirty tree: run the profile again from a clean one")
        if not _same_code(manifest["commit"]):
            raise ValueError(
                f"{notebook}/{run} was made by another commit ({manifest['commit']}): run the profile again"
            )


def _same_code(commit: str | None) -> bool:
    """Whether a commit and the present one are the same, but for references."""
    words = ["git", "-C", str(PROJECT), "diff", "--quiet", str(commit), "HEAD", "--", ".", ":!results/reference"]
    return subprocess.run(words, capture_output=True).returncode == 0


SAME = ("kit", "torch", "numpy", "scipy", "scikit-learn")  # what runs that differ in kernels alone have in common


def adopt(root: Path, profile: str) -> list[str]:
    """Make a run the reference of its profile: whole, or not at all. Returns what has changed, in words.

    Raises:
        ValueError: As for `check_adoptable`.
    """
    check_adoptable(root, profile)
    target = REFERENCE / profile
    said = agreement.report(root, profile)[1]
    fresh, old = target.with_name(f".{profile}.new"), target.with_name(f".{profile}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    wanted = {f"{notebook}/{run}" for notebook, run in planned_runs(profile)} | {"05_report/only"}
    for part, endings in KEPT.items():
        for path in sorted((root / part).rglob("*")):
            within = path.relative_to(root)
            figure = part == "runs" and "/".join(within.parts[1:3]) not in wanted
            if path.is_file() and path.suffix in endings and not figure:
                (fresh / within).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, fresh / within)
    if (target / "tolerance.csv").is_file():
        shutil.copyfile(target / "tolerance.csv", fresh / "tolerance.csv")
    if target.is_dir():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return said


def measure_tolerance(base: Path, others: list[Path]) -> pd.DataFrame:
    """How far a column's numbers are apart between kernels: runs of one profile against one of them, number by number.

    Args:
        base: The folder of a run.
        others: Folders of runs of the same profile, code and versions, each with other kernels.

    Returns:
        Columns table, column, values (pairs of numbers), largest, root_mean_square, and kernels (those compared).

    Raises:
        ValueError: If one of them has other tables, parameters, code or versions.
    """
    cells, kernels = [], [_kernels(base)]
    for root in others:
        if not root.is_dir():
            raise ValueError(f"there is no {root}: make reproduce NAME={root.name} makes it")
        same = ("parameters", *(f"{name}:" for name in SAME))
        differing = [why for why in agreement.caveats(root, base) if why.startswith(same) or "missing" in why]
        if differing or not any(root.glob("tables/*.csv")):
            raise ValueError(f"{root} says nothing about kernels: {'; '.join(differing) or 'it has no tables'}")
        kernels.append(_kernels(root))
        for path in sorted(base.glob("tables/*.csv")):
            changed = agreement.differences(pd.read_csv(root / "tables" / path.name), pd.read_csv(path))
            cells.append(changed.assign(table=path.stem))
    numbers = pd.concat(cells).dropna(subset=["difference"])
    groups = numbers.groupby(["table", "column"], sort=True)["difference"]
    table = groups.agg(values="size", largest="max", root_mean_square=lambda d: np.sqrt(np.mean(np.square(d))))
    return table.reset_index().assign(kernels=" | ".join(kernels))


def pooled_tolerance(runs: list[Path]) -> pd.DataFrame:
    """As `measure_tolerance`, over groups of runs: only those of the same code and versions are compared.

    Raises:
        ValueError: If a run has no other to be compared with.
    """
    groups: dict[tuple, list[Path]] = {}
    for root in runs:
        where = agreement.places(root)
        groups.setdefault(tuple(tuple(sorted(where.get(name, ()))) for name in SAME), []).append(root)
    if alone := [group[0].name for group in groups.values() if len(group) < 2]:
        raise ValueError(f"no other run of the code and versions of {', '.join(alone)} is named")
    measured = pd.concat([measure_tolerance(first, others) for first, *others in groups.values()])
    measured["squares"] = measured["values"] * measured["root_mean_square"] ** 2
    by = measured.groupby(["table", "column"], sort=True)
    table = by.agg(values=("values", "sum"), largest=("largest", "max"), squares=("squares", "sum"))
    table["root_mean_square"] = np.sqrt(table.pop("squares") / table["values"])
    return table.reset_index().assign(kernels=" || ".join(dict.fromkeys(measured["kernels"])))


def _kernels(root: Path) -> str:
    where = agreement.places(root)
    return ", ".join("/".join(sorted(where[name])) for name in ("chip", "blas"))


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.experiments.reference", description="Replace a reference."
    )
    parser.add_argument("profile")
    parser.add_argument("--name", help="the run's folder below results/; by default PROFILE")
    parser.add_argument("--tolerance", nargs="*", metavar="NAME", help="measure what other kernels change instead")
    options = parser.parse_args(arguments)
    try:
        if options.tolerance == []:
            raise ValueError('no run is named: make tolerance RUNS="quick quick-nehalem quick-default"')
        if options.tolerance:
            table = pooled_tolerance([run_folder(name) for name in options.tolerance])
            table.to_csv(REFERENCE / options.profile / "tolerance.csv", index=False)
            print(table.drop(columns="kernels").to_string(index=False))
        else:
            print("\n".join(adopt(run_folder(options.name or options.profile), options.profile)))
            print(f"results/reference/{options.profile} is now this run: look at git diff, and commit.")
    except ValueError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
