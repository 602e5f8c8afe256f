"""Exact sums of 10,000 to 1,000,000 real images, fitted over Dask's workers: `python benchmarks/million.py`.

Images are those of a dataset, all of them, as many times as it takes, each time under other uids: features, rows and
sums are computed for every one. A row is a number of samples: seconds of the rows and of the sums, MB that were sent,
and the most memory of this process and of each worker. Then, at one size, the sums alone, given the rows: in this
process, by 1, 2, 4 and 8 workers of which half round differently, and with one killed in the middle.

Needs Dask: pip install "lmeraser-kit[dask]".
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scale import peak_gib
from workers import OTHER_BITS, dask

from lmeraser_kit import RidgeEraser, Samples, figures, load_dataset, on_dask
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground import held, workers
from lmeraser_kit.ground.determinism import environment
from lmeraser_kit.learners import ExactSums
from lmeraser_kit.unlearning import buckets
from lmeraser_kit.unlearning.rebuild import empty_state

OUT = Path("results/benchmarks/million")


def repeated(dataset: str, n: int, path: Path) -> tuple[Samples, int]:
    """So many samples, in an array on disk that is read through a map; and how many different images there are."""
    split = load_dataset(dataset)
    parts = (split.private, split.public, split.test)
    images = np.concatenate([np.asarray(part.images) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    on_disk = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *images.shape[1:]))
    for start in range(0, n, len(images)):
        on_disk[start : start + len(images)] = images[: n - start]
    uids = [f"image-{i % len(images):06d}-{i // len(images):03d}" for i in range(n)]
    return Samples(np.load(path, mmap_mode="r"), labels[np.arange(n) % len(images)], uids), len(images)


class Watch:
    """How long something takes, whatever calls it."""

    def __init__(self, owner: type, name: str):
        self.seconds, self.call = 0.0, getattr(owner, name)
        setattr(owner, name, lambda *arguments: self(*arguments))

    def __call__(self, *arguments):
        """The call itself."""
        started = time.perf_counter()
        try:
            return self.call(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


def measured(options: argparse.Namespace, folder: Path) -> dict:
    """One size: a fit over workers, a request after it, and the sums alone."""
    samples, different = repeated(options.dataset, options.size, folder / "images.npy")
    backbone = backbone_for(options.backbone, load_dataset(options.dataset).public)
    sent: list[int] = []
    pack = held.packed
    workers.packed = lambda *arguments: sent.append(len(call := pack(*arguments))) or call
    rows, sums = Watch(ExactSums, "rows"), Watch(buckets.Buckets, "sums")
    eraser = RidgeEraser(backbone, verbose=sys.stderr.isatty())
    with dask(*[{}] * options.workers) as client, on_dask(client):
        before = peak_gib()
        started = time.perf_counter()
        eraser.fit(samples)
        seconds = time.perf_counter() - started
        largest = max(client.run(peak_gib).values())
    row = {"samples": options.size, "different_images": different, "workers": options.workers, "seconds_fit": seconds}
    row |= {"seconds_rows": rows.seconds, "seconds_sums": sums.seconds, "MB_sent": sum(sent) / 1e6}
    row |= {"GiB_before": before, "GiB_process": peak_gib(), "GiB_largest_worker": largest}
    row |= {"GB_images": samples.images.nbytes / 1e9, "MB_sums": eraser.state_.sums.nbytes / 1e6}
    row["GB_rows"] = sum(model.arrays["rows"].nbytes for model in eraser.state_.models.values()) / 1e9
    started = time.perf_counter()
    eraser.forget(samples.uids[0])
    eraser.predict(samples.images[:1])
    return row | {"seconds_request": time.perf_counter() - started}


def by_parts(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """The sums of rows that are known, by whoever adds them up."""
    samples, _ = repeated(options.dataset, options.size, folder / "images.npy")
    backbone = backbone_for(options.backbone, load_dataset(options.dataset).public)
    eraser = RidgeEraser(backbone, verbose=sys.stderr.isatty()).fit(samples)
    state, rebuild = eraser.state_, eraser.rebuild()
    adding = buckets.Buckets(rebuild.learner, rebuild.context, empty_state(samples))

    def summed() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        return adding.sums(state.members, state.models), time.perf_counter() - started

    seconds = summed()[1]
    rows = [{"who adds up": "this process, all cores", "seconds": seconds, "equal": True}]
    for n in options.by:
        mixed = [{} if i % 2 else OTHER_BITS for i in range(n)]
        with dask(*mixed) as client, on_dask(client):
            sums, seconds = summed()
        who = f"{n} worker{'s' * (n > 1)}, {(n + 1) // 2} of another chip's kernels"
        rows.append({"who adds up": who, "seconds": seconds, "equal": bool((sums == state.sums).all())})
        print(rows[-1], flush=True)
    with dask({}, OTHER_BITS, {}) as client, on_dask(client), warnings.catch_warnings(action="ignore"):
        victim, pack, calls = min(client.run(os.getpid).items())[1], held.packed, []

        def killing(*arguments):
            calls.append(1)
            if len(calls) == 7:
                os.kill(victim, signal.SIGKILL)
            return pack(*arguments)

        workers.packed = killing
        sums, seconds = summed()
    rows.append({"who adds up": "3, one killed in the middle", "seconds": seconds})
    rows[-1]["equal"] = bool((sums == state.sums).all())
    return pd.DataFrame(rows).assign(samples=options.size)


def figure_of(table: pd.DataFrame) -> Figure:
    """Seconds and memory against the number of samples."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.5), layout="constrained")
    for column, label in (("seconds_rows", "features and rows"), ("seconds_sums", "sums")):
        left.plot(table["samples"], table[column], "o-", label=label)
    left.plot(table["samples"], table["seconds_request"], "s--", label="one request, to the next answer")
    left.set(xscale="log", yscale="log", xlabel="samples", ylabel="seconds")
    for column, label in (
        ("GiB_process", "this process, at most"),
        ("GB_rows", "rows that are kept (GB)"),
        ("GiB_largest_worker", "the largest worker, at most"),
    ):
        right.plot(table["samples"], table[column], "o-", label=label)
    right.set(xscale="log", yscale="log", xlabel="samples", ylabel="GiB")
    for axes in (left, right):
        axes.set_ylim(top=axes.get_ylim()[1] * 30)
        axes.legend(fontsize=15, loc="upper left")
    return figure


def main() -> None:
    """Each size in a process of its own, so that its height of memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10/paper")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0@32")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--by", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--parts", type=int, default=100_000, help="samples whose sums are added up by others")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.size:
            pd.DataFrame([measured(options, Path(folder))]).to_csv(options.out / f"{options.size}.csv", index=False)
            return
        for size in options.sizes:  # a size that was measured stays: a run goes on where it was
            if not (options.out / f"{size}.csv").is_file():
                subprocess.run([sys.executable, *sys.argv, "--size", str(size)], check=True)
        table = pd.concat([pd.read_csv(options.out / f"{size}.csv") for size in options.sizes])
        table.to_csv(options.out / "million.csv", index=False)
        figures.set_theme()
        figures.save(figure_of(table), options.out, "million")
        print(table.round(2).T.to_string())
        options.size = options.parts
        parts = by_parts(options, Path(folder))
        parts.to_csv(options.out / "parts.csv", index=False)
        print(parts.round(2).to_string(index=False))
    facts = {name: value for name, value in vars(options).items() if name not in ("out", "size")}
    write_json(options.out / "million.json", facts | {"environment": environment("cpu", 1), "cores": os.cpu_count()})


if __name__ == "__main__":
    main()
