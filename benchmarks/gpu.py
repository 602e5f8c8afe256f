"""What a GPU proves, in three parts of at most eight minutes: `make gpu`, or `python benchmarks/gpu.py --part 1|2|3`.

1. The tests of exactness, sums, leaks, bounds, backbones and peers on this device; sums of whole numbers by its own
   matrix product, against NumPy's, to the bit.
2. Images a second, forward and backward, through ViT-B/16 and EfficientNet-lite0 at 224 pixels (random weights), beside
   the published loop and the bare backbone (09_speed).
3. With CIFAR-10 and the weights of EfficientNet-lite0 in data/, all 40,000 private images at 224 pixels: rows of the
   frontier with requests timed (10_frontier), prompts and heads of 194 clusters (03_prompts). Without them digits.

Without a GPU all of it runs on the CPU, small: so it can be tried before a GPU is there.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import yaml

from lmeraser_kit.backbones.preprocessing import MOST
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground.determinism import environment, pick_device
from lmeraser_kit.learners import ExactSums

PROJECT = Path(__file__).resolve().parent.parent
LIMIT = 480  # seconds of a part
TESTS = ("exactness", "exact_sums", "bound", "leaks", "backbone", "peers", "saving")
SUMS, PROMPTED = ["layered ridge head", "corrected ridge head"], ["lmeraser", "cluster heads"]
CIFAR10 = {"dataset": "cifar10/paper", "backbone": "tf_efficientnet_lite0@224"}
FULL = {
    "10_frontier": CIFAR10 | {"methods": SUMS, "sweep": [194], "n_requests": 50, "batches": [100], "n_check": 200},
    "03_prompts": CIFAR10 | {"methods": PROMPTED, "n_clusters": 194, "epochs": 3, "limits": [5000, 0, 0]},
}
NETWORKS = ("vit_base_patch16_224", "tf_efficientnet_lite0")
SPEED = {"rounds": 3, "steps": 8, "batch_size": 64, "sizes": [29, 115, 460], "many": [10_000], "several": [194]}
SMALL = {
    "09_speed": {"rounds": 1, "steps": 2, "batch_size": 8, "sizes": [8], "many": [1000], "several": [16]},
    "10_frontier": {"methods": SUMS, "sweep": [16], "n_requests": 5, "batches": [], "n_check": 60},
    "03_prompts": {"methods": PROMPTED, "n_clusters": 4, "epochs": 1},
}


def called(command: list[str], seconds: float) -> tuple[int, str]:
    """Exit status and output of a command; 124 if it took longer."""
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        return 124, str(error)
    return done.returncode, done.stdout + done.stderr


def equal_sums(device: torch.device, n: int = 20_000, width: int = 1792) -> dict[str, object]:
    """Exact sums by NumPy, and by the device in blocks, of the same rows of whole numbers."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-MOST, MOST + 1, (n, width), dtype=np.int16)
    labels = rng.integers(0, 10, n)
    learner, started = ExactSums(), time.perf_counter()
    sums = learner.nothing({"rows": rows}, 10)
    learner.accumulate(sums, {"rows": rows, "labels": labels}, 1)
    on_cpu = time.perf_counter() - started
    gram = torch.zeros(width, width, dtype=torch.int64, device=device)
    kind = torch.float32 if device.type == "mps" else torch.float64
    warm = torch.zeros(width, width, dtype=kind, device=device)
    (warm @ warm).sum().item()  # the first product loads libraries
    started = time.perf_counter()
    for start in range(0, n, 4096):
        part = torch.from_numpy(rows[start : start + 4096]).to(device).to(kind)
        gram += (part.T @ part).to(torch.int64)
    triangle = np.triu_indices(width)
    equal = np.array_equal(gram.cpu().numpy()[triangle], sums[:width, :width][triangle])
    return {
        "equal": equal,
        "rows": n,
        "columns": width,
        "seconds_numpy": on_cpu,
        "seconds_device": time.perf_counter() - started,
    }


def run(notebook: str, out: Path, seconds: float, **parameters) -> dict[str, object]:
    """A notebook's strict run."""
    command = [sys.executable, "-m", "lmeraser_kit.experiments.runs", f"notebooks/experiments/{notebook}.ipynb"]
    started = time.perf_counter()
    rc, said = called([*command, str(out), "-y", yaml.safe_dump(parameters)], seconds)
    print(said[-2000:] if rc else f"{notebook}: {out}")
    return {"rc": rc, "seconds": time.perf_counter() - started}


def main() -> None:
    """Run a part, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, choices=(1, 2, 3), required=True)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu"))
    parser.add_argument("--quick", action="store_true", help="a few tests and steps, to try the script itself")
    given = parser.parse_args()
    device, started, folder = pick_device(), time.perf_counter(), given.out.resolve()
    large, summary = device.type != "cpu" and not given.quick, {"environment": environment(device, 1)}
    if given.part == 1:
        summary["equal_sums"] = equal_sums(device, *(() if large else (5000, 300)))
        tests = [f"tests/test_{name}.py" for name in (TESTS[1:3] if given.quick else TESTS)]
        side_by_side = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
        rc, said = called([sys.executable, "-m", "pytest", "-o", "addopts=", *side_by_side, *tests], LIMIT - 60)
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
        summary["tests"] = {"rc": rc, **counts, "output": said[-4000:] if rc else ""}
    elif given.part == 2:
        for network in NETWORKS if large else ["test_vit"]:
            left = LIMIT - (time.perf_counter() - started)
            speed = SPEED if large else SMALL["09_speed"]
            summary[network] = run("09_speed", folder / f"09_speed-{network}", left, backbone=network, **speed)
    else:
        there = ("cifar-10-batches-py/test_batch", "weights/tf_efficientnet_lite0.safetensors")
        full = large and all((DATA / name).is_file() for name in there)
        for notebook in ("10_frontier", "03_prompts"):
            left = LIMIT - (time.perf_counter() - started)
            parameters = (FULL if full else SMALL)[notebook]
            summary[notebook] = run(notebook, folder / notebook, left, **parameters)
    summary["seconds"] = time.perf_counter() - started
    write_json(folder / f"part-{given.part}.json", summary)
    print({name: value for name, value in summary.items() if name != "environment"})


if __name__ == "__main__":
    main()
