import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from conftest import TINY
from safetensors.torch import save_file

from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, Store, tune_cluster
from lmeraser_kit.backbones import backbone_for, untrained
from lmeraser_kit.backbones.backbone import PRECISIONS
from lmeraser_kit.baselines.methods import linear_probe
from lmeraser_kit.data.inputs import PAPER
from lmeraser_kit.ground.determinism import environment, exact_arithmetic, native_precisions
from lmeraser_kit.ground.minibatches import augment, warmup_cosine
from lmeraser_kit.learners.prompt_tuning import on_device


def test_a_saved_backbone_is_the_same(backbone, split, tmp_path):
    for again in (Backbone.load(backbone.save(tmp_path / "b.safetensors")), pickle.loads(pickle.dumps(backbone))):
        assert again.fingerprint == backbone.fingerprint
        assert again.data_config == backbone.data_config
        images = split.test.images[:70]
        np.testing.assert_array_equal(again.features(images), backbone.features(images))
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


def test_a_worker_builds_a_backbone_once(backbone, split):
    pickled, half = pickle.dumps(backbone), pickle.dumps(backbone.at("bfloat16"))
    first = pickle.loads(pickled)
    assert pickle.loads(pickled).model is first.model is not backbone.model
    assert pickle.loads(half).precision == "bfloat16"
    np.testing.assert_array_equal(
        pickle.loads(pickled).features(split.test.images[:2]), first.features(split.test.images[:2])
    )
    moved = pickle.loads(pickled).to("meta")
    assert pickle.loads(pickled).device == backbone.device and moved.device.type == "meta"


def test_the_fingerprint_covers_weights_and_preprocessing(backbone):
    state = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    state["norm.bias"][0] += 1e-7
    args = (backbone.architecture, backbone.arguments)
    nudged = Backbone(*args, state, backbone.data_config)
    brighter = Backbone(*args, backbone.model.state_dict(), {**backbone.data_config, "mean": (0.4, 0.5, 0.5)})
    assert len({backbone.fingerprint, nudged.fingerprint, brighter.fingerprint}) == 3


def test_a_feature_depends_on_its_own_image_alone(backbone, split):
    images = split.private.images[:150]
    features = backbone.features(images)
    order = np.random.default_rng(0).permutation(150)
    np.testing.assert_array_equal(backbone.features(images[order]), features[order])
    for n in (1, 63, 64, 65):
        np.testing.assert_array_equal(backbone.features(images[:n]), features[:n])


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_resnet", "test_vit"])
def test_any_timm_model_gives_features_of_its_own(name, split):
    torch.manual_seed(0)
    model = Backbone.from_timm(name, pretrained=False)
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    assert model.data_config["mean"] == config["mean"] and model.size == config["input_size"][-1]
    images = split.private.images[:66]
    features = model.features(images)
    assert features.shape == (66, model.n_features) and np.isfinite(features).all()
    np.testing.assert_array_equal(model.features(images[::-1].copy())[::-1], features)


def test_weights_come_from_a_local_file(tmp_path, split):
    torch.manual_seed(1)
    theirs = timm.create_model("test_vit")  # with a classifier, as checkpoints are
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    model = Backbone.from_timm("test_vit", weights=tmp_path / "w.safetensors")
    views, theirs = model.views(split.test.images[:4]), theirs.to(model.device)
    with torch.inference_mode():
        expected = theirs.eval().forward_head(theirs.forward_features(views), pre_logits=True)
        torch.testing.assert_close(model(views), expected)


