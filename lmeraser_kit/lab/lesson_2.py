"""Checks of lesson 2's exercises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def exercise_1(who_moves: Callable) -> str:
    """Who is in another shard, by position, when one leaves."""
    uids = [f"u{i}" for i in range(12)]
    for n_shards in (1, 3, 5):
        for gone in (0, 4, 11):
            found = who_moves(list(uids), uids[gone], n_shards)
            if uids[gone] in list(found):
                return "the person who leaves is in no shard afterwards: leave them out."
            if n_shards == 1 and list(found):
                return "with one shard nobody can move, and your list is not empty."
            right = {uid for i, uid in enumerate(uids) if i > gone and n_shards > 1}
            if missing := right - set(found):
                return f"with {n_shards} shards {min(missing)} moves too when {uids[gone]} leaves: all behind them do."
            if extra := set(found) - right:
                return f"{min(extra)} stays in their shard when {uids[gone]} leaves: they are before them in the list."
    return ""


def exercise_2(cost_share: Callable) -> str:
    """`2/3 + 1/(3R)`, Bourtoule et al. (2021), Section V."""
    for r in (1, 2, 3, 10):
        found = cost_share(r)
        found, right = float(found), 2 / 3 + 1 / (3 * r)
        if np.isclose(found, right):
            continue
        if r == 1:
            return f"with one slice everything is learned again: expected 1, your function says {found:.3g}."
        if np.isclose(found, (r + 1) / (2 * r)):
            return "you count passes, but pass j goes over j slices: later passes cost more."
        return f"with {r} slices it is {right:.4f}, your function says {found:.4g}: list the passes that are repeated."
    return ""
