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

Opening a store carries out what is due: requests without a deadline, those that a crash has interrupted (what was tuned
already is found in the cache), and those whose time has come by the plan (waiting.py). Others wait.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from sklearn.base import clone

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.store.asked import Requests, stage_samples
from lmeraser_kit.store.backups import put_back
from lmeraser_kit.store.certificate import Certificate, merkle_root
from lmeraser_kit.store.files import DamagedError, StoreError, check_vacant
from lmeraser_kit.store.ledger import Ledger
from lmeraser_kit.store.locks import making
from lmeraser_kit.store.reading import FORMAT
from lmeraser_kit.store.snapshot import leaves, write_fixed
from lmeraser_kit.store.times import Deadline
from lmeraser_kit.store.tombstones import Tombstones, beside
from lmeraser_kit.store.transactions import TransactingStore
from lmeraser_kit.store.waiting import Plan, planned
from lmeraser_kit.unlearning.arguments import only_holding
from lmeraser_kit.unlearning.base import BaseEraser


class Store(TransactingStore):
    """A fitted eraser in a folder. Make one with `create`, and `open` it ever after.

    Attributes:
        folder: Where it is.
        eraser: What it keeps. Predict with it; requests go through the store.
        recovered: The certificate of requests that opening has carried out, which had come due or which a crash had
            interrupted; or None.
    """

    @classmethod
    def create(
        cls,
        folder: Path | str,
        eraser: BaseEraser,
        private: Samples,
        public: Samples | None = None,
        tombstones: bool = False,
    ) -> Store:
        """Fit an eraser in a new folder.

        Args:
            folder: A folder that does not exist, or is empty.
            eraser: What to fit; it is left as it is. If it is fitted, it must hold `private`, and nobody else.
            private: As for `LMEraser.fit`.
            public: As for `LMEraser.fit`.
            tombstones: Keep a keyed hash of who was forgotten, in FOLDER-tombstones beside the store (tombstones.py).

        Raises:
            StoreError: If there is something in the folder.
            ValueError: As for `LMEraser.fit`; or a fitted eraser holds others, or a sample has a tombstone: who has
                left would come back.
        """
        checks.instance("eraser", eraser, BaseEraser, ", such as RidgeEraser(backbone)")
        check_vacant(folder := checks.path("folder", folder).absolute())
        stones = Tombstones(beside(folder)) if checks.flag("tombstones", tombstones) else None
        eraser = clone(only_holding(private, eraser))
        private = eraser.prepare(private, public)
        if not eraser.choices().partition.exact:
            warnings.warn("this partition keeps prototypes of samples that leave: it does not forget", stacklevel=2)
        if stones is not None:
            stones.check_new(private)
        with making(folder):
            made = write_fixed(folder, eraser, public) | {"shape": private.images.shape[1:]}
            facts = {"format": FORMAT, "arguments": json.dumps(made, sort_keys=True), "version": ""}
            facts["tombstones"] = "kept" if stones is not None else ""
            Ledger.create(folder, facts, len(private), stage_samples(folder, private))
            return cls.open(folder, str(eraser.backbone.device), eraser.n_jobs, eraser.verbose, eraser=eraser)

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
        forget_again: bool = False,
    ) -> Store:
        """Open a store; carry out what is due, and what a crash has interrupted.

        A reader stays with the version that it has opened.

        Args:
            folder: The store's folder.
            device: `auto`, or a torch device.
            n_jobs: Clusters tuned at a time.
            verbose: Show progress bars.
            readonly: Predict and verify only; any number may read while one writes.
            repair: Tune clusters whose files are damaged again.
            finish: Carry out what is due; otherwise that is left for the next `run`.
            eraser: If a part of it is your own, an eraser like the one that the store was created with.
            forget_again: Forget samples held that have a tombstone, as an old copy of a store has them.

        Raises:
            StoreError: If there is no store, somebody else writes, or a sample held has a tombstone.
            DamagedError: If a file is missing, truncated or changed; the message names it.
        """
        folder = checks.path("folder", folder).absolute()
        checks.flag("readonly", readonly), checks.flag("repair", repair), checks.flag("finish", finish)
        checks.flag("forget_again", forget_again)
        for attempts_left in reversed(range(10)):
            try:
                with contextlib.ExitStack() as closing_on_error:
                    ledger = Ledger(folder, readonly, trust=repair and not readonly)
                    closing_on_error.callback(ledger.close)
                    store = cls(folder, ledger, device, eraser, n_jobs=n_jobs, verbose=verbose)
                    store._begin(repair, finish, forget_again)
                    closing_on_error.pop_all()
                    return store
            except DamagedError:
                if not (readonly and attempts_left):  # a reader may have been overtaken by a writer
                    raise

    @classmethod
    def restore(
        cls, backup: Path | str, folder: Path | str, forgotten: Iterable[str] | None = None, **options: Any
    ) -> Store:
        """Make a store of a backup; who was forgotten since leaves before anything is answered.

        What else has happened since is lost: samples that were added or rectified, and the certificates.

        Args:
            backup: What `backup` has made; it stays as it is.
            folder: The new store's: it does not exist, or is empty. Tombstones are looked for beside it.
            forgotten: Uids of who was forgotten since; a warning names those not in the backup. By default who have
                tombstones, in a store that keeps them.
            **options: Of `open`.

        Raises:
            StoreError: If the folder is not empty, that is no backup, or it is not known who was forgotten since.
            DamagedError: If the backup is damaged. There is no new store then.
        """
        backup, folder = checks.path("backup", backup).absolute(), checks.path("folder", folder).absolute()
        put_back(backup, folder, forgotten)
        return cls.open(folder, **{"forget_again": True} | options)

    def _begin(self, repair: bool, finish: bool, forget_again: bool) -> None:
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
        if self.readonly:
            self._forgotten_and_back(self.eraser.state_.owners_by_uid())
            return
        if damaged:
            self._ledger.record("repair", 0, "")
        if fitted:
            self._warn_of_changes()
        if not fitted and finish:
            self.recovered = self.run()
        state = getattr(self.eraser, "state_", None)
        self._requests = Requests(self.folder, self._ledger, self._files.empty, state, self._tombstones)
        self._requests.catch_up(state)
        back, over = self._forgotten_and_back(self._requests.held, forget_again)
        self._ledger.begin(over)
        if back:
            self.request_forget(back)
        if fitted and finish:
            self.recovered, failed = self._run(within=0)
            self._warn(failed)
        self._files.clean(self._staged())
        self._ledger.seal()

    def forget(self, uids: Iterable[str] | None = None, owner: str | Iterable[str] | None = None) -> Certificate:
        """Forget samples, or all of an owner, for good: no file of the store then holds anything computed from them.

        Who waits, and costs nothing more, goes with them. Arguments and errors are those of `request_forget`. Returns
        the certificate, with the salts of its commitments.
        """
        self.request_forget(uids, owner)
        return self.run(within=0)

    def rectify(self, samples: Samples) -> Certificate:
        """Replace image, label and owner of samples held, in one step. Raises as `request_rectify`; see `run`."""
        return self._done(self.request_rectify(samples))

    def add(self, samples: Samples, again: bool = False) -> Certificate:
        """Add private samples. Arguments and errors are those of `request_add`; nothing is recorded then. See `run`."""
        return self._done(self.request_add(samples, again))

    def _done(self, number: int) -> Certificate:
        certificate = self.run(within=0)
        if number in self.failed:
            raise self.failed[number]
        return certificate

    def request_forget(
        self,
        uids: Iterable[str] | None = None,
        owner: str | Iterable[str] | None = None,
        deadline: Deadline | None = None,
        arrived: datetime | None = None,
    ) -> dict[str, str]:
        """Record a request to forget. When this returns it will be carried out, come what may.

        Args:
            uids: Names of samples held, each once; a single name will do.
            owner: An owner, or several, of whom everything held now is forgotten. Not together with `uids`.
            deadline: It may wait until then, and no longer than `plan` says: `gdpr` (a month), `delete-act` (45 days),
                days from the arrival, or a datetime. By default it is carried out by the next `run`, or when the store
                is opened.
            arrived: When it came; now, by default.

        Returns:
            The salts that open the certificate's commitments, by uid or by owner.

        Raises:
            ValueError: If a uid is not held, an owner has no sample, one is named twice, or none is named; or the
                deadline has passed. Nothing is recorded then.
            DamagedError: If the images of who shares a cluster with them cannot be read. Restore the file; or forget
                the whole cluster, for which it is not needed.
            StoreError: If the clock has been set back.
        """
        self._check_writable()
        salts = self._requests.forget(self.eraser, uids, owner, deadline, arrived)
        if deadline is not None:
            self.plan(rate=0).warn_if_late()
        return salts

    def request_add(self, samples: Samples, again: bool = False) -> int:
        """Record a request to add samples, for the next `run`. Returns the request's number.

        Args:
            samples: What is added.
            again: Also samples that have a tombstone, by name or by image; that is recorded, and takes it back.

        Raises:
            ValueError: As `LMEraser.add` does, or a sample has a tombstone; nothing is recorded then.
        """
        self._check_writable()
        return self._requests.add(self.eraser, samples, again)

    def request_rectify(
        self, samples: Samples, deadline: Deadline | None = None, arrived: datetime | None = None
    ) -> int:
        """Record a request to rectify samples; it may wait, as one to forget. Returns the request's number.

        Raises as `LMEraser.rectify` and `request_forget` do; nothing is recorded then.
        """
        self._check_writable()
        number = self._requests.rectify(self.eraser, samples, deadline, arrived)
        if deadline is not None:
            self.plan(rate=0).warn_if_late()
        return number

    def plan(self, rate: float | None = None) -> Plan:
        """When to carry out which recorded requests: all deadlines are met, and clusters learned again seldom.

        Args:
            rate: Requests to forget that come in a day, for the curve; by default as many as have come since the fit.
        """
        self._check_writable()
        return planned(self._ledger, self._requests, self.eraser, rate)
