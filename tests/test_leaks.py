"""Whatever breaks exactness must be caught. The control: in the same course of events the eraser itself passes."""

import contextlib

import numpy as np
import pytest

from lmeraser_kit import Eraser, ExactnessError, HierarchicalClusters, LMEraser
from lmeraser_kit.baselines.leakage import LEAKS, CarelessMemory, KeptPrototypes, PooledEarlyStopping, SubtractedSums
from lmeraser_kit.learners import ExactSums
from lmeraser_kit.unlearning import SharedHead

CAUGHT_BY = {KeptPrototypes: "routing", SubtractedSums: "sums"}


def course_of_events(eraser, private, split):
    """A fit, then most of the largest cluster and a few others leave: every part of the state is disturbed."""
    eraser.fit(private, public=split.public)
    held = eraser.state_
    largest = held.samples.uids[held.assignment == np.bincount(held.assignment).argmax()]
    eraser.forget(np.union1d(largest[1:], held.samples.uids[-2:]))


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_every_leak_is_caught(leak, make_eraser, private, split):
    eraser = make_eraser(cls=leak)
    course_of_events(eraser, private, split)
    with pytest.raises(ExactnessError, match=CAUGHT_BY.get(leak, "cluster")):
        eraser.verify()


@pytest.mark.parametrize("fit_on", ["public", "private"])
def test_without_a_leak_the_same_events_pass(fit_on, make_eraser, private, split):
    eraser = make_eraser(HierarchicalClusters(5, fit_on=fit_on), cls=LMEraser)
    course_of_events(eraser, private, split)
    eraser.verify()


class CarelessRows(CarelessMemory, ExactSums):
    """Buckets with a cache of which one member is the key."""

    def bucket(self, rows, samples):
        return self._kept(samples, lambda: super(CarelessRows, self).bucket(rows, samples))


@pytest.mark.parametrize(
    "fit_on, learner, caught",
    [
        ("public", ExactSums(), False),
        ("public", CarelessRows(), True),
        ("private-once", ExactSums(), True),
    ],
)
def test_leaks_that_need_no_gradients_are_caught_in_a_shared_head(fit_on, learner, caught, backbone, private, split):
    eraser = Eraser(backbone, HierarchicalClusters(5, fit_on=fit_on), learner, SharedHead(), verbose=False)
    course_of_events(eraser, private, split)
    with pytest.raises(ExactnessError) if caught else contextlib.nullcontext():
        eraser.verify()


def test_pooled_stopping_leaks_through_the_choice_alone(make_eraser, private, split):
    """The leak suite's subclasses still learn: they are broken in exactness, not in function."""
    eraser = make_eraser(cls=PooledEarlyStopping).fit(private, public=split.public)
    assert eraser.score(split.test) > 0.3
