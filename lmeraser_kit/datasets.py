"""From a dataset's name to public, private and test Samples.

The split is a fixed rule: a sample's part depends on its own uid and the seed, on nothing else. Its keyed uniform
number u puts it in public (u < 0.4), private (u < 0.8) or test (the rest). The parts are disjoint for every seed, and
a sample that is added or removed never moves another one between parts.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from lmeraser_kit.samples import Samples, digest, keyed_uniform

DATA = Path(os.environ.get("LMERASER_DATA", Path(__file__).parents[1] / "data"))
PUBLIC_BELOW, PRIVATE_BELOW = 0.4, 0.8


@dataclass(frozen=True)
class Split:
    """The three parts of a dataset.

    Attributes:
        public: What the backbone and the routing may be trained on; it is never deleted.
        private: What people may ask to have forgotten.
        test: What models are scored on, and nothing else.
        name: The dataset's name.
    """

    public: Samples
    private: Samples
    test: Samples
    name: str

    @property
    def digest(self) -> str:
        """A hash of every sample and of the part that it is in, in hex."""
        return digest(*(part.sorted().digests.tobytes() for part in (self.public, self.private, self.test)))


def _digits() -> Samples:
    """1,797 handwritten digits of 8x8 pixels, 17 levels of grey (UCI / scikit-learn); they ship with scikit-learn."""
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    return Samples(images, data.target, [f"digits-{i:04d}" for i in range(len(images))], n_classes=10)


def _prepared(path: Path) -> tuple[Samples, bool]:
    """A prepared archive: `images` uint8 (N, C, H, W), `labels` (N,), and maybe `uids` (N,) and `n_classes`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npz archive ({error}); write it with numpy.savez") from error
    if not {"images", "labels"} <= arrays.keys():
        raise ValueError(f"{path} holds {sorted(arrays)}, expected arrays named images and labels (and uids)")
    uids = arrays.get("uids", [f"{path.stem}-{i:07d}" for i in range(len(arrays["images"]))])
    stated = "n_classes" in arrays
    return Samples(arrays["images"], arrays["labels"], uids, int(arrays["n_classes"]) if stated else None), stated


def dataset_names(root: Path | str = DATA) -> list[str]:
    """The names that `load_dataset` knows: the embedded set, and every `NAME.npz` under `root`."""
    return ["digits", *sorted(path.stem for path in Path(root).glob("*.npz"))]


def load_dataset(name: str, seed: int = 0, root: Path | str = DATA) -> Split:
    """Load a dataset and split it.

    Args:
        name: `digits` (embedded), or the name of a prepared archive `root/NAME.npz` (see data/README.md).
        seed: Seed of the split.
        root: Where prepared data lie; by default the environment's LMERASER_DATA, or data/ beside the package.

    Returns:
        The public, private and test parts.

    Raises:
        ValueError: If the name is unknown, the archive cannot be read, a part would be empty, or a private label is
            none of the public part's (then the archive must state its `n_classes`).
    """
    if name not in dataset_names(root):
        near = difflib.get_close_matches(name, dataset_names(root), 1)
        raise ValueError(
            f"unknown dataset {name!r}; one of: {', '.join(dataset_names(root))}."
            + (f" Did you mean {near[0]!r}?" if near else f" Prepared arrays go to {root}/{name}.npz")
        )
    samples, stated = (_digits(), True) if name == "digits" else _prepared(Path(root) / f"{name}.npz")
    u = keyed_uniform("split", seed, samples.keys)[:, 0]
    parts = np.digitize(u, [PUBLIC_BELOW, PRIVATE_BELOW])
    split = [samples[parts == part] for part in range(3)]
    if min(map(len, split)) == 0:
        raise ValueError(f"dataset {name!r} has {len(samples)} samples: too few for a public, private and test part")
    if not stated:  # no private label may decide it
        split = [replace(part, n_classes=int(split[0].labels.max()) + 1) for part in split]
    return Split(*split, name=name)
