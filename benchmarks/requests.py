"""What a request costs, end to end, from 1,000 to 1,000,000 samples: `python benchmarks/requests.py [OPTIONS]`.

Features of real images go through the kit's own erasers, states and hashes; beyond the number of real images they are
repeated with noise of a hundredth of each feature's deviation. A feature of an image that was seen before is looked up,
so that the backbone's pass, which is the same for every method, is left out: `seconds_query` says what one takes.

A row is a method at a size: `fit` (all features at hand), `forget` one, from the call until one image that nobody has
asked for before is answered (median and 95th percentile), a hundredth at once, `add` some, `predict` 10,000 after a
request and again, `verify`, `hash`, `save`, the commit of a store (of images of 2 by 2 pixels), memory. Beside them
scikit-learn's Ridge, refitted on the same features, and subtraction in floating point with what it has lost after
10,000 requests.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scale import peak_gib
from sklearn.base import clone
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from lmeraser_kit import HashClusters, HierarchicalClusters, RidgeEraser, Samples, Store, figures, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.baselines.methods import CORRECTIONS
from lmeraser_kit.unlearning.ridge_eraser import BUCKETS

PUBLIC, ASKED, REQUESTS = 5000, 10_000, 50
NOISE = 0.01  # of a feature's deviation
OUT = Path("results/benchmarks/requests")


class Looked(Backbone):
    """A backbone whose features are looked up: an image holds its number."""

    def __init__(self, backbone: Backbone, table: np.ndarray, first: int):
        self.__dict__.update(backbone.__dict__, table=table, first=first, deviation=table[:PUBLIC].std(axis=0))

    def features(self, images, threads=1, show_progress=False, batch_size=64, layers=False, uids=None):
        """As `Backbone.features`."""
        numbers = np.ascontiguousarray(images).reshape(len(images), 4).view(np.uint32)[:, 0]
        features = self.table[row_of(numbers, self.first, len(self.table))]
        for i in np.flatnonzero(numbers >= len(self.table)):
            draws = np.random.default_rng(int(numbers[i])).standard_normal(features.shape[1], np.float32)
            features[i] += NOISE * self.deviation * draws
        return features if layers else features[:, -self.n_features :]


def row_of(numbers: np.ndarray, first: int, n: int) -> np.ndarray:
    """The row of a table of n that a number has: beyond them private ones, from `first` on, again; no test image."""
    return np.where(numbers < n, numbers, first + (numbers - first) % (n - first))


def samples(first: int, n: int, labels: np.ndarray, n_classes: int, private: int) -> Samples:
    """Samples with the numbers from `first` on."""
    numbers = np.arange(first, first + n, dtype=np.uint32)
    uids = np.char.add("person-", np.char.zfill(numbers.astype(str), 8))
    return Samples(
        numbers.view(np.uint8).reshape(n, 1, 2, 2), labels[row_of(numbers, private, len(labels))], uids, n_classes
    )


def timed(call, *arguments) -> tuple[float, object]:
    """Seconds, and what was returned."""
    started = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - started, result


def measured(eraser: RidgeEraser, private: Samples, public: Samples, asked: Samples) -> dict[str, float]:
    """One row."""
    row = {"seconds_refit_cached": timed(eraser.fit, private, public)[0]}
    sizes = np.array(list(eraser.sizes().values()), dtype=float)
    by_cluster = eraser.choices().vote.corrections  # without corrections nobody shares anything with anybody
    factor = sizes.sum() ** 2 / np.square(sizes).sum() if by_cluster else len(private)
    row |= {"n_clusters": len(sizes) if by_cluster else 0, "cost_factor_size_biased": factor}
    row |= {"accuracy": eraser.score(asked), "seconds_hash": timed(eraser.state_hash)[0]}
    leaving = np.random.default_rng(0).permutation(len(private))
    seconds = []
    for i, person in enumerate(leaving[: REQUESTS + 3].tolist()):
        started = time.perf_counter()
        eraser.forget(private.uids[person])
        middle = time.perf_counter()
        eraser.predict(asked[i : i + 1])
        seconds.append((middle - started, time.perf_counter() - started))
    of_forget, of_request = np.array(seconds[3:]).T
    row |= {"seconds_forget": np.median(of_forget), "seconds_request": np.median(of_request)}
    row |= {"seconds_request_95th": np.quantile(of_request, 0.95)}
    group = leaving[REQUESTS + 3 :][: len(private) // 100]
    row |= {"seconds_forget_hundredth": timed(eraser.forget, private.uids[group])[0]}
    row |= {"seconds_predict_10000_after": timed(eraser.predict, asked)[0]}
    row |= {"seconds_predict_10000": timed(eraser.predict, asked)[0]}
    derived = sum(model.derived["factor"].nbytes for model in eraser.state_.models.values() if model.derived)
    row |= {f"seconds_add_{REQUESTS}": timed(eraser.add, private[np.sort(leaving[:REQUESTS])])[0]}
    with tempfile.TemporaryDirectory() as folder:
        if len(private) <= 100_000:
            row |= {"seconds_save": timed(eraser.save, Path(folder) / "eraser")[0]}
            row |= {"seconds_verify": timed(eraser.verify)[0]}
            with Store.create(Path(folder) / "store", clone(eraser), private, public) as store:
                commits = [timed(store.forget, private.uids[who])[0] for who in leaving[:5].tolist()]
            row |= {"seconds_store_forget": np.median(commits)}
    kept = sum(a.nbytes for model in eraser.state_.models.values() for a in model.arrays.values())
    row |= {"MB_rows_a_1000_samples": kept / len(eraser.state_) / 1e3, "MB_sums": eraser.state_.sums.nbytes / 1e6}
    return row | {"MB_factors": derived / 1e6}


def peers(x: np.ndarray, labels: np.ndarray, n_classes: int, penalty: float) -> dict[str, float]:
    """scikit-learn's Ridge refitted without one sample; subtraction in floating point after 10,000 requests."""
    y = np.eye(n_classes)[labels]
    refit = timed(Ridge(alpha=penalty, solver="cholesky", copy_X=False).fit, x[1:].astype(np.float64), y[1:])[0]
    x = x[:, :256]  # the error is that of any columns
    sums = x.T.astype(np.float64) @ x
    rng, gone = np.random.default_rng(0), min(10_000, len(x) // 2)
    who = rng.permutation(len(x))[:gone]
    for i in who:
        row = x[i].astype(np.float64)
        sums -= np.multiply.outer(row, row)
    left = np.delete(x, who, axis=0).astype(np.float64)
    error = np.abs(sums - left.T @ left).max() / np.abs(sums).max()
    return {"seconds_ridge_refit": refit, "float_requests": gone, "float_largest_relative_error": error}


def figure_of(table: pd.DataFrame) -> Figure:
    """Seconds against the number of samples: a request until the next answer, and the fits that it is instead of."""
    figure, ax = plt.subplots(figsize=(12, 7))
    for i, (method, rows) in enumerate(table.groupby("method")):
        marker, colour = "os"[i], f"C{i}"
        for column, style in (("seconds_fit_images", ":"), ("seconds_refit_cached", "--"), ("seconds_request", "-")):
            what = {"-": "request", "--": "fit, features at hand", ":": "fit from images"}[style]
            ax.plot(rows["n_samples"], rows[column], style, marker=marker, color=colour, label=f"{method}: {what}")
    ax.set(xscale="log", yscale="log", xlabel="private samples", ylabel="seconds")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=16)
    ax.set_title("Forget one, and answer the next question")
    return figure


