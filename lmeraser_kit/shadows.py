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
from lmeraser_kit.backbone import Backbone
from lmeraser_kit.baselines import build_method
from lmeraser_kit.files import replace_file
from lmeraser_kit.problem import Problem
from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.tuning import Recipe, cluster_addresses

METHODS = {True: "one prompt", False: "one head"}


def halves(n_models: int, n: int, seed: int) -> np.ndarray:
    """Who is in which shadow model's training set: every sample in exactly half of the models, bool (n_models, n)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n_models) < n_models // 2 for _ in range(n)], axis=1)


def shadow_logits(
    backbone: Backbone,
    pool: Samples,
    inside: np.ndarray,
    ask: Samples,
    recipe: Recipe,
    seed: int = 0,
    forget: list[str] | None = None,
    methods: dict[str, float] | None = None,
    folder: Path | None = None,
    n_jobs: int | None = None,
) -> dict[str, np.ndarray]:
    """Logits of shadow models; and of what approximate methods make of them.

    Args:
        backbone: The frozen backbone.
        pool: Samples to train on.
        inside: Who is in which model's training set, bool (n_models, len(pool)).
        ask: Samples whose logits are wanted.
        recipe: How to tune; with the prompt `none`, heads alone.
        seed: Model i is tuned with seed + i.
        forget: Uids of the pool that every model has in its training set, to be forgotten by `methods`.
        methods: Approximate methods, and the strength of each.
        folder: Where to keep the logits; None for nowhere.
        n_jobs: Models at a time (joblib).

    Returns:
        `trained`, and each of `methods`: (n_models, len(ask), n_classes).
    """
    methods = methods or {}

    def one(i: int) -> dict[str, np.ndarray]:
        part = pool[inside[i]]
        address = digest(
            *cluster_addresses(backbone, part, recipe, seed + i).values(), ask.digests.tobytes(), forget, methods
        )
        path = folder / f"{address}.npz" if folder else None
        if path and path.is_file():
            with np.load(path) as kept:
                return dict(kept)
        eraser = build_method(METHODS[recipe.prompt != "none"], backbone, 1, recipe, seed=seed + i, verbose=False)
        problem = Problem(eraser.fit(part), forget or [])
        asked = problem.part(ask)
        found = {"trained": problem.predict(problem.start, asked)}
        for name, strength in methods.items():
            found[name] = problem.predict(unlearn(name, problem, strength)[0], asked)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _npz(found))
        return found

    jobs = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(joblib.delayed(one)(i) for i in range(len(inside)))
    models = list(progress(jobs, total=len(inside), desc="shadow models", unit="model"))
    return {name: np.stack([model[name] for model in models]) for name in models[0]}


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
