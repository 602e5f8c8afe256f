"""The one idea: unlearning is a rebuild with a content-addressed cache.

What is learnt from a cluster is a pure function of its samples, the learner, the seed and the frozen backbone, so it
has an address. A rebuild routes the samples, computes every cluster's address and learns those that the cache lacks. A
fit is a rebuild from nothing; forgetting is a rebuild without the samples that leave, with what is there as the cache:
only clusters whose members changed have a new address.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.metrics.cluster import contingency_matrix

from lmeraser_kit.ground import workers
from lmeraser_kit.ground.determinism import environment, progress
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.clusters import cluster_addresses, learn_cluster, rounds_in_numpy
from lmeraser_kit.learners.protocol import ClusterModel, Context, Learner, SummedLearner
from lmeraser_kit.partitions.agglomeration import size_biased_factor
from lmeraser_kit.partitions.protocol import Partition, assignment, bounded, keys_for
from lmeraser_kit.partitions.trie import divide, numbers
from lmeraser_kit.unlearning.buckets import Buckets
from lmeraser_kit.unlearning.state import State, Work

Jobs = list[tuple[Samples, ClusterModel | None]]


@dataclass(frozen=True, eq=False)
class Successor:
    """The state after a change, and what it took to compute. Nothing has been changed yet."""

    state: State
    work: Work


@dataclass(frozen=True, eq=False)
class Rebuild:
    """How a state is computed from samples.

    Attributes:
        partition: Who is learnt together; not fitted.
        learner: What is learnt from them.
        context: What the learner may read.
        public: The samples that the partition learns from, if it learns from public ones.
        n_jobs: Clusters learnt at a time (joblib).
        verbose: Show progress bars.
    """

    partition: Partition
    learner: Learner
    context: Context
    public: Samples | None = None
    n_jobs: int | None = None
    verbose: bool = True

    @property
    def environment(self) -> dict[str, str | int]:
        """Where the bits of the state are computed; what is derived from it may depend on more, and is not kept."""
        backbone, numpy = self.context.backbone, rounds_in_numpy(self.learner) or self.partition.uses_features
        return environment(backbone.device, self.context.threads, numpy) | {"precision": backbone.precision}

    def successor(
        self,
        held: State,
        leaving: Mapping[str, int],
        joining: Samples,
        cache: MutableMapping[str, ClusterModel] | None = None,
        warn: bool = False,
    ) -> Successor:
        """The state of a fit on what `held` holds, less those that leave, with those that join.

        Args:
            held: The state before; its clusters are the cache of the one idea.
            leaving: The clusters of those who leave, by uid: `held.clusters_of` has checked them.
            joining: Who joins.
            cache: Further models by address; new ones are written to it.
            warn: Warn if the clusters are uneven.
        """
        context = self._context.of(joining)
        routing, members, features = self.route(held, leaving, joining, context)
        if warn:
            warn_if_uneven(members, routing)
        members = {k: members[k] for k in sorted(members)}
        mine = {c.address: c for model in held.models.values() for c in model.checkpoints()}
        cache = {} if cache is None else cache
        models, jobs, cost = {}, {}, 0
        for k, part in members.items():
            if k in held.models and part is held.members[k]:  # nobody has left or joined
                models[k] = held.models[k]
                continue
            addresses = cluster_addresses(self.learner, part, self.context)
            latest_first = [addresses[r] for r in sorted(addresses, reverse=True)]
            cached = next((c for a in latest_first if (c := mine.get(a) or cache.get(a)) is not None), None)
            if cached is not None and cached.address == latest_first[0]:
                models[k] = cached
            else:
                jobs[k] = (part, cached)
        started, sums = time.perf_counter(), None
        if isinstance(self.learner, SummedLearner):
            limited = bounded(routing)
            among = 1 if self.partition.refits else None if limited is None else limited.n_groups
            buckets = Buckets(self.learner, context, held, among)
            models |= buckets.made(jobs)
            cache.update({models[k].address: models[k] for k in jobs})
            cost, sums = buckets.cost, buckets.sums(members, models)
        else:
            for (k, (_, start)), model in zip(jobs.items(), self.learn(list(jobs.values())), strict=True):
                models[k] = model
                for checkpoint in model.checkpoints()[0 if start is None else len(start.checkpoints()) :]:
                    cache[checkpoint.address] = checkpoint
                    cost += checkpoint.sample_gradients
        seconds = time.perf_counter() - started
        state = State(routing, members, features, {k: models[k] for k in members}, held.empty, sums)
        if routing is held.routing:
            vars(state)["routing_pieces"] = held.routing_pieces  # it is fitted once, and does not change
        moved = _n_moved(held, state) if len(held) and self.partition.refits else 0
        tuned, exact = {k: len(members[k]) for k in jobs}, routing is None or routing.exact
        return Successor(state, Work(tuned, moved, cost, seconds, exact, self.environment))

    def route(
        self, held: State, leaving: Mapping[str, int], joining: Samples, context: Context | None = None
    ) -> tuple[Partition | None, dict[int, Samples], dict[int, np.ndarray]]:
        """The fitted partition, and the members and features of every cluster, after a change.

        Args:
            held: As for `successor`.
            leaving: As for `successor`.
            joining: As for `successor`.
            context: Where features of those who join are computed once.
        """
        members, features = held.without(leaving)
        partition = self.partition
        new = self._features(joining, context) if partition.uses_features else None
        if partition.refits:  # on everything that is held now
            everybody = concatenate([held.empty, *members.values(), joining])
            new = np.concatenate([*(features[k] for k in members), new])
            order = np.argsort(everybody.uids, kind="stable")
            everybody, new = everybody[order], new[order]
            if not len(everybody):
                return None, {}, {}
            keys = keys_for(partition, everybody)
            routing = clone(partition).fit(new, keys)
            assigned = assignment(routing, new, keys)
            if limited := bounded(routing):
                codes = limited.codes(new, keys, assigned)
                assigned = numbers(assigned, codes, limited.n_groups, limited.bound)
            rows = {k: assigned == k for k in np.unique(assigned).tolist()}
            return routing, {k: everybody[r] for k, r in rows.items()}, {k: new[r] for k, r in rows.items()}
        routing, keys = held.routing, keys_for(partition, joining)
        if routing is None:
            routing = clone(partition)
            if partition.learns_from == "public" and self.public is not None:
                routing.fit(self._features(self.public), keys_for(partition, self.public))
            elif partition.learns_from == "private":
                routing = routing.fit(new, keys) if len(joining) else None
        assigned = codes = np.zeros(0, int)
        if len(joining):
            assigned = assignment(routing, new, keys)
            codes = limited.codes(new, keys, assigned) if (limited := bounded(routing)) else codes
        if limited := bounded(routing):
            joined = (joining, assigned, codes)
            parts = divide(held.members, (members, features), joined, limited.n_groups, limited.bound)
            return (routing, *parts)
        for k in np.unique(assigned).tolist():
            part = joining[assigned == k]
            members[k] = (concatenate([members[k], part]) if k in members else part).sorted()
        return routing, members, features

    def learn(self, jobs: Jobs) -> Iterator[ClusterModel]:
        """Learn clusters, each by itself, from a checkpoint or from the start, n_jobs at a time."""
        backbone, calls = self.context.backbone, [(self.learner, part, self.context, start) for part, start in jobs]
        where = (backbone.device, self.context.threads, rounds_in_numpy(self.learner))
        learnt = workers.each(learn_cluster, calls, self.n_jobs, *where, shared=backbone)
        return progress(learnt, total=len(jobs), desc="learning clusters", unit="cluster", disable=not self.verbose)

    @property
    def _context(self) -> Context:
        return replace(self.context, verbose=self.verbose, n_jobs=self.n_jobs)

    def _features(self, samples: Samples, context: Context | None = None) -> np.ndarray:
        """Features to route by, (N, D); with a learner of all stages' outputs, those of the same pass."""
        context = context or self._context.of(samples)
        features = context.features(samples, getattr(self.learner, "layers", False))
        return features[:, -self.context.backbone.n_features :]


