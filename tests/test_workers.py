"""Dask: workers that round differently never enter a model, a backbone travels once, and a worker may be lost."""

import logging
import os
import pickle
import signal
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
import torch

from lmeraser_kit import HashClusters, LMEraser, Recipe, RidgeEraser, on_dask
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.baselines.shadows import shadow_logits
from lmeraser_kit.ground import held, workers
from lmeraser_kit.ground.determinism import exact_arithmetic
from lmeraser_kit.unlearning import buckets

distributed = pytest.importorskip("distributed")
OTHER_BITS = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem"}


def started(*environments, nthreads=1):
    logging.getLogger("distributed").setLevel(logging.ERROR)
    options = {"nthreads": nthreads, "memory_limit": 0}
    parts = {i: {"cls": distributed.Nanny, "options": {**options, "env": env}} for i, env in enumerate(environments)}
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": ":0"}}
    return distributed.SpecCluster(workers=parts, scheduler=scheduler, silence_logs=logging.ERROR)


@pytest.fixture(scope="module")
def mixed():
    """A client of three workers, the last of which rounds differently."""
    with started({}, {}, OTHER_BITS) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def make(backbone):
    def make(n_clusters=6):
        return LMEraser(backbone, HashClusters(n_clusters), Recipe(epochs=1), verbose=False)

    return make


def test_a_mixture_of_chips_never_becomes_a_model(mixed, make, private):
    expected = make().fit(private).state_hash()
    with joblib.parallel_config("dask", client=mixed), pytest.warns(UserWarning, match="computed here again: chip"):
        eraser = make().fit(private)
    assert eraser.state_hash() == expected


def test_only_workers_with_the_same_bits_get_work(mixed, make, private):
    with on_dask(mixed), pytest.warns(UserWarning, match="1 of 3 workers get no work: .* has chip DEFAULT") as said:
        eraser = make().fit(private)
        eraser.forget(private.uids[:10])
        eraser.verify()
    assert len(said) == 1
    assert eraser.state_hash() == make().fit(private[10:]).state_hash()


def test_a_backbone_travels_once_and_goes_afterwards(mixed, make, backbone, private):
    def n_held():
        return set(mixed.run(lambda: len(__import__("lmeraser_kit.ground.held").ground.held.HELD)).values())

    sizes, pack = [], held.packed

    def measured(*arguments):
        sizes.append(len(pack(*arguments)))
        return pack(*arguments)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"), on_dask(mixed):
        patch.setattr(workers, "packed", measured)
        make().fit(private)
        assert n_held() == {1}
        assert len(sizes) == 6 and max(sizes) < len(pickle.dumps(backbone)) / 2
        assert pickle.loads(pickle.dumps(backbone)).fingerprint == backbone.fingerprint  # whole, for anybody else
    assert n_held() == {0}


def test_features_and_reference_models_come_from_workers_too(mixed, backbone, private, split):
    inside = np.random.default_rng(0).random((4, 40)) < 0.5
    expected = shadow_logits(backbone, private[:40], inside, split.test[:8], Recipe(epochs=1))["trained"]
    ridge, cached = RidgeEraser(backbone, verbose=False), CachedFeatures(backbone)
    here, images = ridge.fit(private).state_hash(), np.concatenate([split.private.images, split.public.images])
    with warnings.catch_warnings(action="ignore"), on_dask(mixed):
        assert RidgeEraser(backbone, verbose=False).fit(private).state_hash() == here
        found = shadow_logits(backbone, private[:40], inside, split.test[:8], Recipe(epochs=1))["trained"]
        np.testing.assert_array_equal(cached.features(images), backbone.features(images))
    np.testing.assert_array_equal(found, expected)


def test_where_no_worker_fits_that_is_said_at_once(mixed, make, private, monkeypatch):
    there, mine = workers.environment, os.getpid()

    def unlike(*where):
        return there(*where) | ({"chip": "AVX1024"} if os.getpid() == mine else {})

    monkeypatch.setattr(workers, "environment", unlike)
    refused = pytest.raises(ValueError, match=r"no worker computes the bits of this process: .*ATEN_CPU_CAPABILITY")
    with on_dask(mixed), refused:
        make().fit(private)


def test_threads_of_a_worker_and_what_is_no_client_are_refused():
    with pytest.raises(ValueError, match=r"client is str, expected a distributed\.Client"), on_dask("tcp://there"):
        pass
    with started({}) as cluster, distributed.Client(cluster) as client:
        pass
    with pytest.raises(ValueError, match="the client is closed: use on_dask inside"), on_dask(client):
        pass
    refused = pytest.raises(ValueError, match=r"a worker has several threads: .* --nthreads 1")
    with started({}, nthreads=2) as cluster, distributed.Client(cluster) as client, refused, on_dask(client):
        pass


