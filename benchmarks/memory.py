"""What keeping freed memory is worth: a backbone's forward and backward pass on a CPU, with it and without, in turns.

Every turn is a process of its own, because the C library remembers. Writes results/benchmarks/memory.json.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch

from lmeraser_kit.backbones import untrained
from lmeraser_kit.experiments.results import PROJECT, write_json
from lmeraser_kit.ground.determinism import environment, exact_arithmetic, keep_freed_memory

BACKBONES = {"tf_efficientnet_lite0@224": 16, "tf_efficientnet_lite0@96": 64, "vit_tiny_patch16_224": 16}  # and batches
THREADS, TURNS, WARM_UP, PASSES = 2, 3, 4, 6


def rate(backbone: str, keep: bool) -> float:
    """Samples per second, forward and backward to the input; median over passes after some to warm up."""
    keep_freed_memory(keep)
    model, batch, seconds = untrained(backbone), BACKBONES[backbone], []
    with exact_arithmetic(THREADS):
        for _ in range(WARM_UP + PASSES):
            views = torch.zeros(batch, 3, model.size, model.size, requires_grad=True)
            started = time.perf_counter()
            torch.autograd.grad(model.model(views).sum(), views)
            seconds.append(time.perf_counter() - started)
    return batch / float(np.median(seconds[WARM_UP:]))


def main() -> None:
    """Measure all in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("BACKBONE", "KEEP"), help="measure one, and print the rate")
    options = parser.parse_args()
    if options.one:
        print(rate(options.one[0], options.one[1] == "kept"))
        return
    found = {backbone: {"kept": [], "given back": []} for backbone in BACKBONES}
    for _ in range(TURNS):
        for backbone, rates in found.items():
            for setting, measured in rates.items():
                command = [sys.executable, __file__, "--one", backbone, setting]
                measured.append(float(subprocess.run(command, check=True, capture_output=True).stdout))
    report = {"samples per second, median over turns": {}, "times as fast": {}, "batch": BACKBONES}
    for backbone, rates in found.items():
        medians = {setting: float(np.median(measured)) for setting, measured in rates.items()}
        report["samples per second, median over turns"][backbone] = medians
        report["times as fast"][backbone] = medians["kept"] / medians["given back"]
    report["environment"] = environment("cpu", THREADS)
    print(json.dumps(report, indent=1))
    write_json(PROJECT / "results" / "benchmarks" / "memory.json", report)


if __name__ == "__main__":
    main()
