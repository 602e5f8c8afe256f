"""The summed part of a state: rows in buckets, and their exact sums, which follow from the set of samples alone.

A row does not know who else is there, so it is computed once. After a request the rows of those who stay are kept, and
the sums lose the rows that are gone and get those that are new: whole numbers, so these are the sums of a fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.clusters import cluster_addresses
from lmeraser_kit.learners.protocol import Arrays, ClusterModel, Context, SummedLearner
from lmeraser_kit.unlearning.state import ExactnessError, State

TOGETHER = 64  # buckets that are added up in one product


@dataclass
class Buckets:
    """How a state's buckets and sums follow from those before it.

    Attributes:
        learner: What makes rows and sums.
        context: Its `queries` are those who join.
        held: The state before.
        among: Samples that stay may move between buckets whose numbers differ by a multiple of this; None if they
            stay where they are.
        cost: Passes through the backbone so far.
    """

    learner: SummedLearner
    context: Context
    held: State
    among: int | None = None
    cost: int = field(default=0, init=False)

    def made(self, jobs: Mapping[int, tuple[Samples, ClusterModel | None]]) -> dict[int, ClusterModel]:
        """The buckets, by number, of members that are given; a row is computed if no bucket before had it."""
        known = {k: self._known(k, part) for k, (part, _) in jobs.items()}
        parts = [part[[i for i in range(len(part)) if i not in known[k]]] for k, (part, _) in jobs.items()]
        missing = concatenate([self.held.empty, *parts])
        context = self.context if self.context.queries is not None and _same(missing, self.context.queries) else None
        computed = self.learner.rows(missing, context or self.context.of(missing))
        at, models = 0, {}
        for (k, (part, _)), new in zip(jobs.items(), parts, strict=True):
            rows = np.empty((len(part), computed.shape[1]), computed.dtype)
            mine = known[k]
            rows[[i for i in range(len(part)) if i not in mine]] = computed[at : at + len(new)]
            at += len(new)
            for i, row in mine.items():
                rows[i] = row
            arrays, cost = self.learner.bucket(rows, part)
            self.cost += cost // max(1, len(part)) * len(new)
            (address,) = cluster_addresses(self.learner, part, self.context).values()
            models[k] = ClusterModel(arrays, len(part), cost, address)
        return models

    def _known(self, k: int, part: Samples) -> dict[int, np.ndarray]:
        """The rows, by position, of members that were held already: the same uid, label and pixels."""
        rows: dict[int, np.ndarray] = {}
        near = {k} if self.among is None else {c for c in self.held.models if (c - k) % self.among == 0}
        for c in near & self.held.models.keys():
            before, model = self.held.members[c], self.held.models[c]
            where = {digest: i for i, digest in enumerate(_digests(before))}
            found = {i: where[digest] for i, digest in enumerate(_digests(part)) if digest in where}
            rows |= {i: model.arrays["rows"][j] for i, j in found.items()}
        return rows

    def sums(self, members: Mapping[int, Samples], models: Mapping[int, ClusterModel]) -> np.ndarray | None:
        """The sums over all members; None if there is none.

        Raises:
            ExactnessError: If a bucket from which rows are taken back, or over, is not what it was when it was hashed.
        """
        held, first = self.held, next(iter(models.values()), None)
        for k, model in held.models.items():
            if model is not models.get(k) and model.hashed() != model.digest:
                raise ExactnessError(f"the rows of bucket {k} have changed in memory: fit again", [f"cluster {k}"])
        if first is None:
            return None
        sums = self.learner.nothing(first.arrays, held.empty.n_classes) if held.sums is None else held.sums.copy()
        old = {} if held.sums is None else held.models  # sums that were lost are those of nobody
        changed = sorted(k for k in old.keys() | models.keys() if old.get(k) is not models.get(k))
        gone, new = list[Arrays](), list[Arrays]()
        for k in changed:
            before = _digests(held.members[k]) if k in old else []
            after = _digests(members[k]) if k in models else []
            gone += _chosen(old.get(k), before, set(after))
            new += _chosen(models.get(k), after, set(before))
        for sign, parts in ((-1, gone), (1, new)):
            steps = range(0, len(parts), TOGETHER)
            for i in progress(steps, desc="adding up", unit="step", disable=not self.context.verbose):
                some = parts[i : i + TOGETHER]
                self.learner.accumulate(sums, {name: np.concatenate([p[name] for p in some]) for name in some[0]}, sign)
        sums.setflags(write=False)
        return sums


def _digests(samples: Samples) -> list[bytes]:
    return [one.tobytes() for one in samples.digests]


def _chosen(model: ClusterModel | None, mine: list[bytes], others: set[bytes]) -> list[Arrays]:
    """What a bucket keeps of those members who are not among others, in a list; an empty one if there is none."""
    rows = [i for i, digest in enumerate(mine) if digest not in others]
    return [{name: array[rows] for name, array in model.arrays.items()}] if model is not None and rows else []


def _same(some: Samples, others: Samples) -> bool:
    return len(some) == len(others) and set(some.uids.tolist()) == set(others.uids.tolist())
