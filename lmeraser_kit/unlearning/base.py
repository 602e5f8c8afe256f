"""Fit, predict, forget, verify, with any partition, learner and vote. See `rebuild`: no other algorithm unlearns."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground.commitments import commitment_of, fresh_nonce
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.names import request
from lmeraser_kit.ground.samples import Samples, concatenate
from lmeraser_kit.learners.protocol import Context
from lmeraser_kit.unlearning.answers import AnsweringEraser
from lmeraser_kit.unlearning.arguments import check_fit, check_joining, check_same, fit_arguments, rectified
from lmeraser_kit.unlearning.closure import STRANGERS, near_copies
from lmeraser_kit.unlearning.planning import planned
from lmeraser_kit.unlearning.rebuild import Rebuild, Successor, empty_state
from lmeraser_kit.unlearning.saving import load_eraser, save_eraser
from lmeraser_kit.unlearning.state import Receipt, State
from lmeraser_kit.unlearning.verification import verify_state
from lmeraser_kit.unlearning.votes import Choices

if TYPE_CHECKING:
    import pandas as pd


class BaseEraser(AnsweringEraser, ABC):
    """What all erasers share; a child has a constructor with further arguments, DEFAULTS and `choices`.

    Attributes:
        state_: All that is kept of private data.
        public_: The public samples that the routing learns from, or None.
        n_classes_: Number of classes.
        environment_: Where its bits were computed. A request in another environment builds everything anew.
        fitted_with_: Fingerprint and arguments of the fit; a request is refused when they were changed.
        receipt_: What the fit has cost; dropped at the first request, because its hashes cover whoever leaves.
    """

    state_: State
    DEFAULTS: ClassVar[dict[str, Callable[[], Any]]] = {}  # what makes an argument that is None

    def __init__(
        self, backbone: Backbone, seed: int, n_classes: int | None, n_jobs: int | None, threads: int, verbose: bool
    ):
        self.backbone = backbone
        self.seed = seed
        self.n_classes = n_classes
        self.n_jobs = n_jobs
        self.threads = threads
        self.verbose = verbose

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, with defaults in place of None."""
        given: dict[str, Any] = self.get_params(deep=False)
        return given | {name: make() for name, make in self.DEFAULTS.items() if given[name] is None}

    @abstractmethod
    def choices(self) -> Choices:
        """Partition, learner and vote."""

    def fit(self, private: Samples, public: Samples | None = None) -> BaseEraser:
        """Route the private samples, and learn every cluster that has one.

        Args:
            private: Samples that may later be forgotten. None at all gives a model that knows nothing yet.
            public: Samples that the routing learns from, if it learns from public ones; they are never forgotten.

        Raises:
            ValueError: If arguments contradict each other or the samples; nothing has been learnt then.
        """
        started, before = time.perf_counter(), {name: v for name, v in vars(self).items() if name.endswith("_")}
        try:
            private = self.prepare(private, public)
            self.__dict__.pop("state_", None)
            self.receipt_ = self._take_on("fit", len(private), self.successor((), private), started)
        except BaseException:
            self.__dict__.update(before)  # a fit that fails leaves the model that was there
            raise
        return self

    def plan(
        self, private: Samples, public: Samples | None = None, owner: str | Iterable[str] | None = None
    ) -> dict[int, int]:
        """How many samples each cluster that a fit learns would have, by number; or the request of owners, after it.

        Nothing is learnt. `evaluation.costs` says what that costs. Of exact sums alone: ones for a fit, and none for a
        request, which learns nobody again. Raises ValueError as `fit`, and if an owner has no sample.
        """
        planner = clone(self)  # a fitted model stays as it is
        private = planner.prepare(private, public)
        if self.choices().sums_alone:
            return dict.fromkeys(range(0 if owner is not None and private.uids_of(owner) else len(private)), 1)
        return planned(planner.rebuild(), private, owner)

    def prepare(self, private: Samples, public: Samples | None = None) -> Samples:
        """Check what a fit is made with, and note it.

        Returns:
            The private samples, with the task's number of classes.

        Raises:
            ValueError: As for `fit`.
        """
        private = check_fit(self.arguments(), self.choices(), private, public)
        self.public_, self.n_classes_ = public, private.n_classes
        self.fitted_with_ = fit_arguments(self.arguments() | {"n_classes": private.n_classes})
        return private

    def forget(self, uids: Iterable[str] | None = None, owner: str | Iterable[str] | None = None) -> Receipt:
        """Forget samples, or all of an owner: the model becomes what a fit without them gives, bit for bit.

        If it raises, or is interrupted, the model is what it was before.

        Args:
            uids: Names of samples held, each once; a single name will do.
            owner: An owner, or several, of whom everything held is forgotten. Not together with `uids`.

        Returns:
            What it has cost, and hashes to check it by; for owners a commitment to each of them, and its salt.

        Raises:
            ValueError: If a uid is not held, an owner has no sample, or one is named twice; nothing is forgotten then.
        """
        check_is_fitted(self, "state_")
        started, owners = time.perf_counter(), request(uids, owner)
        successor = self.successor(uids if uids is not None else self.state_.uids_of(owners))
        n_requested = len(self.state_) - len(successor.state)
        return self._take_on("forget", n_requested, successor, started, owners)

    def add(self, samples: Samples) -> Receipt:
        """Add private samples: the model becomes what a fit with them gives, bit for bit.

        Raises:
            ValueError: If a uid is held already or public, an owner has public samples, or a shape or a label does not
                fit; nothing is added then.
        """
        check_is_fitted(self, "state_")
        started = time.perf_counter()
        successor = self.successor((), checks.instance("samples", samples, Samples))
        return self._take_on("add", len(samples), successor, started)

    def rectify(self, samples: Samples) -> Receipt:
        """Replace image, label and owner of samples held: the model becomes what a fit with the right ones gives.

        It happens in one step, as `forget` does. Where no owner is stated, the sample keeps the one that it has.

        Args:
            samples: What is right, under the uids of samples held.

        Raises:
            ValueError: If a uid is not held, an owner has public samples, or a shape or a label does not fit; nothing
                is replaced then.
        """
        check_is_fitted(self, "state_")
        started, uids = time.perf_counter(), checks.instance("samples", samples, Samples).uids
        right = rectified(samples, self.state_.owners_of(self.state_.clusters_of(uids)))
        return self._take_on("rectify", len(right), self.successor(uids, right), started)

    def successor(
        self, leaving: Iterable[str] = (), joining: Samples | None = None, cache: MutableMapping | None = None
    ) -> Successor:
        """The fit on the samples held, less those that leave, with those that join; computed, and not taken on yet.

        Args:
            leaving: Uids of samples held, each once.
            joining: Samples to add.
            cache: Checkpoints by address. What is missing is learnt and put there as soon as it is ready. By default,
                and in addition, what the present state holds.

        Raises:
            ValueError: As for `forget` and `add`.
        """
        if not hasattr(self, "state_"):
            new = checks.instance("joining", joining, Samples)
            return self.rebuild().successor(empty_state(new), {}, new, cache, warn=True)
        self.check_unchanged()
        rebuild, state = self.rebuild(), self.state_
        gone = state.clusters_of(leaving)
        joining = state.empty if joining is None else checks.instance("samples", joining, Samples)
        there = {uid: k for uid, k in state.find(joining.uids.tolist()).items() if uid not in gone}
        joining = self.check_joining(joining, state.owners_of(there))
        if self.environment_ == rebuild.environment:
            return rebuild.successor(state, gone, joining, cache)
        everything = concatenate([state.samples.without(list(gone)), joining])  # other bits: everything is built anew
        return rebuild.successor(empty_state(state.empty), {}, everything, cache)

    def check_joining(self, joining: Samples, held: Mapping[str, str]) -> Samples:
        """Samples that are to be added to those held, by uid with their owners: see `arguments.check_joining`."""
        return check_joining(joining, held, self.state_.empty, self.n_classes_, self.public_)

    def verify(self, clusters: Iterable[int] | None = None) -> str:
        """Check that the model is, bit for bit, what a fit on the samples held gives: by doing that, from nothing.

        It proves that the model follows from these samples alone, not that an operator kept no copy. Arguments and
        errors are those of `verification.verify_state`. Returns the state's hash.
        """
        self.check_unchanged()
        verify_state(self.state_, self.rebuild(), self.environment_, clusters, self.choices().word)
        return self.state_hash()

    def closure(
        self, uids: Iterable[str] | Samples, threshold: float = STRANGERS, public: Samples | None = None
    ) -> pd.DataFrame:
        """Who else may have to go: near copies of the samples named, the likeliest first; you decide, none is deleted.

        Arguments, columns and errors are those of `closure.near_copies`, which says what it misses.
        """
        self.check_unchanged()
        return near_copies(self, uids, threshold, public)

    def state_hash(self) -> str:
        """A hash of everything that the model keeps, and of what it was made with, in hex."""
        check_is_fitted(self, "state_")
        return digest("state", sorted(self.fitted_with_.items()), self.state_.described)

    def sizes(self) -> dict[int, int]:
        """How many samples each cluster with a model has, by number."""
        check_is_fitted(self, "state_")
        return {k: model.n_samples for k, model in self.state_.models.items()}

    def relearnt(self) -> np.ndarray:
        """Sizes of the groups of which a request learns one again; see `Choices.relearnt`."""
        check_is_fitted(self, "state_")
        return self.choices().relearnt(self.state_)

    def save(self, path: Path | str) -> Path:
        """Write the eraser, and the samples that it holds, to one file. Raises ValueError if a part is your own."""
        self.check_unchanged()
        return save_eraser(checks.path("path", path), self)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> BaseEraser:
        """Read a file that `save` wrote. Raises ValueError for another file, a damaged one, or another class's."""
        return load_eraser(cls, checks.path("path", path), device)

    def rebuild(self) -> Rebuild:
        """How states are computed from samples."""
        choices, public = self.choices(), getattr(self, "public_", None)
        context = Context(self.backbone, int(self.seed), int(self.threads))
        return Rebuild(choices.partition, choices.learner, context, public, self.n_jobs, self.verbose)

    def check_unchanged(self) -> None:
        """Refuse to answer for a model that other arguments would have made. Raises ValueError."""
        check_is_fitted(self, "state_")
        check_same(self.fitted_with_, self.arguments(), self.choices(), self.n_classes_)

    def _take_on(
        self, action: str, n_requested: int, successor: Successor, started: float, owners: Iterable[str] = ()
    ) -> Receipt:
        """Take on a state, in one assignment, and say what has changed."""
        before: dict[str, Any] = {"hash_before": "", "clusters_before": {}}
        if hasattr(self, "state_"):
            before = {"hash_before": self.state_hash(), "clusters_before": self.state_.digests()}
            self.backbone.drop(self.state_.images_beyond(successor.state))
        self.state_, self.environment_ = successor.state, successor.work.environment
        self.__dict__.pop("receipt_", None)  # its hashes cover samples that may have left now
        after: dict[str, Any] = {"hash_after": self.state_hash(), "clusters_after": self.state_.digests()}
        after |= {"clusters_removed": sorted(before["clusters_before"].keys() - self.state_.digests().keys())}
        after |= {"n_samples": len(self.state_), "cost_factor": self.choices().cost_factor(self.state_)}
        about = before | after | vars(successor.work) | {"summed": self.choices().sums_alone}
        about["salts"] = [fresh_nonce() for _ in owners]
        about["commitments"] = [commitment_of("owner", *one) for one in zip(owners, about["salts"], strict=True)]
        if action == "fit" and self.state_.owned:
            about["owner_cost_factor"] = self.choices().owner_cost_factor(self.state_)
        return Receipt(action=action, n_requested=n_requested, seconds=time.perf_counter() - started, **about)
