"""Agglomerative clustering by SciPy and scikit-learn: the tree of mergers, and where it is cut."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist
from sklearn.cluster import ward_tree
from sklearn.neighbors import kneighbors_graph

BYTES_A_PAIR = 8  # the distances of all pairs, twice half of them


def squared_distances(points: np.ndarray, others: np.ndarray, exact: bool) -> np.ndarray:
    """Squared Euclidean distances, float64 (N, M); a row does not depend on who else is there.

    Args:
        points: Points, float64 (N, D).
        others: Other points, float64 (M, D).
        exact: Whether coordinates are whole numbers, whose products sum to less than 2^53: a matrix product is then
            right to the bit, in whatever order it is computed.
    """
    if not exact:
        return cdist(points, others, "sqeuclidean")
    squares = np.square(points).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return squares - 2 * (points @ others.T)


def merged(points: np.ndarray, linkage: str, neighbors: int | None, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """The tree of mergers.

    Args:
        points: Points, float64 (N, D), two at least.
        linkage: SciPy's name of it.
        neighbors: Only so many nearest neighbours of each point are candidates (Ward linkage); None for all pairs.
        exact: As for `squared_distances`.

    Returns:
        Which two were merged, int (N - 1, 2): i is point i, N + i the i-th merger; and at what distance, (N - 1,).
    """
    n = len(points)
    if neighbors is not None and neighbors < n:
        children, _, _, _, heights = ward_tree(
            points, connectivity=kneighbors_graph(points, int(neighbors)), return_distance=True
        )
        return children, heights
    if not exact:
        distances = pdist(points)
    else:
        distances, at = np.empty(n * (n - 1) // 2), 0
        for i in range(0, n, 256):
            for j, row in enumerate(squared_distances(points[i : i + 256], points, exact), i + 1):
                distances[at : at + n - j] = row[j:]
                at += n - j
        np.sqrt(distances, out=distances)
    tree = scipy_linkage(distances, linkage)
    return tree[:, :2].astype(int), tree[:, 2]


def size_biased_factor(sizes: np.ndarray) -> float:
    """`N^2 / sum(n_k^2)` of clusters of sizes n_k: see `evaluation.costs.cost_factors`."""
    sizes = np.asarray(sizes, dtype=float)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def cut(children: np.ndarray, n_clusters: int) -> np.ndarray:
    """The cluster of each point, (N,) int from 0, when the last mergers are undone, so that so many clusters remain."""
    n = len(children) + 1
    made = children[: n - n_clusters]
    above = np.repeat(np.arange(n, n + len(made)), 2)
    graph = coo_array((np.ones(len(above)), (above, made.ravel())), shape=(2 * n, 2 * n))
    return np.unique(connected_components(graph, directed=False)[1][:n], return_inverse=True)[1]


def cut_for(children: np.ndarray, cost_factor: float) -> np.ndarray:
    """The cut into the fewest clusters whose size-biased factor, `N^2 / sum(n_k^2)`, is at least `cost_factor`."""
    low, high = 1, len(children) + 1  # one cluster more, and none is larger than before
    while low < high:
        middle = (low + high) // 2
        enough = size_biased_factor(np.bincount(cut(children, middle))) >= cost_factor
        low, high = (low, middle) if enough else (middle + 1, high)
    return cut(children, low)
