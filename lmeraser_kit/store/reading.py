"""What can be done with a store without changing it: predict, list, check, verify."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from lmeraser_kit import checks
from lmeraser_kit.store.asked import named_in
from lmeraser_kit.store.audit import audited, write_report
from lmeraser_kit.store.backups import back_up, backup_folder, check_no_backup
from lmeraser_kit.store.certificate import Certificate, Verification, merkle_root
from lmeraser_kit.store.files import StoreError, read_file
from lmeraser_kit.store.ledger import Ledger
from lmeraser_kit.store.parts import remade
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.store.snapshot import StoreFolder, leaves
from lmeraser_kit.store.tombstones import tombstones_of
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.state import ExactnessError, State

FORMAT = "6"  # 4: owners; 5: requests to rectify; 6: arrivals, deadlines, tombstones


class ReadableStore:
    """A store's folder, opened.

    Args:
        folder: Where it is.
        ledger: Its ledger, opened for reading or for writing.
        device: `auto`, or a torch device.
        eraser: An eraser like the one that it was created with, if the store cannot name all its parts.
        **options: `n_jobs` and `verbose` of the eraser.

    Raises:
        StoreError: If it was made by another version of the kit, or its tombstones are missing.
    """

    def __init__(self, folder: Path, ledger: Ledger, device: str, eraser: BaseEraser | None = None, **options):
        self.folder, self.readonly, self.recovered, self._ledger = folder, ledger.readonly, None, ledger
        self._tombstones, self._requests = None, None
        check_no_backup(ledger.facts, folder)
        if ledger.facts["format"] != FORMAT:
            raise StoreError(f"{folder} was made by another version of the kit: make a new store from its samples")
        made = json.loads(ledger.facts["arguments"])
        if ledger.facts["tombstones"]:
            self._tombstones = tombstones_of(folder)
        file = folder / "fixed" / made["backbone"]
        read_file(file)  # compares its hash
        self.eraser = remade(made, file, device, eraser, **options)
        self._files = StoreFolder(folder, made, self.eraser.choices())
        public = self._files.read_samples("fixed", made["public"])[0] if made["public"] else None
        self.eraser.prepare(self._files.empty, public)

    def __repr__(self) -> str:
        held = f"{len(self.eraser.state_):,} samples" if hasattr(self.eraser, "state_") else "not fitted"
        how = ", closed" if self._ledger.closed else ", readonly" * self.readonly
        return f"Store({str(self.folder)!r}, {held}{how})"

    def __enter__(self) -> Self:
        return self

    def close(self, *_) -> None:
        """Close the store, and let others write."""
        self._ledger.close()

    __exit__ = close

    @property
    def outdated(self) -> bool:
        """Whether a writer has changed the store since it was opened for reading: who has left still answers here."""
        return self._ledger.moved_on()

    def certificates(self) -> list[Certificate]:
        """All certificates since the fit, in order; without the salts, which are not kept."""
        return self._ledger.certificates()

    def requests(self) -> list[dict]:
        """All requests, in order: number, action, samples named, times in UTC, state, the certificate's number."""
        return [one.public() for one in self._ledger.requests()]

    def check(self) -> None:
        """Read every file of the store and compare its hash.

        Raises:
            DamagedError: If a file is missing, truncated or changed; the message names it.
            StoreError: If there is a file that does not belong there.
        """
        if self.readonly and self.outdated:
            raise StoreError("a writer has changed the store since it was opened for reading: open it again")
        self._ledger.check()
        self._files.check(self._staged())

    def verify(self, clusters: Iterable[int] | None = None) -> Verification:
        """Check the files, and tune clusters again from them: are they what tuning on these samples gives?

        Args:
            clusters: Numbers of the clusters to tune again; all by default.

        Returns:
            What has been checked, and what that proves and what it does not.

        Raises:
            DamagedError: If a file is damaged.
            ExactnessError: If one bit is not what it should be; the message names what.
            RuntimeError: If the environment has changed, so that bits cannot be compared.
        """
        self.check()
        eraser = copy.copy(self.eraser)
        eraser.state_, version, _ = self._files.read(self._files.version["name"])
        chosen = sorted(eraser.state_.models if clusters is None else clusters)
        state_hash = eraser.verify(chosen)
        if (root := merkle_root(leaves(version))) != self._ledger.last.root_after:
            raise ExactnessError("the last certificate commits to other clusters", ["root"])
        return Verification(state_hash, root, chosen, len(eraser.state_), eraser.choices().sums_alone)

    def backup(self, folder: Path | str) -> Path:
        """Copy the store as it is, while others read and write; `Store.restore` makes a store of the copy.

        It holds all private samples, and keeps those who leave later until it is deleted (docs/store.md).

        Args:
            folder: A folder that does not exist, outside of the store's.

        Returns:
            The folder; it is there whole, or not at all.

        Raises:
            StoreError: If the folder exists or lies in the store's, or a writer has changed the store since it was
                opened for reading.
            DamagedError: If a file is damaged.
        """
        return back_up(self._files, self._ledger, backup_folder(self.folder, folder))

    def report(self, folder: Path | str, verify: bool = True) -> Path:
        """Write an audit report, `report.html` and `report.json`: requests, deadlines, costs, certificates.

        Args:
            folder: Where to; it is made if it is not there, and must not lie in the store's.
            verify: Run `verify` first, and report what it found. It learns everything again.

        Returns:
            The path of the page.

        Raises:
            StoreError: If the folder lies in the store's.
            ValueError, DamagedError, ExactnessError, RuntimeError: As `verify`.
        """
        folder = checks.path("folder", folder).absolute()
        if self.folder in (folder, *folder.parents):
            raise StoreError(f"{folder} lies in the store's folder, which is its own: choose another for the report")
        verified = self.verify() if checks.flag("verify", verify) else None
        requests, certificates = self._ledger.requests(), self._ledger.certificates()
        made = self._ledger.finished()
        return write_report(folder, audited(requests, certificates, made, verified, self._tombstones))

    def _forgotten_and_back(self, held: Iterable[str], expected: bool = False) -> tuple[list[str], list[Recorded]]:
        """Samples held that have tombstones, and requests that wait though their samples have been forgotten.

        Args:
            held: Uids of who is held. Who is about to be forgotten has tombstones rightly.
            expected: Whether there may be some, as in an older copy of a store; else that is a StoreError.
        """
        if self._tombstones is None:
            return [], []
        pending = [(one, named_in(self.folder, one)) for one in self._ledger.pending() if one.action == "forget"]
        leaving = set().union(*(uids for _, uids in pending))
        back = self._tombstones.forgotten_names(uid for uid in held if uid not in leaving)
        over = [one for one, uids in pending if one.state == "waiting" and self._tombstones.gone(uids)]
        if (n := len(back) + sum(one.n for one in over)) and not expected:
            raise StoreError(
                f"{n} samples are held that have been forgotten: this is an older copy of the store. "
                "Store.open(..., forget_again=True) forgets them again"
            )
        return back, over

    def _staged(self) -> list[str]:
        return [one.staged for one in self._ledger.pending()]

    def _take(self, state: State, version: dict) -> None:
        self.eraser.state_, self.eraser.environment_, self._files.version = state, version["environment"], version
