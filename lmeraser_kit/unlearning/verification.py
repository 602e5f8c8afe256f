"""Verification: is a state, bit for bit, what a fit on the samples held gives? By doing that, from nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from sklearn.base import clone

from lmeraser_kit import checks
from lmeraser_kit.ground.html import some_of
from lmeraser_kit.unlearning.rebuild import Rebuild, empty_state
from lmeraser_kit.unlearning.state import ExactnessError, State


def verify_state(
    state: State, rebuild: Rebuild, then: Mapping, clusters: Iterable[int] | None = None, word: str = "cluster"
) -> None:
    """Compare a state with a fit on its samples; see `BaseEraser.verify`.

    Args:
        state: The state.
        rebuild: How states are computed.
        then: The environment in which this one was computed.
        clusters: Numbers of the clusters to learn again; all by default.
        word: What messages call a cluster.

    Raises:
        ExactnessError: If one bit differs; the message names what, its `pieces` all of it.
        RuntimeError: If the environment has changed, so that bits cannot be compared.
        ValueError: If there is no such cluster.
    """
    here, models = rebuild.environment, state.models
    if changed := environment_changes(then, here):
        raise RuntimeError(f"bits cannot be compared, environment changed ({changed}): fit again")
    given = models if clusters is None else clusters if isinstance(clusters, Iterable) else [clusters]
    chosen = {checks.whole("clusters", k, least=0) for k in given}
    if unknown := chosen - models.keys():
        raise ValueError(f"no {word} {min(unknown)}; there are: {some_of(map(str, sorted(models)), len(models))}")
    trusted = {c.address: c for k in models.keys() - chosen for c in models[k].checkpoints()}
    samples = state.samples.without_cache()
    rebuild = replace(rebuild, partition=clone(rebuild.partition), learner=clone(rebuild.learner))  # they kept nothing
    fresh = rebuild.successor(empty_state(samples), {}, samples, trusted).state
    held, expected = state.pieces(again=True), fresh.pieces(again=True)
    wrong = [name for name in held | expected if held.get(name) != expected.get(name)]
    if wrong:
        named = some_of((re.sub("^cluster ", f"{word} ", name) for name in wrong), len(wrong))
        raise ExactnessError(f"not what a fit on the {len(samples)} samples held gives: {named}", wrong)


def environment_changes(then: Mapping[str, str | int], here: Mapping[str, str | int]) -> str:
    """What of the environment in which a state was computed is not so here, in words; empty if nothing."""
    return "; ".join(
        f"{name}: {value} then, {here.get(name)} now" for name, value in then.items() if here.get(name) != value
    )
