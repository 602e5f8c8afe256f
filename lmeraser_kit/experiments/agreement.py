"""How a run of a profile agrees with its committed reference, table by table.

A table is *equal* if every number is, to the last bit; *within* if its differences are no larger than those that
another chip makes; otherwise it *differs*. What another chip makes was measured: the same profile, run with other
kernels of the matrix libraries, leaves for every column of every table the largest difference and the root mean square
(`tolerance.csv` beside the reference, written by `make tolerance`). Times are never compared.

    python -m lmeraser_kit.experiments.agreement quick            # results/quick against results/reference/quick
    python -m lmeraser_kit.experiments.agreement quick --name quick-nehalem
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmeraser_kit.experiments.results import PROJECT, manifests, profile_file, run_folder, write_json

REFERENCE = PROJECT / "results" / "reference"
TIMED = re.compile("seconds|times_faster|^images_per_second")  # columns that a clock has made
DEVIATIONS = 3  # a difference within so many root mean squares is within what another chip explains
ROUNDING = 1e-12  # a share: sums of few numbers in another order
SHOWN = 3  # rows that differ, of each table
WHERE = ("chip", "device", "blas", "probe", "probe_numpy", "threads", "torch", "numpy", "scipy", "scikit-learn", "kit")
PLACES = (*WHERE, "cores")  # times depend on the last, and nothing else


@dataclass(frozen=True)
class TableAgreement:
    """How one table agrees.

    Attributes:
        table: Its name.
        verdict: `equal`, `within`, `differs`, `times` (it holds times alone), `missing` (this run did not make it) or
            `new` (the reference has none).
        compared: How many numbers and words were compared.
        unequal: How many of them are not equal.
        largest: The largest difference of two numbers.
        tolerance: The tolerance of that number's column.
        rows: The first rows that differ, in words.
    """

    table: str
    verdict: str
    compared: int = 0
    unequal: int = 0
    largest: float = 0.0
    tolerance: float = 0.0
    rows: list[str] = field(default_factory=list)


def differences(mine: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Every cell of two versions of a table, side by side, less the times.

    Returns:
        Columns row (its key, in words), column, mine, reference, and difference: 0 where they are equal, NaN where two
        values are not both numbers.
    """
    mine, reference, cells = _by_key(mine), _by_key(reference), []
    if all(TIMED.search(column) for column in {*mine.columns, *reference.columns}):
        return pd.DataFrame(columns=["row", "column", "mine", "reference", "difference"])  # rows hang on the chip
    for row in dict.fromkeys([*reference.index, *mine.index]):
        if row not in mine.index or row not in reference.index:
            cells.append((row, "the row", row in mine.index, row in reference.index, np.nan))
            continue
        for column in dict.fromkeys([*reference.columns, *mine.columns]):
            if TIMED.search(column):
                continue
            pair = [frame.loc[row, column] if column in frame else "no such column" for frame in (mine, reference)]
            cells.append((row, column, *pair, _difference(*pair)))
    return pd.DataFrame(cells, columns=["row", "column", "mine", "reference", "difference"])


def _by_key(table: pd.DataFrame) -> pd.DataFrame:
    """A table indexed by what its rows are about: the columns before the first mean, or those that are no fractions."""
    means = [i for i, name in enumerate(table) if name.endswith("_mean")]
    fractions = [i for i, name in enumerate(table) if table[name].dtype.kind == "f"]
    words = [name for name in table if table[name].dtype.kind not in "fiub"]
    keys = list(table.columns[: means[0]]) if means else list(table.columns[: fractions[0]]) if fractions else words
    rows = [", ".join(f"{value}" for value in values) for values in table[keys].itertuples(index=False)]
    counts = pd.Series(rows, dtype=object).groupby(rows).cumcount() if rows else []
    index = [row + (f" ({n + 1})" if n else "") for row, n in zip(rows, counts, strict=True)]
    return table.drop(columns=keys).set_axis(pd.Index(index, dtype=object))


