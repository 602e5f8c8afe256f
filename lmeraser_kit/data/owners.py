"""Invented owners, for real images that have none: who owns how many, and what, decides what a request costs."""

from __future__ import annotations

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.ground.names import keys_of
from lmeraser_kit.ground.samples import Samples, not_empty


def invented_owners(
    samples: Samples, mean_size: float = 10.0, exponent: float = 1.0, seed: int = 0, alike: bool = False
) -> Samples:
    """Samples with owners that are invented: nobody of this name owns these images.

    There are `round(N / mean_size)` owners, one at least. The owner of rank r has one sample, and of the others a share
    in proportion to `r^-exponent` (Zipf), rounded by largest remainders. Samples are ordered by a keyed number of their
    uid, owners by one of their name, and each owner gets the next samples in that order. With `alike` samples are
    ordered by class first, so that an owner's images are of one class, or of few.

    Args:
        samples: At least one; their own owners are replaced.
        mean_size: Samples of an owner on average, from 1.
        exponent: How uneven owners are, from 0 (all alike).
        seed: Keys the orders.
        alike: Whether an owner's images are of one class, as far as its sizes allow.

    Returns:
        The same samples; owners are named `owner-RANK`, the largest `owner-00001`.

    Raises:
        ValueError: If an argument is none of these.
    """
    n = len(not_empty("samples", samples))
    mean_size, exponent = checks.number("mean_size", mean_size, 1), checks.number("exponent", exponent)
    seed, alike = checks.seed(seed), checks.flag("alike", alike)
    n_owners = min(n, max(1, round(n / mean_size)))
    weights = np.arange(1, n_owners + 1, dtype=float) ** -exponent
    wanted = (n - n_owners) * weights / weights.sum()
    sizes = 1 + np.floor(wanted).astype(int)
    sizes[np.argsort(np.floor(wanted) - wanted, kind="stable")[: n - sizes.sum()]] += 1
    names = np.array([f"owner-{rank:05d}" for rank in range(1, n_owners + 1)])
    draws = keyed_uniform("invented sample", seed, samples.keys)[:, 0]
    order = np.lexsort((samples.uids, draws, samples.labels if alike else np.zeros(n, int)))
    turns = np.argsort(keyed_uniform("invented owner", seed, keys_of(names))[:, 0], kind="stable")
    owners = np.empty(n, names.dtype)
    owners[order] = np.repeat(names[turns], sizes[turns])
    return samples.with_owners(owners)
