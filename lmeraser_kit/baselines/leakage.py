"""Eight ways to break exactness, each as small as it can be; `verify()` must catch every one. For tests and lessons.

Each does one thing as published code does it, or as a careless cache would. Where it can, that is a learner or a
partition, which shows what a learner must not do. A learner is told nothing of other clusters, so for leaks between
them `EavesdroppingRebuild` tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch

from lmeraser_kit.ground import minibatches
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.ground.minibatches import train
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners import prompt_tuning
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.learners.protocol import Arrays, ClusterModel, Context
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.partitions.hierarchical import HierarchicalClusters
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.lmeraser import LMEraser
from lmeraser_kit.unlearning.rebuild import Jobs, Rebuild
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser
from lmeraser_kit.unlearning.votes import Choices

Learnt = tuple[dict[str, np.ndarray], int]


class EavesdroppingRebuild(Rebuild):
    """A rebuild that tells a learner who else there is, if it listens."""

    def route(self, *change: Any) -> tuple[Partition | None, dict[int, Samples], dict[int, np.ndarray]]:
        """As it should be; and all members go to the learner."""
        routed = super().route(*change)
        if hasattr(self.learner, "overhear"):
            self.learner.overhear(*routed[:2], self.context)
        return routed

    def learn(self, jobs: Jobs) -> Iterator[ClusterModel]:
        """As it should be; and all clusters that are to be learnt go to the learner."""
        if hasattr(self.learner, "queue"):
            self.learner.queue([part for part, _ in jobs])
        return super().learn(jobs)


class LeakyEraser(LMEraser):
    """An LMEraser with another learner, which keeps its state from request to request."""

    leaky: ClassVar[type[PromptTuning]] = PromptTuning

    def choices(self) -> Choices:
        """The usual ones, with the leaky learner."""
        choices = super().choices()
        if "_learner" not in self.__dict__:
            self._learner = self.leaky(self.arguments()["recipe"])
        return replace(choices, learner=self._learner)

    def rebuild(self) -> Rebuild:
        """With an open ear."""
        return EavesdroppingRebuild(**vars(super().rebuild()))


class SharedMoments(PromptTuning):
    """AdamW that remembers."""

    kept: ClassVar[dict] = {}

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune with the moments that the cluster before has left."""
        kept = self.kept

        class SharedAdamW(torch.optim.AdamW):
            def step(self):
                for parameter in (p for group in self.param_groups for p in group["params"]):
                    moments = kept.get(tuple(parameter.shape))
                    if moments is not None and not self.state[parameter]:
                        self.state[parameter] = {name: moment.clone() for name, moment in moments.items()}
                super().step()
                kept.update({tuple(parameter.shape): state for parameter, state in self.state.items()})

        with mock.patch.object(torch.optim, "AdamW", SharedAdamW):
            return super().learn_slice(samples, context, start, r)


class SharedOptimiser(LeakyEraser):
    """One optimiser for all clusters: a cluster starts with the moments that the one before has left."""

    leaky = SharedMoments


class ScheduleByEverybody(PromptTuning):
    """A schedule that knows how many there are in all."""

    def overhear(self, routing: Partition, members: dict[int, Samples], context: Context) -> None:
        """How many there are."""
        self.n_all = sum(map(len, members.values()))

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune by that schedule."""
        n_all = self.n_all
        longer = mock.patch.object(
            minibatches, "warmup_cosine", lambda step, total, warmup: 0.5 + 0.5 * np.cos(step / n_all)
        )
        with longer:
            return super().learn_slice(samples, context, start, r)


class ScheduleOfTheWholeDataset(LeakyEraser):
    """One schedule for all clusters: its length comes from the number of all private samples."""

    leaky = ScheduleByEverybody


class WithVisitors(PromptTuning):
    """Tuning on the members, and on samples of other clusters whose augmented views lie here."""

    def overhear(self, routing: Partition, members: dict[int, Samples], context: Context) -> None:
        """Route augmented views."""
        visitors: dict[int, list[Samples]] = {k: [] for k in members}
        for home, part in members.items():
            draws = keyed_uniform("augmentation", 0, part.keys, 0, 5)
            moved = minibatches.augment(context.backbone.views(part.images), draws, shift=0.3, rotate=60)
            strays = routing.assign(context.backbone(moved).cpu().numpy(), part.keys)
            for k in set(strays.tolist()) & members.keys() - {home}:
                visitors[k].append(part[strays == k])
        self.visitors = {part.uids[0]: visitors[k] for k, part in members.items()}

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune on all of them."""
        visited = concatenate([samples, *self.visitors[samples.uids[0]]]).sorted()
        return super().learn_slice(visited, context, start, r)