@pytest.mark.parametrize("name", ["test_vit@96", "test_efficientnet@96", "fastvit_t8@64", "efficientvit_b0@64"])
def test_a_size_of_input_suits_every_family(name, split, tmp_path):
    model = untrained(name)
    side = int(name.partition("@")[2])
    assert model.size == side and model.features(split.test.images[:2], batch_size=2).shape == (2, model.n_features)
    save_file(timm.create_model(name.partition("@")[0]).state_dict(), tmp_path / "w.safetensors")
    assert Backbone.from_timm(name.partition("@")[0], weights=tmp_path / "w.safetensors", size=side).size == side
    assert Backbone.from_timm(name, weights=tmp_path / "w.safetensors").size == side


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_vit", "swin_tiny_patch4_window7_224@56"])
def test_the_outputs_of_the_stages_come_before_the_feature(name, split):
    images, model = split.test.images[:5], untrained(name)
    feature, all_of_them = model.features(images), model.features(images, layers=True)
    assert all_of_them.shape == (5, sum(model.layer_widths)) and 4 <= len(model.layer_widths) <= 6
    np.testing.assert_allclose(all_of_them[:, -model.n_features :], feature, rtol=1e-3, atol=1e-4)  # not shortened
    with torch.inference_mode():
        _, stages = model.model.forward_intermediates(model.views(images))
    first = stages[0 if len(stages) < 6 else len(stages) // 4 - 1].mean((2, 3)).cpu().numpy()
    np.testing.assert_allclose(all_of_them[:, : first.shape[1]], first, rtol=1e-3, atol=1e-4)
    standard = model.standardised(split.public[:80])
    found = standard.features(split.public.images[:80], layers=True).astype(float)
    weights = [(part**2).sum() for part in np.split(found, np.cumsum(model.layer_widths)[:-1], axis=1)]
    np.testing.assert_allclose(weights, weights[-1], rtol=0.3)  # each stage weighs as much
    np.testing.assert_allclose(found[:, -model.n_features :], standard.features(split.public.images[:80]), atol=1e-3)


def test_two_sides_look_at_an_image_in_one_backbone(split, tmp_path):
    both = Backbone.from_timm("test_efficientnet", pretrained=False, size=64, beside=(32,)).standardised(split.public)
    large = Backbone(
        both.architecture, both.arguments, both.noting({}).state_dict(), {**both.data_config, "beside": ()}
    )
    small = {**both.data_config, "beside": (), "input_size": (3, 32, 32)}
    small = Backbone(both.architecture, both.arguments, both.noting({}).state_dict(), small)
    plain, images = both.noting({}), split.test.images[:8]
    assert plain.layer_widths == small.layer_widths + large.layer_widths and plain.n_features == large.n_features
    np.testing.assert_array_equal(plain.features(images), large.features(images))
    n, found = sum(small.layer_widths), plain.features(images, layers=True)
    np.testing.assert_array_equal(found[:, n:], large.features(images, layers=True))
    near = small.features(images, layers=True)  # a smaller view of the larger one is nearly one of the image
    assert np.corrcoef(found[:, :n].ravel(), near.ravel())[0, 1] > 0.99
    assert len({both.fingerprint, large.standardised(split.public).fingerprint}) == 2
    again = Backbone.load(both.save(tmp_path / "both.safetensors"))
    np.testing.assert_array_equal(again.features(images, layers=True), both.features(images, layers=True))
    named = Backbone.from_timm("test_efficientnet@32+64", pretrained=False)
    assert (named.size, named.data_config["beside"]) == (64, (32,))
    with pytest.raises(ValueError, match="takes images of one size alone"):
        Backbone.from_timm("test_vit@32+64", pretrained=False)
    with pytest.raises(ValueError, match="after the @ goes the side"):
        Backbone.from_timm("test_efficientnet@32+", pretrained=False)


def test_views_follow_the_data_config(split):
    model = Backbone.from_timm("test_vit", pretrained=False)
    grey = np.full((2, 3, 40, 60), 200, dtype=np.uint8)
    views = model.views(grey).cpu()
    mean, std = model.data_config["mean"], model.data_config["std"]
    assert views.shape == (2, 3, model.size, model.size)
    for channel in range(3):
        expected = (200 / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(views[0, channel], torch.full((model.size, model.size), expected))


def test_bad_weights_and_names_are_refused(backbone, tmp_path):
    path = backbone.save(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Backbone.load(tmp_path / "none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        Backbone.load(tmp_path / "torn.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="no backbone of this kit"):
        Backbone.load(tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="does not fit 'test_vit'"):
        Backbone.from_timm("test_vit", weights=tmp_path / "foreign.safetensors")
    with pytest.raises(
        ValueError, match="unknown timm model 'vit_bas_patch16_224': did you mean 'vit_base_patch16_224'"
    ):
        Backbone.from_timm("vit_bas_patch16_224")


def test_precision_is_part_of_a_backbone(backbone, split, tmp_path):
    half, images = backbone.at("bfloat16"), split.test.images[:70]
    assert half.fingerprint != backbone.fingerprint == backbone.at("float32").fingerprint
    exact, rounded = backbone.features(images), half.features(images)
    assert rounded.dtype == np.float32 and 0 < np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max()
    for again in (Backbone.load(half.save(tmp_path / "b.safetensors")), pickle.loads(pickle.dumps(half))):
        assert again.fingerprint == half.fingerprint
        np.testing.assert_array_equal(again.features(images), rounded)
    assert native_precisions("cpu")[0] == "float32" and set(native_precisions("cpu")) <= set(PRECISIONS)
    with pytest.raises(ValueError, match="precision is 'float8', expected one of: float32, bfloat16"):
        backbone.at("float8")


def test_forgetting_is_exact_in_every_precision_and_the_certificate_names_it(backbone, private, split, tmp_path):
    for precision in PRECISIONS:
        eraser = LMEraser(backbone.at(precision), HierarchicalClusters(4), Recipe(epochs=1), verbose=False)
        with Store.create(tmp_path / precision, eraser, private[:40], split.public) as store:
            environment = store.forget(private.uids[0]).environment
            assert environment["precision"] == precision and environment["device"] == backbone.device.type
            store.verify()
            assert store.eraser.backbone.precision == precision


def test_features_are_standardised_by_public_samples_alone(backbone, split, tmp_path):
    standard = backbone.standardised(split.public)
    found = standard.features(split.public.images).astype(float)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-3)
    assert standard.fingerprint != backbone.fingerprint
    again = standard.standardised(split.public)  # once is enough
    assert again.fingerprint == standard.fingerprint
    loaded = Backbone.load(standard.save(tmp_path / "b.safetensors"))
    assert loaded.fingerprint == standard.fingerprint == pickle.loads(pickle.dumps(standard)).fingerprint


def test_a_name_stands_for_weights_at_hand_and_a_size(split, tmp_path):
    theirs = timm.create_model("test_efficientnet")
    (tmp_path / "weights").mkdir()
    save_file(theirs.state_dict(), tmp_path / "weights" / "test_efficientnet.safetensors")
    model = backbone_for("test_efficientnet@48", split.public, root=tmp_path, precision="bfloat16")
    assert model.size == 48 and model.precision == "bfloat16" and model.standard
    assert model.features(split.test.images[:3]).shape == (3, model.n_features)
    with pytest.raises(ValueError, match="after the @ goes the side"):
        backbone_for("test_efficientnet@small", split.public, root=tmp_path)
    known = set(timm.list_models(pretrained=True))
    assert set(PAPER.values()) <= known


def test_a_device_without_memory_is_named(backbone, split, private, monkeypatch):
    def full(self, views, layers=False):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Backbone, "__call__", full)
    with pytest.raises(MemoryError, match="not enough memory for a batch of 64 images: use precision='bfloat16'"):
        backbone.features(split.test.images)
    with pytest.raises(MemoryError, match=r"tuning with a batch of 30 images: lower Recipe.batch_size \(32\)"):
        tune_cluster(backbone, private, Recipe(epochs=1, head_start="zero"), seed=0)


def test_images_stay_on_the_host_if_the_device_has_no_room(private, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * private.images.nbytes - 1, 10**9))
    assert on_device(private.images, torch.device("cuda")) is private.images
    assert on_device(private.images, torch.device("cpu")) is private.images


