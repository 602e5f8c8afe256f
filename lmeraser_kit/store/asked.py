"""What a store has been asked for: recorded requests, and the files in `staged/` that say what they are about.

A request is about samples, by their uids: what an owner has is looked up when the request is recorded. So everything of
theirs that was held then is forgotten, also what a request before had asked to add; and what comes later stays.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.commitments import commitment_of, fresh_nonce
from lmeraser_kit.ground.html import some_of
from lmeraser_kit.ground.names import named, owned_by, request
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.store.files import DamagedError, pack_samples, read_file, unpack_samples, write_file
from lmeraser_kit.store.ledger import Ledger
from lmeraser_kit.store.recorded import Recorded
from lmeraser_kit.store.times import Deadline, arrival_of, deadline_of, moment_of, text_of
from lmeraser_kit.store.tombstones import Tombstones
from lmeraser_kit.unlearning.arguments import rectified
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.state import State


@dataclass
class Asked:
    """What requests ask for when they are taken together.

    Attributes:
        joining: Who joins.
        leaving: Uids of who leaves, of those that are held.
        n_rectified: How many of them are the same samples, before and after they were rectified.
        salts: Salts of the samples named in requests to forget, by uid.
        owner_salts: Salts of the owners named, in order.
        commitments: A commitment to each of both.
        replaced: Whom a request to rectify names.
    """

    joining: Samples
    leaving: list[str] = field(default_factory=list)
    n_rectified: int = 0
    salts: dict[str, str] = field(default_factory=dict)
    owner_salts: list[str] = field(default_factory=list)
    commitments: list[str] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)

    def only_held(self, held: Collection[str]) -> None:
        """Leave out who leaves and is not held: a request that was to add them has failed."""
        self.leaving = [uid for uid in self.leaving if uid in held]
        self.n_rectified = len(self.replaced & set(self.leaving) & set(self.joining.uids.tolist()))


class Requests:
    """The requests to a store that have not been carried out, and who is held when they are.

    Args:
        folder: The store's folder.
        ledger: Where requests are recorded.
        empty: No samples, of the images' shape and number of classes.
        state: What is held now; None before the fit.
        tombstones: Of who was forgotten; None for a store without.

    Attributes:
        held: Owners of who is held when all requests have been carried out, by uid.
        uids: Whom each request names, by its number.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, empty: Samples, state: State | None, tombstones: Tombstones | None = None
    ):
        self.folder, self.ledger, self.tombstones = folder, ledger, tombstones
        pending = ledger.pending()
        asked, self.uids = combined(folder, empty, pending), {one.id: named_in(folder, one) for one in pending}
        leaving = set(asked.leaving)
        held = state.owners_by_uid() if state is not None else {}
        self.held = {uid: owner for uid, owner in held.items() if uid not in leaving} | _owners(asked.joining)

    def forget(
        self,
        eraser: BaseEraser,
        uids: Iterable[str] | None,
        owner: str | Iterable[str] | None,
        deadline: Deadline | None,
        arrived: datetime | None,
    ) -> dict:
        """Record a request to forget; see `Store.request_forget`."""
        owners = request(uids, owner)
        self._check_not_waiting([] if owner is not None else checks.names("uids", getattr(uids, "uids", uids)))
        uids = named(uids, self.held) if owner is None else owned_by(owners, self.held)
        if not uids:
            raise ValueError("no uid is named: who is to be forgotten?")
        times = self._times(deadline, arrived)
        self._check_readable(eraser.state_, uids)
        salts = {name: fresh_nonce() for name in owners or uids}
        staged = stage_forget(self.folder, "owner" if owners else "uid", uids, salts)
        number = self.ledger.record("forget", len(uids), staged, **times)
        self._bury(eraser.state_, uids)
        self.uids[number] = set(uids)
        for uid in uids:
            del self.held[uid]
        return salts

    def add(self, eraser: BaseEraser, samples: Samples, again: bool = False) -> int:
        """Record a request to add samples; see `Store.request_add`."""
        return self._record("add", eraser.check_joining(samples, self.held), checks.flag("again", again))

    def rectify(self, eraser: BaseEraser, samples: Samples, deadline: Deadline | None, arrived: datetime | None) -> int:
        """Record a request to rectify samples; see `Store.request_rectify`."""
        times = self._times(deadline, arrived)
        right = eraser.check_joining(rectified(samples, self.held), {})
        self._check_readable(eraser.state_, right.uids.tolist())
        return self._record("rectify", right, **times)

    def with_earlier(self, numbers: Iterable[int]) -> set[int]:
        """Requests by number, and those before them that name the same samples: these have to go first."""
        chosen, names = set(numbers), set[str]()
        for number in sorted(self.uids, reverse=True):
            if number in chosen or self.uids[number] & names:
                chosen.add(number)
                names |= self.uids[number]
        return chosen

    def done(self, numbers: Iterable[int], kept: Mapping[int, Samples]) -> None:
        """Take requests off that have been carried out; who is held in the end stays the same.

        Args:
            numbers: Of these requests.
            kept: What is left of others that wait, by number.
        """
        for number in numbers:
            self.uids.pop(number, None)
        self.uids |= {number: set(part.uids.tolist()) for number, part in kept.items()}

    def catch_up(self, state: State | None) -> None:
        """Write the tombstones of recorded requests that a crash has kept from being written."""
        for one in self.ledger.pending() if self.tombstones is not None and state is not None else ():
            if one.action == "forget":
                self._bury(state, list(self.uids[one.id]))
            elif one.again:
                self.tombstones.lift(staged_samples(self.folder, one))

    def _times(self, deadline: Deadline | None, arrived: datetime | None) -> dict[str, str | None]:
        """Arrival and deadline of a request, as text; a deadline needs a clock that is right.

        Raises:
            ValueError: If one is none.
            StoreError: If the clock was set back, and there is a deadline.
        """
        if deadline is None:  # it goes at once, whatever the clock says
            if back := self.ledger.set_back():
                warnings.warn(f"{back}, which the request has got, too: set the clock right", stacklevel=4)
            came = arrival_of(arrived, moment_of(self.ledger.finished()))
            return {"arrived": text_of(came), "deadline": None}
        now = self.ledger.now()
        came = arrival_of(arrived, now)
        return {"arrived": text_of(came), "deadline": text_of(deadline_of(deadline, came, now))}

    def _record(self, action: str, samples: Samples, again: bool = False, **times: str | None) -> int:
        if not len(samples):
            raise ValueError(f"there is no sample to {action}")
        back = [] if self.tombstones is None else self.tombstones.forgotten(samples, names=action == "add")
        if back and not again:
            advice = "store.add(samples, again=True) adds them all the same, and that is recorded"
            advice = advice if action == "add" else "forget the sample, and add it again so"
            who = some_of(map(repr, back), len(back))
            raise ValueError(f"{len(back)} of the samples were forgotten here, by name or by image: {who}; {advice}")
        staged = stage_samples(self.folder, samples)
        number = self.ledger.record(action, len(samples), staged, again=bool(back), **times)
        if back:
            self.tombstones.lift(samples)
        self.uids[number] = set(samples.uids.tolist())
        self.held |= _owners(samples)
        return number

    def _bury(self, state: State, uids: list[str]) -> None:
        """Make the tombstones of samples that are to leave, of each image that they have or were to have."""
        if self.tombstones is None:
            return
        leaving, images = set(uids), list[np.ndarray]()
        parts = [state.members[k] for k in sorted(set(state.find(uids).values()))]
        joining = [
            one for one in self.ledger.pending() if one.action != "forget" and self.uids.get(one.id, set()) & leaving
        ]
        parts += [staged_samples(self.folder, one) for one in joining]
        for part in parts:
            rows = np.flatnonzero([uid in leaving for uid in part.uids.tolist()])
            try:
                images += list(part.images[rows])
            except DamagedError as error:
                warnings.warn(f"{error}; their tombstones are of uids alone", stacklevel=4)
        self.tombstones.bury(uids, images)

    def _check_not_waiting(self, uids: list[str]) -> None:
        """Raises ValueError for a sample that waits to be forgotten already: that says how it goes at once."""
        for one in self.ledger.pending():
            twice = [uid for uid in uids if uid in self.uids.get(one.id, ()) and uid not in self.held]
            if one.action == "forget" and twice:
                until = f" until {one.deadline}" if one.deadline else ""
                raise ValueError(
                    f"uid {twice[0]!r} waits to be forgotten already{until}, by request {one.id}: "
                    f"store.hasten({one.id}) forgets it now"
                )

    def _check_readable(self, state: State, uids: list[str]) -> None:
        """Raises DamagedError if images cannot be read of who shares a cluster with samples that are to leave.

        A cluster of which nobody stays need not be read.
        """
        for k in set(state.find(uids).values()):
            part = state.members[k]
            if (set(part.uids.tolist()) - set(uids)) & self.held.keys():
                np.asarray(part.images)


