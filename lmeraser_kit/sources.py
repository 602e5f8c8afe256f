"""Where images come from: torchvision's datasets, folders of images, prepared arrays, and the digits of scikit-learn.

A source is read as it is published: a training part, and a test part if it has one. Images are uint8 and of one size.
What has to be decoded from image files is decoded once, into an array under data/decoded that is memory-mapped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from torchvision import datasets as official
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension
from torchvision.datasets.utils import check_integrity

from lmeraser_kit.arithmetic import progress
from lmeraser_kit.samples import Samples, digest

SIGN_SIDE, FOLDER_SIDE = 64, 224  # pixels: traffic signs have many sizes, and so have images in folders
EXPECTED = {  # where torchvision has a dataset's files, below its root
    "cifar10": "cifar-10-batches-py/",
    "cifar100": "cifar-100-python/",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "gtsrb": "gtsrb/GTSRB/Training/, gtsrb/GTSRB/Final_Test/Images/ and gtsrb/GT-final_test.csv",
    "fashion-mnist": "FashionMNIST/raw/",
    "mnist": "MNIST/raw/",
}
N_CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "gtsrb": 43, "fashion-mnist": 10, "mnist": 10}
NOT_DATASETS = {"backbones", "decoded", "shadows", "weights"}  # folders under data/ that are something else
SAMPLE_SIZES = "images (N, C, H, W), labels (N,), and maybe uids (N,) and n_classes"


@dataclass(frozen=True, eq=False)
class Source:
    """A dataset as it is published.

    Attributes:
        train: The training part, or everything.
        test: The official test part; None if there is none.
        groups: For each training sample the name of what must not be parted (the 30 frames of one traffic sign); None
            if every sample stands for itself.
        stated: Whether the number of classes is known, and not guessed from the labels at hand.
    """

    train: Samples
    test: Samples | None = None
    groups: np.ndarray | None = None
    stated: bool = True


def source_names(root: Path) -> list[str]:
    """The names that `read_source` knows: the embedded set, torchvision's, and what lies under `root`."""
    there = [path.stem for path in root.glob("*.npz")] + [path.name[:-11] for path in root.glob("*-images.npy")]
    known = {Path(where.split()[0]).parts[0] for where in EXPECTED.values()} | NOT_DATASETS
    folders = [p.name for p in root.iterdir() if p.is_dir() and p.name not in known] if root.is_dir() else []
    return ["digits", *EXPECTED, *sorted({*there, *folders})]


def read_source(name: str, root: Path) -> Source:
    """Read a dataset by its name.

    Args:
        name: One of `source_names(root)`.
        root: Where data lie, as torchvision's `root`. What is not there torchvision downloads.

    Raises:
        ValueError: If files are missing and cannot be downloaded, or are damaged, or are not what they should be.
    """
    if name == "digits":
        return _digits()
    if name in EXPECTED:
        return _official(name, root)
    for path, read in (
        (root / f"{name}.npz", _archive),
        (root / f"{name}-images.npy", _arrays),
        (root / name, _folder),
    ):
        if path.exists():
            return read(path, name, root)
    raise ValueError(f"unknown dataset {name!r}; one of: {', '.join(source_names(root))}")


def _digits() -> Source:
    """1,797 handwritten digits of 8x8 pixels, 17 levels of grey (UCI / scikit-learn); they ship with scikit-learn."""
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    return Source(Samples(images, data.target, [f"digits-{i:04d}" for i in range(len(images))], n_classes=10))


def _official(name: str, root: Path) -> Source:
    """A dataset of torchvision: its training and its test part, with uids by position in the published files."""
    if name == "gtsrb":
        return _traffic_signs(root)
    kind = {
        "cifar10": official.CIFAR10,
        "cifar100": official.CIFAR100,
        "svhn": official.SVHN,
        "fashion-mnist": official.FashionMNIST,
        "mnist": official.MNIST,
    }[name]
    parts = []
    for part in ("train", "test"):
        data = _fetch(name, kind, root, **({"split": part} if name == "svhn" else {"train": part == "train"}))
        images, labels = np.asarray(data.data), np.asarray(data.labels if name == "svhn" else data.targets)
        if images.ndim == 3:  # grey
            images = images[:, None]
        elif name != "svhn":
            images = images.transpose(0, 3, 1, 2)
        uids = [f"{name}-{part}-{i:05d}" for i in range(len(images))]
        parts.append(Samples(np.ascontiguousarray(images), labels, uids, N_CLASSES[name]))
    return Source(*parts)


def _traffic_signs(root: Path) -> Source:
    """GTSRB. Its training images are tracks: 30 frames of one sign, which must not be parted."""
    parts = []
    for part in ("train", "test"):
        data = _fetch("gtsrb", official.GTSRB, root, split=part)
        paths = [Path(path) for path, _ in data._samples]
        uids = [
            f"gtsrb-{part}-{'/'.join(path.with_suffix('').parts[-2 if part == 'train' else -1 :])}" for path in paths
        ]
        images = _decode(paths, SIGN_SIDE, root / "decoded", crop=False)
        parts.append(Samples(images, [label for _, label in data._samples], uids, N_CLASSES["gtsrb"]))
    return Source(*parts, groups=np.array([uid.rsplit("_", 1)[0] for uid in parts[0].uids.tolist()]))


