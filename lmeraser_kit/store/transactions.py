"""Carrying requests out: each transaction is all of what it was asked for, or nothing.

Who leaves does not wait for who joins: if requests fail together, those to forget are carried out without the others,
and then each of the others by itself. One that fails is kept, less the samples that a later request forgets.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.store.asked import combined, stage_samples, staged_samples
from lmeraser_kit.store.certificate import Certificate
from lmeraser_kit.store.files import StoreError
from lmeraser_kit.store.ledger import Ledger
from lmeraser_kit.store.reading import ReadableStore
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.store.times import moment_of
from lmeraser_kit.store.waiting import planned
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.verification import environment_changes


class TransactingStore(ReadableStore):
    """A store that carries out recorded requests. Arguments and errors are those of `ReadableStore`.

    Attributes:
        failed: What went wrong with requests that are kept, by number; `run()` tries them again.
    """

    def __init__(self, folder: Path, ledger: Ledger, device: str, eraser: BaseEraser | None = None, **options):
        super().__init__(folder, ledger, device, eraser, **options)
        self.failed: dict[int, Exception] = {}

    def run(self, within: float | None = None) -> Certificate | None:
        """Carry out recorded requests at once: a cluster that several of them hit is tuned once.

        A request to add or to rectify that fails holds up no request to forget: it is kept, and a warning says why. To
        take it back, forget its samples.

        Args:
            within: Only those that `plan` would start within so many days, and what has to go before them; none that
                has failed since the store was opened. For a run each night: 1. All by default.

        Returns:
            The last certificate; None if nothing was to be done.

        Raises:
            Exception: What has made a request fail, if it is one to forget or nothing was carried out.
        """
        certificate, failed = self._run(within)
        if failed and certificate is None:
            raise next(iter(failed.values()))
        self._warn(failed)
        return certificate

    def hasten(self, request: int) -> Certificate | None:
        """Carry out a request that waits, now, and those before it that name the same samples.

        Args:
            request: Its number (`requests()` lists them).

        Returns:
            The certificate.

        Raises:
            ValueError: If no such request waits.
        """
        self._check_writable()
        pending = {one.id: one for one in self._ledger.pending()}
        if (number := checks.whole("request", request)) not in pending:
            raise ValueError(f"request is {number}, and those that wait are {', '.join(map(str, pending)) or 'none'}")
        earlier = set() if self._requests is None else self._requests.with_earlier([number])
        self._ledger.begin(pending[i] for i in {number} | earlier)
        return self.run(within=0)

    def _run(self, within: float | None = None) -> tuple[Certificate | None, dict[int, Exception]]:
        """As `run`; gives back what has failed."""
        self._check_writable()
        if within is None:
            self.failed.clear()
        pending = [one for one in self._ledger.pending() if one.id not in self.failed]
        if (
            within is not None
            and checks.number("within", within) >= 0
            and any(one.deadline for one in pending)
            and not self._ledger.set_back()  # was it right then, or is it now? Nothing waits by such a clock
        ):
            now = moment_of(self._ledger.finished())
            due = planned(self._ledger, self._requests, self.eraser, 0, now).due(within)
            pending = [one for one in pending if one.id in due]
        if not pending:
            return None, {}
        certificate, failed = self._carried_out(pending)
        self.failed |= failed
        return certificate, failed

    def _carried_out(self, pending: list[Recorded]) -> tuple[Certificate | None, dict[int, Exception]]:
        """Carry requests out together; or those to forget, and then each of the others, so far as it can be."""
        joining = [one for one in pending if one.action in ("add", "rectify")]
        try:
            return self._transaction(pending), {}
        except Exception as error:
            if not joining:
                raise
            if len(pending) == 1:
                return None, {joining[0].id: error}
        leaving = [one for one in pending if one not in joining]
        certificate = self._transaction(leaving) if leaving else None
        failed: dict[int, Exception] = {}
        for one in joining:
            before = [i for i in self._requests.with_earlier([one.id]) if i in failed]
            if before:
                failed[one.id] = StoreError(f"request {before[0]}, of the same samples, has failed before")
            elif any(left.id == one.id for left in self._ledger.pending()):  # nobody of it may be left to join
                try:
                    certificate = self._transaction([one])
                except Exception as error:
                    failed[one.id] = error
        return certificate, failed

    def _transaction(self, pending: list[Recorded]) -> Certificate:
        """Carry requests out: all of what they ask for, or nothing."""
        started = time.perf_counter()
        kept, nothing_left = self._kept_without(pending)
        pending = sorted([*pending, *nothing_left], key=lambda one: one.id)
        self._ledger.begin(pending)
        if self._tombstones is not None and self._requests is not None:
            waited = [one.id for one in pending if one.action == "forget" and one.deadline]
            self._tombstones.bury_gone({uid for number in waited for uid in self._requests.uids[number]})
        asked = combined(self.folder, self._files.empty, pending)
        before = getattr(self.eraser, "state_", None)
        asked.only_held({} if before is None else before.find(asked.leaving))
        successor = self.eraser.successor(asked.leaving, asked.joining, self._files.cache)
        staged = {number: (stage_samples(self.folder, part), len(part)) for number, part in kept.items()}
        state, version = self._files.write(before, successor)
        finished = self._ledger.finished()
        certificate = self._files.certify(self._ledger.last, pending, finished, asked, successor, version, started)
        self._ledger.commit(certificate, version["name"], staged)
        self._take(state, version)
        if self._requests is not None:
            self._requests.done((one.id for one in pending), kept)
        self._files.clean(self._staged())
        self._ledger.seal()
        return certificate

    def _kept_without(self, chosen: list[Recorded]) -> tuple[dict[int, Samples], list[Recorded]]:
        """Of requests that wait, and name samples that one of these forgets: what stays, and which are empty."""
        kept, nothing_left, numbers = dict[int, Samples](), list[Recorded](), {one.id for one in chosen}
        for one in [] if self._requests is None else self._ledger.pending():
            later = [
                self._requests.uids[other.id] for other in chosen if other.action == "forget" and other.id > one.id
            ]
            gone = self._requests.uids[one.id] & set().union(*later)
            if one.id not in numbers and one.action != "forget" and gone:
                part = staged_samples(self.folder, one)
                part = part[[uid not in gone for uid in part.uids.tolist()]]
                if len(part):
                    kept[one.id] = part
                else:
                    nothing_left.append(one)
        return kept, nothing_left

    def _warn_of_changes(self) -> None:
        """Say before it costs time that bits from elsewhere are not gone on with: another chip, version or code."""
        if changed := environment_changes(self.eraser.environment_, self.eraser.rebuild().environment):
            warnings.warn(
                f"this store was computed in another environment ({changed}): predictions go on, verify() has nothing "
                f"to compare with, and the next request learns all {len(self.eraser.state_)} samples again, once",
                stacklevel=4,
            )

    def _warn(self, failed: dict[int, Exception]) -> None:
        for number, error in failed.items():
            warnings.warn(
                f"request {number} has failed ({type(error).__name__}: {error}), and is kept: store.run() tries it "
                "again, and forgetting its samples takes it back",
                stacklevel=4,
            )

    def _check_writable(self) -> None:
        if self.readonly or self._ledger.closed:
            state = "was opened for reading" if self.readonly else "has been closed"
            raise StoreError(f"this store {state}: Store.open(folder) opens it for requests")
