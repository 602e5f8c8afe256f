"""Thousands of requests, with fresh fits between: equal bits? `python benchmarks/random_requests.py [OPTIONS]`.

Synthetic features of as many columns as a backbone's stages have; exact sums, with the corrections of bounded clusters,
whose parts join and divide as people leave and come. In memory, and in a store, whose every request is a transaction on
disk. Half of the samples are held at first. A request is one of

    forget      one to five samples
    owner       all that is held of one owner
    adaptive    of thirty samples, the one of whose class the model published now is least sure, or surest: what is
                asked depends on what was learnt from those who left before (Chourasia and Shah 2023)
    add         one to five samples that are not held, also such as were forgotten
    rectify     another image and label for one to three samples

A fresh fit on who is held is made after the last request, and at random points before.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from lmeraser_kit import Backbone, HierarchicalClusters, RidgeEraser, Samples, Store
from lmeraser_kit.baselines.methods import CORRECTIONS
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground.determinism import environment, progress
from lmeraser_kit.ground.samples import concatenate

OUT = Path("results/benchmarks/random_requests.json")


def people(n: int, seed: int, name: str) -> Samples:
    """Samples of noise with a class in it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    images = rng.integers(0, 200, (n, 1, 16, 16), dtype=np.uint8) + (5 * labels).astype(np.uint8)[:, None, None, None]
    owners = [f"owner of {name} {int(i)}" for i in rng.zipf(2.0, n)]
    return Samples(images, labels, [f"{name}-{i:06d}" for i in range(n)], 10, owners=owners)


class Service:
    """Requests drawn at random, carried out by an eraser or a store; `now` is what is held, by uid."""

    def __init__(self, pool: Samples, one: RidgeEraser | Store, seed: int):
        self.pool, self.one, self.rng = pool, one, np.random.default_rng(seed)
        self.now = {uid: part for uid, part in zip(pool.uids.tolist(), pool, strict=True)}
        self.held = set(pool.uids[: len(pool) // 2].tolist())

    @property
    def eraser(self) -> RidgeEraser:
        """What answers."""
        return self.one.eraser if isinstance(self.one, Store) else self.one

    def samples(self, uids) -> Samples:
        """As they are now: some have been rectified."""
        return concatenate([self.now[uid] for uid in uids])

    def drawn(self, uids, most: int) -> list[str]:
        """One of them, up to so many."""
        uids = sorted(uids)
        return self.rng.choice(uids, min(len(uids), int(self.rng.integers(1, most + 1))), replace=False).tolist()

    def request(self) -> str:
        """Carry out one request; returns its kind."""
        outside = self.now.keys() - self.held
        kinds = ["add"] if len(self.held) < 50 else ["forget", "owner", "adaptive", "rectify"]
        kinds += ["add", "add", "add"] if outside else []
        kind = str(self.rng.choice(kinds))
        if kind == "owner":
            owner = str(self.rng.choice(sorted({str(self.now[uid].owners[0]) for uid in self.held})))
            self.one.forget(owner=owner)
            self.held = {uid for uid in self.held if self.now[uid].owners[0] != owner}
        elif kind == "add":
            uids = self.drawn(outside, 5)
            self.one.add(self.samples(uids))
            self.held.update(uids)
        elif kind == "rectify":
            uids = self.drawn(self.held, 3)
            for uid in uids:
                self.now[uid] = self.other(self.now[uid])
            self.one.rectify(self.samples(uids))
        else:
            uids = [self.chosen_by_model()] if kind == "adaptive" else self.drawn(self.held, 5)
            self.one.forget(uids)
            self.held.difference_update(uids)
        return kind

    def chosen_by_model(self) -> str:
        """The one of thirty of whose class the published model is least sure, or surest."""
        some = self.samples(self.rng.choice(sorted(self.held), min(30, len(self.held)), replace=False).tolist())
        sure = self.eraser.predict_proba(some)[np.arange(len(some)), some.labels]
        return str(some.uids[sure.argmin() if self.rng.random() < 0.5 else sure.argmax()])

    def other(self, sample: Samples) -> Samples:
        """Another image and label under a sample's uid."""
        images = self.rng.integers(0, 256, sample.images.shape, dtype=np.uint8)
        return Samples(images, self.rng.integers(0, 10, 1), sample.uids, 10, owners=sample.owners)


def main() -> None:
    """Try, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--points", type=int, default=100, help="at how many random points a fresh fit is made")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    public, pool = people(500, 1, "public"), people(given.pool, 2, "person")
    backbone = Backbone.from_timm("test_efficientnet@16", pretrained=False).standardised(public)
    clusters = HierarchicalClusters(8, bound=40, **CORRECTIONS)
    result: dict = {"requests": given.requests, "pool": given.pool, "environment": environment(backbone.device, 1)}

    def eraser() -> RidgeEraser:
        return RidgeEraser(backbone, clusters, verbose=False)

    for where in ("memory", "store"):
        start, started = pool[: given.pool // 2], time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
            one = eraser().fit(start, public)
            if where == "store":
                one = closing.enter_context(Store.create(Path(folder) / "store", eraser(), start, public))
            service, kinds, compared = Service(pool, one, seed=0), Counter(), []
            points = set(service.rng.choice(given.requests, min(given.points, given.requests), replace=False).tolist())
            for i in progress(range(given.requests), desc=where):
                kinds[service.request()] += 1
                if i in points or i == given.requests - 1:
                    fresh = eraser().fit(service.samples(sorted(service.held)), public)
                    compared.append(service.eraser.state_hash() == fresh.state_hash())
            seconds = time.perf_counter() - started
            one.verify()
        result[where] = {
            "equal": all(compared),
            "compared": len(compared),
            "kinds": dict(sorted(kinds.items())),
            "held": len(service.held),
            "seconds": seconds,
        }
        print(where, result[where])
    write_json(given.out, result)
    print(json.dumps({name: result[name] for name in ("memory", "store")}))


if __name__ == "__main__":
    main()
