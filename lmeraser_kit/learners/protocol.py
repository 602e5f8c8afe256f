"""What a learner is, what it may read, and what it leaves. Write your own in some twenty lines: docs, "Bring your own".

A learner turns the samples of one cluster into arrays. It must be a pure function of them and of the `Context`: no
global random generator, no state of its own, no optimiser, schedule or scaler that another cluster has felt. That alone
makes forgetting exact, and `lmeraser_kit.testing.check_eraser` tries it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.ground import workers
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Context:
    """What a learner may read besides the samples of its cluster: nothing here depends on any private sample.

    Attributes:
        backbone: The frozen backbone.
        seed: Keys every random draw; see `keyed_uniform`.
        threads: Intra-op threads; bits may depend on it.
        queries: Samples, all of them, of which features are computed once: those that are asked about when classes are
            predicted, or those that join.
        any_batch: Whether their last bits may depend on who else is asked about: an answer is not kept.
        verbose: Show a bar while features are computed.
        n_jobs: Processes that compute features of `queries` (joblib); no bit depends on it.
    """

    backbone: Backbone
    seed: int = 0
    threads: int = 1
    queries: Samples | None = None
    any_batch: bool = False
    verbose: bool = False
    n_jobs: int | None = None
    _query_features: dict[bool, np.ndarray] = field(default_factory=dict, repr=False)

    def of(self, queries: Samples, any_batch: bool = False) -> Context:
        """The same, with other `queries`."""
        return replace(self, queries=queries, any_batch=any_batch, _query_features={})

    def knows(self, layers: bool) -> bool:
        """Whether features of the `queries` have been computed: of all stages, or the last alone."""
        return layers in self._query_features

    def features(self, samples: Samples, layers: bool = False) -> np.ndarray:
        """Features of the clean images of a cluster, or of samples that are asked about, float32 (N, D) or (N, L + D).

        Args:
            samples: A whole cluster, in batches no larger than it needs: nobody else looks at them. Or, of samples that
                are asked about, any part.
            layers: Whether the outputs of the backbone's stages come before the feature.
        """
        n, most = len(checks.instance("samples", samples, Samples)), self.backbone.feature_batch
        if self.queries is None:
            even = math.ceil(n / max(1, math.ceil(n / most)))
            return self._computed(samples, layers, max(1, even))
        if layers not in self._query_features:
            batch = min(most, len(self.queries)) if self.any_batch else most
            self._query_features[layers] = self._divided(self.queries, layers, max(1, batch))
        features = self._query_features[layers]
        return features if samples is self.queries else features[self.queries.positions(samples.uids)]

    def _divided(self, samples: Samples, layers: bool, batch_size: int) -> np.ndarray:
        """Features of whole batches in each of several processes, if there are that many."""
        n_batches = max(1, math.ceil(len(samples) / batch_size))
        n = math.ceil(n_batches / workers.n_at_once(self.n_jobs)) * batch_size
        parts = [samples[start : start + n] for start in range(0, len(samples), n)]
        if len(parts) < 2:
            return self._computed(samples, layers, batch_size)
        compute = replace(self, queries=None)._computed  # noqa: SLF001 - its own
        calls, where = [(part, layers, batch_size) for part in parts], (self.backbone.device, self.threads, False)
        return np.concatenate([*workers.each(compute, calls, self.n_jobs, *where, shared=self.backbone)])

    def _computed(self, samples: Samples, layers: bool, batch_size: int) -> np.ndarray:
        images = np.asarray(samples.images)
        return self.backbone.features(images, self.threads, self.verbose, batch_size, layers, samples.uids)


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """What is learnt from one cluster. All of it is deleted when a member leaves.

    Attributes:
        arrays: What the learner has made, by name.
        n_samples: How many samples the cluster (or, for a checkpoint, its slices so far) has.
        sample_gradients: What learning has cost since `start`: samples passed forward and backward once, counted as
            they passed (without gradients, or through a head alone: once for each sample or epoch).
        address: Hash of everything that the above is computed from.
        start: The checkpoint that learning went on from; None for the first.
        derived: What follows from the arrays, computed when it is asked for. It goes when this model does.
    """

    arrays: Arrays
    n_samples: int
    sample_gradients: int
    address: str
    start: ClusterModel | None = None
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "digest"} | {"derived": {}}

    def __post_init__(self) -> None:
        for array in self.arrays.values():
            array.setflags(write=False)

    @cached_property
    def digest(self) -> str:
        """A hash of every bit that the cluster keeps, in hex; the arrays cannot be written to."""
        return self.hashed()

    def hashed(self) -> str:
        """The digest, computed from the arrays again, to find out whether memory is still what it was."""
        bits = (part for name, array in sorted(self.arrays.items()) for part in (name, *described_array(array)))
        start = "" if self.start is None else self.start.hashed()
        return digest("cluster", self.address, self.n_samples, self.sample_gradients, start, *bits)

    def checkpoints(self) -> list[ClusterModel]:
        """What was kept after each slice, in order; the last is the model itself."""
        return [*([] if self.start is None else self.start.checkpoints()), self]


def described_array(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes of an array, to be hashed."""
    return str(array.dtype), array.shape, array.tobytes()


