"""Is an eraser exact? `check_eraser` tries any learner, partition and vote, as scikit-learn's `check_estimator` does.

It cannot prove that a learner is a pure function. It tries what usually goes wrong: global random generators, state
that is kept from cluster to cluster or from request to request, draws by position, results that depend on the order of
requests, on processes, or on who else is there.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import cloudpickle
import numpy as np
import torch
from sklearn.base import clone

from lmeraser_kit.ground import checks
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.hashing import described, digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.clusters import learn_cluster
from lmeraser_kit.store import files
from lmeraser_kit.store.store import Store
from lmeraser_kit.unlearning.base import BaseEraser

LEAST = 24  # private samples: enough for clusters from which somebody leaves, and somebody stays


@dataclass(frozen=True)
class Check:
    """What one check has found.

    Attributes:
        name: What was checked.
        failure: What was wrong; empty if nothing was.
    """

    name: str
    failure: str

    def __str__(self) -> str:
        return f"{'FAILED' if self.failure else 'passed'}  {self.name}{': ' * bool(self.failure)}{self.failure}"


class NotExactError(AssertionError):
    """An eraser has failed a check.

    Attributes:
        checks: All checks, with what they have found.
    """

    def __init__(self, found: list[Check]):
        self.checks = found
        super().__init__("\n" + "\n".join(map(str, found)))


def check_eraser(
    eraser: BaseEraser,
    private: Samples,
    public: Samples | None = None,
    seed: int = 0,
    verbose: bool = True,
    raises: bool = True,
) -> list[Check]:
    """Try whether an eraser forgets exactly.

    Args:
        eraser: Unfitted; it is left as it is.
        private: Private samples, at least 24; a few dozen will do.
        public: As for `fit`.
        seed: Chooses who leaves, and where the store is interrupted.
        verbose: Print the report, and show a progress bar.
        raises: Whether a failure is an error, or only reported.

    Returns:
        What each check has found.

    Raises:
        NotExactError: If a check has failed; the message is the report.
        ValueError: If an argument is none of these.
    """
    checks.instance("eraser", eraser, BaseEraser)
    if len(checks.instance("private", private, Samples)) < LEAST:
        raise ValueError(f"private has {len(private)} samples, expected {LEAST} at least: groups leave and come back")
    trial = _Trial(clone(eraser).set_params(verbose=False), private, public, np.random.default_rng(checks.seed(seed)))
    found = []
    for check in progress(CHECKS, desc="checks", unit="check", disable=not verbose):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                check(trial)
                failure = ""
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
        found.append(Check(check.__doc__.splitlines()[0].rstrip("."), failure))
    if verbose:
        print(*found, sep="\n")
    if raises and any(check.failure for check in found):
        raise NotExactError(found)
    return found


class _Trial:
    """An eraser, samples that leave and samples that come, and what a fit in another process has given."""

    def __init__(self, eraser: BaseEraser, private: Samples, public: Samples | None, rng: np.random.Generator):
        self.eraser, self.public, self.rng = eraser, public, rng
        names = [f"name-of-sample-{i:07d}" for i in range(len(private))]  # they are searched for, so none is short
        private = Samples(np.asarray(private.images), private.labels, names, private.n_classes)
        order = rng.permutation(len(private))
        n = len(private) // 6
        self.coming, self.before = private[order[:n]], private[order[n:]]
        self.leaving = self.before.uids[:n].tolist()
        self.after = self.before.without(self.leaving)
        self._expected: dict[str, str] = {}

    def fresh(self) -> BaseEraser:
        return clone(self.eraser)

    def fit(self, samples: Samples, **changes) -> BaseEraser:
        return self.fresh().set_params(**changes).fit(samples, public=self.public)

    def expected(self, which: str) -> str:
        """The hash of a fit on `after`, `before` or `grown`, in another process, which sees who leaves last."""
        if not self._expected:
            cases = {"after": self.after, "before": self.before, "grown": self.before + self.coming}
            self._expected = dict(zip(cases, _elsewhere(self.fresh(), self.public, list(cases.values())), strict=True))
        return self._expected[which]


def fingerprint(eraser: BaseEraser, asked: Samples) -> str:
    """A hash of everything that a fitted eraser keeps, and of what it answers."""
    return digest(eraser.state_hash(), eraser.predict_proba(asked).tobytes())


def _same(found: str, expected: str, when: str) -> None:
    if found != expected:
        raise AssertionError(f"the state or its predictions are not those of a fit on the samples held, {when}")


PROGRAM = """
import sys
import cloudpickle
with open(sys.argv[1], "rb") as file:
    eraser, public, cases = cloudpickle.load(file)