def main() -> None:
    """Each size in a process of its own, so that its height of memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10/paper")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0@96")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 40_000, 100_000])
    parser.add_argument("--samples-per-cluster", type=int, default=206, help="40,000 in 194 clusters, as published")
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)  # features, for the processes of each size
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    split = load_dataset(given.dataset)
    backbone = backbone_for(given.backbone, split.public)
    parts = (split.public, split.test, split.private)
    if given.table is None:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.npy"
            images = np.concatenate([np.asarray(part.images) for part in parts])
            seconds, features = timed(lambda: backbone.features(images, 2, show_progress=True, layers=True))
            np.save(table, features)
            saved = backbone.save(Path(folder) / "backbone.safetensors")
            query = min(timed(backbone.features, images[i : i + 1], 1, False, 1, True)[0] for i in range(5))
            rows = []
            for size in given.sizes:
                command = [sys.executable, __file__, "--table", table, "--sizes", size, "--dataset", given.dataset]
                command += ["--backbone", saved, "--samples-per-cluster", given.samples_per_cluster]
                subprocess.run([*map(str, command), "--out", folder], check=True)
                rows.append(pd.read_csv(Path(folder) / f"{size}.csv"))
                everything = pd.concat(rows).assign(seconds_query=query)
                everything["seconds_fit_images"] = everything["seconds_refit_cached"] + (
                    seconds / len(images) * everything["n_samples"]
                )
                everything.to_csv(given.out / "requests.csv", index=False)
        figures.set_theme()
        figures.save(figure_of(everything), given.out, "requests")
        print(everything.round(3).T.to_string())
        return
    table, labels = np.load(given.table, mmap_mode="r"), np.concatenate([part.labels for part in parts])
    n_classes, (size,) = split.public.n_classes, given.sizes
    first = len(split.public) + len(split.test)
    looked = Looked(backbone, table, first)
    public, asked = (samples(i, n, labels, n_classes, first) for i, n in ((0, PUBLIC), (len(split.public), ASKED)))
    private = samples(first, size, labels, n_classes, first)
    n_clusters = max(2, size // given.samples_per_cluster)
    clusters = HierarchicalClusters(n_clusters, **CORRECTIONS)
    rows = []
    for name, partition in (("exact sums", HashClusters(BUCKETS)), ("sums and corrections", clusters)):
        if partition is clusters and n_clusters > PUBLIC:
            continue
        eraser = RidgeEraser(looked, partition, verbose=False)
        rows.append({"method": name, "n_samples": size} | measured(eraser, private, public, asked))
    if size <= 100_000:
        x = looked.features(private.images, layers=True)
        with threadpool_limits(1):
            rows[0] |= peers(x, private.labels, n_classes, 400 * float(backbone.rounding[1].mean()))
    pd.DataFrame(rows).assign(GiB_process=peak_gib()).to_csv(given.out / f"{size}.csv", index=False)


if __name__ == "__main__":
    main()
