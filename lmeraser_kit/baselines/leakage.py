"""Eight ways to break exactness, each as small as it can be; `verify()` must catch every one. For tests and lessons.

Each is an LMEraser with one thing done as published code does it (or as a careless cache would). What is not a method
is patched in by `install`, while the leak is used:

    with SharedOptimiser(backbone, ...).install() as eraser:
        eraser.fit(...)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch

from lmeraser_kit.ground import minibatches
from lmeraser_kit.ground.hashing import digest, keyed_uniform
from lmeraser_kit.ground.minibatches import train
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners import prompt_tuning
from lmeraser_kit.learners.prompt_tuning import ClusterModel, cluster_features, tune_cluster
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.learners.ridge import sums
from lmeraser_kit.partitions import HierarchicalClusters
from lmeraser_kit.unlearning import rebuild
from lmeraser_kit.unlearning.eraser import LMEraser
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser, holds_rows


class Leak(LMEraser):
    """An LMEraser that is not exact."""

    def patches(self) -> list[tuple[object, str, object]]:
        """What else has to be replaced: (module, name, by what)."""
        return []

    @contextlib.contextmanager
    def install(self) -> Iterator[Leak]:
        """The eraser, with its patches in place."""
        with contextlib.ExitStack() as stack:
            for patch in self.patches():
                stack.enter_context(mock.patch.object(*patch))
            yield self

    def _pretend(self, model: ClusterModel, part: Samples) -> ClusterModel:
        """The model, with the address that it should have."""
        address = prompt_tuning.cluster_addresses(self.backbone, part, self._recipe(), self.seed, self.threads)[0]
        return dataclasses.replace(model, n_samples=len(part), address=address)


class SharedOptimiser(Leak):
    """One optimiser for all clusters: a cluster starts with the moments that the one before has left."""

    def patches(self):
        """AdamW that remembers."""
        kept = {}

        class SharedAdamW(torch.optim.AdamW):
            def step(self):
                for parameter in (p for group in self.param_groups for p in group["params"]):
                    known = kept.get(tuple(parameter.shape))
                    if known is not None and not self.state[parameter]:
                        self.state[parameter] = {name: moment.clone() for name, moment in known.items()}
                super().step()
                kept.update({tuple(parameter.shape): state for parameter, state in self.state.items()})

        return [(torch.optim, "AdamW", SharedAdamW)]


class ScheduleOfTheWholeDataset(Leak):
    """One schedule for all clusters: its length comes from the number of all private samples."""

    def _route(self, known, leaving, joining):
        routed = super()._route(known, leaving, joining)
        self.n_all = sum(map(len, routed[1].values()))
        return routed

    def patches(self):
        """A schedule that knows how many there are in all."""
        return [(minibatches, "warmup_cosine", lambda step, total, warmup: 0.5 + 0.5 * np.cos(step / self.n_all))]


class AugmentedRouting(Leak):
    """Routing of augmented views, as published: a sample whose augmented view lies elsewhere trains there too."""

    def _route(self, known, leaving, joining):
        routing, members, features = super()._route(known, leaving, joining)
        self.visitors = {k: [] for k in members}
        for home, part in members.items():
            draws = keyed_uniform("augmentation", 0, part.keys, 0, 5)
            moved = minibatches.augment(self.backbone.views(part.images), draws, shift=0.3, rotate=60)
            strays = routing.assign(self.backbone(moved).cpu().numpy(), part.keys)
            for k in set(strays.tolist()) & members.keys() - {home}:
                self.visitors[k].append(part[strays == k])
        self.first = {part.uids[0]: k for k, part in members.items()}
        return routing, members, features

    def _tune(self, jobs):
        visited = [(concatenate([part, *self.visitors[self.first[part.uids[0]]]]), None) for part, _ in jobs]
        for (part, _), model in zip(jobs, super()._tune(visited), strict=True):
            yield self._pretend(model, part)


class KeptPrototypes(Leak):
    """The published routing: prototypes of private features, and they stay when their samples leave."""

    def _clusters(self):
        return HierarchicalClusters(**super()._clusters().get_params() | {"fit_on": "private-once"})


class PooledEarlyStopping(Leak):
    """The number of epochs is chosen on validation samples of all clusters together."""

    def _route(self, known, leaving, joining):
        routed = super()._route(known, leaving, joining)
        self.validation = concatenate(list(routed[1].values())).sorted()[::3]
        return routed

    def _tune(self, jobs):
        candidates = [
            [tune_cluster(self.backbone, part, Recipe(epochs=e), self.seed) for part, _ in jobs]
            for e in (range(4, 10) if jobs else [])
        ]
        found = self.backbone.features(self.validation.images)
        pooled = [
            np.mean([(found @ m.weight.T + m.bias).argmax(1) == self.validation.labels for m in models])
            for models in candidates
        ]
        for (part, _), model in zip(jobs, candidates[int(np.argmax(pooled))] if jobs else [], strict=True):
            yield self._pretend(model, part)


class RandomnessByPosition(Leak):
    """Order and augmentation are drawn by a sample's position in the dataset, not by its uid."""

    def _route(self, known, leaving, joining):
        routed = super()._route(known, leaving, joining)
        everyone = concatenate(list(routed[1].values())).sorted()
        self.position = {key: i for i, key in enumerate(everyone.keys.tolist())}
        return routed

    def patches(self):
        """Training that counts positions."""

        def by_position(loss_of, optimiser, keys, *others, **options):
            keys = np.array([self.position[key] for key in keys.tolist()], dtype=np.uint64)
            return train(loss_of, optimiser, keys, *others, **options)

        return [(prompt_tuning, "train", by_position)]


class StaleCacheEntry(Leak):
    """An address that covers one member only: what was tuned with a deleted sample is found again."""

    def patches(self):
        """Addresses that are too short."""

        def careless(backbone, samples, recipe, seed, threads=1):
            return {0: digest("careless", samples.sorted().digests[0].tobytes(), seed, backbone.fingerprint)}

        return [(prompt_tuning, "cluster_addresses", careless), (rebuild, "cluster_addresses", careless)]


class SubtractedStatistics(Leak, RidgeEraser):
    """A ridge head whose statistics lose a sample by subtraction: right on paper, not in floating point."""

    def _tune(self, jobs):
        kept = self.__dict__.setdefault("kept_", [])
        for (part, _), model in zip(jobs, super()._tune(jobs), strict=True):
            stay, inputs = set(part.uids.tolist()), model.weight.shape[1] - part.n_classes
            total = sums(model.weight, inputs) if holds_rows(model) else model.weight
            known = [set(before.uids.tolist()) for before, _ in kept]
            for (before, statistics), members in zip(kept.copy(), known, strict=True):
                if stay < members and stay not in known:
                    gone = before.without(stay)
                    x = self._inputs(gone, cluster_features(self.backbone, gone, self.threads, self.layers))
                    total = statistics - sums(np.c_[x, np.eye(gone.n_classes)[gone.labels]], inputs)
            kept.append((part, total))
            yield dataclasses.replace(model, weight=total)


LEAKS = [
    SharedOptimiser,
    ScheduleOfTheWholeDataset,
    AugmentedRouting,
    KeptPrototypes,
    PooledEarlyStopping,
    RandomnessByPosition,
    StaleCacheEntry,
    SubtractedStatistics,
]
