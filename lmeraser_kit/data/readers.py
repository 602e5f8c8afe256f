"""Where images come from: torchvision's datasets, folders of images, prepared arrays, and the digits of scikit-learn.

A source is read as it is published: a training part, and a test part if it has one. Images are uint8 and of one size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from torchvision import datasets as official
from torchvision.datasets.utils import check_integrity

from lmeraser_kit.data.image_files import FOLDER_SIDE, class_folders, decode, owner_folders
from lmeraser_kit.data.inputs import EXPECTED
from lmeraser_kit.ground.plugins import installed
from lmeraser_kit.ground.samples import Samples

SIGN_SIDE = 64  # pixels: traffic signs have many sizes
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST_MD5 = {  # torchvision checks what it downloads, and not what it reads; both have files of the same names
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
N_SIGNS = {"train": 26640, "test": 12630}  # torchvision takes what there is, also of an archive half unpacked
N_CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "gtsrb": 43, "fashion-mnist": 10, "mnist": 10}
# folders under data/ that are something else
NOT_DATASETS = {"backbones", "cifair", "decoded", "features", "shadows", "weights"}
ARRAY_NAMES = ("images", "labels", "uids", "owners", "n_classes")
ARRAY_SHAPES = "images (N, C, H, W), labels (N,), and maybe uids (N,), owners (N,) and n_classes"


@dataclass(frozen=True, eq=False)
class Source:
    """A dataset as it is published.

    Attributes:
        train: The training part, or everything.
        test: The official test part; None if there is none.
        groups: For each training sample the name of what must not be parted (the 30 frames of one traffic sign); None
            if every sample stands for itself.
        stated: Whether the number of classes is known, and not guessed from the labels at hand.
        classes: What each class is called, by its number; empty if nobody says.
    """

    train: Samples
    test: Samples | None = None
    groups: np.ndarray | None = None
    stated: bool = True
    classes: tuple[str, ...] = ()


def source_names(root: Path) -> list[str]:
    """The names that `read_source` knows: the embedded set, torchvision's, installed ones, and what lies in `root`."""
    there = [path.stem for path in root.glob("*.npz")] + [path.name[:-11] for path in root.glob("*-images.npy")]
    known = {Path(place).parts[0] for places in EXPECTED.values() for place in places} | NOT_DATASETS
    folders = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    folders = [folder for folder in folders if folder not in known and not folder.startswith(".")]
    return ["digits", *EXPECTED, *sorted({*there, *folders, *installed("datasets")})]


def read_source(name: str, root: Path) -> Source:
    """Read a dataset by its name.

    Args:
        name: One of `source_names(root)`.
        root: Where data lie, as torchvision's `root`. What is not there torchvision downloads.

    Raises:
        ValueError: If files are missing and cannot be downloaded, or are damaged, or are not what they should be.
    """
    readers = {root / f"{name}.npz": _archive, root / f"{name}-images.npy": _arrays, root / name: _folder}
    places = [path for path in readers if path.exists() and (name, path.name) != ("gtsrb", "gtsrb")]  # torchvision's
    if places and name in ("digits", *EXPECTED):
        raise ValueError(f"{places[0]} has the name of a known dataset, {name!r}: rename it")
    if name == "digits":
        return _digits()
    if name in EXPECTED:
        return _official(name, root)
    if not places and name in (others := installed("datasets")):
        parts = others[name].load()()
        return Source(*(parts if isinstance(parts, tuple) else (parts,)))
    if not places:
        raise ValueError(f"unknown dataset {name!r}; one of: {', '.join(source_names(root))}")
    if len(places) > 1:
        raise ValueError(f"{' and '.join(map(str, places))} have one name; rename all but one of them")
    return readers[places[0]](places[0], name, root)


def _digits() -> Source:
    """1,797 handwritten digits of 8x8 pixels, 17 levels of grey (UCI / scikit-learn); they ship with scikit-learn."""
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    return Source(
        Samples(images, data.target, [f"digits-{i:04d}" for i in range(len(images))], n_classes=10),
        classes=tuple("0123456789"),
    )


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
    return Source(*parts, classes=tuple(getattr(data, "classes", "0123456789")))


def _traffic_signs(root: Path) -> Source:
    """GTSRB. Its training images are tracks: 30 frames of one sign, which must not be parted."""
    parts = []
    for part in ("train", "test"):
        data = _fetch("gtsrb", official.GTSRB, root, split=part)
        known = data._samples  # noqa: SLF001 - torchvision has no public name for it
        paths = [Path(path) for path, _ in known]
        if len(paths) != N_SIGNS[part] and not _stand_ins():
            raise ValueError(
                f"gtsrb has {len(paths)} {part} images under {root / 'gtsrb'}, expected {N_SIGNS[part]} (torchvision's "
                "GTSRB-Training_fixed.zip and GTSRB_Final_Test_Images.zip): delete that folder and unpack them again"
            )
        uids = [
            f"gtsrb-{part}-{'/'.join(path.with_suffix('').parts[-2 if part == 'train' else -1 :])}" for path in paths
        ]
        images = decode(paths, SIGN_SIDE, crop=False, root=root)
        parts.append(Samples(images, [label for _, label in known], uids, N_CLASSES["gtsrb"]))
    return Source(*parts, groups=np.array([uid.rsplit("_", 1)[0] for uid in parts[0].uids.tolist()]))


