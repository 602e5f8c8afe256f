"""How well a list of candidate pairs names the pairs that it should: recall and precision, with 95% intervals."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from scipy import special

from lmeraser_kit import checks


def share(name: str, hits: int, n: int) -> dict[str, float]:
    """A share of n with its 95% interval (Clopper and Pearson 1934): NAME, NAME_low, NAME_high; NaN, 0 and 1 of none.

    Raises:
        ValueError: If `hits` is no whole number from 0 to n.
    """
    name, n = checks.text("name", name), checks.whole("n", n, 0)
    hits = checks.whole("hits", hits, 0, n)
    low = float(special.betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return {name: hits / n if n else float("nan"), f"{name}_low": low, f"{name}_high": high}


def judged_pairs(found: pd.DataFrame, wanted: Iterable[tuple[str, str]], asked: Iterable[str]) -> dict[str, float]:
    """Recall and precision of what `eraser.closure` has listed.

    Args:
        found: Its table, of which `uid` and `copy_of` are read.
        wanted: The pairs that it should have, as (uid, copy_of).
        asked: Who was asked about; rows of others do not count.

    Returns:
        `recall` and `precision`, each with `_low` and `_high`; `wanted`, `listed` (how many pairs), and `others`, the
        listed pairs that are not wanted, per image asked about.

    Raises:
        ValueError: If nobody is asked about, or the table lacks a column.
    """
    asked, wanted = set(checks.names("asked", asked)), set(wanted)
    if not asked:
        raise ValueError("asked is empty, expected one uid at least")
    columns = checks.instance("found", found, pd.DataFrame).columns
    if lacking := {"uid", "copy_of"} - set(columns):
        raise ValueError(f"found has no column {min(lacking)!r}, expected the table of eraser.closure")
    listed = {pair for pair in zip(found["uid"], found["copy_of"], strict=True) if pair[1] in asked}
    right = len(listed & wanted)
    return (
        share("recall", right, len(wanted))
        | share("precision", right, len(listed))
        | {"wanted": len(wanted), "listed": len(listed), "others": (len(listed) - right) / len(asked)}
    )
