"""LMEraser: fit, predict, forget, verify.

The one idea: unlearning is a rebuild with a content-addressed cache. A cluster's model is a pure function of its
samples, the recipe, the seed and the frozen backbone, so it has an address. Fitting routes every sample, computes every
cluster's address and tunes those that the cache lacks. Forgetting removes the samples and fits again with the same
cache: only clusters whose members changed have a new address. There is no unlearning algorithm that could be wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, replace

import joblib
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils.validation import check_is_fitted

from lmeraser_kit.arithmetic import environment, progress
from lmeraser_kit.backbone import Backbone
from lmeraser_kit.clustering import HierarchicalClusters
from lmeraser_kit.prediction import class_probabilities
from lmeraser_kit.samples import Samples, digest
from lmeraser_kit.state import Receipt, State
from lmeraser_kit.tuning import ClusterModel, Recipe, cluster_address, tune_cluster


class ExactnessError(AssertionError):
    """The model is not, bit for bit, what a fit on the samples that remain gives."""


class LMEraser(BaseEstimator):
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

    def __init__(
        self,
        backbone: Backbone,
        clusters: BaseEstimator | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        n_classes: int | None = None,
        n_jobs: int | None = None,
        threads: int = 1,
        verbose: bool = True,
    ):
        self.backbone = backbone
        self.clusters = clusters
        self.recipe = recipe
        self.seed = seed
        self.n_classes = n_classes
        self.n_jobs = n_jobs
        self.threads = threads
        self.verbose = verbose

    def fit(self, private: Samples, public: Samples | None = None) -> LMEraser:
        """Route the private samples, and tune every cluster that has one.

        Args:
            private: Samples that may later be forgotten. None at all gives a model that knows nothing yet.
            public: Samples that the routing learns from, if it learns from public ones; they are never forgotten.

        Raises:
            ValueError: If arguments contradict each other or the samples; nothing has been tuned then.
        """
        clusters = self._clusters()
        if clusters.fit_on == "public" and public is None:
            raise ValueError("the partition is fitted on public features: give fit(private, public=...)")
        source = public if clusters.fit_on == "public" else private
        if len(source) or clusters.fit_on == "public":
            clusters.check(len(source))
        shared = np.intersect1d(private.uids, public.uids) if public is not None else []
        if len(shared):
            raise ValueError(f"uid {str(shared[0])!r} is both public and private: what is public cannot be forgotten")
        n_classes = self.n_classes or (private if public is None else public).n_classes
        private = replace(private, n_classes=n_classes)  # checks the labels before anything costs time
        self.public_, self.n_classes_, self.made_with_ = public, n_classes, self._made_with()
        self.__dict__.pop("state_", None)
        self.receipt_ = self._rebuild("fit", private, len(private))
        return self

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
        self._check_unchanged()
        remaining = self.state_.samples.without(uids)
        return self._rebuild("forget", remaining, len(self.state_.samples) - len(remaining))

    def add(self, samples: Samples) -> Receipt:
        """Add private samples: the model becomes what a fit with them gives, bit for bit.

        Raises:
            ValueError: If a uid is held already or public, or a shape or a label does not fit; nothing is added then.
        """
        self._check_unchanged()
        if self.public_ is not None and np.isin(samples.uids, self.public_.uids).any():
            raise ValueError("a uid to be added is that of a public sample; what is public cannot be forgotten")
        together = self.state_.samples + replace(samples, n_classes=self.n_classes_)
        return self._rebuild("add", together, len(samples))

    def verify(self) -> str:
        """Check that the model is, bit for bit, what a fit on the samples held gives: by doing that, from nothing.

        It proves that the model follows from these samples alone. It does not prove that an operator kept no copy.

        Returns:
            The state's hash, which both have.

        Raises:
            ExactnessError: If one bit differs; the message names what.
            RuntimeError: If the environment has changed, so that bits cannot be compared.
        """
        self._check_unchanged()
        here = environment(self.backbone.device, self.threads)
        changed = [f"{k}: {v} then, {here.get(k)} now" for k, v in self.environment_.items() if here.get(k) != v]
        if changed:
            raise RuntimeError(
                f"bits cannot be compared, the environment has changed ({'; '.join(changed)}): fit again"
            )
        fresh, _ = self._build(self.state_.samples, known=None)
        held, expected = self.state_.pieces(), fresh.pieces()
        wrong = [name for name in held | expected if held.get(name) != expected.get(name)]
        if wrong:
            raise ExactnessError(f"not what a fit on the {len(fresh.samples)} samples held gives: {', '.join(wrong)}")
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
        check_is_fitted(self, "state_")
        if not isinstance(samples, Samples):  # checks the images
            samples = Samples(samples, np.zeros(len(samples)), np.arange(len(samples)))
        mask = self._recipe().mask(self.backbone.size, self.seed)
        return class_probabilities(self.backbone, self.state_, mask, samples.images, self.threads)

    def predict(self, samples: Samples | np.ndarray) -> np.ndarray:
        """The most probable class of each sample, (N,) int."""
        return self.predict_proba(samples).argmax(axis=1)

    def score(self, samples: Samples, labels: np.ndarray | None = None) -> float:
        """Accuracy on samples (or on images and labels), a share in [0, 1]."""
        return float(np.mean(self.predict(samples) == (samples.labels if labels is None else labels)))

    def sizes(self) -> dict[int, int]:
        """How many samples each cluster with a model has, by number."""
        check_is_fitted(self, "state_")
        return {k: model.n_samples for k, model in self.state_.models.items()}

    def _recipe(self) -> Recipe:
        return self.recipe if self.recipe is not None else Recipe()

    def _clusters(self) -> BaseEstimator:
        return self.clusters if self.clusters is not None else HierarchicalClusters()

    def _made_with(self) -> tuple:
        """What a fit is made with, besides the samples."""
        recipe = json.dumps(asdict(self._recipe()), sort_keys=True)
        return self.backbone.fingerprint, repr(self._clusters()), recipe, self.seed, self.threads

    def _check_unchanged(self) -> None:
        check_is_fitted(self, "state_")
        if self.made_with_ != self._made_with():
            raise ValueError("the backbone, clusters, recipe, seed or threads were changed since the fit: fit again")

    def _rebuild(self, action: str, samples: Samples, n_requested: int) -> Receipt:
        """Become the fit on `samples`, with the present state as the cache, in one assignment at the end."""
        started, known = time.perf_counter(), getattr(self, "state_", None)
        here = environment(self.backbone.device, self.threads)
        before = {} if known is None else {k: model.digest for k, model in known.models.items()}
        hash_before = "" if known is None else self.state_hash()
        same_bits = known is not None and self.environment_ == here
        state, tuned = self._build(samples, known if same_bits else None)
        moved = 0
        if known is not None:
            _, old, new = np.intersect1d(known.samples.uids, state.samples.uids, return_indices=True)
            together = contingency_matrix(known.assignment[old], state.assignment[new])  # numbers may be new
            moved = int(together.sum() - together[linear_sum_assignment(-together)].sum())
        self.state_, self.environment_ = state, here
        self.__dict__.pop("receipt_", None)  # its hashes cover samples that may have left now
        return Receipt(
            action=action,
            n_requested=n_requested,
            n_samples=len(samples),
            clusters_tuned={k: state.models[k].n_samples for k in tuned},
            clusters_removed=sorted(before.keys() - state.models.keys()),
            n_moved=moved,
            sample_gradients=sum(state.models[k].sample_gradients for k in tuned),
            seconds=time.perf_counter() - started,
            hash_before=hash_before,
            hash_after=self.state_hash(),
            clusters_before=before,
            clusters_after={k: model.digest for k, model in state.models.items()},
            environment=here,
        )

    def _build(self, samples: Samples, known: State | None) -> tuple[State, list[int]]:
        """The state of a fit on `samples`, and which clusters had to be tuned for it."""
        samples = samples.sorted()
        routing, features = self._route(samples, known)
        assignment = np.zeros(0, dtype=int) if not len(samples) else routing.assign(features, samples.keys)
        members = {int(k): samples[assignment == k] for k in np.unique(assignment)}
        cache = {} if known is None else {model.address: model for model in known.models.values()}
        models, missing = {}, []
        for k, part in members.items():
            models[k] = cache.get(cluster_address(self.backbone, part, self._recipe(), self.seed, self.threads))
            missing += [k] if models[k] is None else []
        for k, model in zip(missing, self._tune([members[k] for k in missing]), strict=True):
            models[k] = model
        return State(samples, features, routing, assignment, models), missing

    def _route(self, samples: Samples, known: State | None) -> tuple[BaseEstimator, np.ndarray | None]:
        """The partition, fitted, and the features of `samples` if it needs any."""
        routing = clone(self._clusters())
        if routing.fit_on is None:
            return routing, None
        features = self._features(samples, known)
        if routing.fit_on == "private":
            return routing.fit(features, samples.keys), features
        if known is not None:  # public samples never leave, so what was learnt from them stays
            return known.routing, features
        public = self.backbone.features(self.public_.images, self.threads, self.verbose)
        return routing.fit(public, self.public_.keys), features

    def _tune(self, parts: list[Samples]) -> Iterable[ClusterModel]:
        """Tune clusters, each by itself, n_jobs at a time."""
        jobs = (joblib.delayed(tune_cluster)(self.backbone, p, self._recipe(), self.seed, self.threads) for p in parts)
        tuned = joblib.Parallel(n_jobs=1 if len(parts) < 2 else self.n_jobs, return_as="generator")(jobs)
        return progress(tuned, total=len(parts), desc="tuning clusters", unit="cluster", disable=not self.verbose)

    def _features(self, samples: Samples, known: State | None) -> np.ndarray:
        """Features of `samples`: those already known are taken, the others computed. A deleted sample's are dropped."""
        features = np.empty((len(samples), self.backbone.n_features), dtype=np.float32)
        missing = np.ones(len(samples), dtype=bool)
        if known is not None:
            _, new, old = np.intersect1d(samples.uids, known.samples.uids, return_indices=True)
            features[new], missing[new] = known.features[old], False
        features[missing] = self.backbone.features(samples.images[missing], self.threads, self.verbose)
        return features
