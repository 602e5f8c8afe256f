"""What recorded requests ask for: files that lie in `staged/` until the requests have been carried out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmeraser_kit.ground.commitments import commitment_of, fresh_nonce
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.store.files import pack_samples, read_file, unpack_samples, write_file


@dataclass
class Asked:
    """What requests ask for when they are taken together.

    Attributes:
        joining: Who joins.
        leaving: Uids of who leaves, of those that are held.
        salts: Salts of the samples named in requests to forget, by uid.
        commitments: A commitment to each of them.
    """

    joining: Samples
    leaving: list[str] = field(default_factory=list)
    salts: dict[str, str] = field(default_factory=dict)
    commitments: list[str] = field(default_factory=list)


def stage_samples(folder: Path, samples: Samples) -> str:
    """Write samples that are to be added; the nonce keeps the file's name from telling what is in it."""
    nonce = np.frombuffer(fresh_nonce().encode(), dtype=np.uint8)
    return write_file(folder / "staged", "add", pack_samples(samples, images=np.asarray(samples.images), nonce=nonce))


def stage_forget(folder: Path, uids: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Write who is to be forgotten; returns the file's name, and the salts by uid."""
    salts = {uid: fresh_nonce() for uid in uids}
    return write_file(folder / "staged", "forget", json.dumps(salts).encode(), ".json"), salts


def combined(folder: Path, empty: Samples, pending: Iterable[tuple[int, str, str]]) -> Asked:
    """What requests ask for when they are taken together, in their order.

    Args:
        folder: The store's.
        empty: No samples, of the images' shape and number of classes.
        pending: (number, action, staged file) of each request, in order.
    """
    asked, parts, joined = Asked(empty), list[Samples](), dict[str, int]()
    for _, action, staged in pending:
        if action == "forget":
            salts = json.loads(read_file(folder / "staged" / staged))
            asked.salts |= salts
            asked.commitments += [commitment_of("uid", uid, salt) for uid, salt in salts.items()]
            asked.leaving += [uid for uid in salts if joined.pop(uid, None) is None]
        elif action in ("fit", "add"):
            part, _ = unpack_samples(read_file(folder / "staged" / staged))
            joined |= dict.fromkeys(part.uids.tolist(), len(parts))
            parts.append(part)
    stay = [part[[joined.get(uid) == i for uid in part.uids.tolist()]] for i, part in enumerate(parts)]
    asked.joining = concatenate([empty, *stay])
    return asked
