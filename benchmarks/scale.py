"""Route and plan a million synthetic samples in two thousand clusters, and say what time and memory that takes.

python benchmarks/scale.py [--samples 1000000] [--clusters 2000] [--output results/benchmarks/scale.json]

Images are random patterns of 8x8 pixels in an array on disk, read through a memory map; the backbone is a ViT that has
learnt next to nothing (speed and memory do not depend on its weights).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, Samples
from lmeraser_kit.evaluation.costs import cost_factors
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground.determinism import environment


def synthetic(n: int, path: Path, seed: int, prefix: str) -> Samples:
    """Samples of random patterns, written to `path` in parts and memory-mapped."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 1, 8, 8))
    rng = np.random.default_rng(seed)
    for start in range(0, n, 100_000):
        part = images[start : start + 100_000]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    return Samples(np.load(path, mmap_mode="r"), np.arange(n) % 10, [f"{prefix}-{i:07d}" for i in range(n)], 10)


def peak_gib() -> float:
    """The most memory that this process has had so far, with files that it has mapped (ru_maxrss has its parent's)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--public", type=int, default=5_000)
    parser.add_argument("--clusters", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/scale.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        public = synthetic(options.public, Path(folder) / "public.npy", 0, "public")
        private = synthetic(options.samples, Path(folder) / "private.npy", 1, "private")
        made = time.perf_counter()
        backbone = Backbone.train(public[:64], epochs=1, img_size=16)
        clusters = HierarchicalClusters(options.clusters, fit_size=options.public)
        eraser = LMEraser(backbone, clusters, Recipe(), threads=options.threads)
        sizes = eraser.plan(private, public)
        planned = time.perf_counter()
    found = {
        "samples": options.samples,
        "clusters": len(sizes),
        "largest": max(sizes.values()),
        **cost_factors(sizes.values()),
        "seconds_making": made - started,
        "seconds_planning": planned - made,
        "samples_per_second": options.samples / (planned - made),
        "peak_gib": peak_gib(),
        "environment": environment(backbone.device, options.threads),
    }
    print(write_json(options.output, found).read_text())


if __name__ == "__main__":
    main()