def _stand_ins() -> bool:
    """Whether files in the published layout with other contents are read: for tests."""
    return bool(os.environ.get("LMERASER_STAND_INS"))


def _fetch(name: str, kind: Callable, root: Path, **part):
    """A torchvision dataset from the files under `root`, or downloaded to there."""
    changes = _without_checksums(kind) if _stand_ins() else {}
    changes["_check_legacy_exist"] = lambda self: False  # MNIST/processed/, of old torchvision, would go before raw/
    kind = type(kind.__name__, (kind,), changes)  # MNIST finds its folder by the class's name
    try:
        try:
            data = kind(str(root), download=False, **part)
        except RuntimeError:  # not there, or not what its checksum says
            data = kind(str(root), download=True, **part)
        if name in MNIST_MD5 and _damaged(name, kind, root):
            raise RuntimeError("a file is not the published one")
        return data
    except Exception as error:
        damaged = _damaged(name, kind, root)
        raise ValueError(
            f"{name} is missing or damaged under {root} (expected there: {', '.join(EXPECTED[name])}), and torchvision "
            f"could not read or download it ({type(error).__name__}: {error}); connect to a network, or put the files "
            "there" + (f". Damaged: {', '.join(damaged)}; delete them first" if damaged else "")
        ) from error


def _damaged(name: str, kind: type, root: Path) -> list[str]:
    """Files of CIFAR's and MNIST's classes that are there with a wrong checksum; torchvision does not say which."""
    if name in MNIST_MD5:
        md5s = [None] * len(MNIST_FILES) if _stand_ins() else MNIST_MD5[name]
        files = [(root / EXPECTED[name][0] / file, md5) for file, md5 in zip(MNIST_FILES, md5s, strict=True)]
    else:
        lists = [*getattr(kind, "train_list", []), *getattr(kind, "test_list", [])]
        files = [(root / kind.base_folder / file, md5) for file, md5 in lists]
    return [str(path) for path, md5 in files if path.is_file() and not check_integrity(str(path), md5)]


def _without_checksums(kind: type) -> dict[str, object]:
    """What to change in a torchvision dataset, for files that are not the published ones."""
    changes = {}
    for name in ("train_list", "test_list"):
        if hasattr(kind, name):
            changes[name] = [[file, None] for file, _ in getattr(kind, name)]
    if hasattr(kind, "meta"):
        changes["meta"] = {**kind.meta, "md5": None}
    if hasattr(kind, "split_list"):
        changes["split_list"] = {part: [url, file, None] for part, (url, file, _) in kind.split_list.items()}
    return changes


def _archive(path: Path, name: str, root: Path) -> Source:
    """A prepared archive, NAME.npz."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            n_bytes = sum(one.file_size for one in archive.zip.infolist())  # no more than that is decompressed
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if n_bytes > memory / 2:
                raise MemoryError(
                    f"unpacked it takes {n_bytes / 1e9:.1f} GB, and the memory here is {memory / 1e9:.1f} GB: "
                    f"{name}-images.npy and {name}-labels.npy are read through a memory map"
                )
            arrays = {key: archive[key] for key in archive.files}
    except MemoryError as error:
        raise ValueError(f"{path} does not fit: {error}") from error
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npz archive ({error}); write it with numpy.savez") from error
    return _prepared(arrays, path, name)


def _arrays(path: Path, name: str, root: Path) -> Source:
    """A pair of arrays, NAME-images.npy (memory-mapped) and NAME-labels.npy; maybe NAME-uids.npy, NAME-owners.npy."""
    arrays = {}
    for key in ("images", "labels", "uids", "owners"):
        file = root / f"{name}-{key}.npy"
        if file.is_file():
            try:
                arrays[key] = np.load(file, mmap_mode="r" if key == "images" else None, allow_pickle=False)
            except Exception as error:
                raise ValueError(f"{file} is not a readable .npy array ({error}); write it with numpy.save") from error
    return _prepared(arrays, path, name)


def _prepared(arrays: dict[str, np.ndarray], path: Path, name: str) -> Source:
    if not {"images", "labels"} <= arrays.keys():
        raise ValueError(f"{path} comes with {sorted(arrays)}, expected {ARRAY_SHAPES}")
    if unread := sorted(arrays.keys() - set(ARRAY_NAMES)):
        warnings.warn(f"{', '.join(unread)} of {path} not read: read are {', '.join(ARRAY_NAMES)}", stacklevel=2)
    uids = arrays.get("uids", [f"{name}-{i:07d}" for i in range(len(arrays["images"]))])
    stated = "n_classes" in arrays
    n_classes = arrays["n_classes"][()] if stated else None
    return Source(Samples(arrays["images"], arrays["labels"], uids, n_classes, arrays.get("owners")), stated=stated)


def _folder(path: Path, name: str, root: Path) -> Source:
    """Images in class folders: NAME/CLASS/*, or NAME/train/CLASS/* and NAME/test/CLASS/*; maybe CLASS/OWNER/*."""
    parts, classes = class_folders(path)
    samples = []
    for folder, images in parts.items():
        prefix = name if folder == path else f"{name}-{folder.name}"
        uids = [f"{prefix}-{file.relative_to(folder)}" for file, _ in images]
        owners = owner_folders(folder, [file for file, _ in images], uids)
        pixels = decode([file for file, _ in images], FOLDER_SIDE, crop=True, root=root)
        samples.append(Samples(pixels, [label for _, label in images], uids, len(classes), owners))
    return Source(*samples, classes=tuple(classes))
