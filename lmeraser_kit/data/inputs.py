"""The files that a run reads besides the code: a dataset's and a backbone's. A run whose files were replaced is stale.

Light, because `make reproduce` asks for every run before it starts.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from lmeraser_kit.ground.plugins import installed

HOME = Path(__file__).parents[2]
REPOSITORY = (
    HOME if (HOME / "workflow" / "Snakefile").is_file() else None
)  # None: the package was installed from a wheel


def data_folder(repository: Path | None = REPOSITORY) -> Path:
    """Where data lie: LMERASER_DATA; or the repository's `data/`; or, without one, `lmeraser_kit/` in the user's cache.

    Args:
        repository: The repository that the package is in, or None.
    """
    if named := os.environ.get("LMERASER_DATA"):
        return Path(named)
    if repository is not None:
        return repository / "data"
    cache = os.environ.get("XDG_CACHE_HOME", "")  # one that is not absolute does not count, as XDG has it
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), "lmeraser_kit")


DATA = data_folder()
EXPECTED = {  # where torchvision has a dataset's files, below its root
    "cifar10": ("cifar-10-batches-py/",),
    "cifar100": ("cifar-100-python/",),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "gtsrb": ("gtsrb/GTSRB/Training/", "gtsrb/GTSRB/Final_Test/Images/", "gtsrb/GT-final_test.csv"),
    "fashion-mnist": ("FashionMNIST/raw/",),
    "mnist": ("MNIST/raw/",),
}
TRAINED_HERE = ("small-vit", "cifar-vit")  # backbones without published weights: pretraining.VITS
# The four of arXiv 2404.11056, whose code takes them from timm 0.4.9: the checkpoints that stand for those names today.
# What it calls "1k" was pre-trained on ImageNet-22k and fine-tuned on ImageNet-1k.
PAPER = {
    "vit-b-22k": "vit_base_patch16_224.augreg_in21k",
    "vit-b-1k": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "swin-b-22k": "swin_base_patch4_window7_224.ms_in22k",
    "swin-b-1k": "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
}


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted; links are followed, and what is hidden (.NAME) is left out.

    Raises:
        ValueError: If a folder cannot be read, a link leads to a folder that it lies in, or something is no file.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}): mend it, or remove it") from error

    files = []
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for link in (Path(here, name) for name in folders if Path(here, name).is_symlink()):
            if link.resolve() in (above := Path(here).resolve(), *above.parents):
                raise ValueError(
                    f"{link} is a link to a folder that it lies in, so that its files come again: remove it"
                )
        files += [Path(here, name) for name in names if not name.startswith(".")]
    if strange := [file for file in files if not file.is_file() and file.exists()]:
        raise ValueError(f"{strange[0]} is no file, but a pipe, socket or device: remove it")
    return sorted(files)


def data_files(name: str, root: Path) -> list[Path]:
    """The files that `readers.read_source(name, root)` reads, sorted; what is missing is left out.

    Args:
        name: A dataset's name; what follows a `/` is ignored.
        root: Where data lie.
    """
    name = name.partition("/")[0]
    if name == "digits":
        return []
    own = (f"{name}.npz", f"{name}-images.npy", f"{name}-labels.npy", f"{name}-uids.npy", f"{name}-owners.npy", name)
    places = [root / place for place in EXPECTED.get(name, own)]
    files = [file for place in places for file in (files_below(place) if place.is_dir() else [place])]
    return sorted(file for file in files if file.is_file())


def weight_files(name: str, root: Path) -> list[Path]:
    """The files of weights that `backbones.backbone_for(name, ...)` reads; none if it trains or downloads."""
    if name.endswith(".safetensors"):
        path = Path(name)
    else:
        name = name.partition("@")[0]
        path = root / "weights" / f"{PAPER.get(name, name)}.safetensors"
    return [path] if path.is_file() else []


def absent_inputs(runs: Iterable[dict], root: Path = DATA) -> tuple[list[str], list[str]]:
    """The datasets and the backbones that runs with these parameters need, and that have no file below `root`.

    Args:
        runs: Parameters of each; `dataset` and `backbone` count.
        root: Where data lie.
    """
    runs = list(runs)
    datasets = {run["dataset"].partition("/")[0] for run in runs if "dataset" in run} & EXPECTED.keys()
    backbones = {run["backbone"].partition("@")[0] for run in runs if {"backbone", "dataset"} <= run.keys()}
    known = {*TRAINED_HERE, *installed("backbones")}  # an installed package brings its own
    return (
        sorted(name for name in datasets if not data_files(name, root)),
        sorted(name for name in backbones - known if not weight_files(name, root)),
    )


def input_digests(parameters: dict, root: Path = DATA) -> dict[str, str]:
    """SHA-256 of every file that a run with these parameters reads: path (below `root`, if it is there) -> hex.

    Args:
        parameters: The notebook's; `dataset` and `backbone` count.
        root: Where data lie.
    """
    files = data_files(parameters["dataset"], root) if "dataset" in parameters else []
    files += weight_files(parameters["backbone"], root) if "backbone" in parameters else []
    return {str(p.relative_to(root) if p.is_relative_to(root) else p): _sha256(p, *_version(p)) for p in files}


def _version(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


@functools.cache
def _sha256(path: Path, *version: int) -> str:
    """Read once in a process, unless the file has changed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