def empty_state(samples: Samples) -> State:
    """A state that holds nothing, for images like those of `samples`."""
    return State(None, {}, {}, {}, samples[np.zeros(0, dtype=int)])


def warn_if_uneven(members: dict[int, Samples], routing: Partition | None) -> None:
    """Warn if most samples share one of several clusters, or a request costs twice what was asked for, and more.

    Args:
        members: The members of each cluster, by number.
        routing: The fitted partition. Others than those with prototypes (one cluster, shards) are as uneven as asked.
    """
    sizes = np.array([len(part) for part in members.values()], dtype=float)
    n, wanted = len(getattr(routing, "prototypes_", ())), getattr(routing, "cost_factor", None)
    if n < 2 or not sizes.sum():
        return
    share, factor = sizes.max() / sizes.sum(), size_biased_factor(sizes)
    cheaper = f"only {factor:.1f} times cheaper than a fit (size-biased factor N^2 / sum(n_k^2))"
    if share > 0.5 and factor < n / 2 and sizes.sum() > n:  # fewer samples than clusters cannot be even
        warnings.warn(
            f"{share:.0%} of the samples are in one of {n} clusters: forgetting a random one will be {cheaper}. More "
            f"even clusters: HierarchicalClusters() with its defaults, or a bound={math.ceil(2 * sizes.sum() / n)}, "
            "which divides large ones",
            stacklevel=5,
        )
    elif wanted is not None and factor < wanted / 2:
        warnings.warn(
            f"cost_factor is {wanted:g}, and forgetting a random one of {sizes.sum():.0f} samples in {len(sizes)} "
            f"clusters will be {cheaper}: there are few samples, or unlike those that the clusters were found with",
            stacklevel=5,
        )


def _n_moved(before: State, after: State) -> int:
    """Samples in both states that are in other company, clusters being matched by their members: numbers are new."""
    old, new = before.cluster_by_uid(), after.cluster_by_uid()
    stayed = sorted(old.keys() & new.keys())
    together = contingency_matrix([old[uid] for uid in stayed], [new[uid] for uid in stayed])
    return int(together.sum() - together[linear_sum_assignment(-together)].sum())
