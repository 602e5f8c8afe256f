"""What lies in a store's folder: versions, and the files that a version names.

A version is the routing, and for every cluster the names of its files and a nonce. It is written when all its files
are; it counts from the moment that the ledger says so; and what it does not name is deleted then.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.base import clone

from lmeraser_kit.ground.commitments import fresh_nonce
from lmeraser_kit.ground.files import flush_folder
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.store.asked import Asked
from lmeraser_kit.store.certificate import Certificate, merkle_root
from lmeraser_kit.store.files import (
    FOLDERS,
    RESTORE,
    ClusterFiles,
    DamagedError,
    StoreError,
    pack,
    read_file,
    unpack,
    unpack_samples,
    write_file,
    write_samples,
)
from lmeraser_kit.store.parts import noted
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.rebuild import Successor
from lmeraser_kit.unlearning.state import State
from lmeraser_kit.unlearning.votes import Choices


class StoreFolder:
    """The files of the store in a folder.

    Args:
        folder: The store's folder.
        made: What `write_fixed` has noted, and the images' `shape`.
        choices: What the eraser is made of; the partition unfitted.

    Attributes:
        empty: No samples, of the images' shape and number of classes.
        cache: Tuned checkpoints by address.
        version: The present version: its `name`, and its `clusters` by number.
    """

    def __init__(self, folder: Path, made: dict, choices: Choices):
        self.folder, self.choices = folder, choices
        self.empty = Samples(np.zeros((0, *made["shape"]), np.uint8), [], [], made["arguments"]["n_classes"])
        self.fixed = [made["backbone"], *(made["public"] or {}).values()]
        self.cache = ClusterFiles(folder / "clusters")
        self.version = {"clusters": {}, "name": ""}

    def write(self, known: State | None, successor: Successor) -> tuple[State, dict]:
        """Write what is new; nothing refers to it yet.

        Args:
            known: The state of the present version, if there is one.
            successor: What comes after it; tuned clusters are in the cache already.

        Returns:
            The new state, its images in files, and the new version.
        """
        state, old = successor.state, self.version["clusters"]
        members, clusters = {}, {}
        for k, part in state.members.items():
            files = [self.cache.names[checkpoint.address] for checkpoint in state.models[k].checkpoints()]
            if k in old and (part is known.members[k] or np.array_equal(known.members[k].digests, part.digests)):
                entry, members[k] = {**old[k], "files": files}, known.members[k]
            else:
                features = {"features": state.features[k]} if k in state.features else {}
                entry = {"files": files, **write_samples(self.folder / "samples", f"{k:05d}", part, **features)}
                members[k], _ = self.read_samples("samples", entry)
            clusters[k] = entry if entry == old.get(k) else {**entry, "nonce": fresh_nonce()}
        fitted = {} if state.routing is None else vars(state.routing)
        learnt = {name: np.asarray(array) for name, array in fitted.items() if name.endswith("_")}
        version = {"clusters": clusters, "environment": successor.work.environment, "fitted": state.routing is not None}
        if state.sums is not None:
            file = write_file(self.folder / "versions", "sums", pack({"sums": state.sums}))
            version["sums"] = {"file": file, "nonce": fresh_nonce()}
        name = write_file(self.folder / "versions", "version", pack(learnt, **version))
        state.digests()  # with these, memory is compared later
        return replace(state, members=members, empty=self.empty), version | {"name": name}

    def certify(
        self,
        last: Certificate | None,
        done: list[Recorded],
        finished: str,
        asked: Asked,
        successor: Successor,
        version: dict,
        started: float,
    ) -> Certificate:
        """The certificate of the transaction that makes `version` the present one."""
        return Certificate(
            id=1 if last is None else last.id + 1,
            requests=[one.id for one in done],
            arrivals=[one.arrived for one in done],
            deadlines=[one.deadline for one in done],
            finished=finished,
            n_forgotten=len(asked.leaving) - asked.n_rectified,
            n_added=len(asked.joining) - asked.n_rectified,
            n_rectified=asked.n_rectified,
            n_samples=len(successor.state),
            commitments=sorted(asked.commitments),
            clusters_removed=sorted(self.version["clusters"].keys() - version["clusters"].keys()),
            seconds=time.perf_counter() - started,
            root_before=merkle_root(leaves(self.version)),
            root_after=merkle_root(leaves(version)),
            previous="" if last is None else last.hash,
            summed=self.choices.sums_alone,
            salts=asked.salts,
            owner_salts=asked.owner_salts,
            **vars(successor.work),
        )

    def read(self, name: str) -> tuple[State, dict, list[str]]:
        """Read a version from its files.

        Returns:
            The state, the version, and the names of damaged files of tuned clusters; these clusters have no model.

        Raises:
            DamagedError: If another file is damaged.
        """
        learnt, version = unpack(read_file(self.folder / "versions" / name))
        version["clusters"] = {int(k): entry for k, entry in version["clusters"].items()}
        state, damaged, lost = State(None, {}, {}, {}, self.empty), [], []
        for k, entry in version["clusters"].items():
            self.cache.names |= {file.partition("-")[0]: file for file in entry["files"]}
            try:
                state.members[k], arrays = self.read_samples("samples", entry)
                state.features.update({k: arrays["features"]} if "features" in arrays else {})
            except DamagedError as error:
                lost += error.files
            try:
                state.models[k] = self.cache.read(entry["files"][-1])
            except DamagedError as error:
                damaged += error.files
        sums = None
        if "sums" in version and not damaged:  # those of a version with damage are made anew
            try:
                sums = unpack(read_file(self.folder / "versions" / version["sums"]["file"]))[0]["sums"]
                sums.setflags(write=False)
            except DamagedError as error:
                damaged += error.files
        if lost:
            raise DamagedError(lost)
        routing = clone(self.choices.partition) if version["fitted"] else None
        if routing is not None:
            vars(routing).update(learnt)
        state.digests()  # with these, memory is compared later
        return replace(state, routing=routing, sums=sums), version | {"name": name}, damaged

    def read_samples(self, folder: str, names: dict[str, str]) -> tuple[Samples, dict[str, np.ndarray]]:
        """What `write_samples` wrote, the images still in their file. Raises DamagedError."""
        images = self.folder / folder / names["images"]
        if not images.is_file():
            raise DamagedError([f"{folder}/{names['images']}"])
        return unpack_samples(read_file(self.folder / folder / names["index"]), images)

    def named(self, staged: Iterable[str]) -> set[str]:
        """The files that belong into the folders, as `FOLDER/NAME`: the present version's, and what is staged."""
        names = {f"fixed/{name}" for name in self.fixed} | {f"staged/{name}" for name in staged if name}
        names |= {f"versions/{self.version['name']}"} if self.version["name"] else set()
        names |= {f"versions/{self.version['sums']['file']}"} if "sums" in self.version else set()
        for entry in self.version["clusters"].values():
            names |= {f"clusters/{file}" for file in entry["files"]}
            names |= {f"samples/{entry[kind]}" for kind in ("index", "images")}
        return names

    def present(self) -> set[str]:
        """What is in the store's folders, as `FOLDER/NAME`; they are its own, and what else lies there is deleted."""
        return {f"{folder}/{path.name}" for folder in FOLDERS for path in (self.folder / folder).iterdir()}

    def clean(self, staged: Iterable[str]) -> None:
        """Delete every file that neither the present version nor a recorded request names, and look whether it worked.

        Raises:
            StoreError: If something is left.
        """
        named, stuck = self.named(staged), []
        partial = {path.name for path in self.folder.glob("*.partial*")}
        for name in sorted((self.present() - named) | partial):
            path = self.folder / name
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                stuck.append(f"{name} ({error})")
        for folder in FOLDERS:
            flush_folder(self.folder / folder)
        self.cache = ClusterFiles(self.folder / "clusters")
        if stuck:
            raise StoreError(f"what was asked for is done, but this could not be deleted: {', '.join(stuck)}")

    def check(self, staged: Iterable[str]) -> None:
        """Read every file of the store and compare its hash.

        Raises:
            DamagedError: If a file is missing, truncated or changed; the message names it.
            StoreError: If there is a file that does not belong there.
        """
        damaged = []
        for name in sorted(self.named(staged)):
            try:
                read_file(self.folder / name)
            except DamagedError as error:
                damaged += error.files
        if damaged:
            raise DamagedError(damaged, f"Store.open(..., repair=True) mends clusters/; {RESTORE}")
        belong = {*FOLDERS, "ledger.sqlite", "ledger.seal", "lock"}
        strange = {path.name for path in self.folder.iterdir()} - belong
        if strange := strange | (self.present() - self.named(staged)):
            raise StoreError(f"{min(strange)} does not belong into the store {self.folder}: remove it")


def write_fixed(folder: Path, eraser: BaseEraser, public: Samples | None) -> dict:
    """Write what never changes, the backbone and the public samples, and note what the eraser is made with."""
    weights = eraser.backbone.save(folder / "fixed" / "backbone").read_bytes()
    return noted(eraser) | {
        "backbone": write_file(folder / "fixed", "backbone", weights),
        "public": write_samples(folder / "fixed", "public", public) if public is not None else None,
    }


def leaves(version: dict) -> list[str]:
    """A hash of every cluster's files and nonce, in the order of their numbers; and of the sums', if there are any."""
    clusters = sorted(version["clusters"].items())
    sums = [digest("sums", version["sums"]["nonce"], version["sums"]["file"])] if "sums" in version else []
    return sums + [digest("leaf", k, entry["nonce"], entry["index"], *entry["files"]) for k, entry in clusters]
