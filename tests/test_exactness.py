"""Exactness is the product: what is left after any sequence of requests is, bit for bit, a fit on what remains."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from lmeraser_kit import (
    ExactnessError,
    HashClusters,
    HierarchicalClusters,
    HyperplaneClusters,
    Recipe,
    Samples,
    SingleCluster,
)
from lmeraser_kit.unlearning.rebuild import Rebuild

PARTITIONS = {
    "public": HierarchicalClusters(5),
    "uneven": HierarchicalClusters(5, linkage="average", unit_length=False),
    "threshold": HierarchicalClusters(distance_threshold=1.5),
    "cost factor": HierarchicalClusters(cost_factor=4.0),
    "bounded": HierarchicalClusters(3, bound=6),
    "soft": HierarchicalClusters(5, softness=0.2),
    "private": HierarchicalClusters(5, fit_on="private"),
    "private, bounded": HierarchicalClusters(3, fit_on="private", bound=6),
    "hyperplanes": HyperplaneClusters(3),
    "hashed": HashClusters(5),
    "single": SingleCluster(),
}


@pytest.fixture(params=PARTITIONS)
def clusters(request):
    return PARTITIONS[request.param]


@pytest.mark.parametrize("slices", [1, 3])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sequence_of_requests_equals_a_fresh_fit(data, slices, clusters, make_eraser, private, split):
    pool, recipe = private[:40], {"epochs": 1, "slices": slices}
    held = set(pool.uids[:24].tolist())
    eraser = make_eraser(clusters, recipe=recipe).fit(pool[:24], public=split.public)
    for _ in range(data.draw(st.integers(1, 4), label="requests")):
        outside = sorted(set(pool.uids.tolist()) - held)
        forget = len(held) > 8 and (not outside or data.draw(st.booleans(), label="forget?"))
        source = sorted(held) if forget else outside
        uids = data.draw(st.lists(st.sampled_from(source), min_size=1, max_size=4, unique=True), label="uids")
        before = eraser.state_.models
        receipt = eraser.forget(uids) if forget else eraser.add(pool[pool.positions(uids)])
        held = held - set(uids) if forget else held | set(uids)
        for k, model in eraser.state_.models.items():  # the others are untouched: not equal, the same
            assert k in receipt.clusters_tuned or any(model is old for old in before.values())
    remaining = pool[np.isin(pool.uids, list(held))]
    fresh = make_eraser(clusters, recipe=recipe).fit(remaining, public=split.public)
    assert eraser.state_hash() == fresh.state_hash()
    assert eraser.verify() == fresh.state_hash()
    np.testing.assert_array_equal(eraser.predict_proba(split.test[:16]), fresh.predict_proba(split.test[:16]))


@pytest.mark.parametrize("slices", [1, 3])
def test_the_inexact_rung_fails_what_the_exact_ones_pass(slices, make_eraser, private, split):
    published, recipe = HierarchicalClusters(5, fit_on="private-once"), {"epochs": 1, "slices": slices}
    eraser = make_eraser(published, recipe=recipe).fit(private, public=split.public)
    eraser.verify()  # before anyone leaves it is what a fit gives
    receipt = eraser.forget(private.uids[:30])
    assert not receipt.exact and receipt.n_moved == 0
    fresh = make_eraser(published, recipe=recipe).fit(private[30:], public=split.public)
    assert eraser.state_hash() != fresh.state_hash()
    with pytest.raises(ExactnessError, match="routing"):
        eraser.verify()


def test_a_request_goes_on_from_the_slice_before(make_eraser, private, split):
    eraser = make_eraser(SingleCluster(), recipe={"slices": 4, "epochs": 5}).fit(private)
    part, recipe = private.sorted(), eraser.recipe
    slices = recipe.slices_of(part.keys, eraser.seed)
    assert recipe.slice_epochs == 2 and set(slices) == {0, 1, 2, 3}
    assert eraser.receipt_.sample_gradients == 2 * sum((slices <= r).sum() for r in range(4))
    before = eraser.state_.models[0].checkpoints()
    leaving = part.uids[slices == 2][0]
    receipt = eraser.forget(leaving)
    after = eraser.state_.models[0].checkpoints()
    assert [new is old for new, old in zip(after, before, strict=True)] == [True, True, False, False]
    assert receipt.sample_gradients == 2 * sum((slices <= r).sum() - 1 for r in (2, 3))
    eraser.verify()


def test_verify_may_tune_some_clusters_only(make_eraser, private, split, monkeypatch):
    eraser = make_eraser().fit(private, public=split.public)
    one, *others = sorted(eraser.state_.models)
    tuned = []
    learn = Rebuild.learn
    monkeypatch.setattr(Rebuild, "learn", lambda self, jobs: tuned.extend(jobs) or learn(self, jobs))
    assert eraser.verify([one]) == eraser.state_hash()
    assert [len(part) for part, _ in tuned] == [eraser.sizes()[one]]
    object.__setattr__(eraser.state_.models[one], "n_samples", 1)
    eraser.verify(others)
    with pytest.raises(ExactnessError, match=rf"cluster {one}$"):
        eraser.verify([one])
    hidden = eraser.state_.members[one]  # a label is changed behind the eraser's back
    hidden.labels[0] = (hidden.labels[0] + 1) % 10
    with pytest.raises(ExactnessError, match=rf"members {one}"):
        eraser.verify(others)
    with pytest.raises(ValueError, match="no cluster 99"):
        eraser.verify([99])


def test_order_and_batches_of_requests_do_not_matter(clusters, make_eraser, private, split):
    leaving = private.uids[[3, 50, 51, 80]]
    by_batch = make_eraser(clusters).fit(private, public=split.public)
    by_batch.forget(leaving)
    one_by_one = make_eraser(clusters).fit(private[::-1], public=split.public[::-1])
    for uid in leaving[::-1]:
        one_by_one.forget(uid)
    there_and_back = make_eraser(clusters).fit(private.without(leaving), public=split.public)
    hash_before = there_and_back.state_hash()
    there_and_back.add(private[[7, 3]].without(private.uids[7]))
    there_and_back.forget(private.uids[3])
    assert by_batch.state_hash() == one_by_one.state_hash() == there_and_back.state_hash() == hash_before


def test_forgetting_touches_one_cluster_and_the_receipt_says_so(make_eraser, private, split):
    eraser = make_eraser().fit(private, public=split.public)
    size, uid = eraser.sizes(), eraser.state_.samples.uids[0]
    cluster = eraser.state_.clusters_of([uid])[uid]
    assert cluster == eraser.state_.assignment[0]
    receipt = eraser.forget(uid)
    changed = {k for k in size if receipt.clusters_before[k] != receipt.clusters_after.get(k)}
    assert changed == {cluster} == set(receipt.clusters_tuned)
    assert receipt.sample_gradients == (size[cluster] - 1) * 2
    assert (receipt.n_requested, receipt.n_samples, receipt.n_moved) == (1, 119, 0)
    assert receipt.hash_before != receipt.hash_after == eraser.state_hash()
    assert receipt.environment["threads"] == 1
    assert uid not in repr(receipt) and not hasattr(eraser, "receipt_")
    assert str(receipt).startswith(f"forget 1: 119 samples held, 1 of {len(size)} clusters learnt, ")


def test_only_a_fitted_eraser_forgets_and_adds(make_eraser, private):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        make_eraser().forget(private.uids[0])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        make_eraser().add(private[:1])


def test_the_same_image_given_twice_leaves_once(make_eraser, private, split):
    twin = Samples(private.images[:1], private.labels[:1], ["twin"], 10)
    eraser = make_eraser().fit(private + twin, public=split.public)
    eraser.forget("twin")
    assert eraser.state_hash() == make_eraser().fit(private, public=split.public).state_hash()
    assert private.uids[0] in eraser.state_.samples.uids


def test_whole_clusters_whole_classes_and_everything_can_leave(clusters, make_eraser, private, split):
    eraser = make_eraser(clusters, recipe={"epochs": 1}).fit(private, public=split.public)
    state = eraser.state_
    gone = int(np.bincount(state.assignment).argmax())
    receipt = eraser.forget(state.samples.uids[state.assignment == gone])
    if not clusters.refits:  # refitted prototypes are numbered anew
        assert gone in receipt.clusters_removed and receipt.sample_gradients == 0
    if len(eraser.state_.samples):
        eraser.verify()
        assert eraser.predict(split.test[:8]).shape == (8,)
        eraser.forget(eraser.state_.samples.uids[eraser.state_.samples.labels == 3])
        assert not (eraser.state_.samples.labels == 3).any()
        eraser.verify()
        eraser.forget(eraser.state_.samples.uids)
    assert len(eraser.state_.samples) == 0 and not eraser.state_.models
    assert (
        eraser.state_hash() == make_eraser(clusters, recipe={"epochs": 1}).fit(private[:0], split.public).state_hash()
    )
    eraser.verify()
    with pytest.raises(ValueError, match="no private sample is held"):
        eraser.predict(split.test)
    eraser.add(private[:9])
    assert (
        eraser.state_hash() == make_eraser(clusters, recipe={"epochs": 1}).fit(private[:9], split.public).state_hash()
    )


def test_clusters_of_one_sample_and_of_one_class(make_eraser, private, split):
    with pytest.warns(UserWarning, match="40 shards for 20 samples"):
        eraser = make_eraser(HashClusters(40)).fit(private[:20])
    assert 1 in eraser.sizes().values() and len(eraser.sizes()) < 20
    one_class = private[private.labels == private.labels[0]]
    alone = make_eraser(SingleCluster(), recipe={"epochs": 5, "head_lr": 1.0}).fit(one_class)
    assert (alone.predict(one_class) == private.labels[0]).all()
    for model in (eraser, alone):
        model.forget(model.state_.samples.uids[0])
        model.verify()


def test_refused_requests_change_nothing(make_eraser, private, split):
    eraser = make_eraser().fit(private[:60], public=split.public)
    before, uid = eraser.state_hash(), private.uids[0]
    small = Samples(np.zeros((1, 1, 4, 4), np.uint8), [0], ["small"])
    strange = Samples(private.images[:1], [10], ["strange"], 11)
    requests = [
        (lambda: eraser.forget([uid, "nobody"]), "unknown uid 'nobody'"),
        (lambda: eraser.forget([uid, uid]), "named twice"),
        (lambda: eraser.add(private[:1]), "is there already"),
        (lambda: eraser.add(split.public[:1]), "public"),
        (lambda: eraser.add(small), "cannot join"),
        (lambda: eraser.add(strange), "outside the range 0 to 9"),
    ]
    for request, message in requests:
        with pytest.raises(ValueError, match=message):
            request()
        assert eraser.state_hash() == before
    eraser.forget(uid)
    with pytest.raises(ValueError, match="forgotten already"):
        eraser.forget(uid)


def test_an_interrupted_request_changes_nothing(make_eraser, private, split, monkeypatch):
    eraser = make_eraser().fit(private[:60], public=split.public)
    before = eraser.state_hash()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmeraser_kit.unlearning.rebuild.learn_cluster", interrupted)
        with pytest.raises(KeyboardInterrupt):
            eraser.forget(private.uids[0])
    assert eraser.state_hash() == before and private.uids[0] in eraser.state_.samples.uids
    eraser.forget(private.uids[0])
    eraser.verify()


def test_verify_names_what_differs(make_eraser, private, split):
    eraser = make_eraser().fit(private, public=split.public)
    k = sorted(eraser.state_.models)[1]
    model = eraser.state_.models[k]
    with pytest.raises(ValueError, match="read-only"):
        model.arrays["prompt"][0, 0] = 0
    prompt = model.arrays["prompt"].copy()
    prompt[0, 0] = np.nextafter(prompt[0, 0], 1)  # one bit
    model.arrays["prompt"] = prompt
    with pytest.raises(ExactnessError, match=rf"cluster {k}$"):
        eraser.verify()


def test_in_another_environment_everything_is_built_anew(make_eraser, private, split):
    eraser = make_eraser().fit(private[:60], public=split.public)
    eraser.environment_ = {**eraser.environment_, "torch": "1.0"}
    with pytest.raises(RuntimeError, match=r"torch: 1\.0 then"):
        eraser.verify()
    receipt = eraser.forget(private.uids[0])
    assert receipt.clusters_tuned == eraser.sizes()
    eraser.verify()


def test_a_request_after_changed_arguments_is_refused(make_eraser, private, split):
    eraser = make_eraser().fit(private[:60], public=split.public)
    eraser.set_params(clusters__n_clusters=3)
    for request in (lambda: eraser.forget(private.uids[0]), lambda: eraser.add(private[60:61]), eraser.verify):
        with pytest.raises(ValueError, match="changed since the fit"):
            request()


def test_one_recipe_has_one_address():
    assert Recipe(epochs=np.int64(3), head_lr=1, flip=np.bool_(True)) == Recipe(epochs=3.0, head_lr=1.0, flip=True)
    assert repr(Recipe(epochs=3.0)) == repr(Recipe(epochs=np.int32(3)))