def test_a_result_that_changed_on_its_way_is_computed_again(monkeypatch):
    made = workers._made

    def changed(function, arguments, where):
        value, *others = made(function, arguments, where)
        return (value + (arguments[0] == 1), *others)

    monkeypatch.setattr(workers, "_made", changed)
    with joblib.parallel_config("threading"), pytest.warns(UserWarning, match="changed on its way"):
        assert [int(a) for a in workers.each(np.int64, [(i,) for i in range(3)], 2, "cpu")] == [0, 1, 2]


def test_threads_do_not_undo_each_others_settings():
    before, inside, may_leave = torch.get_num_threads(), threading.Event(), threading.Event()

    def first():
        with exact_arithmetic(before + 1):
            inside.set()
            may_leave.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(30)
    threading.Timer(0.2, may_leave.set).start()
    with exact_arithmetic(before + 2):
        thread.join(1)
        assert torch.get_num_threads() == before + 2 and torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before


def test_a_worker_is_lost_in_the_middle(mixed, make, private, monkeypatch):
    victim, pack, n_packed = min(mixed.run(os.getpid).items())[1], held.packed, iter(range(100))

    def killing(*arguments):
        if next(n_packed) == 8:
            os.kill(victim, signal.SIGKILL)
        return pack(*arguments)

    monkeypatch.setattr(workers, "packed", killing)
    with warnings.catch_warnings(action="ignore"), on_dask(mixed):
        eraser = make(24).fit(private)
    assert next(n_packed) > 8
    assert eraser.state_hash() == make(24).fit(private).state_hash()


def test_exact_sums_do_not_depend_on_who_adds_them_up(backbone, private, monkeypatch):
    """Workers of any chip add up parts, and one of them is lost; features come from those that fit."""
    expected = RidgeEraser(backbone, verbose=False).fit(private)
    monkeypatch.setattr(buckets, "TOGETHER", 8)
    with started({}, {}, OTHER_BITS) as cluster, distributed.Client(cluster) as client:
        victim, submit, asked = min(client.run(os.getpid).items())[1], client.submit, []

        def watched(made, function, call, where, **options):
            asked.append((where, options["workers"]))
            if sum(where is None for where, _ in asked) == 20:  # in the second fit
                os.kill(victim, signal.SIGKILL)
            return submit(made, function, call, where, **options)

        monkeypatch.setattr(client, "submit", watched)
        with warnings.catch_warnings(action="ignore"), on_dask(client):
            fitted = [RidgeEraser(backbone, verbose=False).fit(private) for _ in range(2)]
    of_sums = [workers for where, workers in asked if where is None]
    assert len(of_sums) == 2 * -(-len(private) // 8) > 20 and set(of_sums) == {None}  # any worker
    assert all(len(workers) == 2 for where, workers in asked[:3] if where is not None)
    for eraser in fitted:
        np.testing.assert_array_equal(eraser.state_.sums, expected.state_.sums)
        assert eraser.state_hash() == expected.state_hash()


def test_where_all_workers_are_lost_that_is_an_error_and_nothing_is_changed(make, private, monkeypatch):
    monkeypatch.setattr(workers, "LOOK", 0.5)
    pack, n_packed = held.packed, iter(range(100))
    cluster = distributed.LocalCluster(1, processes=False, threads_per_worker=1, dashboard_address=":0")

    def leaving(*arguments):
        if next(n_packed) == 3:
            cluster.scale(0)
        return pack(*arguments)

    monkeypatch.setattr(workers, "packed", leaving)
    monkeypatch.setattr(workers, "_made", slow)
    with cluster, distributed.Client(cluster) as client:
        eraser = make(24)
        gone = pytest.raises(RuntimeError, match="all workers have gone, and none came back in 3 s")
        with gone, warnings.catch_warnings(action="ignore"), on_dask(client):
            eraser.fit(private)
        assert not hasattr(eraser, "state_")
        cluster.scale(1)
        client.wait_for_workers(1, timeout=60)
        with on_dask(client), pytest.raises(RuntimeError, match="the client that on_dask was given is closed"):
            client.close()
            eraser.fit(private)


made = workers._made


def slow(*arguments):
    time.sleep(1)
    return made(*arguments)
