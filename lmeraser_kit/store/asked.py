"""What a store has been asked for: recorded requests, and the files in `staged/` that say what they are about.

A request is about samples, by their uids: what an owner has is looked up when the request is recorded. So everything of
theirs that was held then is forgotten, also what a request before had asked to add; and what comes later stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmeraser_kit.ground.commitments import commitment_of, fresh_nonce
from lmeraser_kit.ground.names import named, owned_by, request
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.store.files import pack_samples, read_file, unpack_samples, write_file
from lmeraser_kit.store.ledger import Ledger
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
    """

    joining: Samples
    leaving: list[str] = field(default_factory=list)
    n_rectified: int = 0
    salts: dict[str, str] = field(default_factory=dict)
    owner_salts: list[str] = field(default_factory=list)
    commitments: list[str] = field(default_factory=list)


class Requests:
    """The requests to a store that have not been carried out, and who is held when they are.

    Args:
        folder: The store's folder.
        ledger: Where requests are recorded.
        empty: No samples, of the images' shape and number of classes.
        state: What is held now; None before the fit.
    """

    def __init__(self, folder: Path, ledger: Ledger, empty: Samples, state: State | None):
        self.folder, self.ledger = folder, ledger
        asked = combined(folder, empty, ledger.pending())
        leaving = set(asked.leaving)
        held = state.owners_by_uid() if state is not None else {}
        self.held = {uid: owner for uid, owner in held.items() if uid not in leaving} | _owners(asked.joining)

    def forget(self, eraser: BaseEraser, uids: Iterable[str] | None, owner: str | Iterable[str] | None) -> dict:
        """Record a request to forget; see `Store.request_forget`."""
        owners = request(uids, owner)
        uids = named(uids, self.held) if owner is None else owned_by(owners, self.held)
        if not uids:
            raise ValueError("no uid is named: who is to be forgotten?")
        self._check_readable(eraser.state_, uids)
        salts = {name: fresh_nonce() for name in owners or uids}
        content = {"uids": uids, "kind": "owner" if owners else "uid", "salts": salts}
        staged = write_file(self.folder / "staged", "forget", json.dumps(content).encode(), ".json")
        self.ledger.record("forget", len(uids), staged)
        for uid in uids:
            del self.held[uid]
        return salts

    def add(self, eraser: BaseEraser, samples: Samples) -> int:
        """Record a request to add samples; see `Store.request_add`."""
        return self._record("add", eraser.check_joining(samples, self.held))

    def rectify(self, eraser: BaseEraser, samples: Samples) -> int:
        """Record a request to rectify samples; see `Store.request_rectify`."""
        right = eraser.check_joining(rectified(samples, self.held), {})
        self._check_readable(eraser.state_, right.uids.tolist())
        return self._record("rectify", right)

    def _record(self, action: str, samples: Samples) -> int:
        if not len(samples):
            raise ValueError(f"there is no sample to {action}")
        number = self.ledger.record(action, len(samples), stage_samples(self.folder, samples))
        self.held |= _owners(samples)
        return number

    def _check_readable(self, state: State, uids: list[str]) -> None:
        """Raises DamagedError if images cannot be read of who shares a cluster with samples that are to leave.

        A cluster of which nobody stays need not be read.
        """
        for k in set(state.find(uids).values()):
            part = state.members[k]
            if (set(part.uids.tolist()) - set(uids)) & self.held.keys():
                np.asarray(part.images)


def stage_samples(folder: Path, samples: Samples) -> str:
    """Write samples that are to be added; the nonce keeps the file's name from telling what is in it."""
    nonce = np.frombuffer(fresh_nonce().encode(), dtype=np.uint8)
    return write_file(folder / "staged", "add", pack_samples(samples, images=np.asarray(samples.images), nonce=nonce))


def combined(folder: Path, empty: Samples, pending: Iterable[tuple[int, str, str]]) -> Asked:
    """What requests ask for when they are taken together, in their order.

    Args:
        folder: The store's.
        empty: No samples, of the images' shape and number of classes.
        pending: (number, action, staged file) of each request, in order.
    """
    asked, parts, joined, replaced = Asked(empty), list[Samples](), dict[str, int](), set[str]()
    for _, action, staged in pending:
        if action == "forget":
            content = json.loads(read_file(folder / "staged" / staged))
            salts, by_uid = content["salts"], content["kind"] == "uid"
            asked.salts |= salts if by_uid else {}
            asked.owner_salts += [] if by_uid else salts.values()
            asked.commitments += [commitment_of(content["kind"], *one) for one in salts.items()]
            asked.leaving += [uid for uid in content["uids"] if joined.pop(uid, None) is None]
        elif action in ("fit", "add", "rectify"):
            part, _ = unpack_samples(read_file(folder / "staged" / staged))
            uids = part.uids.tolist()
            if action == "rectify":
                asked.leaving += [uid for uid in uids if joined.pop(uid, None) is None]
                replaced.update(uids)
            joined |= dict.fromkeys(uids, len(parts))
            parts.append(part)
    stay = [part[[joined.get(uid) == i for uid in part.uids.tolist()]] for i, part in enumerate(parts)]
    asked.joining = concatenate([empty, *stay])
    asked.n_rectified = len(replaced & set(asked.leaving) & joined.keys())
    return asked


def _owners(samples: Samples) -> dict[str, str]:
    return dict(zip(samples.uids.tolist(), samples.owners.tolist(), strict=True))
