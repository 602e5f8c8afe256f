"""The one idea: unlearning is a rebuild with a content-addressed cache.

A cluster's model is a pure function of its samples, the recipe, the seed and the frozen backbone, so it has an address.
A rebuild routes the samples, computes every cluster's address and tunes those that the cache lacks. A fit is a rebuild
from nothing; forgetting is a rebuild without the samples that leave, with what is there as the cache: only clusters
whose members changed have a new address.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import asdict, dataclass

import joblib
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils.validation import check_is_fitted

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground import checks
from lmeraser_kit.ground.determinism import environment, progress
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.prompt_tuning import ClusterModel, cluster_addresses, tune_cluster
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.partitions import HierarchicalClusters
from lmeraser_kit.unlearning.state import State


@dataclass(frozen=True, eq=False)
class Successor:
    """The state after a change, and what it took to compute. Nothing has been changed yet.

    Attributes:
        state: The state.
        tuned: The clusters that had to be tuned (again), and how many samples each has.
        n_moved: Samples that stayed and changed company.
        sample_gradients: Samples passed forward and backward once.
        seconds_tuning: The time that tuning took.
        environment: Where it was computed.
    """

    state: State
    tuned: dict[int, int]
    n_moved: int
    sample_gradients: int
    seconds_tuning: float
    environment: dict[str, str | int]


class Rebuilder(BaseEstimator):
    """How a state is computed from samples. Its arguments are LMEraser's."""

    def __init__(
        self,
        backbone: Backbone,
        clusters: BaseEstimator | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
    ):
        self.backbone = backbone
        self.clusters = clusters
        self.recipe = recipe
        self.seed = seed
        self.n_classes = n_classes
        self.n_jobs = n_jobs
        self.threads = threads
        self.verbose = verbose

    def _recipe(self) -> Recipe:
        return self.recipe if self.recipe is not None else Recipe()

    def _clusters(self) -> BaseEstimator:
        return self.clusters if self.clusters is not None else HierarchicalClusters()

    def _check_arguments(self) -> None:
        """Refuse arguments that make no sense. Raises ValueError."""
        checks.instance("backbone", self.backbone, Backbone, ", such as Backbone.train(public)")
        if isinstance(self._clusters(), type) or not hasattr(self._clusters(), "assign"):
            raise ValueError(f"clusters is {self.clusters!r}, expected a partition such as HierarchicalClusters(8)")
        checks.instance("recipe", self._recipe(), Recipe)
        checks.seed(self.seed)
        checks.whole("threads", self.threads)
        checks.flag("verbose", self.verbose)
        if self.n_classes is not None:
            checks.whole("n_classes", self.n_classes)
        if self.n_jobs is not None and checks.whole("n_jobs", self.n_jobs, least=-4096) == 0:
            raise ValueError("n_jobs is 0, expected how many clusters are tuned at a time, -1 for one a core, or None")

    MADE_WITH = ("backbone", "clusters", "recipe", "seed", "threads")

    def _made_with(self) -> tuple:
        """What a fit is made with, besides the samples."""
        recipe = json.dumps(asdict(self._recipe()), sort_keys=True)
        return self.backbone.fingerprint, checks.described(self._clusters()), recipe, int(self.seed), int(self.threads)

    def _check_unchanged(self) -> None:
        """Refuse to answer for a model that other arguments would have made. Raises ValueError."""
        check_is_fitted(self, "state_")
        self._check_arguments()
        pairs = zip(self.MADE_WITH, self.made_with_, self._made_with(), strict=True)
        changed = [f"{name} from {then:.200} to {now:.200}" for name, then, now in _text(pairs) if then != now]
        if self.n_classes not in (None, self.n_classes_):
            changed.append(f"n_classes from {self.n_classes_} to {self.n_classes}")
        if changed:
            raise ValueError(
                f"arguments were changed since the fit ({'; '.join(changed)}), and the model is that of the old ones: "
                "set them back, or fit again"
            )

    def _environment(self) -> dict[str, str | int]:
        return environment(self.backbone.device, self.threads) | {"precision": self.backbone.precision}

    def _build(
        self,
        known: State,
        leaving: Iterable[str],
        joining: Samples,
        cache: MutableMapping | None,
        here: dict,
        announce: bool = False,
    ) -> Successor:
        """The state of a fit on what `known` holds, less those that leave, with those that join."""
        routing, members, features = self._route(known, leaving, joining)
        if announce:
            warn_if_uneven(members, getattr(routing, "prototypes_", ()))
        members = {k: members[k] for k in sorted(members)}
        mine = {c.address: c for model in known.models.values() for c in model.checkpoints()}
        cache = {} if cache is None else cache
        models, jobs, work = {}, {}, 0
        for k, part in members.items():
            addresses = self._addresses(part)
            latest_first = [addresses[r] for r in sorted(addresses, reverse=True)]
            found = next((c for a in latest_first if (c := mine.get(a) or cache.get(a)) is not None), None)
            if found is not None and found.address == latest_first[0]:
                models[k] = found
            else:
                jobs[k] = (part, found)
        started = time.perf_counter()
        for (k, (_, start)), model in zip(jobs.items(), self._tune(list(jobs.values())), strict=True):
            models[k] = model
            for checkpoint in model.checkpoints()[0 if start is None else len(start.checkpoints()) :]:
                cache[checkpoint.address] = checkpoint
                work += checkpoint.sample_gradients
        seconds = time.perf_counter() - started
        state = State(routing, members, features, {k: models[k] for k in members}, known.empty)
        moved = _n_moved(known, state) if len(known) and self._clusters().refits else 0
        return Successor(state, {k: len(members[k]) for k in jobs}, moved, work, seconds, here)

    def _route(self, known: State, leaving: Iterable[str], joining: Samples) -> tuple[BaseEstimator | None, dict, dict]:
        """The fitted partition, and the members and features of every cluster, after a change."""
        members, features = known.without(leaving)
        clusters = self._clusters()
        found = self._features(joining) if clusters.uses_features else None
        if clusters.refits:  # on everything that is held now
            held = concatenate([known.empty, *members.values(), joining])
            found = np.concatenate([*(features[k] for k in members), found])
            order = np.argsort(held.uids, kind="stable")
            held, found = held[order], found[order]
            if not len(held):
                return None, {}, {}
            routing = clone(clusters).fit(found, held.keys)
            assigned = routing.assign(found, held.keys)
            rows = {k: assigned == k for k in np.unique(assigned).tolist()}
            return routing, {k: held[r] for k, r in rows.items()}, {k: found[r] for k, r in rows.items()}
        routing = known.routing
        if routing is None:
            routing = clone(clusters)
            if clusters.learns_from == "public":
                routing.fit(self._features(self.public_), self.public_.keys)
            elif clusters.learns_from == "private":
                routing = routing.fit(found, joining.keys) if len(joining) else None
        assigned = routing.assign(found, joining.keys) if len(joining) else np.zeros(0, int)
        for k in np.unique(assigned).tolist():
            part = joining[assigned == k]
            members[k] = (concatenate([members[k], part]) if k in members else part).sorted()
        return routing, members, features

    def _addresses(self, part: Samples) -> dict[int, str]:
        """The addresses of a cluster's checkpoints."""
        return cluster_addresses(self.backbone, part, self._recipe(), self.seed, self.threads)

    def _tune(self, jobs: list[tuple[Samples, ClusterModel | None]]) -> Iterable[ClusterModel]:
        """Tune clusters, each by itself, from a checkpoint or from the start, n_jobs at a time."""
        tune = joblib.delayed(tune_cluster)
        calls = (tune(self.backbone, part, self._recipe(), self.seed, self.threads, start) for part, start in jobs)
        tuned = joblib.Parallel(n_jobs=1 if len(jobs) < 2 else self.n_jobs, return_as="generator")(calls)
        return progress(tuned, total=len(jobs), desc="tuning clusters", unit="cluster", disable=not self.verbose)

    def _features(self, samples: Samples) -> np.ndarray:
        return self.backbone.features(np.asarray(samples.images), self.threads, self.verbose, uids=samples.uids)


