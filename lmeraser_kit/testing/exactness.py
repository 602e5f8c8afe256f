"""What must hold of every eraser, one function each; the first line of its docstring is the line of the report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cloudpickle
import numpy as np
import torch
from sklearn.base import clone

from lmeraser_kit.ground import files
from lmeraser_kit.ground.hashing import described
from lmeraser_kit.learners.clusters import learn_cluster
from lmeraser_kit.partitions.protocol import keys_for
from lmeraser_kit.store.files import StoreError
from lmeraser_kit.store.store import Store
from lmeraser_kit.testing.residue import bytes_of, kept_outside, traces_of
from lmeraser_kit.testing.trial import Trial, fingerprint, same


def _parameters(trial: Trial) -> None:
    """Its parts have parameters that name them, and it can be cloned and pickled."""
    for part in (trial.eraser.choices().partition, trial.eraser.choices().learner, trial.eraser.choices().vote):
        if described(clone(part)) != described(part):
            raise AssertionError(f"{part} and its clone have other parameters: store them unchanged in __init__")
    cloudpickle.dumps(trial.eraser)


def _pure(trial: Trial) -> None:
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


def _routing(trial: Trial) -> None:
    """A sample's cluster, and the votes on it, do not depend on who else is routed."""
    eraser = trial.fit(trial.before)
    routing, asked = eraser.state_.partition, trial.before
    features = eraser.backbone.features(np.asarray(asked.images)) if routing.uses_features else None
    keys = keys_for(routing, asked)
    assigned = np.asarray(routing.assign(features, keys))
    if assigned.shape != (len(asked),) or assigned.dtype.kind not in "iu" or assigned.min() < 0:
        raise AssertionError(f"assign returned {assigned.dtype} {assigned.shape}, expected int ({len(asked)},) from 0")
    available = np.array(sorted(eraser.state_.models))
    weights = np.broadcast_to(routing.votes(features, available), (len(asked), len(available)))
    if not np.allclose(weights.sum(axis=1), 1) or (weights < 0).any():
        raise AssertionError("votes are negative, or a row of them does not add up to 1")
    order = trial.rng.permutation(len(asked))
    for part in (order[: len(asked) // 2], *order[:8, None]):
        of_part = None if features is None else features[part]
        if not np.array_equal(routing.assign(of_part, keys[part]), assigned[part]):
            raise AssertionError("a sample is assigned to another cluster when others are routed with it")
        alone = np.broadcast_to(routing.votes(of_part, available), (len(part), len(available)))
        if not np.array_equal(alone, weights[part]):
            raise AssertionError("the votes on a sample change when others are asked about with it")


def _forgetting(trial: Trial) -> None:
    """Forgetting a group gives, bit for bit, the fit of another process that has never seen it."""
    expected = trial.expected("after")
    eraser = trial.fit(trial.before)
    same(fingerprint(eraser, trial.before), trial.expected("before"), "after a fit")
    eraser.forget(trial.leaving)
    same(fingerprint(eraser, trial.after), expected, "after forgetting a group")
    eraser.verify()


def _sequences(trial: Trial) -> None:
    """The order of arrival and of requests makes no difference, nor does who came and left in between."""
    eraser = trial.fit(trial.before[trial.rng.permutation(len(trial.before))])
    eraser.add(trial.coming)
    same(fingerprint(eraser, trial.before + trial.coming), trial.expected("grown"), "after adding a group")
    for uid in trial.rng.permutation([*trial.leaving, *trial.coming.uids.tolist()]).tolist():
        eraser.forget(uid)
    same(fingerprint(eraser, trial.after), trial.expected("after"), "after requests one by one, in another order")
    eraser.add(trial.before[trial.before.positions(trial.leaving)])
    same(fingerprint(eraser, trial.before), trial.expected("before"), "after who had left came back")


def _owners(trial: Trial) -> None:
    """Forgetting owners, at once or one by one, gives the fit without all of their samples; who comes back is back."""
    eraser, one_by_one = trial.fit(trial.before), trial.fit(trial.before)
    eraser.forget(owner=trial.owners)
    same(fingerprint(eraser, trial.after), trial.expected("after"), "after forgetting owners")
    for owner in trial.rng.permutation(trial.owners).tolist():
        one_by_one.forget(owner=owner)
    same(fingerprint(one_by_one, trial.after), trial.expected("after"), "after forgetting owners one by one")
    eraser.add(trial.before[trial.before.positions(trial.leaving)])
    same(fingerprint(eraser, trial.before), trial.expected("before"), "after owners came back")


def _rectifying(trial: Trial) -> None:
    """Rectifying images and labels gives the fit that has never seen the wrong ones, of which nothing is left."""
    wrong, right = trial.wrong(), trial.before[trial.before.positions(trial.leaving)]
    eraser = trial.fit(trial.after + wrong)
    traces = traces_of(wrong, eraser)
    eraser.rectify(right)
    same(fingerprint(eraser, trial.before), trial.expected("before"), "after rectifying")
    inside = {n: bytes_of(v) for n, v in vars(eraser).items() if n not in ("backbone", "public_")}
    _absent({kind: pieces for kind, pieces in traces.items() if kind not in ("uid", "owner")}, inside, "was rectified")


def _processes(trial: Trial) -> None:
    """Learning clusters in several processes gives the same bits."""
    eraser = trial.fit(trial.before, n_jobs=2)
    eraser.forget(trial.leaving)
    same(fingerprint(eraser, trial.after), trial.expected("after"), "with n_jobs=2")


def _everybody(trial: Trial) -> None:
    """Everybody can leave, and others come."""
    eraser = trial.fit(trial.coming)
    eraser.forget(trial.coming.uids)
    eraser.add(trial.after)
    same(fingerprint(eraser, trial.after), trial.expected("after"), "after everybody had left and others came")


def _memory(trial: Trial) -> None:
    """Nothing of a deleted sample is in the eraser, its parts' classes or modules; learning changes nothing there."""
    eraser = trial.fit(trial.before)
    traces = traces_of(trial.before[trial.before.positions(trial.leaving)], eraser)
    eraser.forget(trial.leaving)
    inside = {n: bytes_of(v) for n, v in vars(eraser).items() if n not in ("backbone", "public_")}
    inside |= {f"the learner's {n}": bytes_of(v) for n, v in vars(eraser.choices().learner).items()}
    outside = kept_outside(eraser)
    _absent(traces, inside | outside, "has left")
    changed = [place for place, held in outside.items() if held != trial.outside.get(place)]
    if changed:
        raise AssertionError(f"learning has changed {', '.join(changed)}: what is kept there outlives a deletion")


def _absent(traces: dict[str, list[bytes]], places: dict[str, bytes], what: str) -> None:
    for place, held in places.items():
        for trace, pieces in traces.items():
            if any(piece in held for piece in pieces):
                raise AssertionError(f"{place} still holds the {trace} of a sample that {what}")


class _Killed(BaseException):
    """The process is killed here."""


def _store(trial: Trial) -> None:
    """A store of it, killed at random points and opened again, does what was recorded, and nothing else."""
    right, wrong = trial.before[trial.before.positions(trial.leaving)], trial.wrong()
    fitted = trial.fit(trial.before)
    traces, of_wrong = traces_of(right, fitted), traces_of(wrong, fitted)
    traces = {kind: pieces + of_wrong[kind] for kind, pieces in traces.items()}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(4):
            at = Path(folder) / str(i)
            with _killed_after(int(trial.rng.integers(1, 40))) as killed:
                store = Store.create(at, trial.eraser, trial.after + wrong, trial.public)
                try:
                    store.rectify(right)
                    store.forget(owner=trial.owners)
                finally:
                    store.close()
            try:
                store = Store.open(at, verbose=False, eraser=trial.eraser)
            except StoreError:
                if not killed:
                    raise
                store = Store.create(at, trial.eraser, trial.after + wrong, trial.public)
            with store:
                store.check()
                if set(trial.leaving) & set(store.eraser.state_.samples.uids.tolist()):
                    store.rectify(right)  # or again, if the crash was after it: that changes nothing
                    same(fingerprint(store.eraser, trial.before), trial.expected("before"), "after a crash")
                    store.forget(owner=trial.owners)
                same(fingerprint(store.eraser, trial.after), trial.expected("after"), "in a store")
                store.verify()
            files_there = {f"{path.name} in the store": path for path in at.rglob("*") if path.is_file()}
            _absent(traces, {name: path.read_bytes() for name, path in files_there.items()}, "has left")


@contextmanager
def _killed_after(n: int) -> Iterator[list[bool]]:
    """The n-th file that is put in place, or flushed folder, is the last thing that happens."""
    calls, killed = 0, list[bool]()
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


CHECKS: tuple[Callable[[Trial], None], ...] = (
    _parameters,
    _forgetting,  # before anything is learnt here, so that the other process starts with nothing
    _pure,
    _routing,
    _sequences,
    _owners,
    _rectifying,
    _processes,
    _everybody,
    _memory,
    _store,
)
