"""Other processes, here and on other machines: whose bits may enter a result, and what they hold already.

Every result comes back with the environment that made it and a digest. One that this process would not have made to the
bit is computed again here, with a warning: a mixture of chips must not become a model. `on_dask` asks the workers first
where their bits come from, gives work to those that agree, and sends a backbone to each of them once.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import joblib

from lmeraser_kit.ground.determinism import code_digest, environment
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.held import Key, key_of, packed

AHEAD = 2  # jobs for each worker that are under way; a job may hold much of its data
LOOK = 10.0  # seconds after which it is looked whether the workers are there
LOOKS = 6  # so often none may be there: those that died are started again, which takes time
Where = tuple[str, int, bool] | None  # device, threads, whether NumPy counts: what `environment` takes; or no rounding
REMEDY = (
    "Processes agree where versions, the kit's code and the kernels of PyTorch and of the BLAS do: start them with the "
    "same ATEN_CPU_CAPABILITY and OPENBLAS_CORETYPE, on a chip that has these (docs/workers.md)"
)


class Workers:
    """The workers of a Dask client, while `on_dask` lasts.

    Attributes:
        client: The client.
        sent: Keys of what every worker holds.
    """

    def __init__(self, client: Any):
        self.client, self.sent = client, set[Key]()
        self._said: set[str] = set()

    def fitting(self, where: Where) -> list[str] | None:
        """Addresses of the workers whose bits are this process's; the others are named in a warning. None means all.

        Raises:
            ValueError: If there is none.
        """
        if getattr(self.client, "status", "running") != "running":
            raise RuntimeError(f"the client that on_dask was given is {self.client.status}")
        mine, theirs = _environment(where), self.client.run(_environment, where, on_error="return")
        unlike = {name: why for name, env in sorted(theirs.items()) if (why := differences(mine, env))}
        if len(unlike) == len(theirs):
            why = _listed(unlike) or "there is no worker any more"
            raise ValueError(f"no worker computes the bits of this process: {why}. {REMEDY}")
        if unlike.keys() - self._said:
            what = f"{len(unlike)} of {len(theirs)} workers get no work: {_listed(unlike)}"
            warnings.warn(f"{what}. {REMEDY}", stacklevel=4)
            self._said |= unlike.keys()
        return [name for name in theirs if name not in unlike] if unlike else None

    def send(self, key: Key, made_of: Any) -> None:
        """Send what many calls need to every worker, and to those that come later, once."""
        from lmeraser_kit.ground.dask_plugin import Holder  # Dask is not one of the kit's requirements

        if key not in self.sent:
            self.client.register_plugin(Holder(key, made_of), name=_name(key))
            self.sent.add(key)

    def results(self, jobs: Iterator[tuple], where: Where, shared: Any) -> Iterator[tuple]:
        """What `_made` gives for each job, in order, some jobs for each worker being under way.

        Raises:
            RuntimeError: If all workers that compute these bits have gone.
        """
        fitting, ahead = self.fitting(where), AHEAD * len(self.client.nthreads())
        if shared is not None:
            self.send(key_of(shared), shared.made_of())
        # Packed here: what is not bytes Dask would keep on one worker, and lose with it.
        calls = ((_unpacked, (packed(job[:2], self.sent),), where) for job in jobs)
        futures = deque[Any]()
        try:
            while True:
                for call in itertools.islice(calls, ahead - len(futures)):
                    futures.append(self.client.submit(_made, *call, workers=fitting, pure=False))
                if not futures:
                    return
                yield self._result(futures[0], fitting)
                futures.popleft()
        finally:
            with contextlib.suppress(Exception):  # the client is closed: its error has been raised
                self.client.cancel(list(futures))

    def _result(self, future: Any, fitting: list[str] | None) -> tuple:
        looks = 0
        while True:
            try:
                return future.result(timeout=LOOK)
            except TimeoutError:
                if future.status == "error":
                    raise
                there = self.client.nthreads().keys()
                if fitting is not None and not set(fitting) & there:
                    raise RuntimeError(f"all workers that compute these bits have gone: {', '.join(fitting)}") from None
                looks = 0 if there else looks + 1
                if looks == LOOKS:
                    raise RuntimeError(f"all workers have gone, and none came back in {LOOK * LOOKS:.0f} s") from None

    def forget(self) -> None:
        """Have the workers drop what was sent to them."""
        for key in self.sent:
            with contextlib.suppress(Exception):  # the cluster has gone, and its memory with it
                self.client.unregister_worker_plugin(_name(key))
        self.sent.clear()


_workers: list[Workers] = []  # the innermost `on_dask` last


@contextlib.contextmanager
def on_dask(client: Any) -> Iterator[Workers]:
    """Learn clusters, and compute features and reference models, on the workers of a Dask client.

    The bits are those of this process, whatever the workers: those that round differently get no work.

    Args:
        client: A `distributed.Client`, of workers with one thread each.

    Yields:
        The workers.

    Raises:
        ValueError: If it is no client, or it has no worker, or one with several threads: what makes bits the same is
            set for a process, so that its threads wait for each other. Later, if no worker computes these bits.
    """
    if not (hasattr(client, "run") and hasattr(client, "nthreads") and hasattr(client, "register_plugin")):
        raise ValueError(f"client is {type(client).__name__}, expected a distributed.Client")
    if getattr(client, "status", "running") != "running":
        raise ValueError(f"the client is {client.status}: use on_dask inside `with Client(...) as client`")
    threads = client.nthreads()
    several = [f"{address} has {n}" for address, n in sorted(threads.items()) if n != 1]
    if not threads or several:
        what = f"a worker has several threads: {'; '.join(several)}" if threads else "the client has no worker"
        raise ValueError(f"{what}: start workers of one thread each (dask worker --nthreads 1 --nworkers N ADDRESS)")
    from lmeraser_kit.ground.dask_plugin import large_calls  # there is a client, so there is Dask

    _workers.append(Workers(client))
    try:
        with large_calls():
            yield _workers[-1]
    finally:
        _workers.pop().forget()


def n_at_once(n_jobs: int | None) -> int:
    """How many calls are made at a time: on Dask's workers one each, else what joblib makes of n_jobs."""
    return max(1, len(_workers[-1].client.nthreads())) if _workers else joblib.effective_n_jobs(n_jobs)


