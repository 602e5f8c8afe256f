"""Thousands of random requests, then a fresh fit: equal bits? `python benchmarks/random_requests.py [OPTIONS]`.

Synthetic features of as many columns as a backbone's stages have; exact sums, with the corrections of bounded clusters,
whose parts join and divide as people leave and come. In memory, and in a store, whose every request is a transaction on
disk. Half of the samples are held at first; each request forgets or adds one to five of them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lmeraser_kit import Backbone, HierarchicalClusters, RidgeEraser, Samples, Store
from lmeraser_kit.baselines.methods import CORRECTIONS
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground.determinism import environment, progress

OUT = Path("results/benchmarks/random_requests.json")


def people(n: int, seed: int, name: str) -> Samples:
    """Samples of noise with a class in it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    images = rng.integers(0, 200, (n, 1, 16, 16), dtype=np.uint8) + (5 * labels).astype(np.uint8)[:, None, None, None]
    return Samples(images, labels, [f"{name}-{i:06d}" for i in range(n)], 10)


def requests(pool: Samples, held: set[str], n: int, seed: int):
    """Each is ("forget" or "add", uids); `held` follows."""
    rng, everybody = np.random.default_rng(seed), pool.uids.tolist()
    for _ in range(n):
        outside = [uid for uid in everybody if uid not in held]
        forget = len(outside) < 5 or (len(held) > 20 and rng.random() < 0.5)
        uids = rng.choice(sorted(held) if forget else outside, rng.integers(1, 6), replace=False).tolist()
        held.symmetric_difference_update(uids)
        yield ("forget" if forget else "add"), uids


def main() -> None:
    """Try, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    public, pool = people(500, 1, "public"), people(given.pool, 2, "person")
    backbone = Backbone.from_timm("test_efficientnet@16", pretrained=False).standardised(public)
    clusters = HierarchicalClusters(8, bound=40, **CORRECTIONS)
    result: dict = {"requests": given.requests, "pool": given.pool, "environment": environment(backbone.device, 1)}

    def eraser() -> RidgeEraser:
        return RidgeEraser(backbone, clusters, verbose=False)

    for where in ("memory", "store"):
        held = set(pool.uids[: given.pool // 2].tolist())
        start, started = pool[: given.pool // 2], time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            store = None if where == "memory" else Store.create(Path(folder) / "store", eraser(), start, public)
            one = eraser().fit(start, public) if store is None else store
            plan = requests(pool, held, given.requests, seed=0)
            for action, uids in progress(plan, total=given.requests, desc=where):
                one.forget(uids) if action == "forget" else one.add(pool[pool.positions(uids)])
            seconds = time.perf_counter() - started
            final = one if store is None else store.eraser
            fresh = eraser().fit(pool[pool.positions(sorted(held))], public)
            equal = final.state_hash() == fresh.state_hash()
            checked = final.verify() if store is None else store.verify().state_hash
            if store is not None:
                store.close()
        result[where] = {"equal": equal and checked == fresh.state_hash(), "held": len(held), "seconds": seconds}
        print(where, result[where])
    write_json(given.out, result)
    print(json.dumps({name: result[name] for name in ("memory", "store")}))


if __name__ == "__main__":
    main()
