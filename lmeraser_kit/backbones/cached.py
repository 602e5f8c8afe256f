"""Features that are computed once: in memory, and in files for the next process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import torch

from lmeraser_kit import checks
from lmeraser_kit.backbones import frozen
from lmeraser_kit.backbones.backbone import FEATURE_BATCH, Backbone
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground.determinism import environment, progress
from lmeraser_kit.ground.hashing import digest

TOGETHER = 1024  # images in a file; computed in one process
LEAST = 64  # fewer new ones stay in memory


class CachedFeatures(Backbone):
    """A backbone that computes an image's features once. An eraser that forgets an image has them deleted.

    What is kept are the network's own features, before they are standardised: one file serves whatever samples are
    public. A file's folder has a name made of the fingerprint, the environment (with the kit's code) and whether they
    are features of all stages.

    Args:
        backbone: The backbone.
        folder: Where features are kept for the next process; None for memory alone.

    Attributes:
        uncached: The backbone that was given.
        plain: The same without what was measured: its features are the network's own.
    """

    def __init__(self, backbone: Backbone, folder: Path | str | None = None):
        checks.instance("backbone", backbone, Backbone)
        self.__dict__.update(backbone.__dict__, folder=None if folder is None else checks.path("folder", folder))
        self.uncached, self.plain = backbone, Backbone.noting(backbone, {})
        self.known: dict[tuple[bool, int, bytes], tuple[np.ndarray, Path | None]] = {}
        self.read: set[Path] = set()

    def __reduce__(self) -> tuple:
        return CachedFeatures, (Backbone(*self.__getstate__()["args"]),)

    def noting(self, noted: dict[str, torch.Tensor]) -> CachedFeatures:
        """The same backbone and cache, with what was measured on public samples."""
        made = CachedFeatures(super().noting(noted), self.folder)
        made.known, made.read = self.known, self.read
        return made

    def to(self, device: str) -> CachedFeatures:
        """Move the model, in place; features in memory are those of the device before, and go."""
        self.__init__(self.uncached.to(device), self.folder)  # type: ignore[misc]
        return self

    def features(
        self,
        images: np.ndarray,
        threads: int = 1,
        show_progress: bool = False,
        batch_size: int = FEATURE_BATCH,
        layers: bool = False,
        uids: Sequence[str] | np.ndarray | None = None,
    ) -> np.ndarray:
        """As for `Backbone`, always in its usual batches; many new ones in several processes."""
        self._check_frozen()
        frozen.check_images(images)
        pixels = [(layers, threads, key_of(image)) for image in images]
        folder = self._folder(layers, threads)
        if folder is not None and any(one not in self.known for one in pixels):
            self._read(folder, layers, threads)
        first: dict[tuple[bool, int, bytes], int] = {}
        for i, one in enumerate(pixels):
            if one not in self.known:
                first.setdefault(one, i)
        new = list(first.values())
        parts = [new[start : start + TOGETHER] for start in range(0, len(new), TOGETHER)]
        called = [None if uids is None else [uids[i] for i in part] for part in parts]
        compute = joblib.delayed(self.plain.features)
        calls = (
            compute(images[part], threads, False, FEATURE_BATCH, layers, names)
            for part, names in zip(parts, called, strict=True)
        )
        computed = joblib.Parallel(joblib.cpu_count() if len(parts) > 1 else 1, return_as="generator")(calls)
        bar = progress(computed, total=len(parts), desc="features", unit=f"{TOGETHER} images", disable=len(parts) < 2)
        for part, rows in zip(parts, bar, strict=True):
            self._keep([pixels[i] for i in part], rows, folder)
        if not pixels:
            return np.zeros((0, sum(self.layer_widths) if layers else self.n_features), np.float32)
        rows = np.stack([self.known[one][0] for one in pixels])
        noted = [part.cpu().numpy()[-rows.shape[1] :] for part in self.standard]
        return (rows - noted[0]) / noted[1] if noted else rows

    def drop(self, images: np.ndarray) -> None:
        """Delete the features of images, and of their mirror images, here and in the files."""
        gone = {key_of(image) for image in images} | {key_of(image[..., ::-1]) for image in images}
        found = [one for one in self.known if one[2] in gone]
        files = {path for one in found if (path := self.known[one][1]) is not None}
        for one in found:
            self.known.pop(one)[0][:] = 0
        for path in files:
            left = {one: row for one, (row, where) in self.known.items() if where == path}
            if left:
                _write(path, left)
            else:
                path.unlink(missing_ok=True)

    def _folder(self, layers: bool, threads: int) -> Path | None:
        if self.folder is None:
            return None
        made_by = self.plain.fingerprint, str(sorted(environment(self.device, threads).items())), layers
        return self.folder / digest(*made_by)[:24]

    def _read(self, folder: Path, layers: bool, threads: int) -> None:
        for path in sorted(set(folder.glob("*.safetensors")) - self.read):
            tensors, _ = read_weights(path)
            rows = tensors["rows"].numpy()
            for i, name in enumerate(tensors["pixels"].numpy()):
                self.known[layers, threads, name.tobytes()] = (rows[i], path)
            self.read.add(path)

    def _keep(self, names: list, rows: np.ndarray, folder: Path | None) -> None:
        path = None
        if folder is not None and len(names) >= LEAST:
            path = folder / f"{digest(*(name[2] for name in names))[:24]}.safetensors"
            _write(path, dict(zip(names, rows, strict=True)))
            self.read.add(path)
        self.known |= {name: (row, path) for name, row in zip(names, rows, strict=True)}


def key_of(image: np.ndarray) -> bytes:
    """128 bits of an image's shape and pixels."""
    shape = str(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16, key=shape).digest()


def _write(path: Path, rows: dict[tuple[bool, int, bytes], np.ndarray]) -> None:
    names = np.frombuffer(b"".join(one[2] for one in rows), np.uint8).reshape(-1, 16).copy()
    write_weights(
        path, {"pixels": torch.from_numpy(names), "rows": torch.from_numpy(np.stack(list(rows.values())))}, {}
    )
