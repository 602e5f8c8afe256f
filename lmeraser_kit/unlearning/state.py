"""What a fitted model keeps, and what a request leaves: plain data, hashed piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.html import card, some_of
from lmeraser_kit.ground.names import named, owned_by
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.protocol import ClusterModel, described_array
from lmeraser_kit.partitions.protocol import Partition

CACHED = ("sums_digest", "routing_pieces", "described")
NO_SAMPLES = "no cluster has a model: no private sample is held (any more); add some first"


@dataclass(frozen=True, eq=False)
class State:
    """Everything that a fitted model keeps of private data, cluster by cluster.

    Attributes:
        routing: The fitted partition; None before there is anything to fit it on.
        members: The samples of each cluster that has any, by its number; in the order of their uids.
        features: What it takes to route them again: their features, float32 (n_k, D), if the routing is fitted on them
            again and again; their bits, int64 (n_k,), if clusters have a bound (see `partitions.trie`); else empty.
        models: The tuned clusters, by number.
        empty: No samples, of the images' shape and number of classes.
        sums: Exact sums over all samples, int64, if the learner makes them.
        derived: What follows from the models, computed when it is asked for. It goes when this state does.
    """

    routing: Partition | None
    members: dict[int, Samples]
    features: dict[int, np.ndarray]
    models: dict[int, ClusterModel]
    empty: Samples
    sums: np.ndarray | None = None
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in CACHED} | {"derived": {}}

    def __len__(self) -> int:
        return sum(map(len, self.members.values()))

    @property
    def partition(self) -> Partition:
        """The fitted partition. Raises ValueError if nobody is held."""
        if self.routing is None or not self.models:
            raise ValueError(NO_SAMPLES)
        return self.routing

    @property
    def samples(self) -> Samples:
        """The samples held, in the order of their uids; put together from the clusters each time."""
        return concatenate([self.empty, *self.members.values()]).sorted()

    @property
    def assignment(self) -> np.ndarray:
        """The cluster of each of `samples`, (N,) int."""
        clusters = np.repeat([*self.members, 0], [*map(len, self.members.values()), 0])
        uids = np.concatenate([self.empty.uids, *(part.uids for part in self.members.values())])
        return clusters[np.argsort(uids, kind="stable")]

    def cluster_by_uid(self) -> dict[str, int]:
        """The cluster of every sample, by uid."""
        return {uid: k for k, part in self.members.items() for uid in part.uids.tolist()}

    def owners_by_uid(self) -> dict[str, str]:
        """The owner of every sample, by uid."""
        return self.owners_of(self.cluster_by_uid())

    def clusters_of(self, uids: Iterable[str]) -> dict[str, int]:
        """The cluster of each sample named, by uid.

        Raises:
            ValueError: If a uid is not held, or is named twice.
        """
        uids = checks.names("uids", uids.uids if isinstance(uids, Samples) else uids)
        found = self.find(uids)
        if len(found) < len(uids):
            named(uids, self.cluster_by_uid())  # says which
        return found

    @property
    def owned(self) -> bool:
        """Whether an image held has another owner than itself."""
        return any(part.owned for part in self.members.values())

    def uids_of(self, owner: str | Iterable[str]) -> list[str]:
        """The uids of all samples held of one owner or several. Raises ValueError as `owned_by`."""
        names, theirs = checks.names("owner", owner, "owner"), dict[str, str]()
        for part in self.members.values():
            mine = np.isin(part.owners, names)
            theirs |= dict(zip(part.uids[mine].tolist(), part.owners[mine].tolist(), strict=True))
        return owned_by(names, theirs)

    def owners_of(self, clusters: Mapping[str, int]) -> dict[str, str]:
        """The owner of each sample, by uid: `clusters` is of `clusters_of`."""
        found, wanted = dict[str, str](), list(clusters)
        for k in set(clusters.values()):
            part = self.members[k]
            mine = np.isin(part.uids, wanted)
            found |= dict(zip(part.uids[mine].tolist(), part.owners[mine].tolist(), strict=True))
        return found

    def find(self, uids: list[str]) -> dict[str, int]:
        """The clusters of those of some uids that are held; of a few without looking at everybody."""
        if not uids:
            return {}
        if len(uids) * len(self.members) > len(self):
            held = self.cluster_by_uid()
            return {uid: held[uid] for uid in uids if uid in held}
        wanted = np.array(uids, dtype=str)
        return {uids[i]: k for k, part in self.members.items() for i in _found(part.uids, wanted).tolist()}

    def without(self, leaving: Mapping[str, int]) -> tuple[dict[int, Samples], dict[int, np.ndarray]]:
        """The members (and their features) that remain when some have left: `leaving` is of `clusters_of`."""
        members, features = dict(self.members), dict(self.features)
        for k in set(leaving.values()):
            stay = ~np.isin(members[k].uids, list(leaving))
            if not stay.any():
                members.pop(k), features.pop(k, None)
                continue
            members[k] = members[k][stay]
            if k in features:
                features[k] = features[k][stay]
        return members, features

    def images_beyond(self, other: State) -> np.ndarray:
        """The images of samples that are held here and not in another state, uint8 (N, C, H, W)."""
        parts = [part for k, part in self.members.items() if other.members.get(k) is not part]
        others = [part for k, part in other.members.items() if self.members.get(k) is not part]
        kept = {one.tobytes() for part in others for one in part.digests}  # who is elsewhere, and was not rectified
        gone = [part[[one.tobytes() not in kept for one in part.digests]].images for part in parts]
        return np.concatenate([self.empty.images, *gone])

    def digests(self) -> dict[int, str]:
        """A hash of every cluster's model, by its number."""
        return {k: model.digest for k, model in self.models.items()}

    @cached_property
    def sums_digest(self) -> str:
        """A hash of the sums, in hex; they cannot be written to."""
        return self.hashed_sums()

    def hashed_sums(self) -> str:
        """A hash of the sums, computed again."""
        return "" if self.sums is None else digest("sums", *described_array(self.sums))

    @cached_property
    def routing_pieces(self) -> dict[str, str]:
        """A hash of every piece of the partition, by name; a state with the same one takes them from the one before."""
        return _pieces_of(self.routing)

    @cached_property
    def described(self) -> str:
        """The pieces as JSON, made once: a request hashes what it has changed."""
        return json.dumps(self.pieces(), sort_keys=True)

    def pieces(self, again: bool = False) -> dict[str, str]:
        """A hash of every piece of the state, by name; what was hashed before, `again` only to find damaged memory."""
        parts = dict(_pieces_of(self.routing) if again else self.routing_pieces)
        parts |= {f"members {k}": self.members[k].digest for k in sorted(self.members)}
        parts |= {f"features {k}": digest(self.features[k].tobytes()) for k in sorted(self.features)}
        parts |= {} if self.sums is None else {"sums": self.hashed_sums() if again else self.sums_digest}
        models = sorted(self.models.items())
        return parts | {f"cluster {k}": model.hashed() if again else model.digest for k, model in models}


