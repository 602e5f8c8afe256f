"""Another installed package adds a method, a dataset, a backbone and parts by entry points."""

import numpy as np
import pytest

from lmeraser_kit import Recipe, Store, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.baselines.methods import build_method, check_methods
from lmeraser_kit.data.datasets import dataset_names

CODE = """
import numpy as np, torch
from lmeraser_kit import Backbone, Eraser, Samples
from lmeraser_kit.learners import PromptTuning
from lmeraser_kit.partitions import OwnPartition

class Halves(OwnPartition):
    uses_features = False
    def assign(self, features, keys):
        return (keys % 2).astype(int)
    def votes(self, features, available):
        return np.full((1, len(available)), 1 / len(available))

def halves(backbone, n_clusters, recipe, **options):
    return Eraser(backbone, Halves(), PromptTuning(recipe), **options)

def stripes():
    images = np.zeros((60, 1, 8, 8), np.uint8)
    images[::2, :, :4] = 255
    images[1::2, :, 4:] = 255
    return Samples(images, np.arange(60) % 2, [f"stripe-{i}" for i in range(60)], 2)

def flat(device):
    return Backbone.from_module(torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten()), 8, device=device)
"""
ENTRY_POINTS = """
[lmeraser_kit.parts]
Halves = stripes_plugin:Halves
[lmeraser_kit.methods]
two halves = stripes_plugin:halves
[lmeraser_kit.datasets]
stripes = stripes_plugin:stripes
[lmeraser_kit.backbones]
flat = stripes_plugin:flat
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "stripes_plugin.py").write_text(CODE)
    about = tmp_path / "stripes_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_plugin_is_found_by_its_names(plugin, backbone, private, tmp_path):
    assert "stripes" in dataset_names(tmp_path)
    split = load_dataset("stripes", root=tmp_path)
    flat = backbone_for("flat", split.public)
    assert flat.n_features == 48
    check_methods(["lmeraser", "two halves"])
    eraser = build_method("two halves", flat, 8, Recipe(epochs=1, prompt="none"), verbose=False)
    eraser.fit(split.private, public=split.public)
    eraser.forget(split.private.uids[0])
    eraser.verify()
    assert eraser.score(split.test) == 1
    named = build_method("two halves", backbone, 8, Recipe(epochs=1, prompt="none"), verbose=False)
    with Store.create(tmp_path / "store", named, private[:20]) as store:
        store.forget(private.uids[0])
    with Store.open(tmp_path / "store", verbose=False) as store:  # it names Halves, and the package is installed
        store.verify()
        assert type(store.eraser.choices().partition).__name__ == "Halves"
    path = named.fit(private[:20]).save(tmp_path / "eraser")
    np.testing.assert_array_equal(type(named).load(path).predict_proba(private), named.predict_proba(private))


def test_without_the_plugin_its_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'stripes'"):
        load_dataset("stripes", root=tmp_path)
    with pytest.raises(ValueError, match="unknown method 'two halves'"):
        check_methods(["two halves"])
