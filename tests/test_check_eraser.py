"""`check_eraser`: the kit's own learners and partitions pass, learners of one's own too, and leaks are caught."""

import linecache

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator

from lmeraser_kit import (
    Eraser,
    HashClusters,
    HierarchicalClusters,
    HyperplaneClusters,
    LMEraser,
    Recipe,
    RidgeEraser,
    SingleCluster,
    Store,
)
from lmeraser_kit.ground.hashing import described
from lmeraser_kit.learners import ExactSums, PromptTuning
from lmeraser_kit.partitions import OwnPartition
from lmeraser_kit.store import StoreError
from lmeraser_kit.testing import NotExactError, check_eraser
from lmeraser_kit.unlearning import SharedHead

PARTITIONS = {
    "public prototypes": HierarchicalClusters(4),
    "private prototypes": HierarchicalClusters(4, fit_on="private"),
    "hyperplanes": HyperplaneClusters(2),
    "shards": HashClusters(4),
    "one": SingleCluster(),
}
LEARNERS = {
    "prompt and head, in slices": (PromptTuning(Recipe(epochs=1, slices=2, shift=0.1)), None),
    "head": (PromptTuning(Recipe(epochs=2, prompt="none")), None),
    "exact sums": (ExactSums(mirrored=True), SharedHead(corrections=True)),
}


@pytest.fixture
def check(backbone, private, split):
    def check(eraser, **options):
        return check_eraser(eraser, private[:32], split.public[:50], verbose=False, **options)

    return check


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
@pytest.mark.parametrize("learner, vote", LEARNERS.values(), ids=LEARNERS)
def test_every_learner_and_partition_of_the_kit_is_exact(learner, vote, partition, check, backbone):
    assert all(not one.failure for one in check(Eraser(backbone, partition, learner, vote)))


@pytest.mark.parametrize("kind", [LMEraser, RidgeEraser])
def test_the_named_erasers_are_rows_of_the_same_table(kind, check, backbone, private, split):
    recipe = {"recipe": Recipe(epochs=1)} if kind is LMEraser else {}
    eraser = kind(backbone, HashClusters(3), **recipe, verbose=False).fit(private[:30])
    same = Eraser(backbone, *vars(eraser.choices()).values(), verbose=False).fit(private[:30])
    assert eraser.state_.pieces() == same.state_.pieces()
    np.testing.assert_array_equal(eraser.predict_proba(split.test), same.predict_proba(split.test))


# --- of one's own, in some twenty lines each


class ClassMeans(BaseEstimator):
    """The mean feature of each class; the nearest mean answers."""

    def __init__(self, temperature=2.0):
        self.temperature = temperature

    def learn(self, samples, context):
        one_hot = np.eye(samples.n_classes)[samples.labels]
        features = context.features(samples).astype(np.float64)
        return {"sums": one_hot.T @ features, "counts": one_hot.sum(axis=0)}, len(samples)

    def predict_proba(self, learnt, samples, context):
        features, there = context.features(samples), learnt["counts"] > 0
        means = learnt["sums"][there] / learnt["counts"][there, None]
        distances = np.full((len(features), len(there)), np.inf)
        distances[:, there] = np.square(features[:, None] - means).sum(axis=2)
        return softmax(-distances / self.temperature, axis=1)