class AugmentedRouting(LeakyEraser):
    """Routing of augmented views, as published: a sample whose augmented view lies elsewhere trains there too."""

    leaky = WithVisitors


class KeptPrototypes(LeakyEraser):
    """The published routing: prototypes of private features, and they stay when their samples leave."""

    def choices(self) -> Choices:
        """Prototypes that are fitted once."""
        choices = super().choices()
        kept = HierarchicalClusters(**self.arguments()["clusters"].get_params() | {"fit_on": "private-once"})
        return replace(choices, partition=kept)


class PooledStopping(PromptTuning):
    """The number of epochs that is best for all clusters together."""

    def overhear(self, routing: Partition, members: dict[int, Samples], context: Context) -> None:
        """Take every third sample of all for validation."""
        self.validation, self.context = concatenate(list(members.values())).sorted()[::3], context

    def queue(self, parts: list[Samples]) -> None:
        """Choose by accuracy on the validation samples."""
        features = self.context.backbone.features(self.validation.images)
        accuracies = {}
        for epochs in range(4, 10) if parts else []:
            learner = PromptTuning(Recipe(epochs=epochs))
            models = [learner.learn(part, self.context)[0] for part in parts]
            logits = [features @ model["weight"].T + model["bias"] for model in models]
            accuracies[epochs] = np.mean([each.argmax(1) == self.validation.labels for each in logits])
        self.epochs = max(accuracies, key=lambda epochs: accuracies[epochs]) if accuracies else 0

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune for so long."""
        return PromptTuning(Recipe(epochs=self.epochs)).learn_slice(samples, context, start, r)


class PooledEarlyStopping(LeakyEraser):
    """The number of epochs is chosen on validation samples of all clusters together."""

    leaky = PooledStopping


class DrawsByPosition(PromptTuning):
    """Training that counts positions."""

    def overhear(self, routing: Partition, members: dict[int, Samples], context: Context) -> None:
        """Where each sample is."""
        everyone = concatenate(list(members.values())).sorted()
        self.position = {key: i for i, key in enumerate(everyone.keys.tolist())}

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune with other draws."""

        def by_position(loss_of, optimiser, keys, *others, **options):
            keys = np.array([self.position[key] for key in keys.tolist()], dtype=np.uint64)
            return train(loss_of, optimiser, keys, *others, **options)

        with mock.patch.object(prompt_tuning, "train", by_position):
            return super().learn_slice(samples, context, start, r)


class RandomnessByPosition(LeakyEraser):
    """Order and augmentation are drawn by a sample's position in the dataset, not by its uid."""

    leaky = DrawsByPosition


class CarelessMemory:
    """A cache of its own, in which one member is the key."""

    def _kept(self, samples: Samples, learn: Callable[[], Learnt]) -> Learnt:
        memory, first = self.__dict__.setdefault("memory", {}), samples.uids[0]
        if first not in memory:
            memory[first] = learn()
        return memory[first]


class CarelessTuning(CarelessMemory, PromptTuning):
    """Tuning with a careless cache."""

    def learn_slice(self, samples: Samples, context: Context, start: Arrays | None, r: int) -> Learnt:
        """Tune, unless a cluster with this first member was tuned before."""
        return self._kept(samples, lambda: super(CarelessTuning, self).learn_slice(samples, context, start, r))


class StaleCacheEntry(LeakyEraser):
    """An address that covers one member only: what was tuned with a deleted sample is found again."""

    leaky = CarelessTuning


class UnroundedSums(ExactSums):
    """Sums over features as they are, in floating point."""

    def rows(self, samples: Samples, context: Context) -> np.ndarray:
        """The features themselves, in steps."""
        return self.features(samples, context) / self.steps(context)[:-1]

    def nothing(self, learnt: Arrays, n_classes: int) -> np.ndarray:
        """Zeros in floating point."""
        return super().nothing(learnt, n_classes).astype(np.float64)

    def accumulate(self, sums: np.ndarray, learnt: Arrays, sign: int) -> None:
        """Add or subtract what is rounded at every step."""
        x = np.c_[learnt["rows"], np.ones(len(learnt["rows"]))]
        sums += sign * (x.T @ np.c_[x, np.eye(sums.shape[1] - len(sums))[learnt["labels"]]])


class SubtractedSums(RidgeEraser):
    """A ridge head whose sums lose a sample by subtraction: right on paper, not in floating point."""

    def choices(self) -> Choices:
        """The usual ones, without rounding."""
        choices = super().choices()
        return replace(choices, learner=UnroundedSums(self.layers, self.mirrored, self.l2))


LEAKS = [
    SharedOptimiser,
    ScheduleOfTheWholeDataset,
    AugmentedRouting,
    KeptPrototypes,
    PooledEarlyStopping,
    RandomnessByPosition,
    StaleCacheEntry,
    SubtractedSums,
]