def nothing(samples: Samples) -> State:
    """A state that holds nothing, for images like those of `samples`."""
    return State(None, {}, {}, {}, samples[np.zeros(0, dtype=int)])


def _text(rows: Iterable[tuple]) -> list[tuple[str, ...]]:
    return [tuple(map(str, row)) for row in rows]


def warn_if_uneven(members: dict[int, Samples], prototypes: Sequence) -> None:
    """Warn if most samples share one of several clusters: forgetting one of them is nearly a fit (Section 4's cost).

    Args:
        members: The members of each cluster, by number.
        prototypes: The prototypes of a partition that has them; others (one cluster, shards) are as uneven as asked.
    """
    sizes = np.array([len(part) for part in members.values()], dtype=float)
    if len(prototypes) < 2 or not sizes.sum():
        return
    share, factor = sizes.max() / sizes.sum(), sizes.sum() ** 2 / np.square(sizes).sum()
    if share > 0.5 and factor < len(prototypes) / 2:
        warnings.warn(
            f"{share:.0%} of the samples are in one of {len(prototypes)} clusters: forgetting a random one will be "
            f"only {factor:.1f} times cheaper than a fit (size-biased factor N^2 / sum(n_k^2)). More even clusters: "
            f"HierarchicalClusters(linkage='ward'), or max_share={1 / len(prototypes):.2g}, or HashClusters",
            stacklevel=5,
        )


def _n_moved(known: State, state: State) -> int:
    """Samples in both states that are in other company, clusters being matched by their members: numbers are new."""
    old, new = known.clusters_of(), state.clusters_of()
    stayed = sorted(old.keys() & new.keys())
    together = contingency_matrix([old[uid] for uid in stayed], [new[uid] for uid in stayed])
    return int(together.sum() - together[linear_sum_assignment(-together)].sum())