def _found(held: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the uids wanted are among those held, which are in order: their numbers, by bisection."""
    at = np.searchsorted(held, wanted.astype(held.dtype))  # a longer one is cut, and is not equal below
    return np.flatnonzero(held[np.minimum(at, len(held) - 1)] == wanted)


def _pieces_of(routing: Partition | None) -> dict[str, str]:
    return {"routing": ""} if routing is None else routing.pieces()


class ExactnessError(AssertionError):
    """The model is not, bit for bit, what a fit on the samples that remain gives.

    Attributes:
        pieces: The pieces of the state that differ.
    """

    def __init__(self, message: str, pieces: list[str]):
        self.pieces = pieces
        super().__init__(message)


@dataclass(frozen=True)
class Work:
    """What a change of the state has taken.

    Attributes:
        clusters_tuned: The clusters that were learnt (again), and how many samples each has.
        n_moved: Samples that stayed and are in another cluster now, clusters being matched by their members (0 unless
            the routing is fitted on private features again).
        sample_gradients: The cost: samples passed forward and backward once.
        seconds_tuning: The time that learning took.
        exact: False if the routing keeps prototypes of deleted samples (`private-once`).
        environment: Where the bits were computed; they can be compared only where it is the same.
    """

    clusters_tuned: dict[int, int]
    n_moved: int
    sample_gradients: int
    seconds_tuning: float
    exact: bool
    environment: dict[str, str | int]


@dataclass(frozen=True)
class Receipt(Work):
    """What a request has done. It goes to who asked; the eraser keeps none.

    It names no uid. But the hashes from before cover the samples that have left: who holds all the others could try
    guesses of the missing one against them. Keep receipts as evidence, and no longer than they are needed.

    Attributes:
        action: `fit`, `forget`, `add` or `rectify`.
        n_requested: How many samples the request named.
        n_samples: How many samples are held after it.
        cost_factor: How many times less the next request costs than a fit, for a random sample, in samples learnt again
            (size-biased: see `evaluation.costs.cost_factors`); NaN if nobody is held.
        clusters_removed: The clusters that have no sample left, and so no model.
        hash_before: `state_hash()` before; empty for a fit.
        hash_after: `state_hash()` after.
        clusters_before: Every cluster's hash before, by number.
        clusters_after: Every cluster's hash after, by number.
        seconds: The time that the request took.
        summed: Whether samples are held as rows of exact sums: then nobody is learnt again, and the clusters above are
            those whose rows were written, which store rows together.
        commitments: For each owner named, in the order of the request, a hash of the name and of a random salt, which
            `ground.commitments.opens` checks.
        salts: The salts of the commitments. They are for the owners, and nobody keeps them.
        owner_cost_factor: As `cost_factor`, for the request of a random owner; None but after a fit with owners.
    """

    action: str
    n_requested: int
    n_samples: int
    cost_factor: float
    clusters_removed: list[int]
    hash_before: str
    hash_after: str
    clusters_before: dict[int, str]
    clusters_after: dict[int, str]
    seconds: float
    summed: bool = False
    commitments: list[str] = field(default_factory=list)
    salts: list[str] = field(default_factory=list, repr=False)
    owner_cost_factor: float | None = None

    def __str__(self) -> str:
        learnt = f"{len(self.clusters_tuned)} of {len(self.clusters_after)} clusters learnt"
        if self.summed:
            learnt = f"sums changed, rows of {len(self.clusters_tuned)} of {len(self.clusters_after)} buckets written"
        held = f"{self.action} {self.n_requested}: {self.n_samples} samples held, {learnt}"
        took = f"{self.sample_gradients} sample gradients, {self.seconds:.2f} s, exact: {self.exact}"
        owners = "" if self.owner_cost_factor is None else f" (an owner's {self.owner_cost_factor:.1f})"
        return f"{held}, {took}" + f", cost factor {self.cost_factor:.1f}{owners}" * (self.action == "fit")

    def _repr_html_(self) -> str:
        before = {k: self.clusters_before.get(k, "none")[:8] for k in [*self.clusters_tuned, *self.clusters_removed]}
        changed = (f"{k} ({was} to {self.clusters_after.get(k, 'none')[:8]})" for k, was in before.items())
        facts = {
            "exact": "yes, bit for bit" if self.exact else "no: prototypes of deleted samples are kept",
            "held": f"{self.n_samples:,} samples",
            f"{'buckets' if self.summed else 'clusters'} changed": (
                f"{len(before):,} of {len(self.clusters_before.keys() | self.clusters_after.keys()):,}: "
                + some_of(changed, len(before))
            ),
            "samples moved": f"{self.n_moved:,}",
            "cost": f"{self.sample_gradients:,} sample gradients, {self.seconds:.2f} s",
            "cost factor": f"{self.cost_factor:.1f}, for the next request of a random person" * bool(self.n_samples),
            "state hash": f"{self.hash_before[:16] or 'none'} to {self.hash_after[:16]}",
        }
        return card(f"Receipt: {self.action} {self.n_requested:,}", facts)
