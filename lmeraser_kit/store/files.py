"""Files of a store: whole or not at all, never unpickled, and named by what they hold, so that damage has a name.

A file's name ends in the hash of its bytes. It is written beside, flushed, and renamed; reading it compares the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from lmeraser_kit.ground.files import flush_folder, replace_file
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.protocol import ClusterModel


class StoreError(RuntimeError):
    """A store cannot be used as it is; the message says why, and what to do."""


FOLDERS = ("fixed", "versions", "clusters", "samples", "staged")
RESTORE = "restore them from a copy (a name ends in the hash of the file's bytes, so any true copy will do)"


MOVED_ON = (
    "where the store was opened for reading, somebody who was in it has left since (store.outdated): open it again. "
    "Else restore it from a copy"
)


class DamagedError(StoreError):
    """Files are missing, truncated or changed.

    Attributes:
        files: Their paths, relative to the store.
    """

    def __init__(self, files: list[str], advice: str = RESTORE):
        self.files = files
        super().__init__(f"missing, truncated or changed: {', '.join(files)}; {advice}")


def write_file(folder: Path, stem: str, content: bytes, suffix: str = ".safetensors") -> str:
    """Write a file that is on the disk when this returns.

    Returns:
        Its name: `STEM-HASH.SUFFIX`.
    """
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    replace_file(folder / name, content)
    return name


def check_vacant(folder: Path) -> None:
    """Refuse a folder in which there is something else than an interrupted attempt to make a store (StoreError)."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file: expected a folder that does not exist, or is empty")
    if (folder / "ledger.sqlite").exists():
        raise StoreError(f"there is a store in {folder} already: Store.open opens it")
    ours = (*FOLDERS, "lock", "ledger.partial", "ledger.partial-journal")
    if foreign := [path.name for path in folder.glob("*") if path.name not in ours]:
        raise StoreError(f"{folder} is not empty: there is {foreign[0]!r}")


def make_folders(folder: Path) -> None:
    """Make a store's folders, if they are not there, for their owner alone."""
    for path in (folder, *(folder / name for name in FOLDERS)):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    flush_folder(folder)
    flush_folder(folder.parent)


def read_file(path: Path) -> bytes:
    """Read a file that `write_file` wrote. Raises DamagedError if its bytes are not those that its name says."""
    try:
        content = path.read_bytes()
    except OSError:
        content = None
    if content is None or path.stem.rpartition("-")[2] != hashlib.sha256(content).hexdigest()[:32]:
        raise DamagedError([f"{path.parent.name}/{path.name}"])
    return content


def pack(arrays: dict[str, np.ndarray], **described) -> bytes:
    """Arrays and a description as safetensors; the same bytes for the same content."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, {"lmeraser_kit": json.dumps(described, sort_keys=True)})


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and description of what `pack` made."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return load(content), json.loads(header["__metadata__"]["lmeraser_kit"])


class ImageFile:
    """Images in a file, read whenever they are used: an array's shape and index, (N, C, H, W) uint8."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self.shape = path, tuple(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if not self.path.exists():
            raise DamagedError([f"{self.path.parent.name}/{self.path.name}"], MOVED_ON)
        images = unpack(read_file(self.path))[0]["images"]
        return images if dtype is None else images.astype(dtype)

    def __getitem__(self, index) -> np.ndarray:
        return np.asarray(self)[index]


def pack_samples(samples: Samples, **arrays: np.ndarray) -> bytes:
    """Labels, names and what was worked out from the images, without the images. Further arrays may go with them."""
    names = {"uids": samples.uids} | ({"owners": samples.owners} if samples.owned else {})
    own = {"labels": samples.labels, "keys": samples.keys, "digests": samples.digests}
    own |= {name: np.frombuffer(json.dumps(one.tolist()).encode(), dtype=np.uint8) for name, one in names.items()}
    return pack(own | arrays, n_classes=samples.n_classes, shape=samples.images.shape)


def unpack_samples(content: bytes, images: np.ndarray | Path | None = None) -> tuple[Samples, dict[str, np.ndarray]]:
    """The samples that `pack_samples` packed, and the further arrays.

    Args:
        content: What `pack_samples` made.
        images: The images, or the file to read them from when they are used; by default they are in `content`.
    """
    arrays, described = unpack(content)
    packed = {name: arrays.pop(name) for name in ("uids", "owners") if name in arrays}
    names = {name: np.array(json.loads(one.tobytes()), dtype=str) for name, one in packed.items()}
    if images is None:
        images = arrays.pop("images")
    elif isinstance(images, Path):
        images = ImageFile(images, described["shape"])
    samples = Samples(images, arrays.pop("labels"), n_classes=described["n_classes"], **names)
    samples.__dict__.update(keys=arrays.pop("keys"), digests=arrays.pop("digests"))
    return samples, arrays


class ClusterFiles(MutableMapping):
    """Tuned checkpoints by address, each a file `ADDRESS-HASH.safetensors`: the cache of the one idea, on disk.

    Args:
        folder: Where the files lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names = {path.name.partition("-")[0]: path.name for path in folder.glob("*-*.safetensors")}

    def __getitem__(self, address: str) -> ClusterModel:
        try:
            return self.read(self.names[address])
        except DamagedError as error:  # as good as none: it is tuned again
            raise KeyError(address) from error

    def read(self, name: str) -> ClusterModel:
        """The checkpoint in a file, with those before it. Raises DamagedError."""
        arrays, described = unpack(read_file(self.folder / name))
        before = described["start"]
        if before and before not in self.names:
            raise DamagedError([f"{self.folder.name}/{before}-(any).safetensors"])
        start = self.read(self.names[before]) if before else None
        sizes = (described[name] for name in ("n_samples", "sample_gradients", "address"))
        return ClusterModel(arrays, *sizes, start)

    def __setitem__(self, address: str, model: ClusterModel) -> None:
        described = {name: getattr(model, name) for name in ("n_samples", "sample_gradients", "address")}
        content = pack(dict(model.arrays), **described, start=model.start.address if model.start else "")
        self.names[address] = write_file(self.folder, address, content)

    def __delitem__(self, address: str) -> None:
        (self.folder / self.names.pop(address)).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def write_samples(folder: Path, stem: str, samples: Samples, **arrays: np.ndarray) -> dict[str, str]:
    """Write samples; returns the names of their files."""
    index = write_file(folder, f"{stem}.index", pack_samples(samples, **arrays))
    return {"index": index, "images": write_file(folder, f"{stem}.images", pack({"images": samples.images}))}
