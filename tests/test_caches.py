"""A cache never lies: for everything that is kept (docs/caches.md), each ingredient of its key changed is a miss."""

import ast
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tomllib

import joblib
import numpy as np
import pytest
import torch

from lmeraser_kit import Backbone, HashClusters, HierarchicalClusters, LMEraser, Recipe, RidgeEraser, Samples, Store
from lmeraser_kit.backbones import CachedFeatures, named, pretraining
from lmeraser_kit.backbones import backbone as backbone_module
from lmeraser_kit.backbones.cached import key_of, processes
from lmeraser_kit.data import inputs
from lmeraser_kit.experiments import runs as kit_runs
from lmeraser_kit.experiments.results import write_json
from lmeraser_kit.ground import determinism
from lmeraser_kit.learners import Context, ExactSums, PromptTuning, cluster_addresses
from lmeraser_kit.store.files import StoreError

PACKAGE = determinism.PACKAGE


# --- the code


def test_only_folders_that_compute_nothing_are_left_out_of_the_hash_of_the_code():
    """That nothing which computes imports from them is a contract of the import linter, in pyproject.toml."""
    contracts = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["id"] == "code")
    assert {f"lmeraser_kit.{name}" for name in determinism.NO_BITS} == set(contract["forbidden_modules"])
    computing = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in determinism.computing_files()}
    assert {f"lmeraser_kit.{name}" for name in computing - {"__init__"}} == set(contract["source_modules"])


def test_a_change_in_any_computing_file_and_a_new_file_are_other_code(tmp_path):
    copy = tmp_path / "lmeraser_kit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def digest():
        return determinism.code_digest.__wrapped__(copy)

    before = digest()
    assert before == determinism.code_digest()
    for path in [copy / p.relative_to(PACKAGE) for p in determinism.computing_files()]:
        content = path.read_bytes()
        path.write_bytes(content + b"\n# another way\n")
        assert digest() != before, path.name
        path.write_bytes(content)
    assert digest() == before
    (copy / "rooms").mkdir()
    (copy / "rooms" / "new.py").write_text("x = 1\n")
    assert digest() != before
    (copy / "experiments" / "new.py").write_text("")
    (copy / "rooms" / "new.py").unlink()
    assert digest() == before  # an experiment computes no bit of a model


