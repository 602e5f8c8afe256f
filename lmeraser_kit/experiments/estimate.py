"""What a profile will take, before it starts: samples passed, minutes and memory of every run.

    python -m lmeraser_kit.experiments.estimate paper --cores 2

Nothing is loaded but the backbones' architectures, with random weights: a few batches say what a pass takes here. It
is an estimate, good to a factor of two or so: it counts the fits that each notebook makes, and the features that
CACHED notebooks share once.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from dataclasses import dataclass

from lmeraser_kit.experiments.extras import need

need("batch", __name__, repository=True)

import pandas as pd
import torch
import yaml

from lmeraser_kit.backbones import VITS, untrained
from lmeraser_kit.baselines.approximate import APPROXIMATE
from lmeraser_kit.baselines.methods import FRONTIER, UNDIVIDED
from lmeraser_kit.data.copies import N_VIEWS
from lmeraser_kit.data.datasets import PAPER_SHARE, PUBLIC_BELOW, load_dataset
from lmeraser_kit.data.inputs import DATA, absent_inputs
from lmeraser_kit.experiments import parameters, profiles
from lmeraser_kit.experiments.results import NOTEBOOKS, profile_file
from lmeraser_kit.ground.determinism import exact_arithmetic, native_precisions, progress
from lmeraser_kit.learners.recipe import named_recipe

SIZES = {  # samples of the official training and test parts
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "svhn": (73_257, 26_032),
    "gtsrb": (26_640, 12_630),
    "fashion-mnist": (60_000, 10_000),
    "mnist": (60_000, 10_000),
}
CACHED = (
    "02_clusters",
    "07_peers",
    "08_attacks",
    "10_frontier",
    "13_owners",
    "14_reconstruction",
    "15_closure",
    "17_waiting",
)  # features are kept for the next run of the same kind
HEAD_SECONDS = 5e-4  # a head of all stages' features: fit, score and requests, for each private sample and setting
USUAL = range(5)  # exact methods of 08_attacks, and about as many of 07_peers, if none is named
BATCH = 4  # samples of a timed batch: a ViT-B takes a slow core seconds for them
KERNEL_SECONDS = 15  # what a run takes that does nothing


@dataclass(frozen=True)
class Pace:
    """How fast a backbone is here, on one thread: samples per second, bytes of its weights, bytes kept for a sample.

    `micro_batch` is how many samples pass at once at most.
    """

    forward: float
    gradient: float
    weights: int
    kept: int
    micro_batch: int = sys.maxsize


@functools.cache
def pace(backbone: str, precision: str) -> Pace:
    """Time a backbone's passes over random views, and count what its backward pass keeps."""
    model, kept = untrained(backbone, precision=precision), 0
    views = torch.rand(BATCH, 3, model.size, model.size, device=model.device, requires_grad=True)

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    def rate(pass_through) -> float:
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < 1:
            pass_through().sum().item()  # waits for a GPU
            n += BATCH
        return n / (time.perf_counter() - started)

    with exact_arithmetic(1):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            torch.autograd.grad(model(views).sum(), views)
        gradient = rate(lambda: torch.autograd.grad(model(views).sum(), views)[0])
        with torch.inference_mode():
            forward = rate(lambda: model(views))
    weights = sum(tensor.nbytes for tensor in model.model.state_dict().values())
    return Pace(forward, gradient, weights, kept // BATCH, model.micro_batch)


def sizes_of(dataset: str, limits: list[int], seed: int) -> list[int]:
    """How many public, private and test samples a run has; published datasets are not read for it."""
    name, _, rule = dataset.partition("/")
    if name in SIZES:
        train, test = SIZES[name]
        public = round(train * (1 - PAPER_SHARE if rule else PUBLIC_BELOW))
        whole = (public, train - public, test)
    else:
        split = load_dataset(dataset, seed)
        whole = (len(split.public), len(split.private), len(split.test))
    return [limit or n for limit, n in zip(limits or (0, 0, 0), whole, strict=True)]


def passes(notebook: str, run: dict, public: int, private: int, test: int) -> tuple[float, float]:
    """How many samples a run passes forward, and forward and backward, by what its notebook does."""
    look, fit, k = public + private + test, private * run.get("epochs", 0), run.get("n_clusters", 1)
    heads = run.get("prompt") == "none"
    if notebook == "03_prompts":
        prompted = [method for method in run["methods"] if "head" not in method]
        shards = k * ("hashed clusters" in prompted)
        return len(run["methods"]) * (look + test) + shards * test, len(prompted) * fit
    if notebook == "04_unlearning":
        requests = run["n_requests"]
        return 3 * look + 2 * requests * test, 3 * fit + 2 * requests * fit / k  # clusters are uneven: twice N / K
    if notebook == "06_exactness":
        return 40 * look, 25 * fit + run["n_moves"] * fit / k
    if notebook == "07_peers":
        return (2 * look, 0) if heads else (60 * look + 3 * k * test, (25 + 40 * (1 + len(run["strengths"]))) * fit)
    if notebook == "08_attacks":
        canaries = 0 if run["exact_methods"] else 3  # LMEraser has prompts there
        return (2 * look, canaries * fit) if heads else (20 * look, 10 * run["n_shadows"] * fit)
    if notebook == "10_frontier":
        prompted = [method for method in run["methods"] or FRONTIER if "head" not in method]
        divided = [(method, k) for method in prompted if method not in UNDIVIDED for k in run["sweep"]]
        requests = sum(2 * run["n_requests"] / k for _, k in divided) + len(run["batches"]) * len(divided)
        shards = sum(k for method, k in divided if method == "hashed clusters")
        fits = len(divided) + len(prompted) - len({method for method, _ in divided})
        return 2 * look + (len(divided) + shards) * test, (fits + requests) * fit
    if notebook == "13_owners":  # requests learn less than a fit
        prompted = [method for method in run["methods"] if "head" not in method]
        return 2 * look + len(prompted) * test, 3 * len(prompted) * fit
    if notebook == "15_closure":
        asked = 200 + 5 * run["n_planted"] + run["n_distinct"] + run["n_test"] * run["dataset"].startswith("cifar10")
        return look + N_VIEWS * asked, 0
    if notebook == "11_rates":
        settings = 2 + len(run["rates"]) + len(run["head_rates"])
        return settings * len(run["sizes"]) * public / 3, (settings - 1) * sum(run["sizes"]) * run["epochs"]
    if notebook in ("14_reconstruction", "16_klom", "17_waiting"):
        return 2 * look, 0
    return 2 * look, fit


def head_fits(notebook: str, run: dict) -> float:
    """How often a run of heads alone fits one on all private samples."""
    if notebook == "10_frontier":
        return len(run["methods"] or FRONTIER) * len(run["sweep"])
    if notebook == "13_owners":
        return 2 * len(run["methods"] or USUAL)
    exact = len(run.get("exact_methods") or USUAL)
    if notebook == "07_peers" and run["prompt"] == "none":
        return 3 * exact + 2 * (1 + len(run["strengths"])) * len(run["approximate_methods"] or APPROXIMATE)
    if notebook == "17_waiting":
        return 3
    if notebook == "14_reconstruction":  # two versions a deletion; shards' heads take a fit each
        return run["n_deletions"] * (2 * len(run["epsilons"]) + 4)
    if notebook == "16_klom":  # five forget sets
        return 10 * (exact + 2 * len(run["approximate_methods"])) * run["n_shadows"]
    return 2 * exact * run["n_shadows"] if notebook == "08_attacks" else 0  # half of the samples, four times


def estimate(profile: dict) -> pd.DataFrame:
    """A row a run: samples passed, minutes of one process on one thread (or on the GPU), and memory at its height.

    Args:
        profile: What a file of workflow/config holds.

    Raises:
        ValueError: As for `profiles.plan`.
    """
    planned = {
        (notebook, name): parameters.check_parameters(NOTEBOOKS / f"{notebook}.ipynb", changes)
        for (notebook, name), changes in profiles.plan(profile).items()
    }
    for (notebook, _), given in planned.items():
        parameters.check_names(notebook, given)
    emulated = [run for run in planned.values() if run.get("precision", "float32") not in native_precisions()]
    if emulated:  # a batch would take minutes
        print("bfloat16 is emulated on this chip, far too slowly for real runs: this is for float32.", file=sys.stderr)
    for run in emulated:
        run["precision"] = "float32"
    kinds = {(run["backbone"], run.get("precision", "float32")) for run in planned.values()}
    for kind in progress(sorted(kinds), desc="timing backbones", unit="backbone"):
        pace(*kind)
    rows, kept = [], set()
    for (notebook, name), run in planned.items():
        here, sizes = pace(run["backbone"], run.get("precision", "float32")), [0, 0, 0]
        if "dataset" in run:
            sizes = sizes_of(run["dataset"], run["limits"], run["seed"])
        forward, gradients = passes(notebook, run, *sizes)
        images = run.get("dataset", "").partition("/")[0], run["backbone"], run.get("precision")
        if notebook in CACHED and images in kept:
            forward = max(0, forward - 2 * sum(sizes))
        kept |= {images} if notebook in CACHED else set()
        settings = head_fits(notebook, run)
        if notebook == "01_backbone" and run["backbone"] in VITS:  # all weights learn: some 1.5 times as much
            gradients += 1.5 * run["backbone_epochs"] * sizes[0]
        batch = min(named_recipe(run.get("recipe_name", "default")).batch_size, here.micro_batch)
        rows.append(
            {
                "notebook": notebook,
                "run": name,
                "forward": forward,
                "forward and backward": gradients,
                "minutes": (
                    forward / here.forward
                    + gradients / here.gradient
                    + settings * sizes[1] * HEAD_SECONDS
                    + KERNEL_SECONDS
                )
                / 60,
                "GiB": (here.weights + batch * here.kept) / 2**30,
            }
        )
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    """Print the plan of a profile."""
    parser = argparse.ArgumentParser(
        prog="python -m lmeraser_kit.experiments.estimate", description="What a profile will take."
    )
    parser.add_argument("profile")
    parser.add_argument("--cores", type=int, default=1, help="runs at a time")
    parser.add_argument("--set", default="{}", help="other values for parameters, as YAML: '{seed: [0]}'")
    options = parser.parse_args(arguments)
    try:
        file = profile_file(options.profile)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.cores < 1:
        print(f"--cores (CORES=) is {options.cores}, expected at least 1", file=sys.stderr)
        return 2
    try:
        config = profiles.changed(yaml.safe_load(file.read_text()), yaml.safe_load(options.set) or {})
        planned, table = profiles.plan(config), estimate(config)
    except (ValueError, yaml.YAMLError) as error:
        print(f"{options.profile}: {error}", file=sys.stderr)
        return 2
    datasets, backbones = absent_inputs(planned.values())
    shown = table.assign(run=table["run"].str.ljust(table["run"].str.len().max()))
    said = {"forward": "images forward", "forward and backward": "and backward", "GiB": "GiB of weights and a batch"}
    shown = shown.rename(columns=said)
    print("\n" + shown.to_string(index=False, float_format="{:,.1f}".format, justify="left"))
    minutes = max(table["minutes"].sum() / options.cores, table["minutes"].max())
    print(f"\n{len(table)} runs, {options.cores} at a time: about {minutes / 60:,.1f} hours ({minutes:,.0f} min) here,")
    print("within a factor of two or so;", end=" ")
    print(f"weights and a batch take up to {table['GiB'].max():.1f} GiB a run, besides the samples. Runs that are done")
    print("already, and backbones that were trained before, are not done again.")
    if datasets or backbones:
        print(f"Not in {DATA}, and needed (a network would do): {', '.join([*datasets, *backbones])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
