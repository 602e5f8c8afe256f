"""Clusters with a bound: tries of samples' own bits (partitions.trie)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser_kit import HierarchicalClusters, RidgeEraser, Samples
from lmeraser_kit.partitions import trie
from lmeraser_kit.partitions.protocol import bounded

CODES = st.lists(st.integers(0, 2**5 - 1), min_size=1, max_size=40)


def by_hand(codes, bound, node=1, bit=0):
    """The leaves of a trie, by recursion: {place among codes: node}."""
    if len(codes) <= bound or bit == trie.BITS:
        return dict.fromkeys(codes, node)
    parts = [{i: code for i, code in codes.items() if code >> bit & 1 == side} for side in (0, 1)]
    return by_hand(parts[0], bound, 2 * node, bit + 1) | by_hand(parts[1], bound, 2 * node + 1, bit + 1)


@settings(max_examples=200, deadline=None)
@given(CODES, st.integers(1, 9))
def test_leaves_are_those_of_a_trie(codes, bound):
    found = trie.leaves(np.array(codes), bound)
    assert found.tolist() == [by_hand(dict(enumerate(codes)), bound)[i] for i in range(len(codes))]
    order = np.random.default_rng(0).permutation(len(codes))
    np.testing.assert_array_equal(trie.leaves(np.array(codes)[order], bound), found[order])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 31)), min_size=2, max_size=40), st.integers(1, 9))
def test_the_formula_counts_the_parts_that_a_request_joins(samples, bound):
    groups = np.array([group for group, _ in samples])
    codes = np.array([code | i << 5 for i, (_, code) in enumerate(samples)])  # no two are the same
    numbers = trie.numbers(groups, codes, 3, bound)
    parts = {frozenset(np.flatnonzero(numbers == k).tolist()) for k in np.unique(numbers)}
    assert max(map(len, parts)) <= bound
    learnt = saved = 0
    for i in range(len(samples)):
        stay = np.delete(np.arange(len(samples)), i)
        after = trie.numbers(groups[stay], codes[stay], 3, bound)
        now = {frozenset(stay[after == k].tolist()) for k in np.unique(after)}
        learnt += sum(map(len, now - parts))
        saved += bound if len(now) < len(parts) and now <= parts and numbers[stay].tolist() != after.tolist() else 0
    sizes = {int(k): int((numbers == k).sum()) for k in np.unique(numbers)}
    relearnt = np.array(trie.relearnt(sizes, 3, bound))
    assert learnt + saved == np.square(relearnt).sum() - relearnt.sum()  # N times sum(n^2) / N - 1


def test_a_bound_holds_for_whatever_data_come(backbone, split):
    clusters = HierarchicalClusters(4, bound=7).fit(backbone.features(split.public.images), split.public.keys)
    image = split.private.images[:1]
    alike = Samples(np.repeat(image, 200, axis=0), [0] * 200, [f"copy {i}" for i in range(200)], 10)
    features = backbone.features(alike.images)
    assigned = clusters.assign(features, alike.keys)
    assert len(set(assigned.tolist())) == 1
    codes = clusters.codes(features, alike.keys, assigned)
    assert len({code & 0xFFF for code in codes.tolist()}) == 1 and len(set(codes.tolist())) == 200
    numbers = trie.numbers(assigned, codes, clusters.n_groups, clusters.bound)
    assert np.unique(numbers, return_counts=True)[1].max() <= 7
    assert set((numbers % 4).tolist()) == set(assigned.tolist())
    private = split.private
    features = backbone.features(private.images)
    assigned = clusters.assign(features, private.keys)
    codes = clusters.codes(features, private.keys, assigned)
    alone = [clusters.codes(features[[i]], private.keys[[i]], assigned[[i]])[0] for i in range(20)]
    assert codes[:20].tolist() == alone  # each is projected by itself
    inside = (codes[:, None] >> np.arange(12)) & 1
    assert (inside.mean(axis=0) > 0.1).all() and (inside.mean(axis=0) < 0.9).all()  # directions divide


def test_a_request_that_crosses_the_bound_joins_and_divides(backbone, split, private, make_eraser):
    eraser = make_eraser(HierarchicalClusters(2, bound=15), recipe={"epochs": 1}).fit(private[:60], public=split.public)
    assert max(eraser.sizes().values()) <= 15 and len(eraser.sizes()) > 4
    routing = bounded(eraser.state_.routing)
    assert eraser.receipt_.cost_factor == 60**2 / np.square(eraser.relearnt()).sum()
    crossed = 0
    for uid in private.uids[:40]:
        before, groups = eraser.sizes(), eraser.relearnt()
        k = eraser.state_.clusters_of([uid])[uid]
        receipt = eraser.forget(uid)
        joined = sum(receipt.clusters_tuned.values())
        assert joined == before[k] - 1 or (joined == 15 and 16 in groups.tolist())
        crossed += joined > before[k] - 1
        assert all(k % 2 == j % 2 for j in receipt.clusters_tuned)
    fresh = make_eraser(HierarchicalClusters(2, bound=15), recipe={"epochs": 1}).fit(
        private[40:60], public=split.public
    )
    assert crossed and routing.n_groups == 2 and eraser.state_hash() == fresh.state_hash()
    eraser.add(private[:40])
    again = make_eraser(HierarchicalClusters(2, bound=15), recipe={"epochs": 1}).fit(private[:60], public=split.public)
    assert eraser.state_hash() == again.state_hash()
    np.testing.assert_array_equal(eraser.predict_proba(split.test), again.predict_proba(split.test))


def test_exact_sums_move_rows_between_parts_without_a_pass(backbone, split, private):
    eraser = RidgeEraser(backbone, HierarchicalClusters(2, bound=15, softness=0.2), verbose=False)
    eraser.fit(private[:60], public=split.public)
    for uid in private.uids[:40]:
        assert eraser.forget(uid).sample_gradients == 0
    fresh = RidgeEraser(backbone, HierarchicalClusters(2, bound=15, softness=0.2), verbose=False)
    fresh.fit(private[40:60], public=split.public)
    assert eraser.state_hash() == fresh.state_hash()
    assert eraser.verify() == fresh.state_hash()


@pytest.mark.parametrize("asked", [100, 3])
def test_a_fit_says_what_came_of_the_cost_factor(asked, backbone, split, private, recwarn):
    eraser = RidgeEraser(backbone, HierarchicalClusters(cost_factor=asked), verbose=False).fit(
        private[:40], split.public
    )
    factor = 40**2 / sum(n**2 for n in eraser.sizes().values())
    assert f"cost factor {factor:.1f}" in str(eraser.receipt_)
    said = [str(warning.message) for warning in recwarn if "cost_factor is" in str(warning.message)]
    assert bool(said) == (asked == 100) and all(f"only {factor:.1f} times" in text for text in said)