def stage_forget(folder: Path, kind: str, uids: list[str], salts: dict[str, str]) -> str:
    """Write who is to be forgotten, and the salts of the names (`kind`: uid or owner) that the request gives."""
    content = {"uids": uids, "kind": kind, "salts": salts}
    return write_file(folder / "staged", "forget", json.dumps(content).encode(), ".json")


def stage_samples(folder: Path, samples: Samples) -> str:
    """Write samples that are to be added; the nonce keeps the file's name from telling what is in it."""
    nonce = np.frombuffer(fresh_nonce().encode(), dtype=np.uint8)
    return write_file(folder / "staged", "add", pack_samples(samples, images=np.asarray(samples.images), nonce=nonce))


def staged_samples(folder: Path, one: Recorded) -> Samples:
    """The samples of a recorded request to add or to rectify."""
    return unpack_samples(read_file(folder / "staged" / one.staged))[0]


def combined(folder: Path, empty: Samples, pending: Iterable[Recorded]) -> Asked:
    """What requests ask for when they are taken together, in their order.

    Args:
        folder: The store's.
        empty: No samples, of the images' shape and number of classes.
        pending: The requests, in order.
    """
    asked, parts, joined = Asked(empty), list[Samples](), dict[str, int]()
    for one in pending:
        action, staged = one.action, one.staged
        if action == "forget":
            content = json.loads(read_file(folder / "staged" / staged))
            salts, by_uid = content["salts"], content["kind"] == "uid"
            asked.salts |= salts if by_uid else {}
            asked.owner_salts += [] if by_uid else salts.values()
            asked.commitments += [commitment_of(content["kind"], *one) for one in salts.items()]
            asked.leaving += [uid for uid in content["uids"] if joined.pop(uid, None) is None]
        elif action in ("fit", "add", "rectify"):
            part = staged_samples(folder, one)
            uids = part.uids.tolist()
            if action == "rectify":
                asked.leaving += [uid for uid in uids if joined.pop(uid, None) is None]
                asked.replaced.update(uids)
            joined |= dict.fromkeys(uids, len(parts))
            parts.append(part)
    stay = [part[[joined.get(uid) == i for uid in part.uids.tolist()]] for i, part in enumerate(parts)]
    asked.joining = concatenate([empty, *stay])
    asked.leaving = list(dict.fromkeys(asked.leaving))  # a restored store may be asked twice to forget the same sample
    asked.n_rectified = len(asked.replaced & set(asked.leaving) & joined.keys())
    return asked


def named_in(folder: Path, one: Recorded) -> set[str]:
    """The uids that a recorded request names."""
    if one.action == "forget":
        return set(json.loads(read_file(folder / "staged" / one.staged))["uids"])
    if one.action == "repair":
        return set()
    return set(staged_samples(folder, one).uids.tolist())


def _owners(samples: Samples) -> dict[str, str]:
    return dict(zip(samples.uids.tolist(), samples.owners.tolist(), strict=True))