# --- where it was computed


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are those of x86 chips")
def test_the_environment_names_kernels_that_round_differently():
    def environment(**settings):
        program = "from lmeraser_kit.ground.determinism import environment; print(environment('cpu', 1))"
        plain = {name: value for name, value in os.environ.items() if name not in names}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=plain | settings)
        return ast.literal_eval(done.stdout)

    names = {"OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"}
    here = environment()
    numpys = environment(OPENBLAS_CORETYPE="Nehalem")
    torchs = environment(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41", MKL_CBWR="COMPATIBLE")
    changed = [{name for name in here if here[name] != there[name]} for there in (numpys, torchs)]
    assert changed == [{"blas", "probe_numpy"}, {"chip", "probe"}]
    assert "Nehalem" in numpys["blas"] or "openblas" not in here["blas"]


def test_the_environment_knows_threads_and_code(monkeypatch):
    here = determinism.environment("cpu", 1)
    assert determinism.environment("cpu", 2) != here
    assert ", device cpu, " in determinism.environment_in_words("cpu", 1)
    monkeypatch.setattr(determinism, "code_digest", lambda: "other code")
    assert {k for k, v in determinism.environment("cpu", 1).items() if v != here[k]} == {"kit"}


# --- a cluster's model, and a shard's statistics


def other_samples(part):
    images = part.images.copy()
    images[0, 0, 0, 0] ^= 1
    labels = part.labels.copy()
    labels[0] = (labels[0] + 1) % part.n_classes
    return {
        "a sample less": part[1:],
        "another pixel": Samples(images, part.labels, part.uids, part.n_classes),
        "another label": Samples(part.images, labels, part.uids, part.n_classes),
        "another uid": Samples(part.images, part.labels, [f"{u}x" for u in part.uids], part.n_classes),
        "another number of classes": dataclasses.replace(part, n_classes=part.n_classes + 1),
    }


def test_each_ingredient_of_a_clusters_model_is_in_its_address(backbone, private, split, monkeypatch):
    part, recipe = private[:6], Recipe(epochs=2)

    def address(backbone=backbone, part=part, recipe=recipe, seed=0, threads=1):
        return cluster_addresses(PromptTuning(recipe), part, Context(backbone, seed, threads))[0]

    addresses = {"as it was": address(), "seed": address(seed=1), "threads": address(threads=2)}
    addresses |= {name: address(part=other) for name, other in other_samples(part).items()}
    for field in dataclasses.fields(Recipe):
        if field.name != "slices":  # below
            value = getattr(recipe, field.name)
            other = {"prompt": "patch", "optimiser": "sgd", "head_start": "zero", "flip": True}.get(field.name)
            other = other if other is not None else value + 1 if field.type == "int" else value * 0.5 + 0.01
            addresses[f"recipe: {field.name}"] = address(recipe=dataclasses.replace(recipe, **{field.name: other}))
    addresses["slices"] = cluster_addresses(
        PromptTuning(dataclasses.replace(recipe, slices=2)), part, Context(backbone)
    )[1]
    weights = backbone.state_dict() | {"norm.bias": backbone.state_dict()["norm.bias"] + 1e-3}
    architecture, arguments, _, config = backbone.made_of()[:4]
    addresses["weights"] = address(Backbone(architecture, arguments, weights, config, "cpu"))
    brighter = {**config, "mean": (0.4, 0.5, 0.5)}
    addresses["preprocessing"] = address(Backbone(architecture, arguments, backbone.state_dict(), brighter, "cpu"))
    addresses["precision"] = address(backbone.at("bfloat16"))
    addresses["scale of features"] = address(backbone.standardised(split.public[:50]))
    here = determinism.environment(backbone.device, 1)
    for name in here:
        with monkeypatch.context() as patch:
            patch.setattr("lmeraser_kit.learners.clusters.environment", lambda *a, name=name: {**here, name: "other"})
            addresses[f"environment: {name}"] = address()
    assert len(set(addresses.values())) == len(addresses) > 40
    shuffled = part[np.random.default_rng(0).permutation(len(part))]
    assert address() == address(part=shuffled) == address(seed=np.int64(0), recipe=Recipe(epochs=2.0))


def test_each_ingredient_of_a_shards_statistics_is_in_its_address(backbone, private):
    part = private[:6]

    def address(part=part, **options):
        return cluster_addresses(ExactSums(**options), part, Context(backbone))[0]

    addresses = {"as it was": address(), "layers": address(layers=False), "mirrored": address(mirrored=True)}
    addresses |= {name: address(part=other) for name, other in other_samples(part).items()}
    addresses["l2"], addresses["a model's"] = (
        address(l2=0.5),
        cluster_addresses(PromptTuning(), part, Context(backbone))[0],
    )
    assert len(set(addresses.values())) == len(addresses)


def test_the_routing_is_not_kept_for_another_partition_backbone_or_public_part(make_eraser, private, split):
    eraser = make_eraser().fit(private[:60], public=split.public)
    before = eraser.state_.routing
    eraser.forget(private.uids[0])
    assert eraser.state_.routing is before
    eraser.fit(private[:60], public=split.public[:200])
    assert eraser.state_.routing.pieces() != before.pieces()
    eraser.set_params(clusters__n_clusters=4)
    with pytest.raises(ValueError, match="changed since the fit"):
        eraser.forget(private.uids[0])
    eraser.set_params(clusters__n_clusters=5, backbone=eraser.backbone.at("bfloat16"))
    with pytest.raises(ValueError, match="changed since the fit"):
        eraser.forget(private.uids[0])


def test_planning_leaves_a_fitted_eraser_as_it_is(make_eraser, private, split):
    """Planning with other arguments must not pass them off as those of the fit."""
    eraser = make_eraser().fit(private[:60], public=split.public)
    before = eraser.state_hash()
    eraser.set_params(seed=8)
    eraser.plan(private[:30], public=split.public[:300])
    with pytest.raises(ValueError, match="changed since the fit"):
        eraser.predict(split.test)
    eraser.set_params(seed=3)
    assert eraser.state_hash() == before and eraser.public_ is split.public


# --- a backbone that was trained here


def test_a_gpu_is_asked_by_one_process():
    chosen = [processes(torch.device(kind), n) for kind in ("cpu", "cuda", "mps") for n in (1, 5)]
    assert chosen == [1, joblib.cpu_count(), 1, 1, 1, 1]


def test_features_are_computed_once_and_go_with_their_image(backbone, split, private, tmp_path, monkeypatch):
    standard, images = backbone.standardised(split.public), private.images[:100]
    expected = {layers: standard.features(images, layers=layers) for layers in (False, True)}
    cached, computed = CachedFeatures(standard, tmp_path), []
    measured = CachedFeatures(backbone, tmp_path).standardised(split.public)
    assert measured.fingerprint == standard.fingerprint and isinstance(measured, CachedFeatures)

    def counted(self, images, *args):
        computed.append(len(images))
        return plain(self, images, *args)

    plain = Backbone.features
    monkeypatch.setattr(Backbone, "features", counted)
    for again, new in ((cached, [100, 100]), (cached, []), (CachedFeatures(standard, tmp_path), []), (measured, [])):
        for layers in (False, True):
            np.testing.assert_array_equal(again.features(images, layers=layers), expected[layers])
        assert computed == new
        computed.clear()
    twice = CachedFeatures(standard, tmp_path).features(np.concatenate([images, images[::-1]]))
    np.testing.assert_array_equal(twice, np.concatenate([expected[False], expected[False][::-1]]))
    other = backbone.at("bfloat16")
    for one, n in ((CachedFeatures(other, tmp_path), 100), (CachedFeatures(standard, tmp_path / "other"), 100)):
        one.features(images)
        assert computed == [n]
        computed.clear()
    monkeypatch.setattr("lmeraser_kit.backbones.cached.environment", lambda *_: {"kit": "other code"})
    CachedFeatures(standard, tmp_path).features(images)
    assert computed == [100]


def test_an_eraser_deletes_the_features_of_who_has_left(backbone, split, private, tmp_path):
    cached = CachedFeatures(backbone, tmp_path)
    raw = {layers: backbone.features(private.images, layers=layers) for layers in (False, True)}
    mirror = backbone.features(np.ascontiguousarray(private.images[..., ::-1]), layers=True)
    eraser = RidgeEraser(cached, HierarchicalClusters(3), mirrored=True, verbose=False).fit(
        private, public=split.public
    )
    CachedFeatures(backbone, tmp_path).features(private.images)  # of another process, which this one has never read
    files = [path.read_bytes() for path in tmp_path.rglob("*.safetensors")]
    for features in (*raw.values(), mirror):
        assert any(features[7].tobytes() in data for data in files)
    gone = cached.rows[True, 1, key_of(private.images[7])]
    eraser.forget(private.uids[7])
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for features in (*raw.values(), mirror):
        assert not any(features[7].tobytes() in data for data in files)
        assert any(features[8].tobytes() in data for data in files)
    assert not gone.any() and not any(key_of(private.images[7]) == key for _, _, key in cached.rows)
    fresh = CachedFeatures(backbone, tmp_path)  # those who stay are found again
    np.testing.assert_array_equal(fresh.features(private.images, layers=True), raw[True])
    eraser.forget(private.uids[:7]), eraser.forget(private.uids[8:])
    cached.features(private.images[:100], layers=True)  # the same images come again, into a file of the same name
    cached.drop(private.images[:100])
    cached.features(private.images[:100], layers=True)
    cached.drop(private.images[:100])
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(row.tobytes() in files for row in raw[True])
    with pytest.raises(StoreError, match=r"keeps features outside the store: give backbone\.uncached"):
        Store.create(tmp_path / "store", RidgeEraser(cached, HashClusters(3), verbose=False), private)


def test_each_ingredient_of_a_trained_backbone_is_in_its_files_name(split, tmp_path, monkeypatch):
    public, trained = split.public[:30], []
    real = pretraining.pretrain_vit

    def counted(*arguments, **options):
        trained.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(backbone_module, "pretrain_vit", counted)
    monkeypatch.setitem(pretraining.VITS, "other-vit", {**pretraining.VITS["small-vit"], "depth": 1})

    def misses(name="small-vit", part=public, epochs=0, seed=0):
        before = len(trained)
        named.backbone_for(name, part, epochs, seed, root=tmp_path)
        return len(trained) - before

    assert misses() == 1 and misses() == 0 and misses(part=public[::-1], seed=np.int64(0)) == 0
    assert misses(name="other-vit") == misses(epochs=1) == misses(seed=1) == 1
    for name, other in other_samples(public).items():
        assert misses(part=other) == 1, name
    here = determinism.environment("cpu", 1)
    for name in here:
        monkeypatch.setattr(named, "environment", lambda *a, name=name: {**here, name: "other"})
        assert misses() == 1, name
    monkeypatch.setattr(named, "environment", determinism.environment)
    assert misses() == 0


# --- a finished run


def finished(root, parameters, data):
    write_json(
        root / "runs" / "01_backbone" / "seed-0" / "manifest.json",
        {"status": "ok", "parameters": parameters, "inputs": inputs.input_digests(parameters, data)},
    )


@pytest.mark.parametrize(
    "parameters, files",
    [
        ({"dataset": "mine"}, ["mine.npz"]),
        ({"dataset": "mine"}, ["mine-images.npy", "mine-labels.npy", "mine-uids.npy"]),
        ({"dataset": "mine"}, ["mine/cat/1.png", "mine/dog/2.png"]),
        ({"dataset": "cifar10/paper"}, ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch"]),
        ({"backbone": "resnet18@96"}, ["weights/resnet18.safetensors"]),
        ({"backbone": "vit-b-22k"}, ["weights/vit_base_patch16_224.augreg_in21k.safetensors"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_run_is_stale_when_any_file_that_it_read_is_replaced(parameters, files, tmp_path, monkeypatch):
    data, root, planned = tmp_path / "data", tmp_path / "results", {("01_backbone", "seed-0"): parameters}
    monkeypatch.setattr(kit_runs, "input_digests", lambda parameters: inputs.input_digests(parameters, data))
    assert kit_runs.stale(root, planned) == {}  # nothing has run
    for file in files:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_bytes(file.encode())
    finished(root, parameters, data)
    for file in files:
        assert kit_runs.stale(root, planned) == {}
        about = (data / file).stat()
        (data / file).write_bytes(file.upper().encode())  # the same size, and the same time
        os.utime(data / file, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert kit_runs.stale(root, planned) == {("01_backbone", "seed-0"): file}
        (data / file).unlink()
        assert kit_runs.stale(root, planned) == {("01_backbone", "seed-0"): file}
        (data / file).write_bytes(file.encode())
    (data / "unrelated.npz").write_bytes(b"x")
    assert kit_runs.stale(root, planned) == {}


def test_what_a_run_downloads_does_not_make_it_stale_and_what_changes_under_it_is_refused():
    assert kit_runs._unchanged({}, {"a": "1"}) == {"a": "1"}
    for after in ({"a": "2"}, {}):
        with pytest.raises(ValueError, match="a was replaced or removed while the run read it"):
            kit_runs._unchanged({"a": "1"}, after)


def test_a_model_in_another_environment_is_not_taken_for_the_same(make_eraser, private, split, monkeypatch):
    eraser = make_eraser(HashClusters(3), cls=LMEraser).fit(private[:30])
    real = determinism.environment
    monkeypatch.setattr(
        "lmeraser_kit.unlearning.rebuild.environment", lambda *a: {**real(*a), "blas": "openblas 0.3.30 SkylakeX"}
    )
    with pytest.raises(RuntimeError, match=r"blas: .* then, openblas 0\.3\.30 SkylakeX now"):
        eraser.verify()
    assert eraser.forget(private.uids[0]).clusters_tuned == eraser.sizes()


def test_exact_sums_do_not_depend_on_the_matrix_library(backbone, private, split, monkeypatch):
    def fitted(clusters):
        return RidgeEraser(backbone, clusters, verbose=False).fit(private[:30], public=split.public)

    sums, corrected = fitted(HashClusters(3)), fitted(HierarchicalClusters(3))
    monkeypatch.setattr(determinism, "blas", lambda: "openblas 0.3.30 SkylakeX")
    assert sums.forget(private.uids[0]).sample_gradients == 0 and sums.verify()
    assert sums.state_hash() == fitted(HashClusters(3)).forget(private.uids[0]).hash_after
    with pytest.raises(RuntimeError, match=r"blas: .* then, openblas 0\.3\.30 SkylakeX now"):
        corrected.verify()  # its clusters were made by SciPy
    monkeypatch.setattr(determinism, "probe", lambda *_: "another chip")  # the rows' own environment
    with pytest.raises(RuntimeError, match=r"probe: .* then, another chip now"):
        sums.verify()
    assert sums.forget(private.uids[1]).sample_gradients == 28 and sums.verify()
