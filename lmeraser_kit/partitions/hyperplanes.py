"""Clusters by random hyperplanes from a public seed (Charikar 2002)."""

from __future__ import annotations

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.partitions.protocol import OwnPartition


class HyperplaneClusters(OwnPartition):
    """Clusters by the signs of a feature's products with random directions (Charikar 2002), from a public seed.

    Nothing is fitted. A sample whose own cluster has no model is predicted by the one that differs in the fewest signs.

    Args:
        n_bits: Number of hyperplanes; there are 2^n_bits clusters, some of them empty.
        seed: Draws the directions.
    """

    def __init__(self, n_bits=3, seed=0):
        self.n_bits = n_bits
        self.seed = seed

    def check(self, n_samples: int) -> None:
        """Refuse a number of bits or a seed that makes no sense. Raises ValueError."""
        checks.whole("n_bits", self.n_bits, 1, 20)
        checks.seed(self.seed)
        checks.whole("n_samples", n_samples, 0)

    def assign(self, features: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
        """The cluster of each sample, (N,) int: its signs, read as a binary number."""
        self.check(len(features := checks.array("features", features, "N", "D", empty=True)))
        directions = np.random.default_rng(self.seed).standard_normal((self.n_bits, features.shape[1]))
        products = np.stack([(features * direction).sum(axis=1) for direction in directions], axis=1)
        return (products > 0) @ (1 << np.arange(self.n_bits))

    def votes(self, features: np.ndarray, available: np.ndarray) -> np.ndarray:
        """The available cluster that differs in the fewest signs has the whole vote, (N, K)."""
        available = checks.indices("available", available, 2 ** int(self.n_bits))
        differing = np.bitwise_count(self.assign(features, None)[:, None] ^ available)
        return np.eye(len(available))[differing.argmin(axis=1)]
