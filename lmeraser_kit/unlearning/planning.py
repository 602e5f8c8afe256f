"""What a fit or a request would learn, before anything is learnt."""

from __future__ import annotations

from collections.abc import Iterable

from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.unlearning.rebuild import Rebuild, empty_state, warn_if_uneven
from lmeraser_kit.unlearning.state import State


def planned(rebuild: Rebuild, private: Samples, owner: str | Iterable[str] | None) -> dict[int, int]:
    """How many samples each cluster that would be learnt has, by number.

    Args:
        rebuild: How states are computed.
        private: The samples that are held.
        owner: Whose request is planned, one or several; None for the fit.

    Raises:
        ValueError: If an owner has no sample.
    """
    routing, members, features = rebuild.route(empty_state(private), {}, private)
    if owner is None:
        warn_if_uneven(members, routing)
        return {k: len(members[k]) for k in sorted(members)}
    state = State(routing, members, features, {}, empty_state(private).empty)
    _, after, _ = rebuild.route(state, state.clusters_of(private.uids_of(owner)), state.empty)
    before = {part.digest for part in members.values()}
    return {k: len(after[k]) for k in sorted(after) if after[k].digest not in before}
