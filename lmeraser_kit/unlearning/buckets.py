"""The summed part of a state: rows in buckets, and their exact sums, which follow from the set of samples alone.

A row does not know who else is there, so it is computed once. After a request the rows of those who stay are kept, and
the sums lose the rows that are gone and get those that are new: whole numbers, so these are the sums of a fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lmeraser_kit.ground import workers
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.clusters import cluster_addresses
from lmeraser_kit.learners.protocol import Arrays, ClusterModel, Context, SummedLearner
from lmeraser_kit.unlearning.state import ExactnessError, State

TOGETHER = 2**14  # rows that are added up at a time, here or by a worker; of a thousand columns they take 33 MB
Chosen = list[tuple[ClusterModel, list[int]]]  # rows of buckets


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
        new = {k: [i for i in range(len(part)) if i not in known[k]] for k, (part, _) in jobs.items()}
        missing, where, context = self._missing({k: part for k, (part, _) in jobs.items()}, new)
        computed = self.learner.rows(missing, context)
        at, models = 0, {}
        for k, (part, _) in jobs.items():
            rows, mine = np.empty((len(part), computed.shape[1]), computed.dtype), known[k]
            rows[new[k]] = computed[where[at : at + len(new[k])]]
            at += len(new[k])
            for i, row in mine.items():
                rows[i] = row
            arrays, cost = self.learner.bucket(rows, part)
            self.cost += cost // max(1, len(part)) * len(new[k])
            (address,) = cluster_addresses(self.learner, part, self.context).values()
            models[k] = ClusterModel(arrays, len(part), cost, address)
        return models

    def _missing(
        self, parts: Mapping[int, Samples], new: Mapping[int, list[int]]
    ) -> tuple[Samples, np.ndarray, Context]:
        """Members without a row, where they are among these samples, bucket by bucket, and the context of these."""
        uids = np.concatenate([self.held.empty.uids, *(part.uids[new[k]] for k, part in parts.items())])
        queries = self.context.queries
        if queries is not None and len(queries) == len(uids) and set(queries.uids.tolist()) == set(uids.tolist()):
            return queries, queries.positions(uids), self.context  # those who join: no copy of their images
        missing = concatenate([self.held.empty, *(part[new[k]] for k, part in parts.items())])
        return missing, np.arange(len(missing)), self.context.of(missing)

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
        gone, new = Chosen(), Chosen()
        for k in changed:
            before = _digests(held.members[k]) if k in old else []
            after = _digests(members[k]) if k in models else []
            gone += _chosen(old.get(k), before, set(after))
            new += _chosen(models.get(k), after, set(before))
        for sign, chosen in ((-1, gone), (1, new)):
            self._add(sums, chosen, sign)
        sums.setflags(write=False)
        return sums

    def _add(self, sums: np.ndarray, chosen: Chosen, sign: int) -> None:
        """Add rows, or take them back; on Dask's workers by parts, of whatever chip: whole numbers are not rounded."""
        n = -(-sum(len(rows) for _, rows in chosen) // TOGETHER)
        bar = {"total": n, "desc": "adding up", "unit": "step", "disable": not self.context.verbose}
        if workers.n_at_once(1) == 1 or n < 2:  # here, where the BLAS uses all cores
            for part in progress(_parts(chosen), **bar):
                self.learner.accumulate(sums, part, sign)
            return
        calls = ((self.learner, part, self.held.empty.n_classes) for part in _parts(chosen))
        for total in progress(workers.each(_sums_of, calls, 1, None), **bar):
            self.learner.combine(sums, total, sign)


def _digests(samples: Samples) -> list[bytes]:
    return [one.tobytes() for one in samples.digests]


def _chosen(model: ClusterModel | None, mine: list[bytes], others: set[bytes]) -> Chosen:
    """Which rows of a bucket are of members who are not among others, in a list; an empty one if there is none."""
    rows = [i for i, digest in enumerate(mine) if digest not in others]
    return [(model, rows)] if model is not None and rows else []


def _parts(chosen: Chosen) -> Iterator[Arrays]:
    """What buckets keep of chosen rows, so many at a time: never a copy of all."""
    each = ((model, row) for model, rows in chosen for row in rows)
    while some := list(itertools.islice(each, TOGETHER)):
        by_model = [(model, [row for _, row in one]) for model, one in itertools.groupby(some, key=lambda one: one[0])]
        parts = [{name: array[rows] for name, array in model.arrays.items()} for model, rows in by_model]
        yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sums_of(learner: SummedLearner, part: Arrays, n_classes: int) -> np.ndarray:
    """The sums over rows."""
    sums = learner.nothing(part, n_classes)
    learner.accumulate(sums, part, 1)
    return sums
