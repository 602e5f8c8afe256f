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
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground import files, workers
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
        self.rows: dict[tuple[bool, int, bytes], np.ndarray] = {}  # (all stages?, threads, hash of pixels)
        self.files: set[Path] = set()  # that were read, or written
        self.hashes: dict[Path, tuple[int, set[bytes]]] = {}  # when a file was written, and whose features it holds

    def __reduce__(self) -> tuple:
        return CachedFeatures, (Backbone(*self.made_of()),)

    def noting(self, noted: dict[str, torch.Tensor]) -> CachedFeatures:
        """The same backbone and cache, with what was measured on public samples."""
        made = CachedFeatures(super().noting(noted), self.folder)
        made.rows, made.files, made.hashes = self.rows, self.files, self.hashes
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
        batch_size: int | None = None,
        layers: bool = False,
        uids: Sequence[str] | np.ndarray | None = None,
    ) -> np.ndarray:
        """As for `Backbone`, always in its usual batches; many new ones in several processes."""
        self._check_frozen()
        frozen.check_images(images)
        keys = [(layers, threads, key_of(image)) for image in images]
        folder = self._folder(layers, threads)
        if folder is not None and any(key not in self.rows for key in keys):
            self._read(folder, layers, threads)
        first: dict[tuple[bool, int, bytes], int] = {}
        for i, key in enumerate(keys):
            if key not in self.rows:
                first.setdefault(key, i)
        missing = list(first.values())
        parts = [missing[start : start + TOGETHER] for start in range(0, len(missing), TOGETHER)]
        names = [None if uids is None else [uids[i] for i in part] for part in parts]
        calls = (
            (images[part], threads, False, None, layers, called) for part, called in zip(parts, names, strict=True)
        )
        where, n_jobs = (self.device, threads, False), processes(self.device, len(parts))
        computed = workers.each(self.plain.features, calls, n_jobs, *where, shared=self.plain)
        bar = progress(computed, total=len(parts), desc="features", unit=f"{TOGETHER} images", disable=len(parts) < 2)
        for part, features in zip(parts, bar, strict=True):
            self._keep([keys[i] for i in part], features, folder)
        if not keys:
            return np.zeros((0, sum(self.layer_widths) if layers else self.n_features), np.float32)
        features = np.stack([self.rows[key] for key in keys])
        standard = [part.cpu().numpy()[-features.shape[1] :] for part in self.standard]
        return (features - standard[0]) / standard[1] if standard else features

    def drop(self, images: np.ndarray) -> None:
        """Delete the features of images, and of their mirror images, here and in all files of the folder."""
        hashes = {key_of(image) for image in images} | {key_of(image[..., ::-1]) for image in images}
        for key in [key for key in self.rows if key[2] in hashes]:
            self.rows.pop(key)[:] = 0
        for folder in () if self.folder is None else self.folder.glob("*/"):
            files.clean(folder)
        for path in () if self.folder is None else sorted(self.folder.rglob("*.safetensors")):
            written = path.stat().st_mtime_ns  # maybe by another process, or again under the same name
            if self.hashes.get(path, (0, ()))[0] != written:
                self.hashes[path] = written, set(_hashes(read_weights(path)[0]))
            if not self.hashes[path][1] & hashes:
                continue
            tensors, _ = read_weights(path)
            stay = [i for i, name in enumerate(_hashes(tensors)) if name not in hashes]
            if stay:
                write_weights(path, {name: tensor[stay] for name, tensor in tensors.items()}, {})
            else:
                path.unlink()
                files.flush_folder(path.parent)

    def _folder(self, layers: bool, threads: int) -> Path | None:
        if self.folder is None:
            return None
        made_by = self.plain.fingerprint, str(sorted(environment(self.device, threads).items())), layers
        return self.folder / digest(*made_by)[:24]

    def _read(self, folder: Path, layers: bool, threads: int) -> None:
        files.clean(folder)
        for path in sorted(set(folder.glob("*.safetensors")) - self.files):
            tensors, _ = read_weights(path)
            features = tensors["rows"].numpy()
            self.rows |= {(layers, threads, name): features[i] for i, name in enumerate(_hashes(tensors))}
            self.files.add(path)

    def _keep(self, keys: list, features: np.ndarray, folder: Path | None) -> None:
        self.rows |= dict(zip(keys, features, strict=True))
        if folder is not None and len(keys) >= LEAST:
            hashes = np.frombuffer(b"".join(key[2] for key in keys), np.uint8).reshape(-1, 16).copy()
            path = folder / f"{digest(*(key[2] for key in keys))[:24]}.safetensors"
            write_weights(path, {"pixels": torch.from_numpy(hashes), "rows": torch.from_numpy(features)}, {})
            self.files.add(path)


def processes(device: torch.device, n_parts: int) -> int:
    """How many processes compute features: one a core; on a GPU one, for each of them would start the device anew."""
    return joblib.cpu_count() if device.type == "cpu" and n_parts > 1 else 1


def key_of(image: np.ndarray) -> bytes:
    """128 bits of an image's shape and pixels."""
    shape = str(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16, key=shape).digest()


def _hashes(tensors: dict[str, torch.Tensor]) -> list[bytes]:
    return [name.tobytes() for name in tensors["pixels"].numpy()]
