"""Learning clusters on Dask's workers: how many, one of them lost, one that rounds differently, and what travels.

Images are noise, weights are not trained: only time, traffic and bits are measured. Writes workers.json
and workers.csv into results/benchmarks. Needs Dask: pip install "lmeraser-kit[dask]".
"""

import argparse
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cloudpickle
import joblib
import numpy as np
import pandas as pd
from distributed import Client, Nanny, Scheduler, SpecCluster

from lmeraser_kit import HashClusters, LMEraser, Recipe, Samples, on_dask
from lmeraser_kit.backbones import untrained
from lmeraser_kit.experiments.results import PROJECT, write_json
from lmeraser_kit.ground import held, workers
from lmeraser_kit.ground.determinism import environment, environment_in_words

PINS = ("avx512", "avx2", "default")  # of ATEN_CPU_CAPABILITY
OTHER_BITS = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem"}


@contextmanager
def dask(*environments: dict) -> Iterator[Client]:
    """A client of workers on this machine, each with its environment variables."""
    options = {"nthreads": 1, "memory_limit": 0}
    parts = {i: {"cls": Nanny, "options": options | {"env": env}} for i, env in enumerate(environments)}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    with (
        SpecCluster(workers=parts, scheduler=scheduler, silence_logs=logging.ERROR) as cluster,
        Client(cluster) as client,
    ):
        client.run(environment, "cpu", 1)  # they import torch, which takes seconds
        yield client


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--samples", type=int, default=640)
    parser.add_argument("--clusters", type=int, default=32)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0@96")
    parser.add_argument("--one", action="store_true", help="fit here, and print the seconds and the chip's kernels")
    options = parser.parse_args()
    rng, n = np.random.default_rng(0), options.samples
    names = [f"sample-{i}" for i in range(n)]
    images, labels = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, n)
    samples = Samples(images, labels, names)
    backbone = untrained(options.backbone)

    def fitted() -> tuple[str, float]:
        eraser = LMEraser(backbone, HashClusters(options.clusters), Recipe(epochs=1), verbose=False)
        started = time.perf_counter()
        eraser.fit(samples)
        return eraser.state_hash(), time.perf_counter() - started

    expected, seconds = fitted()
    if options.one:
        print(seconds, environment("cpu", 1)["chip"])
        return
    rows = [{"workers": "this process", "seconds": seconds, "equal": True}]
    for pin in PINS:
        command = [sys.executable, *sys.argv, "--one"]
        environ = os.environ | {"ATEN_CPU_CAPABILITY": pin}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
        if done.returncode == -signal.SIGILL:
            rows.append({"workers": f"this process, asked for {pin}: a chip without it", "seconds": float("nan")})
            continue
        if done.returncode:
            raise RuntimeError(f"the fit with {pin} failed:\n{done.stderr}")
        seconds, chip = done.stdout.split()
        rows.append({"workers": f"this process, asked for {pin}: {chip}", "seconds": float(seconds)})
    calls: list[int] = []
    pack = held.packed

    def counted(*arguments):
        calls.append(len(pack(*arguments)))
        return pack(*arguments)

    workers.packed = counted
    for many in options.workers:
        calls.clear()
        with dask(*[{}] * many) as client, on_dask(client):
            state, seconds = fitted()
        sent = sum(calls) + many * len(pickle.dumps(backbone))
        row = {"workers": str(many), "seconds": seconds, "equal": state == expected, "mb_sent": sent / 1e6}
        whole = sum(len(cloudpickle.dumps(backbone)) + one for one in calls)  # with every cluster, as it was
        rows.append(row | {"mb_with_every_cluster": whole / 1e6})
        print(rows[-1], flush=True)
    calls.clear()
    with dask({}, {}, {}) as client, on_dask(client):
        victim = min(client.run(os.getpid).items())[1]

        def killing(*arguments):
            if len(calls) == options.clusters // 4:
                os.kill(victim, signal.SIGKILL)
            return counted(*arguments)

        workers.packed = killing
        state, seconds = fitted()
    workers.packed = pack
    rows.append({"workers": "3, one killed in the middle", "seconds": seconds, "equal": state == expected})
    with dask({}, OTHER_BITS) as client, warnings.catch_warnings(action="ignore"):
        with on_dask(client):
            state, seconds = fitted()
        rows.append({"workers": "2, one rounds differently", "seconds": seconds, "equal": state == expected})
        with joblib.parallel_config("dask", client=client):
            state, seconds = fitted()
        rows.append({"workers": "2, one differently, joblib alone", "seconds": seconds, "equal": state == expected})
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    folder = PROJECT / "results" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "workers.csv", index=False)
    facts = vars(options) | {"environment": environment("cpu", 1), "cores": os.cpu_count()}
    write_json(folder / "workers.json", facts)
    print(json.dumps(environment_in_words("cpu", 1)))


if __name__ == "__main__":
    main()
