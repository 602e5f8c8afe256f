"""How long does a large store take to open, and how much of a request is bookkeeping? `make bench`.

50,000 samples (random images, one tenth as many public ones) in 300 clusters, a head each on a small ViT, so that
building it takes a minute. Opening and bookkeeping do not depend on what the images show, and hardly on how long tuning
takes. Bookkeeping is everything of a request but tuning: recording it, finding the clusters, their addresses, writing,
committing, deleting, sealing.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, Samples, Store
from lmeraser_kit.experiments.results import PROJECT, write_json


def main() -> None:
    """Build the store, time it, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--clusters", type=int, default=300)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--output", type=Path, default=PROJECT / "results" / "benchmarks" / "store.json")
    options = parser.parse_args()
    rng, n, n_public = np.random.default_rng(0), options.samples, options.samples // 10

    def samples(name, n):
        images = rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8).repeat(8, axis=2).repeat(8, axis=3)
        return Samples(images, rng.integers(0, 10, n), [f"{name}-{i:06d}" for i in range(n)], 10)

    public, private = samples("public", n_public), samples("private", n)
    backbone = Backbone.train(public[:500], epochs=1, img_size=16, embed_dim=32, depth=1, num_heads=2)
    clusters = HierarchicalClusters(options.clusters, fit_size=n_public)
    eraser = LMEraser(backbone, clusters, Recipe(prompt="none", epochs=1))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        Store.create(Path(folder) / "store", eraser, private, public).close()
        result = {"samples": n, "clusters": options.clusters, "seconds_to_create": time.perf_counter() - started}
        opening = []
        for _ in range(5):
            started = time.perf_counter()
            store = Store.open(Path(folder) / "store", verbose=False)
            opening.append(time.perf_counter() - started)
            store.close()
        bookkeeping, tuning = [], []
        with Store.open(Path(folder) / "store", verbose=False) as store:
            result["nonempty_clusters"] = len(store.eraser.sizes())
            for uid in rng.choice(private.uids, options.requests, replace=False):
                started = time.perf_counter()
                done = store.forget(uid)
                bookkeeping.append(time.perf_counter() - started - done.seconds_tuning)
                tuning.append(done.seconds_tuning)
            started = time.perf_counter()
            store.check()
            result["seconds_to_check_every_file"] = time.perf_counter() - started
            result["bytes"] = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    for name, values in (("open", opening), ("bookkeeping", bookkeeping), ("tuning", tuning)):
        result[f"seconds_{name}_median"] = float(np.median(values))
        result[f"seconds_{name}_worst"] = float(np.max(values))
    result["machine"] = {"platform": platform.platform(), "environment": done.environment}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