def _fetch(name: str, kind: Callable, root: Path, **part):
    """A torchvision dataset from the files under `root`, or downloaded to there."""
    if os.environ.get("LMERASER_STAND_INS"):  # files in the same layout with other contents, for tests
        kind = _without_checksums(kind)
    try:
        try:
            return kind(str(root), download=False, **part)
        except RuntimeError:  # not there, or not what its checksum says
            return kind(str(root), download=True, **part)
    except Exception as error:
        damaged = [
            str(path)
            for path, md5 in _named_files(kind, root)
            if path.is_file() and not check_integrity(str(path), md5)
        ]
        raise ValueError(
            f"{name} is missing or damaged under {root} (expected there: {EXPECTED[name]}), and torchvision could not "
            f"read or download it ({type(error).__name__}: {error}); connect to a network, or put the files there"
            + (f". Damaged: {', '.join(damaged)}" if damaged else "")
        ) from error


def _named_files(kind: type, root: Path) -> list[tuple[Path, str]]:
    """The files of CIFAR's classes, and their checksums; torchvision does not say which one is damaged."""
    lists = [*getattr(kind, "train_list", []), *getattr(kind, "test_list", [])]
    return [(root / kind.base_folder / file, md5) for file, md5 in lists]


def _without_checksums(kind: type) -> type:
    """The same torchvision dataset, for files that are not the published ones."""
    changes = {}
    for name in ("train_list", "test_list"):
        if hasattr(kind, name):
            changes[name] = [[file, None] for file, _ in getattr(kind, name)]
    if hasattr(kind, "meta"):
        changes["meta"] = {**kind.meta, "md5": None}
    if hasattr(kind, "split_list"):
        changes["split_list"] = {part: [url, file, None] for part, (url, file, _) in kind.split_list.items()}
    return type(kind.__name__, (kind,), changes)  # MNIST finds its folder by the class's name


def _archive(path: Path, name: str, root: Path) -> Source:
    """A prepared archive, NAME.npz."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npz archive ({error}); write it with numpy.savez") from error
    return _prepared(arrays, path, name)


def _arrays(path: Path, name: str, root: Path) -> Source:
    """A pair of arrays, NAME-images.npy (memory-mapped) and NAME-labels.npy; maybe NAME-uids.npy."""
    arrays = {}
    for key in ("images", "labels", "uids"):
        file = root / f"{name}-{key}.npy"
        if file.is_file():
            try:
                arrays[key] = np.load(file, mmap_mode="r" if key == "images" else None, allow_pickle=False)
            except Exception as error:
                raise ValueError(f"{file} is not a readable .npy array ({error}); write it with numpy.save") from error
    return _prepared(arrays, path, name)


def _prepared(arrays: dict[str, np.ndarray], path: Path, name: str) -> Source:
    if not {"images", "labels"} <= arrays.keys():
        raise ValueError(f"{path} comes with {sorted(arrays)}, expected {SAMPLE_SIZES}")
    uids = arrays.get("uids", [f"{name}-{i:07d}" for i in range(len(arrays["images"]))])
    stated = "n_classes" in arrays
    n_classes = int(arrays["n_classes"]) if stated else None
    return Source(Samples(arrays["images"], arrays["labels"], uids, n_classes), stated=stated)


def _folder(path: Path, name: str, root: Path) -> Source:
    """Images in class folders: NAME/CLASS/*, or NAME/train/CLASS/* and NAME/test/CLASS/*."""
    if not (path / "train").is_dir():
        return Source(_class_folders(path, name, root))
    parts = [
        _class_folders(path / part, f"{name}-{part}", root) for part in ("train", "test") if (path / part).is_dir()
    ]
    if len(parts) == 2 and (path / "train").is_dir():
        classes = [sorted(p.name for p in (path / part).iterdir() if p.is_dir()) for part in ("train", "test")]
        if classes[0] != classes[1]:
            odd = sorted(set(classes[0]) ^ set(classes[1])) or ["?"]
            raise ValueError(f"{path}: train and test have different class folders, such as {odd[0]!r}")
    return Source(*parts)


def _class_folders(path: Path, name: str, root: Path) -> Samples:
    classes = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted((path / folder).rglob("*"))
        if has_file_allowed_extension(file.name, IMG_EXTENSIONS)
    ]
    if len(classes) < 2 or not files:
        raise ValueError(
            f"{path} holds {len(classes)} class folders with {len(files)} images: expected CLASS/IMAGE files"
        )
    images = _decode([file for file, _ in files], FOLDER_SIDE, root / "decoded", crop=True)
    uids = [f"{name}-{file.relative_to(path)}" for file, _ in files]
    return Samples(images, [label for _, label in files], uids, len(classes))


def _decode(paths: list[Path], side: int, folder: Path, crop: bool) -> np.ndarray:
    """Image files as one memory-mapped array, uint8 (N, 3, side, side); decoded once, again if a file has changed.

    Args:
        paths: Image files.
        side: Side of the result, in pixels.
        folder: Where the array is kept.
        crop: Scale the shorter side and cut out the middle; otherwise both sides are scaled.
    """
    about = ((path, (s := path.stat()).st_size, s.st_mtime_ns) for path in paths)
    kept = folder / f"{digest(side, crop, *(part for file in about for part in file))[:24]}.npy"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        images = open_memmap(partial, "w+", np.uint8, (len(paths), 3, side, side))

        def one(i: int) -> None:
            try:
                with Image.open(paths[i]) as image:
                    image = image.convert("RGB")
                    image = ImageOps.fit(image, (side, side)) if crop else image.resize((side, side))
            except Exception as error:
                raise ValueError(f"{paths[i]} is no readable image ({error}): fetch it again, or remove it") from error
            images[i] = np.asarray(image).transpose(2, 0, 1)

        try:
            jobs = joblib.Parallel(-1, prefer="threads", return_as="generator")(
                map(joblib.delayed(one), range(len(paths)))
            )
            for _ in progress(jobs, total=len(paths), desc="decoding images", unit="image"):
                pass
            images.flush()
            os.replace(partial, kept)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(kept, mmap_mode="r")