@runtime_checkable
class Learner(Protocol):
    """What is learnt from a cluster, and how that answers: a scikit-learn estimator without `fit`.

    Its parameters (`get_params`) are numbers, text, lists or dataclasses of these; together with the class's code they
    are part of every address.
    """

    def learn(self, samples: Samples, context: Context) -> tuple[dict[str, np.ndarray], int]:
        """Learn from one cluster. A pure function: the same arguments give the same bits.

        Args:
            samples: All members of the cluster, at least one, in the order of their uids.
            context: The backbone, the seed and the number of threads.

        Returns:
            What is kept, as arrays by name; and the cost, as samples passed forward and backward once.
        """
        ...

    def predict_proba(self, learnt: Arrays, samples: Samples, context: Context) -> np.ndarray:
        """Class probabilities according to one cluster, float64 (N, n_classes).

        Args:
            learnt: What `learn` has returned for the cluster.
            samples: Samples to predict, of which only images may be looked at.
            context: As for `learn`; its `features` are computed once for all clusters.
        """
        ...


@runtime_checkable
class SlicedLearner(Learner, Protocol):
    """A learner that goes on from checkpoints inside a cluster (SISA, Bourtoule et al. 2021).

    After each slice a checkpoint is kept. When a sample of slice r leaves, learning goes on from the one before r.
    """

    def n_slices(self) -> int:
        """How many slices there are."""
        ...

    def slices_of(self, keys: np.ndarray, seed: int) -> np.ndarray:
        """The slice of each sample, from 0, (N,) int: a function of its key, `Samples.keys`, alone."""
        ...

    def learn_slice(
        self, samples: Samples, context: Context, start: Arrays | None, r: int
    ) -> tuple[dict[str, np.ndarray], int]:
        """Learn from the samples of the slices up to r, going on from what was learnt before it; as `learn`."""
        ...


@runtime_checkable
class SummedLearner(Learner, Protocol):
    """A learner of sums over all samples, which can be taken back exactly; `ExactSums` is the kit's.

    A cluster is a bucket of rows, one a sample. `learn` gives a bucket; after a deletion the rows of those who stay are
    kept, because a row does not know who else is there.
    """

    def rows(self, samples: Samples, context: Context) -> np.ndarray:
        """A row of whole numbers for each sample, (N, W): a pure function of its image and the context."""
        ...

    def bucket(self, rows: np.ndarray, samples: Samples) -> tuple[dict[str, np.ndarray], int]:
        """What `learn` gives, from rows that are known; they are among it as `rows`."""
        ...

    def nothing(self, learnt: Arrays, n_classes: int) -> np.ndarray:
        """The sums of no sample, int64, for rows like those of a bucket."""
        ...

    def accumulate(self, sums: np.ndarray, learnt: Arrays, sign: int) -> None:
        """Add (1) or take back (-1) rows, with what a bucket keeps beside them, in place: to the bit, in any order."""
        ...

    def combine(self, sums: np.ndarray, others: np.ndarray, sign: int) -> None:
        """Add (1) or take back (-1) what was accumulated elsewhere, on another chip maybe, in place and to the bit."""
        ...


@runtime_checkable
class BatchedLearner(Learner, Protocol):
    """A learner that predicts for many clusters in one batch."""

    def gather(self, models: Sequence[Arrays], context: Context) -> Any:
        """What `predict_pairs` needs of all clusters; kept until one of them changes."""
        ...

    def predict_pairs(
        self, gathered: Any, samples: Samples, rows: np.ndarray, clusters: np.ndarray, context: Context
    ) -> np.ndarray:
        """Class probabilities of samples according to clusters, float64 (M, n_classes).

        Args:
            gathered: What `gather` has returned.
            samples: Samples to predict.
            rows: Positions of samples, (M,).
            clusters: Which of the gathered clusters is asked about each, (M,).
            context: As for `predict_proba`.
        """
        ...