def test_training_is_keyed_and_leaves_the_global_generator_alone(split):
    public = split.public[:100]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (Backbone.train(public, epochs=1, seed=seed, **TINY).fingerprint for seed in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_backbone_knows_digits(split):
    backbone = backbone_for("small-vit", split.public)  # kept under data/backbones, for other runs, too
    assert not backbone.model.training and not any(p.requires_grad for p in backbone.model.parameters())
    features, test_features = (backbone.features(part.images) for part in (split.private, split.test))
    predicted = linear_probe(features, split.private.labels, test_features)
    assert (predicted == split.test.labels).mean() >= 0.93


def test_a_backbone_that_two_want_is_trained_once(split, tmp_path, monkeypatch):
    real, trained = Backbone.train, []

    def train(*arguments, **options):
        trained.append(1)
        time.sleep(1)
        return real(*arguments, **options)

    monkeypatch.setattr(Backbone, "train", train)
    with ThreadPoolExecutor() as pool:
        wanted = [pool.submit(backbone_for, "small-vit", split.public[:20], 0, root=tmp_path) for _ in range(2)]
    one, other = (each.result() for each in wanted)
    assert one.fingerprint == other.fingerprint and len(trained) == 1
    assert [path.suffix for path in (tmp_path / "backbones").iterdir()] == [".safetensors"]


def test_augmentation_does_what_it_says():
    views = torch.zeros(2, 3, 8, 8)
    views[:, :, 3, 2] = 1
    still = np.full((2, 5), 0.5)
    torch.testing.assert_close(augment(views, still, shift=0.5, rotate=90, zoom=0.5), views)
    assert augment(views, still) is views
    mirrored = augment(views, np.array([[0.5] * 4 + [0.4], [0.5] * 5]), flip=True)
    torch.testing.assert_close(mirrored[0], views[0].flip(-1))
    torch.testing.assert_close(mirrored[1], views[1])
    moved = augment(views, np.array([[0.5, 0.5, 1.0, 0.5, 0.9]] * 2), shift=1 / 8)  # one pixel to the left
    torch.testing.assert_close(moved[0, 0], views[0, 0].roll(-1, dims=1))


def test_the_schedule_warms_up_then_falls_to_zero():
    rates = [warmup_cosine(step, 100, 0.2) for step in range(100)]
    assert np.argmax(rates) in (19, 20) and 0.95 < max(rates) <= 1 and 0 < rates[0] < 0.1 and rates[-1] < 0.01
    assert all(np.diff(rates[:20]) > 0) and all(np.diff(rates[21:]) < 0)


def test_exact_arithmetic_puts_back_what_was_set():
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with exact_arithmetic(1):
        assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
        assert environment("cpu", 1)["threads"] == 1
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
