"""Deletion certificates: what a request has done, so that it can be checked later, and nothing that tells who left.

A certificate commits to the clusters before and after by Merkle roots (Merkle 1987). A leaf is a hash of a cluster's
files and of a random nonce; the nonce goes when the cluster is replaced, so that nobody, not even who holds all other
samples, can test guesses of a deleted one against an old root. A forgotten uid or owner is committed to with a random
salt that only the certificate's receiver gets. Each certificate holds the hash of the one before, so that none can be
taken out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from lmeraser_kit.ground.commitments import commitment_of
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.html import some_of
from lmeraser_kit.unlearning.state import Work


@dataclass(frozen=True)
class Certificate(Work):
    """What one transaction of a store has done.

    Attributes:
        id: Its number, from 1.
        requests: Numbers of the requests that it has carried out.
        arrivals: When each of these arrived: UTC, as text.
        deadlines: By when each had to be carried out; None for at once.
        finished: When it was.
        n_forgotten: How many samples that were held have left.
        n_added: How many samples have joined; who came and went in one transaction counts in neither.
        n_rectified: How many samples are held before and after it, and were rectified.
        n_samples: How many samples are held after it.
        commitments: For each sample or owner that was named in a request to forget, a hash of the name and of a random
            salt (`ground.commitments`); in no order.
        clusters_removed: The clusters that have no sample left.
        seconds: The time that it took.
        root_before: Merkle root over the clusters before.
        root_after: Merkle root over the clusters after.
        previous: Hash of the certificate before; empty for the first.
        summed: Whether samples are held as rows of exact sums: then the clusters above are buckets whose rows were
            written, and nobody is learnt again.
        salts: The salts of the commitments to samples, by uid. They go to who asked, and are not in the ledger.
        owner_salts: Those of the commitments to owners, in the order of the requests; likewise.
    """

    id: int
    requests: list[int]
    arrivals: list[str]
    deadlines: list[str | None]
    finished: str
    n_forgotten: int
    n_added: int
    n_rectified: int
    n_samples: int
    commitments: list[str]
    clusters_removed: list[int]
    seconds: float
    root_before: str
    root_after: str
    previous: str
    summed: bool = False
    salts: dict[str, str] = field(default_factory=dict, repr=False)
    owner_salts: list[str] = field(default_factory=list, repr=False)

    def record(self) -> str:
        """What the ledger keeps: everything but the salts, as JSON."""
        content = asdict(self)
        del content["salts"], content["owner_salts"]
        content["clusters_tuned"] = {str(k): n for k, n in self.clusters_tuned.items()}  # sorted as who reads JSON does
        return json.dumps(content, sort_keys=True)

    @classmethod
    def read(cls, record: str) -> Certificate:
        """The certificate that a ledger keeps."""
        content = json.loads(record)
        content["clusters_tuned"] = dict(sorted((int(k), n) for k, n in content["clusters_tuned"].items()))
        return cls(**content)

    @property
    def missed(self) -> list[int]:
        """Numbers of the requests that it has carried out after their deadlines."""
        pairs = zip(self.requests, self.deadlines, strict=True)
        return [number for number, deadline in pairs if deadline is not None and deadline < self.finished]

    @property
    def hash(self) -> str:
        """A hash of the record, in hex."""
        return digest("certificate", self.record())

    def __str__(self) -> str:
        written = some_of(map(str, self.clusters_tuned), len(self.clusters_tuned)) or "none"
        what = "sums changed, rows written in buckets" if self.summed else "clusters learnt again"
        held = f"{self.n_forgotten} forgotten, {self.n_added} added, {self.n_samples} samples held"
        took = f"{self.sample_gradients} sample gradients, {self.seconds:.2f} s, exact: {self.exact}"
        late = f"; after the deadline: request {', '.join(map(str, self.missed))}" if self.missed else ""
        return f"certificate {self.id}: {held}; {what}: {written}; {took}{late}\nroot {self.root_after}"

    def concerns(self, name: str, salt: str) -> bool:
        """Whether a sample, by its uid, or an owner was forgotten in this transaction, for who knows the salt."""
        return any(commitment_of(kind, name, salt) in self.commitments for kind in ("uid", "owner"))


@dataclass(frozen=True)
class Verification:
    """What `Store.verify` has checked.

    Attributes:
        state_hash: `LMEraser.state_hash()` of a fit on the samples in the store.
        root: Merkle root over its clusters, which the last certificate has, too.
        clusters: The clusters that were tuned again from the files.
        n_samples: How many samples are held.
        summed: As of a certificate: then these clusters are buckets, whose rows were computed again.
    """

    state_hash: str
    root: str
    clusters: list[int]
    n_samples: int
    summed: bool = False

    proves = (
        "Every file is the one that was written, and no other is in the store. What was computed again is, bit for "
        "bit, what a fit on the samples in the store gives; all samples are routed as they should be; and the last "
        "certificate commits to just what is there."
    )
    does_not_prove = (
        "That nobody kept a copy elsewhere (Thudi et al. 2022: a procedure can be proven, an operator's honesty "
        "cannot). And whoever has seen the model before and after a deletion has learnt something about who left."
    )

    def __str__(self) -> str:
        what = "sums, and rows in buckets, computed again" if self.summed else "clusters learnt again"
        tuned = f"{what}: {some_of(map(str, self.clusters), len(self.clusters))}; {self.n_samples} samples held"
        hashes = f"state {self.state_hash}\nroot  {self.root}"
        return f"{tuned}\n{hashes}\n\nIt proves: {self.proves}\n\nIt does not prove: {self.does_not_prove}"


def merkle_root(leaves: list[str]) -> str:
    """Root of the binary tree over the leaves, in order (Merkle 1987); an odd one out goes up as it is."""
    level = list(leaves) or [digest("no leaf")]
    while len(level) > 1:
        pairs = [digest("node", *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]