from sklearn.base import clone
from lmeraser_kit.testing import fingerprint
for samples in cases:
    print("hash", fingerprint(clone(eraser).fit(samples, public=public), samples))
"""


def _elsewhere(eraser: BaseEraser, public: Samples | None, cases: list[Samples]) -> list[str]:
    """Hashes of fits in a new process, one after the other."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(cloudpickle.dumps((eraser, public, cases)))
        file.flush()
        command = [sys.executable, "-c", PROGRAM, file.name]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"a fit in another process has failed: {done.stderr.strip().splitlines()[-1]}")
    return [line.removeprefix("hash ") for line in done.stdout.splitlines() if line.startswith("hash ")]


def _parameters(trial: _Trial) -> None:
    """Its parts have parameters that name them, and it can be cloned and pickled."""
    for part in (trial.eraser.choices().partition, trial.eraser.choices().learner, trial.eraser.choices().vote):
        if described(clone(part)) != described(part):
            raise AssertionError(f"{part} and its clone have other parameters: store them unchanged in __init__")
    cloudpickle.dumps(trial.eraser)


def _pure(trial: _Trial) -> None:
    """A cluster is learnt from its samples alone: chance, and other clusters before it, make no difference."""
    rebuild = trial.fresh().rebuild()
    cluster, other = trial.after[: len(trial.after) // 2].sorted(), trial.before[len(trial.before) // 2 :]
    learner = clone(rebuild.learner)
    first = learn_cluster(learner, cluster, rebuild.context).digest
    again = learn_cluster(learner, cluster[::-1], rebuild.context).digest
    if first != again:
        raise AssertionError("the same samples, learnt again, give other bits: a random generator, or a state?")
    np.random.seed(12345)  # noqa: NPY002 - the global generator is what is tried
    torch.manual_seed(12345)
    learn_cluster(learner, other, rebuild.context)
    if learn_cluster(learner, cluster, rebuild.context).digest != first:
        raise AssertionError("a cluster depends on which other cluster was learnt before it, or on a global generator")


def _routing(trial: _Trial) -> None:
    """A sample's cluster, and the votes on it, do not depend on who else is routed."""
    eraser = trial.fit(trial.before)
    routing, asked = eraser.state_.routing, trial.before
    features = eraser.backbone.features(np.asarray(asked.images)) if routing.uses_features else None
    assigned = np.asarray(routing.assign(features, asked.keys))
    if assigned.shape != (len(asked),) or assigned.dtype.kind not in "iu" or assigned.min() < 0:
        raise AssertionError(f"assign returned {assigned.dtype} {assigned.shape}, expected int ({len(asked)},) from 0")
    part = trial.rng.permutation(len(asked))[: len(asked) // 2]
    of_part = None if features is None else features[part]
    if not np.array_equal(routing.assign(of_part, asked.keys[part]), assigned[part]):
        raise AssertionError("a sample is assigned to another cluster when others are routed with it")
    available = np.array(sorted(eraser.state_.models))
    weights = np.broadcast_to(routing.votes(features, available), (len(asked), len(available)))
    if not np.allclose(weights.sum(axis=1), 1) or (weights < 0).any():
        raise AssertionError("votes are negative, or a row of them does not add up to 1")
    alone = np.broadcast_to(routing.votes(of_part, available), (len(part), len(available)))
    if not np.array_equal(alone, weights[part]):
        raise AssertionError("the votes on a sample change when others are asked about with it")


def _forgetting(trial: _Trial) -> None:
    """Forgetting a group gives, bit for bit, the fit of another process that has never seen it."""
    expected = trial.expected("after")
    eraser = trial.fit(trial.before)
    _same(fingerprint(eraser, trial.before), trial.expected("before"), "after a fit")
    eraser.forget(trial.leaving)
    _same(fingerprint(eraser, trial.after), expected, "after forgetting a group")
    eraser.verify()


def _sequences(trial: _Trial) -> None:
    """The order of arrival and of requests makes no difference, nor does who came and left in between."""
    eraser = trial.fit(trial.before[trial.rng.permutation(len(trial.before))])
    eraser.add(trial.coming)
    _same(fingerprint(eraser, trial.before + trial.coming), trial.expected("grown"), "after adding a group")
    for uid in trial.rng.permutation([*trial.leaving, *trial.coming.uids.tolist()]).tolist():
        eraser.forget(uid)
    _same(fingerprint(eraser, trial.after), trial.expected("after"), "after requests one by one, in another order")
    eraser.add(trial.before[trial.before.positions(trial.leaving)])
    _same(fingerprint(eraser, trial.before), trial.expected("before"), "after who had left came back")


def _processes(trial: _Trial) -> None:
    """Learning clusters in several processes gives the same bits."""
    eraser = trial.fit(trial.before, n_jobs=2)
    eraser.forget(trial.leaving)
    _same(fingerprint(eraser, trial.after), trial.expected("after"), "with n_jobs=2")


def _everybody(trial: _Trial) -> None:
    """Everybody can leave, and others come."""
    eraser = trial.fit(trial.coming)
    eraser.forget(trial.coming.uids)
    eraser.add(trial.after)
    _same(fingerprint(eraser, trial.after), trial.expected("after"), "after everybody had left and others came")


def _memory(trial: _Trial) -> None:
    """Nothing of who has left is in the eraser, in the learner's class or in its module."""
    eraser = trial.fit(trial.before)
    eraser.forget(trial.leaving)
    gone = trial.before[trial.before.positions(trial.leaving)]
    learner = eraser.choices().learner
    module = sys.modules.get(type(learner).__module__)
    places = {"the eraser": vars(eraser), "the learner": vars(learner)}
    places["the learner's class"] = {n: v for n, v in vars(type(learner)).items() if not callable(v)}
    if module is not None and not module.__name__.startswith("lmeraser_kit"):
        places["the learner's module"] = {n: v for n, v in vars(module).items() if isinstance(v, (dict, list, set))}
    traces = {"uid": [f"{uid}".encode() for uid in gone.uids], "hash": [d.tobytes() for d in gone.digests]}
    traces |= {"pixels": [np.ascontiguousarray(image).tobytes() for image in gone.images]}
    traces |= {"features": [row.tobytes() for row in eraser.backbone.features(np.asarray(gone.images))]}
    for place, content in places.items():
        held = _bytes_of({name: value for name, value in content.items() if name not in ("backbone", "public_")})
        for trace, pieces in traces.items():
            if any(piece in held for piece in pieces):
                raise AssertionError(f"{place} still holds the {trace} of a sample that has left")


def _bytes_of(content: dict) -> bytes:
    """What can be pickled of it, arrays row by row as they lie in memory."""
    pieces = []
    for value in content.values():
        try:
            pieces.append(pickle.dumps(value))
        except Exception:  # locks, modules, open files: they hold no sample
            pieces.append(repr(value).encode())
    return b"\0".join(pieces)


class _Killed(BaseException):
    """The process is killed here."""


def _store(trial: _Trial) -> None:
    """A store of it, killed at random points and opened again, does what was recorded, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(4):
            at = Path(folder) / str(i)
            with _killed_after(int(trial.rng.integers(1, 40))) as killed:
                store = Store.create(at, trial.eraser, trial.before, trial.public)
                try:
                    store.forget(trial.leaving)
                finally:
                    store.close()
            try:
                store = Store.open(at, verbose=False, eraser=trial.eraser)
            except files.StoreError:
                if not killed:
                    raise
                store = Store.create(at, trial.eraser, trial.before, trial.public)
            with store:
                store.check()
                if set(trial.leaving) & set(store.eraser.state_.samples.uids.tolist()):
                    _same(fingerprint(store.eraser, trial.before), trial.expected("before"), "after a crash")
                    store.forget(trial.leaving)
                _same(fingerprint(store.eraser, trial.after), trial.expected("after"), "in a store")
                store.verify()
            gone = trial.before[trial.before.positions(trial.leaving)]
            pieces = [*(d.tobytes() for d in gone.digests), *(np.ascontiguousarray(x).tobytes() for x in gone.images)]
            for path in (path for path in at.rglob("*") if path.is_file()):
                if any(piece in path.read_bytes() for piece in pieces):
                    raise AssertionError(f"{path.name} in the store still holds a sample that has left")


@contextmanager
def _killed_after(n: int) -> Iterator[list[bool]]:
    """The n-th file that is put in place, or flushed folder, is the last thing that happens."""
    calls, killed = 0, []
    real = files.flush_folder

    def counted(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            raise _Killed
        real(path)

    with mock.patch.object(files, "flush_folder", counted):
        try:
            yield killed
        except _Killed:
            killed.append(True)


CHECKS: tuple[Callable[[_Trial], None], ...] = (
    _parameters,
    _pure,
    _forgetting,
    _routing,
    _sequences,
    _processes,
    _everybody,
    _memory,
    _store,
)
