"""The store: a fitted eraser on disk that forgets for good, across crashes.

One folder. Every request is a transaction: it is recorded first (from then on it will be carried out, whatever
happens); clusters are tuned and written beside what is there; one commit in the ledger makes the new version the
present one; then every file that it does not name is deleted, and the folder compared with what it names.

    ledger.sqlite      requests, certificates, the present version's name (ledger.py); ledger.seal: its hash
    fixed/             the frozen backbone and the public samples
    versions/          the routing, exact sums, and for every cluster its files and its nonce
    clusters/          tuned checkpoints by address: the cache of the one idea
    samples/           the members of each cluster: uids, labels and hashes in one file, images in another
    staged/            what recorded requests ask for, until they have been carried out

Opening a store after a crash carries out what was recorded; what was tuned already is found in the cache.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

from sklearn.base import clone

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.store.asked import Requests, combined, stage_samples
from lmeraser_kit.store.certificate import Certificate, Verification, merkle_root
from lmeraser_kit.store.files import DamagedError, StoreError, check_vacant, make_folders, read_file
from lmeraser_kit.store.ledger import Ledger, lock
from lmeraser_kit.store.parts import remade
from lmeraser_kit.store.snapshot import StoreFolder, leaves, write_fixed
from lmeraser_kit.unlearning.arguments import only_holding
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.state import ExactnessError, State

FORMAT = "5"  # from 4 on: owners, and requests to rectify


class Store:
    """A fitted eraser in a folder. Make one with `create`, and `open` it ever after.

    Attributes:
        folder: Where it is.
        eraser: What it keeps. Predict with it; requests go through the store.
        recovered: The certificate of requests that a crash had interrupted, and that opening has carried out; or None.
    """

    def __init__(self, folder: Path, ledger: Ledger, device: str, eraser: BaseEraser | None = None, **options):
        self.folder, self.readonly, self.recovered, self._ledger = folder, ledger.readonly, None, ledger
        if ledger.facts["format"] != FORMAT:
            raise StoreError(f"{folder} was made by another version of the kit: make a new store from its samples")
        made = json.loads(ledger.facts["arguments"])
        file = folder / "fixed" / made["backbone"]
        read_file(file)  # compares its hash
        self.eraser = remade(made, file, device, eraser, **options)
        self._files = StoreFolder(folder, made, self.eraser.choices())
        public = self._files.read_samples("fixed", made["public"])[0] if made["public"] else None
        self.eraser.prepare(self._files.empty, public)

    @classmethod
    def create(cls, folder: Path | str, eraser: BaseEraser, private: Samples, public: Samples | None = None) -> Store:
        """Fit an eraser in a new folder.

        Args:
            folder: A folder that does not exist, or is empty.
            eraser: What to fit; it is left as it is. If it is fitted, it must hold `private`, and nobody else.
            private: As for `LMEraser.fit`.
            public: As for `LMEraser.fit`.

        Raises:
            StoreError: If there is something in the folder.
            ValueError: As for `LMEraser.fit`; or a fitted eraser holds others: who has left would come back.
        """
        checks.instance("eraser", eraser, BaseEraser, ", such as RidgeEraser(backbone)")
        check_vacant(folder := checks.path("folder", folder).absolute())
        eraser = clone(only_holding(private, eraser))
        private = eraser.prepare(private, public)
        if not eraser.choices().partition.exact:
            warnings.warn("this partition keeps prototypes of samples that leave: it does not forget", stacklevel=2)
        make_folders(folder)
        with lock(folder):
            check_vacant(folder)  # again: now nobody else can be making one
            made = write_fixed(folder, eraser, public) | {"shape": private.images.shape[1:]}
            facts = {"format": FORMAT, "arguments": json.dumps(made, sort_keys=True), "version": ""}
            Ledger.create(folder, facts, len(private), stage_samples(folder, private))
        try:
            return cls.open(folder, str(eraser.backbone.device), eraser.n_jobs, eraser.verbose, eraser=eraser)
        except Exception:  # a fit that cannot succeed; not a crash, after which opening goes on with it
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise

    @classmethod
    def open(
        cls,
        folder: Path | str,
        device: str = "auto",
        n_jobs: int | None = None,
        verbose: bool = True,
        readonly: bool = False,
        repair: bool = False,
        finish: bool = True,
        eraser: BaseEraser | None = None,
    ) -> Store:
        """Open a store; finish what a crash has interrupted.

        A reader stays with the version that it has opened.

        Args:
            folder: The store's folder.
            device: `auto`, or a torch device.
            n_jobs: Clusters tuned at a time.
            verbose: Show progress bars.
            readonly: Predict and verify only; any number may read while one writes.
            repair: Tune clusters whose files are damaged again.
            finish: Carry out what has been recorded; otherwise that is left for the next `run`.
            eraser: If a part of it is your own, an eraser like the one that the store was created with.

        Raises:
            StoreError: If there is no store, or somebody else writes.
            DamagedError: If a file is missing, truncated or changed; the message names it.
        """
        folder = checks.path("folder", folder).absolute()
        checks.flag("readonly", readonly), checks.flag("repair", repair), checks.flag("finish", finish)
        for attempts_left in reversed(range(10)):
            try:
                with contextlib.ExitStack() as closing_on_error:
                    ledger = Ledger(folder, readonly, trust=repair and not readonly)
                    closing_on_error.callback(ledger.close)
                    store = cls(folder, ledger, device, eraser, n_jobs=n_jobs, verbose=verbose)
                    store._begin(repair, finish)
                    closing_on_error.pop_all()
                    return store
            except DamagedError:
                if not (readonly and attempts_left):  # a reader may have been overtaken by a writer
                    raise

    def _begin(self, repair: bool, finish: bool) -> None:
        """Read the present version, and finish what is under way."""
        fitted, damaged = bool(self._ledger.facts["version"]), []
        if fitted:
            state, version, damaged = self._files.read(self._ledger.facts["version"])
            if merkle_root(leaves(version)) != self._ledger.last.root_after:
                raise DamagedError(["ledger.sqlite"], "the last certificate is not that of the present version")
            self._take(state, version)
        if damaged and (self.readonly or not repair):
            raise DamagedError(damaged, "Store.open(..., repair=True) tunes these clusters again")
        if self.readonly and not fitted:
            raise StoreError(f"{self.folder} has not been fitted yet: open it for writing, which does that")
        if not self.readonly:
            if damaged:
                self._ledger.record("repair", 0, "")
            self.recovered = self.run() if finish else None
            state = getattr(self.eraser, "state_", None)
            self._requests = Requests(self.folder, self._ledger, self._files.empty, state)
            self._files.clean(self._staged())
            self._ledger.seal()

    def __enter__(self) -> Store:
        return self

    def close(self, *_) -> None:
        """Close the store, and let others write."""
        self._ledger.close()

    __exit__ = close

    def forget(self, uids: Iterable[str] | None = None, owner: str | Iterable[str] | None = None) -> Certificate:
        """Forget samples, or all of an owner, for good: no file of the store then holds anything computed from them.

        Arguments and errors are those of `request_forget`. Returns the certificate, with the salts of its commitments.
        """
        self.request_forget(uids, owner)
        return self.run()

    def rectify(self, samples: Samples) -> Certificate:
        """Replace image, label and owner of samples held, in one step. Raises as `request_rectify`."""
        self.request_rectify(samples)
        return self.run()

    def add(self, samples: Samples) -> Certificate:
        """Add private samples. Raises ValueError as `LMEraser.add` does; nothing is recorded then."""
        self.request_add(samples)
        return self.run()

    def request_forget(
        self, uids: Iterable[str] | None = None, owner: str | Iterable[str] | None = None
    ) -> dict[str, str]:
        """Record a request to forget, for the next `run`. When this returns it will be carried out, come what may.

        Args:
            uids: Names of samples held, each once; a single name will do.
            owner: An owner, or several, of whom everything held now is forgotten. Not together with `uids`.

        Returns:
            The salts that open the certificate's commitments, by uid or by owner.

        Raises:
            ValueError: If a uid is not held, an owner has no sample, one is named twice, or none is named; nothing is
                recorded then.
            DamagedError: If the images of who shares a cluster with them cannot be read. Restore the file; or forget
                the whole cluster, for which it is not needed.
        """
        self._check_writable()
        return self._requests.forget(self.eraser, uids, owner)

    def request_add(self, samples: Samples) -> int:
        """Record a request to add samples, for the next `run`. Returns the request's number."""
        self._check_writable()
        return self._requests.add(self.eraser, samples)

    def request_rectify(self, samples: Samples) -> int:
        """Record a request to rectify samples, for the next `run`. Returns the request's number.

        Raises:
            ValueError: As `LMEraser.rectify` does; nothing is recorded then.
            DamagedError: As for `request_forget`.
        """
        self._check_writable()
        return self._requests.rectify(self.eraser, samples)

    def run(self) -> Certificate | None:
        """Carry out all recorded requests at once: a cluster that several of them hit is tuned once.

        Returns:
            The certificate; None if nothing was recorded.
        """
        self._check_writable()
        pending, started = self._ledger.pending(), time.perf_counter()
        if not pending:
            return None
        asked = combined(self.folder, self._files.empty, pending)
        successor = self.eraser.successor(asked.leaving, asked.joining, self._files.cache)
        state, version = self._files.write(getattr(self.eraser, "state_", None), successor)
        certificate = self._files.certify(self._ledger.last, pending, asked, successor, version, started)
        self._ledger.commit(certificate, version["name"])
        self._take(state, version)
        self._files.clean(self._staged())
        self._ledger.seal()
        return certificate

    def certificates(self) -> list[Certificate]:
        """All certificates since the fit, in order; without the salts, which are not kept."""
        return self._ledger.certificates()

    def requests(self) -> list[dict]:
        """All requests, in order: number, action, how many samples, when recorded, the certificate's number."""
        return self._ledger.requests()

    def check(self) -> None:
        """Read every file of the store and compare its hash.

        Raises:
            DamagedError: If a file is missing, truncated or changed; the message names it.
            StoreError: If there is a file that does not belong there.
        """
        if self.readonly and self._ledger.moved_on():
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

    def _check_writable(self) -> None:
        if self.readonly or self._ledger.closed:
            state = "was opened for reading" if self.readonly else "has been closed"
            raise StoreError(f"this store {state}: Store.open(folder) opens it for requests")

    def _staged(self) -> list[str]:
        return [staged for _, _, staged in self._ledger.pending()]

    def _take(self, state: State, version: dict) -> None:
        self.eraser.state_, self.eraser.environment_, self._files.version = state, version["environment"], version
