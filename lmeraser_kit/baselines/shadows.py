"""Shadow models for attacks: many models of the same kind, on parts of the data that the attacker draws.

Heads alone, by the hundreds, in seconds; prompts and heads by the dozen. Each model's logits can be kept in a file of
its own, so that an interrupted run goes on where it was. They are made from private samples: whoever keeps them deletes
them when the run has its answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.baselines.approximate import APPROXIMATE, unlearn
from lmeraser_kit.baselines.methods import build_method, check_methods
from lmeraser_kit.baselines.unlearning_task import UnlearningTask
from lmeraser_kit.ground import workers
from lmeraser_kit.ground.determinism import environment, progress
from lmeraser_kit.ground.files import replacing
from lmeraser_kit.ground.hashing import described, digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.unlearning.arguments import fit_arguments
from lmeraser_kit.unlearning.base import BaseEraser


def halves(n_models: int, n: int, seed: int, balanced: bool = True) -> np.ndarray:
    """Who is in which shadow model's training set, bool (n_models, n).

    Args:
        n_models: Number of shadow models.
        n: Number of samples.
        seed: Draws them.
        balanced: Every sample is in exactly half of the models, as LiRA needs it. Otherwise each model is drawn alone,
            as U-LiRA needs it: its Gaussians are fitted to some models and tried on others, and models that make up for
            each other push the AUC of identical distributions below 0.5.

    Raises:
        ValueError: If a number is none, or not from 1 (the seed from 0).
    """
    n_models, n = checks.whole("n_models", n_models), checks.whole("n", n)
    rng = np.random.default_rng(checks.seed(seed))
    if not checks.flag("balanced", balanced):
        return rng.random((n_models, n)) < 0.5
    return np.stack([rng.permutation(n_models) < n_models // 2 for _ in range(n)], axis=1)


def shadow_logits(
    backbone: Backbone,
    pool: Samples,
    inside: np.ndarray,
    ask: Samples,
    recipe: Recipe,
    method: str | Callable[..., BaseEraser] = "one head",
    n_clusters: int = 1,
    public: Samples | None = None,
    seed: int = 0,
    forget: Iterable[str] | None = None,
    approximate: dict[str, float] | None = None,
    folder: Path | str | None = None,
    n_jobs: int | None = None,
) -> dict[str, np.ndarray]:
    """Logits of shadow models, and of what is left of them after forgetting.

    Args:
        backbone: The frozen backbone.
        pool: Samples to train on.
        inside: Who is in which model's training set, bool (n_models, len(pool)).
        ask: Samples whose logits are wanted.
        recipe: How to tune.
        method: What `methods.build_method` takes: a name, or a function that returns an unfitted eraser of your own.
        n_clusters: Number of clusters, where the method has any.
        public: Public samples, where the method's routing learns from them.
        seed: Model i is tuned with seed + i.
        forget: Uids that every model has in its training set: they are forgotten, exactly and by `approximate`. Their
            order does not matter.
        approximate: Approximate methods, and the strength of each; for methods of one cluster.
        folder: Where to keep the logits, which private samples have made; None for nowhere. The name of a file is a
            hash of all that its logits are computed from.
        n_jobs: Models at a time (joblib).

    Returns:
        `trained`; with `forget` also `exact`, and each of `approximate`: (n_models, len(ask), n_classes).

    Raises:
        ValueError: If an argument is not as above; no model has been tuned then.
    """
    check_methods([] if callable(method) else [method])
    check_methods([*(approximate or {})], APPROXIMATE)
    inside = checks.as_array("inside", inside)
    fits = inside.dtype == bool and inside.ndim == 2 and inside.shape[1] == len(pool) and len(inside)
    if not fits or not inside.any(axis=1).all():
        expected = f"bool (n_models, {len(pool)}), not empty, and a sample in each model"
        raise ValueError(f"inside is an array of {inside.dtype} {inside.shape}, expected {expected}")
    n_clusters, seed = checks.whole("n_clusters", n_clusters), checks.seed(seed)
    approximate = {name: checks.number(f"strength of {name}", s) for name, s in (approximate or {}).items()}
    leaving = pool.positions([] if forget is None else forget)
    forget = sorted(pool.uids[leaving].tolist())
    if approximate and not forget:
        raise ValueError("approximate methods need forget: the uids of the forget set")
    if not inside[:, leaving].all():
        raise ValueError("a model lacks samples that it is to forget: inside must be True for all of them")
    build_method(method, backbone, n_clusters, recipe)  # refuses wrong arguments now
    backbone = backbone if isinstance(backbone, CachedFeatures) else CachedFeatures(backbone)
    folder = None if folder is None else Path(folder)
    in_order = np.argsort(pool.uids, kind="stable")
    pool_digests = pool.digests[in_order]
    common = {
        "environment": environment(backbone.device, threads=1),  # with a hash of the kit's code
        "n_clusters": n_clusters,
        "n_classes": [pool.n_classes, None if public is None else public.n_classes],
        "public": None if public is None else digest(public.sorted().digests.tobytes()),
        "ask": digest(ask.digests.tobytes()),
        "forget": forget,
        "approximate": approximate,
    }

    def one(i: int) -> dict[str, np.ndarray]:
        members = digest(pool_digests[inside[i, in_order]].tobytes())
        eraser = build_method(method, backbone, n_clusters, recipe, seed=seed + i, verbose=False)
        made_of = common | {"eraser": [type(eraser).__name__, fit_arguments(eraser.arguments())]}
        made_of |= {"choices": [described(part) for part in vars(eraser.choices()).values()]}
        path = folder / f"{digest(json.dumps(made_of | {'members': members}, sort_keys=True))}.npz" if folder else None
        if path and path.is_file():
            with np.load(path) as kept:
                return dict(kept)
        eraser.fit(pool[inside[i]], public=public)
        logits = {"trained": _log_probabilities(eraser, ask)}
        if approximate:
            task = UnlearningTask(eraser, forget)
            asked = task.part(ask)
            for name, strength in approximate.items():
                logits[name] = task.predict(unlearn(name, task, strength)[0], asked)
        if forget:
            eraser.forget(forget)
            logits["exact"] = _log_probabilities(eraser, ask)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, mode=0o600) as partial:
                partial.write_bytes(_npz(logits))
        return logits

    jobs = workers.each(one, [(i,) for i in range(len(inside))], n_jobs, backbone.device, shared=backbone.uncached)
    models = list(progress(jobs, total=len(inside), desc="shadow models", unit="model"))
    return {name: np.stack([model[name] for model in models]) for name in models[0]}


def _log_probabilities(eraser: BaseEraser, samples: Samples) -> np.ndarray:
    return np.log(np.maximum(eraser.predict_proba(samples), np.finfo(float).tiny))


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