def _difference(mine: Any, reference: Any) -> float:
    numeric = [
        isinstance(x, (int, float, np.number)) and not isinstance(x, (bool, np.bool_)) for x in (mine, reference)
    ]
    if all(numeric):
        if mine == reference or (np.isnan(mine) and np.isnan(reference)):
            return 0.0
        return abs(float(mine) - float(reference))
    return 0.0 if type(mine) is type(reference) and mine == reference else np.nan


def tolerances(profile: str) -> dict[str, float]:
    """How far numbers of a column may be apart because of another chip: the column's name -> tolerance.

    The largest difference that was measured between kernels in the columns of that name, over all tables, or DEVIATIONS
    root mean squares, whichever is larger. Columns that end in `accuracy_mean` count as one, and so do their intervals.
    """
    path = REFERENCE / profile / "tolerance.csv"
    if not path.is_file():
        return {}
    measured = pd.read_csv(path)
    measured["squares"] = measured["values"] * measured["root_mean_square"] ** 2
    by_kind = measured.groupby(measured["column"].map(_kind)).agg({"largest": "max", "squares": "sum", "values": "sum"})
    mean_square = np.sqrt(by_kind["squares"] / by_kind["values"])
    return np.maximum(by_kind["largest"], DEVIATIONS * mean_square).to_dict()


def _kind(column: str) -> str:
    """The columns that one tolerance holds for: probe_accuracy_mean is an accuracy_mean, too."""
    return column[column.rfind("accuracy_") :] if "accuracy_" in column else column


def compare(root: Path | str, profile: str) -> list[TableAgreement]:
    """Compare the tables below a folder with a profile's reference.

    Args:
        root: The run's folder, results/NAME.
        profile: The profile's name.
    """
    paths = [{p.stem: p for p in sorted(Path(r).glob("tables/*.csv"))} for r in (root, REFERENCE / profile)]
    allowed, verdicts = tolerances(profile), []
    for table in sorted(paths[0].keys() | paths[1].keys()):
        if any(table not in side for side in paths):
            verdicts.append(TableAgreement(table, "new" if table in paths[0] else "missing"))
            continue
        cells = differences(*(pd.read_csv(side[table]) for side in paths))
        unequal = cells[cells["difference"] != 0]
        rounding = ROUNDING * np.abs(pd.to_numeric(unequal["reference"], errors="coerce").fillna(0).to_numpy(float))
        tolerance = np.maximum([allowed.get(_kind(column), 0.0) for column in unequal["column"]], rounding)
        beyond = ~(unequal["difference"].to_numpy(float) <= tolerance)
        numbers = unequal["difference"].dropna()
        rows = [
            f"{r.row}: {r.column} is {r.mine}, {r.reference} in the reference"
            + (f" ({r.difference:.2g} apart, {t:.2g} allowed)" if np.isfinite(r.difference) else "")
            for r, t in zip(unequal[beyond].head(SHOWN).itertuples(), tolerance[beyond], strict=False)
        ]
        verdicts.append(
            TableAgreement(
                table,
                "differs" if beyond.any() else "within" if len(unequal) else "equal" if len(cells) else "times",
                len(cells),
                len(unequal),
                float(numbers.max()) if len(numbers) else 0.0,
                float(tolerance[numbers.argmax()]) if len(numbers) == len(unequal) and len(numbers) else 0.0,
                rows,
            )
        )
    return verdicts


def places(root: Path | str) -> dict[str, set[str]]:
    """Where the runs below a folder computed: the values of each of PLACES that their manifests name."""
    environments = [m.get("machine", {}) | m.get("environment", {}) for m in manifests(root).values()]
    return {name: {str(e[name]) for e in environments if name in e} for name in PLACES}