def each(
    function: Callable,
    calls: Iterable[tuple],
    n_jobs: int | None,
    device: Any,
    threads: int = 1,
    numpy: bool = True,
    shared: Any = None,
) -> Iterator:
    """Results of a pure function, in order: from this process, from others of this machine, or from Dask's workers.

    Args:
        function: What is called; the same arguments give the same bits where the environment is the same.
        calls: Its arguments.
        n_jobs: Calls at a time (joblib); with one, all are made here.
        device: Where it computes; None if nothing is rounded, so that every chip gives the same whole numbers.
        threads: Intra-op threads that it computes with.
        numpy: Whether what rounds in NumPy and SciPy counts.
        shared: What all calls need, a backbone: workers get it once.

    Yields:
        Results: an array, a dictionary of arrays, or what has `hashed()`.
    """
    where, calls = None if device is None else (str(device), threads, numpy), iter(calls)
    first = list(itertools.islice(calls, 2))
    if len(first) < 2 or (not _workers and joblib.effective_n_jobs(n_jobs) == 1):
        yield from (function(*arguments) for arguments in itertools.chain(first, calls))
        return
    given: deque[tuple] = deque()  # arguments of what is at work, so that all are never in memory

    def noted() -> Iterator[tuple]:
        for arguments in itertools.chain(first, calls):
            given.append(arguments)
            yield function, arguments, where

    if _workers:
        results = _workers[-1].results(noted(), where, shared)
    else:
        results = joblib.Parallel(n_jobs, return_as="generator")(joblib.delayed(_made)(*job) for job in noted())
    mine = _environment(where)
    for value, made_by, host, sealed in results:
        arguments = given.popleft()
        why = differences(mine, made_by) or ("" if _digest(value) == sealed else "it has changed on its way")
        if why:
            warnings.warn(f"a result from {host} is computed here again: {why}. {REMEDY}", stacklevel=3)
            value = function(*arguments)
        yield value


def _environment(where: Where) -> dict[str, str | int]:
    return {"kit": code_digest()} if where is None else environment(*where)


def _unpacked(call: bytes) -> Any:
    with joblib.parallel_config("sequential"):  # what it calls is computed in this worker
        function, arguments = cloudpickle.loads(call)
        return function(*arguments)


def differences(mine: dict, theirs: Any) -> str:
    """What of another process's environment is not this one's, in words; empty if nothing."""
    if not isinstance(theirs, dict):
        return f"it cannot compute ({type(theirs).__name__}: {theirs})"
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    names = [name for name in names if not name.startswith("probe")] or names  # a hash says less than a chip's name
    return ", ".join(f"{name} {theirs.get(name, 'none')} and not {mine.get(name, 'none')}" for name in names)


def _made(function: Callable, arguments: tuple, where: Where) -> tuple[Any, dict, str, str]:
    """In a worker: a result, the environment that made it, the machine's name, and a digest of the result."""
    value = function(*arguments)
    return value, _environment(where), platform.node(), _digest(value)


def _digest(value: Any) -> str:
    if hasattr(value, "hashed"):
        return value.hashed()
    arrays = value if isinstance(value, dict) else {"": value}
    return digest(*(part for k, a in sorted(arrays.items()) for part in (k, str(a.dtype), a.shape, a.tobytes())))


def _listed(unlike: dict[str, str]) -> str:
    few = [f"{name} has {why}" for name, why in list(unlike.items())[:3]]
    return "; ".join(few) + (f"; and {len(unlike) - 3} more" if len(unlike) > 3 else "")


def _name(key: Key) -> str:
    return f"lmeraser-kit {' '.join(key)}"
