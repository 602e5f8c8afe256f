"""What a request costs where clusters have prompts: `python benchmarks/prompted_request.py [OPTIONS]`.

Clusters are as large as those of 40,000 images in 194: 206 images, tuned with a frame and a head. A request is timed
from the call of `forget` until one image that nobody has asked for before is answered, with all its passes: the cluster
is tuned again, on one thread. Images of a batch pass through the backbone in micro-batches, whose gradients are added
up, and in float32 or bfloat16. Every row's state is verified: a setting has bits of its own, and always the same.
"""

import argparse
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from lmeraser_kit import Backbone, HashClusters, LMEraser, Recipe, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.ground.determinism import native_precisions, progress

OUT = Path("results/benchmarks/prompted_request")
CLUSTER, CLUSTERS = 206, 2  # as many passes of a prediction as LMEraser has: one to route, one with the prompt


def measured(backbone: Backbone, micro_batch: int, recipe: Recipe, split, n_requests: int) -> dict[str, float]:
    """One row."""
    private = split.private[: CLUSTER * CLUSTERS]
    with mock.patch.object(Backbone, "micro_batch", micro_batch):
        eraser = LMEraser(backbone, HashClusters(CLUSTERS), recipe, verbose=False).fit(private, public=split.public)
        seconds, tuned = [], []
        for i, person in enumerate(np.random.default_rng(0).permutation(len(private))[:n_requests].tolist()):
            started = time.perf_counter()
            receipt = eraser.forget(private.uids[person])
            eraser.predict(split.test[i : i + 1])
            seconds.append(time.perf_counter() - started)
            tuned.append(sum(receipt.clusters_tuned.values()))
        eraser.verify()
    return {
        "seconds_request": np.median(seconds),
        "seconds_fastest": min(seconds),
        "seconds_slowest": max(seconds),
        "samples_tuned": np.mean(tuned),
        "epochs": recipe.epochs,
        "requests": n_requests,
    }


def main() -> None:
    """A row a setting, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10/paper")
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0@96", "tf_efficientnet_lite0@224"])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    split = load_dataset(given.dataset, limits=(2000, CLUSTER * CLUSTERS, 1000))
    recipe = Recipe(epochs=given.epochs)
    settings = [
        (name, precision, size)
        for name in given.backbones
        for precision in native_precisions()
        for size in given.micro_batches
    ]
    rows = []
    for name, precision, size in progress(settings, desc="settings"):
        backbone = backbone_for(name, split.public, precision=precision)
        whole = min(backbone.micro_batch, recipe.batch_size)
        row = {"backbone": name, "precision": precision, "micro_batch": size, "is_default": size == whole}
        rows.append(row | measured(backbone, size, recipe, split, given.requests))
        pd.DataFrame(rows).to_csv(given.out / "prompted_request.csv", index=False)
    print(pd.DataFrame(rows).round(3).to_string())


if __name__ == "__main__":
    main()
