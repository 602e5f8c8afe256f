"""Shadow models for attacks: many models of the same kind, on parts of the data that the attacker draws.

Heads alone, by the hundreds, in seconds; prompts and heads by the dozen. Each model's logits are kept in a file of its
own, by the address of the model, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import io
from pathlib import Path

import joblib
import numpy as np

from lmeraser_kit.approximate import unlearn
from lmeraser_kit.arithmetic import progress
from lmeraser_kit.backbone import FEATURE_BATCH, Backbone
from lmeraser_kit.baselines import build_method
from lmeraser_kit.eraser import LMEraser
from lmeraser_kit.files import replace_file
from lmeraser_kit.problem import Problem
from lmeraser_kit.recipe import Recipe
from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.tuning import cluster_addresses


class RememberedFeatures(Backbone):
    """A backbone that computes an image's features once. For attackers alone: it forgets nobody."""

    def __init__(self, backbone: Backbone):
        self.__dict__.update(backbone.__dict__, known={})

    def __reduce__(self) -> tuple:
        return RememberedFeatures, (Backbone(*self.__getstate__()["args"]),)

    def features(
        self,
        images: np.ndarray,
        threads: int = 1,
        show_progress: bool = False,
        batch_size: int = FEATURE_BATCH,
        layers: bool = False,
    ) -> np.ndarray:
        """As for `Backbone`, always in its usual batches."""
        pixels = [(layers, image.tobytes()) for image in images]
        new = [i for i, image in enumerate(pixels) if image not in self.known]
        found = super().features(images[new], threads, layers=layers)
        self.known |= zip([pixels[i] for i in new], found, strict=True)
        return np.stack([self.known[image] for image in pixels]) if pixels else found


def halves(n_models: int, n: int, seed: int, balanced: bool = True) -> np.ndarray:
    """Who is in which shadow model's training set, bool (n_models, n).

    Args:
        n_models: Number of shadow models.
        n: Number of samples.
        seed: Draws them.
        balanced: Every sample is in exactly half of the models, as LiRA needs it. Otherwise each model is drawn alone,
            as U-LiRA needs it: its Gaussians are fitted to some models and tried on others, and models that make up for
            each other push the AUC of identical distributions below 0.5.
    """
    rng = np.random.default_rng(seed)
    if not balanced:
        return rng.random((n_models, n)) < 0.5
    return np.stack([rng.permutation(n_models) < n_models // 2 for _ in range(n)], axis=1)


def shadow_logits(
    backbone: Backbone,
    pool: Samples,
    inside: np.ndarray,
    ask: Samples,
    recipe: Recipe,
    method: str = "one head",
    n_clusters: int = 1,
    public: Samples | None = None,
    seed: int = 0,
    forget: list[str] | None = None,
    approximate: dict[str, float] | None = None,
    folder: Path | None = None,
    n_jobs: int | None = None,
) -> dict[str, np.ndarray]:
    """Logits of shadow models, and of what is left of them after forgetting.

    Args:
        backbone: The frozen backbone.
        pool: Samples to train on.
        inside: Who is in which model's training set, bool (n_models, len(pool)).
        ask: Samples whose logits are wanted.
        recipe: How to tune.
        method: One of `baselines.METHODS`.
        n_clusters: Number of clusters, where the method has any.
        public: Public samples, where the method's routing learns from them.
        seed: Model i is tuned with seed + i.
        forget: Uids that every model has in its training set: they are forgotten, exactly and by `approximate`.
        approximate: Approximate methods, and the strength of each; for methods of one cluster.
        folder: Where to keep the logits; None for nowhere.
        n_jobs: Models at a time (joblib).

    Returns:
        `trained`; with `forget` also `exact`, and each of `approximate`: (n_models, len(ask), n_classes).
    """
    approximate, backbone = approximate or {}, RememberedFeatures(backbone)

    def one(i: int) -> dict[str, np.ndarray]:
        part = pool[inside[i]]
        made_from = cluster_addresses(backbone, part, recipe, seed + i).values()
        address = digest(*made_from, ask.digests.tobytes(), method, n_clusters, forget, approximate)
        path = folder / f"{address}.npz" if folder else None
        if path and path.is_file():
            with np.load(path) as kept:
                return dict(kept)
        eraser = build_method(method, backbone, n_clusters, recipe, seed=seed + i, verbose=False)
        eraser.fit(part, public=public)
        found = {"trained": _log_probabilities(eraser, ask)}
        if approximate:
            problem = Problem(eraser, forget)
            asked = problem.part(ask)
            for name, strength in approximate.items():
                found[name] = problem.predict(unlearn(name, problem, strength)[0], asked)
        if forget:
            eraser.forget(forget)
            found["exact"] = _log_probabilities(eraser, ask)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _npz(found))
        return found

    jobs = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(joblib.delayed(one)(i) for i in range(len(inside)))
    models = list(progress(jobs, total=len(inside), desc="shadow models", unit="model"))
    return {name: np.stack([model[name] for model in models]) for name in models[0]}


def _log_probabilities(eraser: LMEraser, samples: Samples) -> np.ndarray:
    return np.log(np.maximum(eraser.predict_proba(samples), np.finfo(float).tiny))


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