class ByBrightness(OwnPartition):
    """Clusters by the first feature: bands of equal width; the own band answers, or the nearest that has samples."""

    def __init__(self, width=1.0, n_bands=4):
        self.width = width
        self.n_bands = n_bands

    def assign(self, features, keys):
        return np.clip(np.floor(features[:, 0] / self.width) + self.n_bands // 2, 0, self.n_bands - 1).astype(int)

    def votes(self, features, available):
        nearest = np.abs(self.assign(features, None)[:, None] - available).argmin(axis=1)
        return np.eye(len(available))[nearest]


def test_a_learner_and_a_partition_of_ones_own_get_everything(check, backbone, private, split, tmp_path):
    eraser = Eraser(backbone, ByBrightness(), ClassMeans(), verbose=False)
    assert all(not one.failure for one in check(eraser))
    with Store.create(tmp_path / "store", eraser, private[:40]) as store:
        assert store.forget(private.uids[:2]).n_forgotten == 2
    with pytest.raises(StoreError, match=r"of your own\): open it with eraser="):
        Store.open(tmp_path / "store")
    with pytest.raises(ValueError, match=r"learner from .*temperature.: 2.* to .*temperature.: 1"):
        Store.open(tmp_path / "store", eraser=Eraser(backbone, ByBrightness(), ClassMeans(1.0)))
    with Store.open(tmp_path / "store", eraser=eraser, verbose=False) as store:
        store.verify()
        assert store.eraser.state_hash() == eraser.fit(private[2:40]).state_hash()
        assert store.eraser.score(split.test) > 0.25


def test_what_is_no_learner_and_no_partition_is_refused(backbone, private):
    class Silent(BaseEstimator):
        def learn(self, samples, context):
            return {}, 0

    class Listed(ClassMeans):
        def learn(self, samples, context):
            return [1, 2], 0

    with pytest.raises(ValueError, match=r"learner is .*lacks predict_proba.*expected a learner such as"):
        Eraser(backbone, HashClusters(2), Silent()).fit(private[:30])
    with pytest.raises(ValueError, match=r"clusters .* lacks assign"):
        Eraser(backbone, ClassMeans(), ClassMeans()).fit(private[:30])
    with pytest.raises(ValueError, match=r"Listed\.learn returned list, expected arrays by name"):
        Eraser(backbone, HashClusters(2), Listed(), verbose=False).fit(private[:30])
    with pytest.raises(ValueError, match="ExactSums, from which a shared head can be computed"):
        Eraser(backbone, HashClusters(2), ClassMeans(), SharedHead()).fit(private[:30])


@pytest.mark.parametrize(
    "assigned, votes, says",
    [
        (lambda keys: keys / 2, None, r"assign returned float64 \(30,\).*expected int \(30,\) from 0"),
        (lambda keys: np.full(len(keys), -1), None, "the smallest -1"),
        (lambda keys: np.zeros(1, int), None, r"assign returned int64 \(1,\)"),
        (lambda keys: (keys % 2).astype(int), np.ones((1, 2)), "do not sum to 1"),
        (lambda keys: (keys % 2).astype(int), np.array([[2.0, -1.0]]), "negative"),
        (lambda keys: (keys % 2).astype(int), np.full((1, 2), np.nan), "finite weights"),
        (lambda keys: (keys % 2).astype(int), np.ones((1, 1)), r"expected finite weights \(5, 2\)"),
    ],
)
def test_what_a_partition_returns_is_checked(assigned, votes, says, backbone, private):
    class Wrong(OwnPartition):
        uses_features = False

        def assign(self, features, keys):
            return assigned(keys)

        def votes(self, features, available):
            return votes

    eraser = Eraser(backbone, Wrong(), ClassMeans(), verbose=False)
    with pytest.raises(ValueError, match=says):
        eraser.fit(private[:30]).predict(private[:5])
    assert votes is not None or not hasattr(eraser, "state_")


# --- with a leak


class GlobalNoise(ClassMeans):
    """A global random generator."""

    def learn(self, samples, context):
        learnt, cost = super().learn(samples, context)
        return learnt | {"sums": learnt["sums"] + 1e-6 * np.random.standard_normal(learnt["sums"].shape)}, cost  # noqa: NPY002


class SharedScaler(ClassMeans):
    """A scaler that the first cluster has fitted."""

    def learn(self, samples, context):
        learnt, cost = super().learn(samples, context)
        self.scale = getattr(self, "scale", learnt["sums"].std())
        return learnt | {"sums": learnt["sums"] / self.scale}, cost


SEEN = []


class Diary(ClassMeans):
    """Something is kept after deletion."""

    def learn(self, samples, context):
        SEEN.extend(samples.uids.tolist())
        return super().learn(samples, context)


class Album(ClassMeans):
    """Features are kept after deletion, as 64-bit numbers, in an object of the module."""

    def learn(self, samples, context):
        KEPT.rows = np.concatenate([KEPT.rows, context.features(samples).astype(np.float64)])
        return super().learn(samples, context)


class Kept:
    def __init__(self):
        self.rows = np.zeros((0, 32))


KEPT = Kept()


@pytest.fixture(autouse=True)
def nothing_is_kept_from_test_to_test():
    yield
    SEEN.clear()
    FIRST.clear()
    Peak.peak = 0.0
    KEPT.rows = np.zeros((0, 32))


class Peak(ClassMeans):
    """The largest feature so far scales all others: a number in the class."""

    peak = 0.0

    def learn(self, samples, context):
        learnt, cost = super().learn(samples, context)
        Peak.peak = max(Peak.peak, float(np.abs(context.features(samples)).max()))
        return learnt | {"sums": learnt["sums"] / Peak.peak}, cost


FIRST = {}


class FirstMean(ClassMeans):
    """The mean of the first cluster that was ever learnt moves all predictions; what is learnt is clean."""

    def learn(self, samples, context):
        FIRST.setdefault("mean", context.features(samples).mean(axis=0))
        return super().learn(samples, context)

    def predict_proba(self, learnt, samples, context):
        share = 1 / (1 + np.square(context.features(samples) - FIRST["mean"]).sum(axis=1, keepdims=True))
        return super().predict_proba(learnt, samples, context) * (1 - share) + share / samples.n_classes


class LooksAround(OwnPartition):
    """A cluster that depends on who else is routed."""

    def assign(self, features, keys):
        return (features[:, 0] > np.median(features[:, 0])).astype(int)

    def votes(self, features, available):
        return np.full((1, len(available)), 1 / len(available))


@pytest.mark.parametrize(
    "partition, learner, failure",
    [
        (HashClusters(3), GlobalNoise(), "learnt again, give other bits"),
        (HashClusters(3), SharedScaler(), "not those of a fit on the samples held"),
        (HashClusters(3), Diary(), "SEEN of the learner's module still holds the uid of a sample that has left"),
        (HashClusters(3), Album(), "KEPT of the learner's module still holds the features of a sample that has left"),
        (HashClusters(3), Peak(), "learning has changed Peak.peak"),
        (HashClusters(3), FirstMean(), "learning has changed FIRST of the learner's module"),
        (LooksAround(), ClassMeans(), "assigned to another cluster when others are routed with it"),
    ],
    ids=["global generator", "shared scaler", "uids kept", "features kept", "peak", "first mean", "looks around"],
)
def test_a_leak_fails(partition, learner, failure, check, backbone):
    results = check(Eraser(backbone, partition, learner), raises=False)
    assert failure in str([one.failure for one in results])
    assert sum(bool(one.failure) for one in results) < len(results), "a check that always fails says nothing"


def test_a_failed_check_raises_with_the_report(check, backbone):
    with pytest.raises(NotExactError, match=r"(?s)passed .*FAILED .*learnt again, give other bits"):
        check(Eraser(backbone, HashClusters(3), GlobalNoise()))


# --- defined in a notebook: another process has no source of it

CELL = """
import numpy as np
from sklearn.base import BaseEstimator

class Prior(BaseEstimator):
    def learn(self, samples, context):
        return {"counts": np.bincount(samples.labels, minlength=samples.n_classes) + self.one}, len(samples)

    @property
    def one(self):
        return 1.0

    def predict_proba(self, learnt, samples, context):
        return np.tile(learnt["counts"] / learnt["counts"].sum(), (len(samples), 1))
"""


def defined_in_a_cell(text=CELL):
    """What a notebook's kernel does: the class is of `__main__`, and only this process can find the source."""
    name = f"<cell {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), namespace)
    return namespace["Prior"]()


def test_a_learner_of_a_notebook_is_the_same_in_other_processes(check, backbone, private):
    eraser = Eraser(backbone, HashClusters(3), defined_in_a_cell(), verbose=False)
    assert all(not one.failure for one in check(eraser))
    alone = eraser.fit(private[:30]).state_hash()
    assert eraser.set_params(n_jobs=2).fit(private[:30]).state_hash() == alone


@pytest.mark.parametrize("old, new", [("+ self.one", "* self.one"), ("return 1.0", "return 2.0")])
def test_a_learner_with_other_code_has_another_description(old, new):
    assert described(defined_in_a_cell()) == described(defined_in_a_cell(CELL + "\n# a comment"))
    assert described(defined_in_a_cell()) != described(defined_in_a_cell(CELL.replace(old, new)))
