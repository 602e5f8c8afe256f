"""Small files in exactly the formats of the published datasets, with random blobs in them, one colour a class.

python tests/stand_ins.py FOLDER, then LMERASER_DATA=FOLDER LMERASER_STAND_INS=1: the profiles run on them.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

TRAIN, TEST = 400, 60  # samples


def blobs(n, n_classes, side, channels, seed):
    """Images uint8 (n, side, side, channels) with labels (n,): noise round a colour that the class decides."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    colours = np.random.default_rng(0).integers(30, 226, (n_classes, channels))
    images = colours[labels][:, None, None] + rng.normal(0, 25, (n, side, side, channels))
    return images.clip(0, 255).astype(np.uint8), labels


def rows(images):
    """CIFAR's layout: a row an image, first all red values."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def cifar10(root):
    folder = root / "cifar-10-batches-py"
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        images, labels = blobs(TEST if name == "test_batch" else TRAIN // 5, 10, 32, 3, seed)
        dump(folder / name, {"data": rows(images), "labels": labels.tolist()})
    dump(folder / "batches.meta", {"label_names": [f"class {i}" for i in range(10)]})


def cifar100(root):
    folder = root / "cifar-100-python"
    for seed, (name, n) in enumerate({"train": 2 * TRAIN, "test": 100}.items()):
        images, labels = blobs(n, 100, 32, 3, seed)
        dump(folder / name, {"data": rows(images), "fine_labels": labels.tolist()})
    dump(folder / "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})


def svhn(root):
    for seed, (part, n) in enumerate({"train": TRAIN, "test": TEST}.items()):
        images, labels = blobs(n, 10, 32, 3, seed)
        labels[labels == 0] = 10  # as published: 10 stands for the digit 0
        content = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)}
        scipy.io.savemat(root / f"{part}_32x32.mat", content)


def gtsrb(root):
    rng, base = np.random.default_rng(0), root / "gtsrb"
    images, _ = blobs(43 * 4, 43, 40, 3, 0)
    for i in range(43 * 4):  # 43 classes, two tracks of two frames each
        folder = base / "GTSRB" / "Training" / f"{i // 4:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        width, height = rng.integers(20, 40, 2)
        Image.fromarray(images[i][:height, :width]).save(folder / f"{i % 4 // 2:05d}_{i % 2:05d}.ppm")
    folder = base / "GTSRB" / "Final_Test" / "Images"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for i, (image, label) in enumerate(zip(*blobs(TEST, 43, 30, 3, 1), strict=True)):
        Image.fromarray(image).save(folder / f"{i:05d}.ppm")
        lines.append(f"{i:05d}.ppm;30;30;1;1;29;29;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def idx(path, array):
    """The format of MNIST: magic number with type and dimensions, sizes, then bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def mnist(root, folder="MNIST"):
    for seed, (part, n) in enumerate({"train": TRAIN, "t10k": TEST}.items()):
        images, labels = blobs(n, 10, 28, 1, seed)
        idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", images[..., 0])
        idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", labels)


def fashion_mnist(root):
    mnist(root, "FashionMNIST")


def folders(root, name="shapes"):
    images, labels = blobs(30, 3, 50, 3, 0)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / name / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 30 + i % 20]).save(folder / f"{i:03d}.png")


WRITERS = {"cifar10": cifar10, "cifar100": cifar100, "svhn": svhn, "gtsrb": gtsrb, "mnist": mnist,
           "fashion-mnist": fashion_mnist}  # fmt: skip

if __name__ == "__main__":
    for write in WRITERS.values():
        write(Path(sys.argv[1]))
