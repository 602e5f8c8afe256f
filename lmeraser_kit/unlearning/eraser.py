"""LMEraser: fit, predict, forget, verify. There is no unlearning algorithm that could be wrong: see `rebuild`."""

from __future__ import annotations

import json
import time
from collections.abc import Container, Iterable, MutableMapping
from dataclasses import replace

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from lmeraser_kit.ground import checks
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples, concatenate, named
from lmeraser_kit.unlearning.prediction import asked_about, class_probabilities, forward_passes
from lmeraser_kit.unlearning.rebuild import Rebuilder, Successor, nothing, warn_if_uneven
from lmeraser_kit.unlearning.state import ExactnessError, Receipt


class LMEraser(Rebuilder):
    """Clusters, each with its own prompt and head over a frozen backbone; exact unlearning (arXiv 2404.11056).

    A scikit-learn estimator over `Samples`: arguments are stored as given, results end in an underscore.

    Args:
        backbone: The frozen backbone.
        clusters: The partition; by default HierarchicalClusters(), fitted on public features.
        recipe: How a cluster is tuned; by default Recipe().
        seed: Keys every random draw of tuning.
        n_classes: Number of classes; by default the public samples' (or, without them, the private samples').
        n_jobs: Clusters tuned at a time (joblib); the result does not depend on it.
        threads: Intra-op threads of each tuning; fixed, because bits may depend on it.
        verbose: Show progress bars.

    Attributes:
        state_: All that is kept of private data.
        public_: The public samples that the routing learns from, or None.
        n_classes_: Number of classes.
        environment_: Where its bits were computed. A request in another environment builds everything anew.
        made_with_: Fingerprint and arguments of the fit; a request is refused when they were changed.
        receipt_: What the fit has cost; dropped at the first request, because its hashes cover whoever leaves.
    """

    def fit(self, private: Samples, public: Samples | None = None) -> LMEraser:
        """Route the private samples, and tune every cluster that has one.

        Args:
            private: Samples that may later be forgotten. None at all gives a model that knows nothing yet.
            public: Samples that the routing learns from, if it learns from public ones; they are never forgotten.

        Raises:
            ValueError: If arguments contradict each other or the samples; nothing has been tuned then.
        """
        started, before = time.perf_counter(), {name: v for name, v in vars(self).items() if name.endswith("_")}
        try:
            private = self.prepare(private, public)
            self.__dict__.pop("state_", None)
            self.receipt_ = self._become("fit", len(private), self.successor((), private), started)
        except BaseException:
            vars(self).update(before)  # a fit that fails leaves the model that was there
            raise
        return self

    def plan(self, private: Samples, public: Samples | None = None) -> dict[int, int]:
        """How many samples each cluster would have, by its number; nothing is tuned.

        `metrics.cost_factors` and `metrics.expected_request_cost` say what that will cost.

        Raises:
            ValueError: As for `fit`.
        """
        planner = clone(self)  # a fitted model stays as it is
        private = planner.prepare(private, public)
        routing, members, _ = planner._route(nothing(private), (), private)
        warn_if_uneven(members, getattr(routing, "prototypes_", ()))
        return {k: len(members[k]) for k in sorted(members)}

    def prepare(self, private: Samples, public: Samples | None = None) -> Samples:
        """Check what a fit is made with, and note it.

        Returns:
            The private samples, with the task's number of classes.

        Raises:
            ValueError: As for `fit`.
        """
        clusters = self._clusters()
        self._check_arguments()
        if not isinstance(private, Samples):
            raise TypeError(f"private is {type(private).__name__}, expected Samples(images, labels, uids)")
        if not isinstance(public, (Samples, type(None))):
            raise TypeError(f"public is {type(public).__name__}, expected Samples(images, labels, uids), or None")
        if clusters.learns_from == "public" and public is None:
            raise ValueError("the partition is fitted on public features: give fit(private, public=...)")
        source = public if clusters.learns_from == "public" else private
        if len(source) or clusters.learns_from == "public":
            clusters.check(len(source))
        if public is not None and len(shared := np.intersect1d(private.uids, public.uids)):
            raise ValueError(f"uid {str(shared[0])!r} is both public and private: what is public cannot be forgotten")
        n_classes = self.n_classes or (private if public is None else public).n_classes
        private = replace(private, n_classes=n_classes)  # checks the labels before anything costs time
        self.public_, self.n_classes_, self.made_with_ = public, n_classes, self._made_with()
        return private

    def forget(self, uids: Iterable[str]) -> Receipt:
        """Forget the samples named by `uids`: the model becomes what a fit without them gives, bit for bit.

        If it raises, or is interrupted, the model is what it was before.

        Args:
            uids: Names of samples held, each once; a single name will do.

        Returns:
            What it has cost, and hashes to check it by.

        Raises:
            ValueError: If a uid is not held, or is named twice; nothing is forgotten then.
        """
        check_is_fitted(self, "state_")
        started = time.perf_counter()
        successor = self.successor(uids)
        return self._become("forget", len(self.state_) - len(successor.state), successor, started)

    def add(self, samples: Samples) -> Receipt:
        """Add private samples: the model becomes what a fit with them gives, bit for bit.

        Raises:
            ValueError: If a uid is held already or public, or a shape or a label does not fit; nothing is added then.
        """
        check_is_fitted(self, "state_")
        started = time.perf_counter()
        successor = self.successor((), checks.instance("samples", samples, Samples))
        return self._become("add", len(samples), successor, started)

    def successor(
        self, leaving: Iterable[str] = (), joining: Samples | None = None, cache: MutableMapping | None = None
    ) -> Successor:
        """The fit on the samples held, less those that leave, with those that join; computed, and not taken on yet.

        Args:
            leaving: Uids of samples held, each once.
            joining: Samples to add.
            cache: Tuned checkpoints by address. What is missing is tuned and put there as soon as it is ready. By
                default, and in addition, what the present state holds.

        Raises:
            ValueError: As for `forget` and `add`.
        """
        if not hasattr(self, "state_"):
            return self._build(nothing(joining), (), joining, cache, self._environment(), announce=True)
        self._check_unchanged()
        here = self._environment()
        known, held = self.state_, self.state_.clusters_of()
        leaving = named(leaving, held)
        joining = known.empty if joining is None else self.check_joining(joining, held.keys() - leaving)
        if self.environment_ == here:
            return self._build(known, leaving, joining, cache, here)
        everything = concatenate([known.samples.without(leaving), joining])  # other bits: everything is built anew
        return self._build(nothing(known.empty), (), everything, cache, here)

    def check_joining(self, joining: Samples, held: Container[str]) -> Samples:
        """Check samples that are to be added to those whose uids are `held`.

        Returns:
            The samples, with the task's number of classes.

        Raises:
            ValueError: As for `add`.
        """
        checks.instance("samples", joining, Samples)
        joining, shape = replace(joining, n_classes=self.n_classes_), self.state_.empty.images.shape[1:]
        if joining.images.shape[1:] != shape:
            raise ValueError(f"images of shape {joining.images.shape[1:]} cannot join images of {shape}")
        public = set() if self.public_ is None else set(self.public_.uids.tolist())
        for uid in joining.uids.tolist():
            if uid in held or uid in public:
                why = "there already" if uid in held else "public, and what is public cannot be forgotten"
                raise ValueError(f"uid {uid!r} is {why}; a uid names one sample for life")
        return joining

    def verify(self, clusters: Iterable[int] | None = None) -> str:
        """Check that the model is, bit for bit, what a fit on the samples held gives: by doing that, from nothing.

        It proves that the model follows from these samples alone. It does not prove that an operator kept no copy.

        Args:
            clusters: Numbers of the clusters to tune again; all by default. Routing is always done again, and the
                address of every cluster compared, so that a sample cannot hide in a cluster that is left out.

        Returns:
            The state's hash.

        Raises:
            ExactnessError: If one bit differs; the message names what.
            RuntimeError: If the environment has changed, so that bits cannot be compared.
            ValueError: If there is no such cluster.
        """
        self._check_unchanged()
        here = self._environment()
        if changed := [f"{k}: {v} then, {here.get(k)} now" for k, v in self.environment_.items() if here.get(k) != v]:
            raise RuntimeError(f"bits cannot be compared, environment changed ({'; '.join(changed)}): fit again")
        given = self.state_.models if clusters is None else clusters if isinstance(clusters, Iterable) else [clusters]
        chosen = {checks.whole("clusters", k, least=0) for k in given}
        if unknown := chosen - self.state_.models.keys():
            raise ValueError(f"no cluster {min(unknown)}; there are: {', '.join(map(str, sorted(self.state_.models)))}")
        trusted = {
            c.address: c for k in self.state_.models.keys() - chosen for c in self.state_.models[k].checkpoints()
        }
        samples = self.state_.samples.afresh()
        fresh = self._build(nothing(samples), (), samples, trusted, here).state
        held, expected = self.state_.pieces(), fresh.pieces()
        wrong = [name for name in held | expected if held.get(name) != expected.get(name)]
        if wrong:
            message = f"not what a fit on the {len(samples)} samples held gives: {', '.join(wrong)}"
            raise ExactnessError(message, wrong)
        return self.state_hash()

    def state_hash(self) -> str:
        """A hash of everything that the model keeps, and of what it was made with, in hex."""
        check_is_fitted(self, "state_")
        return digest("state", *self.made_with_, self.n_classes_, json.dumps(self.state_.pieces(), sort_keys=True))

    def predict_proba(self, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities: one routing pass, then one prompted pass in batches that mix clusters.

        Args:
            samples: Samples, or images uint8 (N, C, H, W).

        Returns:
            Probabilities, float64 (N, n_classes).

        Raises:
            ValueError: If images are not as above, or no cluster has a model, because every sample was forgotten.
        """
        self._check_unchanged()
        images, mask = asked_about(samples, self.state_).images, self._recipe().mask(self.backbone.size, self.seed)
        return class_probabilities(self.backbone, self.state_, mask, images, self.threads)

    def predict(self, samples: Samples | np.ndarray) -> np.ndarray:
        """The most probable class of each sample, (N,) int."""
        return self.predict_proba(samples).argmax(axis=1)

    def score(self, samples: Samples | np.ndarray, labels: np.ndarray | None = None) -> float:
        """Accuracy on samples, or on images and labels.

        Args:
            samples: Samples, or images uint8 (N, C, H, W), at least one.
            labels: Class indices, (N,); by default the samples' own.

        Returns:
            A share in [0, 1].

        Raises:
            ValueError: As for `predict_proba`; or if there are no labels, or some are none of the task's classes.
        """
        self._check_unchanged()
        if labels is None and not isinstance(samples, Samples):
            raise ValueError("labels are missing: score(samples) takes Samples, score(images, labels) takes both")
        asked = asked_about(samples, self.state_)
        if not len(asked):
            raise ValueError("there is no sample to score")
        labels = checks.class_labels(asked.labels if labels is None else labels, len(asked), self.n_classes_)
        return float(np.mean(self.predict(asked) == labels))

    @property
    def forward_passes(self) -> int:
        """Passes through the backbone that a prediction takes, at most."""
        self._check_unchanged()
        return forward_passes(self.state_, self.backbone.n_features, self._recipe().prompt != "none")

    def sizes(self) -> dict[int, int]:
        """How many samples each cluster with a model has, by number."""
        check_is_fitted(self, "state_")
        return {k: model.n_samples for k, model in self.state_.models.items()}

    def _become(self, action: str, n_requested: int, successor: Successor, started: float) -> Receipt:
        """Take on a state, in one assignment, and say what has changed."""
        known, state = getattr(self, "state_", None), successor.state
        before, hash_before = ({}, "") if known is None else (known.digests(), self.state_hash())
        self.state_, self.environment_ = state, successor.environment
        self.__dict__.pop("receipt_", None)  # its hashes cover samples that may have left now
        after, hash_after = state.digests(), self.state_hash()
        return Receipt(
            action=action,
            n_requested=n_requested,
            n_samples=len(state),
            clusters_tuned=successor.tuned,
            clusters_removed=sorted(before.keys() - after.keys()),
            n_moved=successor.n_moved,
            sample_gradients=successor.sample_gradients,
            seconds=time.perf_counter() - started,
            seconds_tuning=successor.seconds_tuning,
            exact=state.routing is None or state.routing.exact,
            hash_before=hash_before,
            hash_after=hash_after,
            clusters_before=before,
            clusters_after=after,
            environment=successor.environment,
        )
