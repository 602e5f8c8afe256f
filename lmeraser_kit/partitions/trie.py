"""A bound on the size of clusters: one with more samples is divided by its samples' bits, as a trie divides a node.

A leaf holds at most as many samples as the bound says, and a node with more is divided. So who is learnt together is a
function of the set of samples held, and of nothing else; there is no hysteresis. The root of cluster k's trie is node
1, the children of node i are 2i and 2i + 1, and the leaf at node i is cluster `k + (i - 1) K`: an undivided one keeps
its number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples, concatenate

BITS = 44  # of a sample's code; node numbers stay below 2^45


def leaves(codes: np.ndarray, bound: int) -> np.ndarray:
    """The leaf of each sample of one cluster.

    Args:
        codes: The samples' bits, the lowest first, int64 (N,).
        bound: How many samples a leaf may have; it has more only if all their BITS bits are the same.

    Returns:
        Numbers of nodes, int64 (N,).
    """
    node = np.ones(len(codes), np.int64)
    for bit in range(BITS):
        _, place, sizes = np.unique(node, return_inverse=True, return_counts=True)
        full = sizes[place] > bound
        if not full.any():
            break
        node = np.where(full, 2 * node + (codes >> bit & 1), node)
    return node


def numbers(groups: np.ndarray, codes: np.ndarray, n_groups: int, bound: int) -> np.ndarray:
    """The number of each sample's leaf, int64 (N,): see above.

    Args:
        groups: The samples' clusters before any is divided, (N,).
        codes: Their bits, int64 (N,).
        n_groups: K, the number of clusters before any is divided.
        bound: As for `leaves`.
    """
    leaf = groups.astype(np.int64)
    for group in np.unique(groups):
        in_group = groups == group
        leaf[in_group] += (leaves(codes[in_group], bound) - 1) * n_groups
    return leaf


def divide(
    held: Mapping[int, Samples],
    stay: tuple[dict[int, Samples], dict[int, np.ndarray]],
    joining: tuple[Samples, np.ndarray, np.ndarray],
    n_groups: int,
    bound: int,
) -> tuple[dict[int, Samples], dict[int, np.ndarray]]:
    """The leaves after a change; those in which nobody has changed are the same objects as before.

    Args:
        held: The members of each leaf before, by number.
        stay: The members of each leaf that stay, and their codes; a leaf that nobody has left is the object in `held`.
        joining: Who joins, their clusters, (N,), and their codes, int64 (N,).
        n_groups: As for `numbers`.
        bound: As for `leaves`.

    Returns:
        Members, in the order of their uids, and codes, of each leaf.
    """
    (members, codes), (samples, groups, bits) = stay, joining
    touched = {k % n_groups for k, part in held.items() if members.get(k) is not part} | set(groups.tolist())
    old = [k for k in members if k % n_groups in touched]
    everybody = concatenate([*(members[k] for k in old), samples])
    order = np.argsort(everybody.uids, kind="stable")
    bits = np.concatenate([*(codes[k] for k in old), bits])[order]
    groups = np.concatenate([np.repeat([k % n_groups for k in old], [len(members[k]) for k in old]), groups])[order]
    leaf, everybody = numbers(groups, bits, n_groups, bound), everybody[order]
    parts = {k: members[k] for k in members if k % n_groups not in touched}
    kept = {k: codes[k] for k in parts}
    for k in np.unique(leaf).tolist():
        part, kept[k] = everybody[leaf == k], bits[leaf == k]
        unchanged = k in members and members[k] is held.get(k) and np.array_equal(part.uids, members[k].uids)
        parts[k] = members[k] if unchanged else part
    return parts, kept


def relearnt(sizes: Mapping[int, int], n_groups: int, bound: int) -> list[int]:
    """Sizes of the groups of which a request for one sample learns one again.

    They are the leaves; but where a node has one sample more than the bound, any of its samples' leaving joins all of
    its leaves. (If they are two, and one has a single sample, its leaving costs nothing: the other has the members that
    it had. The sizes do not say so.)

    Args:
        sizes: Samples of each leaf, by number, one at least.
        n_groups: As for `divide`.
        bound: As for `leaves`.

    Returns:
        Sizes, of which `sum(n^2) / N - 1` is the expected number of samples learnt again.
    """
    bound, below = checks.whole("bound", bound), dict[tuple[int, int], int]()
    for k, n in sizes.items():
        group, node = k % n_groups, k // n_groups + 1
        while node:
            below[group, node] = below.get((group, node), 0) + n
            node //= 2
    joined = {place for place, n in below.items() if n == bound + 1}

    def inside(group: int, node: int) -> bool:
        return any((group, node >> up) in joined for up in range(node.bit_length()))

    alone = [n for k, n in sizes.items() if not inside(k % n_groups, k // n_groups + 1)]
    return alone + [bound + 1 for group, node in joined if not inside(group, node >> 1)]
