"""Tombstones: who was forgotten is not added again unknowingly, and does not come back with an old copy of a store.

Of each sample that is forgotten, HMAC-SHA256 of its uid and of its image (shape and pixels) is kept, with a key that
lies beside; never the uid or the image. They lie in a folder outside the store, so that an old copy of the store, put
back, still meets them. With the key, a guess of who was here can be tested: that is the trace that a tombstone is.
Whoever destroys the key makes all tombstones of its generation blind: they cannot be made anew under another.

    key-1, key-2, ...   the key of each generation; readable by its owner alone
    tombstones          a line each: + or - (taken back), generation, kind, HMAC

Who waits has tombstones, too. `gone` says that the waiting is over: a copy of the store in which it is not is older.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.files import flush_folder
from lmeraser_kit.ground.html import some_of
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.store.files import DamagedError, StoreError

LINE = re.compile(r"([+-]) (\d+) (uid|image|gone) ([0-9a-f]{64})")


class Tombstones:
    """The tombstones in a folder; it is made when there is one to write.

    Args:
        folder: Outside of the store's.

    Attributes:
        blind: How many tombstones have lost their key, and are no longer recognised.

    Raises:
        DamagedError: If a line is none.
    """

    def __init__(self, folder: Path | str):
        self.folder = checks.path("tombstones", folder).absolute()
        self._file, self._keys = self.folder / "tombstones", dict[int, bytes]()
        self._known: set[tuple[int, str, str]] = set()
        content = self._file.read_bytes() if self._file.exists() else b""
        whole, _, torn = content.rpartition(b"\n")
        self._torn = len(torn)  # a line that a crash has cut off; it is written again, for its request is recorded
        for line in whole.decode("ascii", "replace").splitlines():
            if not (found := LINE.fullmatch(line)):
                raise DamagedError([str(self._file)], "restore it from a copy")
            sign, generation, kind, mac = found.groups()
            stone = (int(generation), kind, mac)
            (self._known.add if sign == "+" else self._known.discard)(stone)
        for path in self.folder.glob("key-*"):
            with contextlib.suppress(ValueError):
                self._keys[int(path.name[4:])] = bytes.fromhex(path.read_text())
        self.blind = sum(stone[0] not in self._keys for stone in self._known)

    def __len__(self) -> int:
        return sum(kind != "gone" for _, kind, _ in self._known)

    @property
    def complete(self) -> bool:
        """Whether all who were forgotten since the first key are recognised; not in a folder that was made anew."""
        return bool(self._keys) and not self.blind

    def new_generation(self) -> int:
        """Make a new key: from now on tombstones are made with it. Returns its number.

        Those before are recognised for as long as their key's file is there.
        """
        generation = 1 + max([*self._keys, *(stone[0] for stone in self._known)], default=0)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = secrets.token_bytes(32)
        with open(os.open(self.folder / f"key-{generation}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.hex())
            file.flush()
            os.fsync(file.fileno())
        flush_folder(self.folder)
        flush_folder(self.folder.parent)  # a power cut must not take the folder away
        self._keys[generation] = key
        return generation

    def bury(self, uids: Iterable[str], images: Iterable[np.ndarray]) -> None:
        """Make a tombstone of each uid and of each image, (C, H, W) uint8; on the disk when this returns."""
        self._make([_named(uid) for uid in uids] + [_pictured(image) for image in images])

    def bury_gone(self, uids: Iterable[str]) -> None:
        """Note that those who waited to be forgotten wait no longer; on the disk when this returns."""
        self._make([_gone(uid) for uid in uids])

    def _make(self, names: list[tuple[str, bytes]]) -> None:
        if not self._keys and self._known:
            raise StoreError(f"the keys in {self.folder} are gone: Tombstones(folder).new_generation() makes a new one")
        now = max(self._keys) if self._keys else self.new_generation()
        self._write("+", [(now, kind, self._mac(now, data)) for kind, data in names if not self._stones(kind, data)])

    def lift(self, samples: Samples) -> None:
        """Take back the tombstones of samples, by their uids and images: they are added all the same."""
        found = [kind(uid) for uid in samples.uids.tolist() for kind in (_named, _gone)]
        found += [_pictured(one) for one in np.asarray(samples.images)]
        self._write("-", [stone for kind, data in found for stone in self._stones(kind, data)])

    def check_new(self, samples: Samples) -> None:
        """Refuse samples of a new store that have tombstones (ValueError); make the first key."""
        if back := self.forgotten(samples):
            raise ValueError(
                f"{len(back)} of the samples have tombstones in {self.folder} ({some_of(map(repr, back), len(back))}): "
                "they were forgotten here. Leave them out, or move that folder away"
            )
        if not self._keys:
            self.new_generation()

    def forgotten(self, samples: Samples, names: bool = True) -> list[str]:
        """The uids of samples that have a tombstone, by their name or by their image; `names=False`: by the image."""
        pairs = zip(samples.uids.tolist(), np.asarray(samples.images), strict=True) if self._known else ()
        return [u for u, image in pairs if self._stones(*_pictured(image)) or (names and self._stones(*_named(u)))]

    def forgotten_names(self, uids: Iterable[str]) -> list[str]:
        """Those of some uids that have a tombstone."""
        return [uid for uid in uids if self._stones(*_named(uid))]

    def gone(self, uids: Iterable[str]) -> list[str]:
        """Those of some uids that waited to be forgotten, and wait no longer."""
        return [uid for uid in uids if self._stones(*_gone(uid))]

    def _stones(self, kind: str, data: bytes) -> list[tuple[int, str, str]]:
        """The tombstones of a name or an image, one a generation at most."""
        if not self._known:
            return []
        stones = [(generation, kind, self._mac(generation, data)) for generation in self._keys]
        return [stone for stone in stones if stone in self._known]

    def _mac(self, generation: int, data: bytes) -> str:
        return hmac.new(self._keys[generation], data, hashlib.sha256).hexdigest()

    def _write(self, sign: str, stones: list[tuple[int, str, str]]) -> None:
        stones = sorted(set(stones))  # the order says nothing of who left
        if not stones:
            return
        if self._torn:
            os.truncate(self._file, self._file.stat().st_size - self._torn)
            self._torn = 0
        with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            file.writelines(f"{sign} {generation} {kind} {mac}\n" for generation, kind, mac in stones)
            file.flush()
            os.fsync(file.fileno())
        flush_folder(self.folder)
        (self._known.update if sign == "+" else self._known.difference_update)(stones)


def beside(store: Path) -> Path:
    """The folder of a store's tombstones: beside the store's own, so that an old copy of the store still meets them."""
    return store.with_name(f"{store.name}-tombstones")


def tombstones_of(store: Path) -> Tombstones:
    """The tombstones beside a store that has some. Raises StoreError if they are not there; warns of lost keys."""
    if not (folder := beside(store)).is_dir():
        raise StoreError(
            f"the tombstones of this store are missing, which tell who was forgotten: restore {folder}; if they are "
            "lost, make an empty folder there, and the store goes on without them"
        )
    found = Tombstones(folder)
    if found.blind:
        warnings.warn(
            f"{found.blind} tombstones in {folder} have lost their key: nobody is recognised by them", stacklevel=4
        )
    return found


def _named(uid: str) -> tuple[str, bytes]:
    return "uid", b"uid\0" + uid.encode()


def _gone(uid: str) -> tuple[str, bytes]:
    return "gone", b"gone\0" + uid.encode()


def _pictured(image: np.ndarray) -> tuple[str, bytes]:
    image = np.ascontiguousarray(image)
    return "image", f"image\0{image.shape}\0".encode() + image.tobytes()
