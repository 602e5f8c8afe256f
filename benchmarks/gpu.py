"""What a GPU proves, in two parts of at most eight minutes: `make gpu`, or `python benchmarks/gpu.py --part 1|2`.

Part 1: the tests of exactness, sums, leaks, bounds, backbones and peers on this device; sums of whole numbers by the
device's own matrix product, against NumPy's, to the bit. Part 2: images a second through ViT-B/16 at 224 pixels (random
weights), forward and backward, beside the published loop and the bare backbone (09_speed), and rows of the frontier
(10_frontier). Without a GPU all of it runs on the CPU, with a small network: so it can be tried before a GPU is there.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from lmeraser_kit.backbones.preprocessing import MOST
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground.determinism import environment, pick_device
from lmeraser_kit.learners import ExactSums

PROJECT = Path(__file__).resolve().parent.parent
LIMIT = 480  # seconds of a part
TESTS = ("exactness", "exact_sums", "bound", "leaks", "backbone", "peers", "saving")


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
    on_cpu, started = time.perf_counter() - started, time.perf_counter()
    gram = torch.zeros(width, width, dtype=torch.int64, device=device)
    kind = torch.float32 if device.type == "mps" else torch.float64
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
    parser.add_argument("--part", type=int, choices=(1, 2), required=True)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu"))
    parser.add_argument("--quick", action="store_true", help="a few tests and steps, to try the script itself")
    given = parser.parse_args()
    device, started, folder = pick_device(), time.perf_counter(), given.out.resolve()
    gpu, summary = device.type != "cpu", {"environment": environment(device, 1)}
    if given.part == 1:
        summary["equal_sums"] = equal_sums(device, *(() if gpu and not given.quick else (5000, 300)))
        tests = [f"tests/test_{name}.py" for name in (TESTS[1:3] if given.quick else TESTS)]
        rc, said = called([sys.executable, "-m", "pytest", "-o", "addopts=", *tests], LIMIT - 60)
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
        summary["tests"] = {"rc": rc, **counts, "output": said[-4000:] if rc else ""}
    else:
        network = "vit_base_patch16_224" if gpu else "test_vit"
        small = {"rounds": 1, "steps": 2, "batch_size": 8, "sizes": [8], "many": [1000], "several": [16]}
        speed = (
            {"rounds": 3, "steps": 8, "batch_size": 64, "sizes": [29, 115, 460]} if gpu and not given.quick else small
        )
        summary["09_speed"] = run("09_speed", folder / "09_speed", 240, backbone=network, **speed)
        real = (PROJECT / "data" / "cifar10.npz").is_file() or (PROJECT / "data" / "cifar-10-batches-py").is_dir()
        weights = (PROJECT / "data" / "weights" / "tf_efficientnet_lite0.safetensors").is_file()
        methods = ["one prompt", "lmeraser", "layered ridge head", "corrected ridge head"]
        grid = {"methods": methods, "sweep": [16], "n_requests": 20, "batches": [], "n_check": 60, "epochs": 2}
        if real and weights and not given.quick:
            grid |= {"dataset": "cifar10", "backbone": "tf_efficientnet_lite0@96", "limits": [2000, 4000, 2000]}
        summary["10_frontier"] = run("10_frontier", folder / "10_frontier", 230, **grid)
    summary["seconds"] = time.perf_counter() - started
    write_json(folder / f"part-{given.part}.json", summary)
    print({name: value for name, value in summary.items() if name != "environment"})


if __name__ == "__main__":
    main()
