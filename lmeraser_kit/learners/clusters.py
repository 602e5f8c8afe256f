"""Learning one cluster, with any learner: its address, and its model, as one pure function of its samples.

An address is a hash of exactly what a model is a function of. Inside a cluster, learning may go on in slices, whose
checkpoints have addresses of their own: see `SlicedLearner`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import environment
from lmeraser_kit.ground.hashing import described, digest
from lmeraser_kit.ground.samples import Samples, not_empty
from lmeraser_kit.learners.protocol import ClusterModel, Context, Learner, SlicedLearner, SummedLearner


def cluster_addresses(learner: Learner, samples: Samples, context: Context) -> dict[int, str]:
    """The address of a cluster's checkpoint after each slice; the last is the address of its model.

    It covers uid, label and pixels of every member in the slices so far (in the order of uids, so that the order of
    arrival does not matter), the number of classes, the learner with its code, the seed, the frozen backbone, and the
    environment that rounds.

    Returns:
        Slice -> address in hex; slices before the first member have none. Without slices, one.
    """
    samples = checks.instance("samples", samples, Samples).sorted()
    slices, n_slices = _slices(learner, samples, context)
    common = (
        samples.n_classes,
        described(learner),
        checks.seed(context.seed),
        context.backbone.fingerprint,
        json.dumps(environment(context.backbone.device, context.threads, rounds_in_numpy(learner)), sort_keys=True),
    )
    return {
        r: digest("address", r, samples.digests[slices <= r].tobytes(), *common)
        for r in range(slices.min(initial=n_slices), n_slices)
    }


def rounds_in_numpy(learner: Learner) -> bool:
    """Whether bits of what is kept of a cluster depend on NumPy: not those of rows and sums of whole numbers."""
    return not isinstance(learner, SummedLearner)


def learn_cluster(
    learner: Learner, samples: Samples, context: Context, start: ClusterModel | None = None
) -> ClusterModel:
    """Learn one cluster. A pure function: the same arguments give the same bits.

    Args:
        learner: What to learn.
        samples: The cluster's members, at least one; their order does not matter.
        context: The backbone, the seed and the number of threads.
        start: A checkpoint of these samples to go on from; it saves work and changes no bit.

    Returns:
        The cluster's model, with the checkpoints before it.

    Raises:
        ValueError: If there is no sample, an argument is none, or `start` is no checkpoint of these samples.
        FloatingPointError: If the loss is not finite (a rate is too high).
    """
    samples = not_empty("samples", samples).sorted()
    if start is not None:
        checks.instance("start", start, ClusterModel)
    slices, addresses = _slices(learner, samples, context)[0], cluster_addresses(learner, samples, context)
    done = [r for r, address in addresses.items() if start is not None and address == start.address]
    if start is not None and not done:
        raise ValueError("the checkpoint to go on from was not made of these samples")
    for r, address in addresses.items():
        if not done or r > done[0]:
            part = samples[slices <= r]
            if isinstance(learner, SlicedLearner):
                arrays, cost = learner.learn_slice(part, context, None if start is None else start.arrays, r)
            else:
                arrays, cost = learner.learn(part, context)
            start = ClusterModel(_checked(learner, arrays), len(part), int(cost), address, start)
    assert start is not None  # there is a sample, so there is a slice
    return start


def _slices(learner: Learner, samples: Samples, context: Context) -> tuple[np.ndarray, int]:
    """The slice of each sample, (N,), and how many there are."""
    if isinstance(learner, SlicedLearner):
        return learner.slices_of(samples.keys, context.seed), learner.n_slices()
    return np.zeros(len(samples), dtype=int), 1


def _checked(learner: Learner, arrays: Any) -> dict[str, np.ndarray]:
    """What a learner has returned, if it is arrays by name."""
    fine = isinstance(arrays, dict) and all(isinstance(array, np.ndarray) for array in arrays.values())
    if not fine or any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ValueError(f"{type(learner).__name__}.learn returned {type(arrays).__name__}, expected arrays by name")
    return arrays
