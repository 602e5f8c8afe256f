"""Seven ways to break exactness, each as small as it can be; `verify()` must catch every one.

Each is an LMEraser with one thing done as published code does it (or as a careless cache would). `install(patch)` puts
what is not a method in place.
"""

import numpy as np
import torch

from lmeraser_kit import LMEraser, tuning
from lmeraser_kit.samples import digest, keyed_uniform
from lmeraser_kit.training import augment, train


class SharedOptimiser(LMEraser):
    """One optimiser for all clusters: a cluster starts with the momentum that the one before has left."""

    def install(self, patch):
        momentum = {}

        class SharedSGD(torch.optim.SGD):
            def step(self):
                for parameter in (p for group in self.param_groups for p in group["params"]):
                    kept = momentum.get(tuple(parameter.shape))
                    if kept is not None and "momentum_buffer" not in self.state[parameter]:
                        self.state[parameter]["momentum_buffer"] = kept.clone()
                super().step()
                for parameter, state in self.state.items():
                    momentum[tuple(parameter.shape)] = state["momentum_buffer"]

        patch.setattr(tuning.torch.optim, "SGD", SharedSGD)


class ScheduleOfTheWholeDataset(LMEraser):
    """One schedule for all clusters: its length comes from the number of all private samples."""

    def _route(self, samples, known):
        self.n_all = len(samples)
        return super()._route(samples, known)

    def install(self, patch):
        patch.setattr(
            "lmeraser_kit.training.warmup_cosine", lambda step, total, warmup: 0.5 + 0.5 * np.cos(step / self.n_all)
        )


class AugmentedRouting(LMEraser):
    """Routing of augmented views, as published: a sample whose augmented view lies elsewhere trains there too."""

    def _route(self, samples, known):
        routing, features = super()._route(samples, known)
        views = self.backbone.views(samples.images)
        moved = augment(views, keyed_uniform("augmentation", 0, samples.keys, 0, 5), shift=0.3, rotate=60)
        strays = routing.assign(self.backbone(moved).numpy(), None)
        clean = routing.assign(features, None)
        self.visitors = {k: samples[(strays == k) & (clean != k)] for k in np.unique(clean)}
        self.home = dict(zip(samples.uids.tolist(), clean, strict=True))
        return routing, features

    def _tune(self, parts):
        visited = [part + self.visitors[self.home[part.uids[0]]] for part in parts]
        for part, model in zip(parts, super()._tune(visited), strict=True):
            address = tuning.cluster_address(self.backbone, part, self._recipe(), self.seed, self.threads)
            yield tuning.ClusterModel(
                model.prompt, model.weight, model.bias, model.losses, len(part), model.sample_gradients, address
            )


class KeptPrototypes(LMEraser):
    """The published routing: prototypes of private features, and they stay when their samples leave."""

    def _route(self, samples, known):
        routing, features = super()._route(samples, known)
        return (routing if known is None else known.routing), features


class PooledEarlyStopping(LMEraser):
    """The number of epochs is chosen on validation samples of all clusters together."""

    def _route(self, samples, known):
        self.validation = samples[::3]
        return super()._route(samples, known)

    def _tune(self, parts):
        if not parts:
            return
        candidates = [
            [tuning.tune_cluster(self.backbone, part, tuning.Recipe(epochs=e), self.seed) for part in parts]
            for e in range(4, 10)
        ]
        found = self.backbone.features(self.validation.images)
        pooled = [
            np.mean([(found @ m.weight.T + m.bias).argmax(1) == self.validation.labels for m in models])
            for models in candidates
        ]
        chosen = candidates[int(np.argmax(pooled))]
        for part, model in zip(parts, chosen, strict=True):
            address = tuning.cluster_address(self.backbone, part, self._recipe(), self.seed, self.threads)
            yield tuning.ClusterModel(
                model.prompt, model.weight, model.bias, model.losses, len(part), model.sample_gradients, address
            )


class RandomnessByPosition(LMEraser):
    """Order and augmentation are drawn by a sample's position in the dataset, not by its uid."""

    def _route(self, samples, known):
        self.position = {key: i for i, key in enumerate(samples.keys.tolist())}
        return super()._route(samples, known)

    def install(self, patch):
        def by_position(loss_of, optimiser, keys, *others, **options):
            keys = np.array([self.position[key] for key in keys.tolist()], dtype=np.uint64)
            return train(loss_of, optimiser, keys, *others, **options)

        patch.setattr(tuning, "train", by_position)


class StaleCacheEntry(LMEraser):
    """An address that covers one member only: what was tuned with a deleted sample is found again."""

    def install(self, patch):
        def careless(backbone, samples, recipe, seed, threads=1):
            return digest("careless", samples.sorted().digests[0], seed, backbone.fingerprint)

        patch.setattr(tuning, "cluster_address", careless)
        patch.setattr("lmeraser_kit.eraser.cluster_address", careless)


LEAKS = [
    SharedOptimiser,
    ScheduleOfTheWholeDataset,
    AugmentedRouting,
    KeptPrototypes,
    PooledEarlyStopping,
    RandomnessByPosition,
    StaleCacheEntry,
]
