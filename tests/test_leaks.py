"""Whatever breaks exactness must be caught. The control: in the same course of events the eraser itself passes."""

import contextlib

import numpy as np
import pytest

from lmeraser_kit import ExactnessError, HierarchicalClusters, LMEraser
from lmeraser_kit.baselines.leakage import LEAKS, KeptPrototypes, PooledEarlyStopping, StaleCacheEntry
from lmeraser_kit.unlearning.ridge_eraser import RidgeEraser


def course_of_events(eraser, private, split):
    """A fit, then most of the largest cluster and a few others leave: every part of the state is disturbed."""
    eraser.fit(private, public=split.public)
    held = eraser.state_
    largest = held.samples.uids[held.assignment == np.bincount(held.assignment).argmax()]
    eraser.forget(np.union1d(largest[1:], held.samples.uids[-2:]))


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_every_leak_is_caught(leak, make_eraser, private, split):
    with make_eraser(cls=leak).install() as eraser:
        course_of_events(eraser, private, split)
        with pytest.raises(ExactnessError, match="routing" if leak is KeptPrototypes else "cluster"):
            eraser.verify()


@pytest.mark.parametrize("fit_on", ["public", "private"])
def test_without_a_leak_the_same_events_pass(fit_on, make_eraser, private, split):
    eraser = make_eraser(HierarchicalClusters(5, fit_on=fit_on), cls=LMEraser)
    course_of_events(eraser, private, split)
    eraser.verify()


@pytest.mark.parametrize("leak", [LMEraser, StaleCacheEntry, KeptPrototypes], ids=lambda leak: leak.__name__)
def test_the_leaks_that_need_no_gradients_are_caught_in_a_ridge_eraser(leak, make_eraser, private, split):
    cls = RidgeEraser if leak is LMEraser else type("Leaking", (leak, RidgeEraser), {})
    eraser = make_eraser(HierarchicalClusters(5), cls=cls)
    with contextlib.nullcontext() if leak is LMEraser else eraser.install():
        course_of_events(eraser, private, split)
        with contextlib.nullcontext() if leak is LMEraser else pytest.raises(ExactnessError):
            eraser.verify()


def test_pooled_stopping_leaks_through_the_choice_alone(make_eraser, private, split):
    """The leak suite's subclasses still learn: they are broken in exactness, not in function."""
    eraser = make_eraser(cls=PooledEarlyStopping).fit(private, public=split.public)
    assert eraser.score(split.test) > 0.3