def caveats(root: Path | str, reference: Path | str) -> list[str]:
    """Why two runs of a profile, in two folders, may not be equal: other parameters, other code, another machine."""
    pairs = [{f"{f.parent.name}/{f.name}": m for f, m in manifests(r).items()} for r in (root, reference)]
    changed = {
        f"{name} ({theirs['parameters'].get(name)} in the reference, {mine['parameters'].get(name)} here)"
        for run, theirs in pairs[1].items()
        if (mine := pairs[0].get(run)) and not run.startswith("05_report")
        for name in theirs["parameters"].keys() | mine["parameters"].keys()
        if mine["parameters"].get(name) != theirs["parameters"].get(name)
    }
    absent = [run for run in pairs[1] if run not in pairs[0]]
    lines = [f"parameters are not the reference's: {'; '.join(sorted(changed))}"] if changed else []
    lines += (
        [f"{len(absent)} of the reference's {len(pairs[1])} runs are missing, such as {absent[0]}"] if absent else []
    )
    here, there = places(root), places(reference)
    for name in PLACES:
        if here[name] != there[name] and (here[name] or there[name]):
            sides = [", ".join(sorted(side[name])) or "not recorded" for side in (here, there)]
            lines.append(f"{name}: {sides[0]} here, {sides[1]} in the reference")
    return lines


def report(root: Path | str, profile: str) -> tuple[list[TableAgreement], list[str]]:
    """Compare a run with its profile's reference, keep the result as `agreement.json`, and say it in lines of text."""
    if not any(Path(root).glob("tables/*.csv")):
        raise ValueError(
            f"there are no tables in {root}: make reproduce PROFILE={profile} NAME={Path(root).name} makes them"
        )
    if not (REFERENCE / profile).is_dir():
        return [], [f"No reference is committed for the profile {profile!r}: there is nothing to compare with."]
    tables, why = compare(root, profile), caveats(root, REFERENCE / profile)
    write_json(Path(root) / "agreement.json", {"tables": [asdict(one) for one in tables], "what_is_not_the_same": why})
    lines = [f"Agreement with the reference (results/reference/{profile}); times are not compared:"]
    for one in tables:
        about = ""
        if one.unequal:
            about = f": {one.unequal} of {one.compared} values are not equal, by {one.largest:.2g} at most"
        lines += [f"  {one.table:20} {_says(one.verdict)}{about}", *(f"      {row}" for row in one.rows)]
    if why:
        lines += ["What is not the same, and may explain it:" if _any_unequal(tables) else "What is not the same:"]
        lines += [f"  {line}" for line in why]
    measured = tolerances(profile)
    if not measured and _any_unequal(tables):
        lines.append("  What another chip explains was not measured for this profile: every difference counts.")
    return tables, [*lines, f"In short: {summary(tables)}."]


def summary(tables: Iterable[TableAgreement]) -> str:
    """How many tables have each verdict, in words."""
    verdicts = [one.verdict for one in tables]
    return ", ".join(f"{verdicts.count(v)} {_says(v)}" for v in dict.fromkeys(verdicts)) or "no table"


def _any_unequal(tables: Iterable[TableAgreement]) -> bool:
    return any(one.unequal for one in tables)


def _says(verdict: str) -> str:
    return {
        "equal": "equal to the bit",
        "within": "equal within what another chip explains",
        "differs": "DIFFERS",
        "times": "times alone",
        "missing": "missing in this run",
        "new": "not in the reference",
    }[verdict]


def main(arguments: list[str] | None = None) -> int:
    """Print the agreement; exit status 1 if a table differs or is missing, 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.experiments.agreement", description="Compare with the reference."
    )
    parser.add_argument("profile")
    parser.add_argument("--name", help="the run's folder below results/; by default the profile's name")
    options = parser.parse_args(arguments)
    try:
        profile_file(options.profile)
        tables, lines = report(run_folder(options.name or options.profile), options.profile)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return int(any(one.verdict in ("differs", "missing") for one in tables))


if __name__ == "__main__":
    sys.exit(main())
