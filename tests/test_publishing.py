"""A published model predicts the same, holds nothing of anybody, and says what an earlier one gives away."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmeraser_kit import (
    Backbone,
    HashClusters,
    HierarchicalClusters,
    LMEraser,
    PublishedModel,
    Recipe,
    RidgeEraser,
    publish,
)
from lmeraser_kit.baselines.versions import head_inputs
from lmeraser_kit.learners.prompt_tuning import PromptTuning
from lmeraser_kit.unlearning import Eraser, publishing

ROOT = Path(__file__).parents[1]
KINDS = {
    "prompts": lambda b: LMEraser(b, HierarchicalClusters(3), Recipe(epochs=1), seed=3, verbose=False),
    "soft heads": lambda b: LMEraser(
        b, HierarchicalClusters(3, softness=0.2), Recipe(prompt="none", epochs=1), verbose=False
    ),
    "slices of shards": lambda b: LMEraser(
        b, HashClusters(2, vote="majority"), Recipe(prompt="none", epochs=2, slices=2), verbose=False
    ),
    "one ridge head": lambda b: RidgeEraser(b, verbose=False),
    "corrected ridge head": lambda b: RidgeEraser(b, HierarchicalClusters(3), verbose=False),
}


@pytest.fixture(params=KINDS)
def eraser(request, backbone, private, split):
    return KINDS[request.param](backbone).fit(private, public=split.public)


@pytest.mark.filterwarnings("ignore:.*clusters have fewer")
def test_a_published_model_predicts_the_same_and_holds_nothing_of_anybody(eraser, private, split, tmp_path):
    expected, file = eraser.predict_proba(split.test), publish(eraser, tmp_path / "model.safetensors")
    model = PublishedModel.load(file)
    assert (model.predict_proba(split.test) == expected).all()
    assert (model.predict(split.test.images) == expected.argmax(axis=1)).all()
    assert model.n_samples == len(private) and not len(model.empty)
    with pytest.raises(ValueError, match="those that were fitted are"):
        model.predict_proba(np.zeros((1, 1, 3, 3), np.uint8))
    assert not held_in(file.read_bytes(), eraser, private)
    assert held_in(eraser.save(tmp_path / "all.safetensors").read_bytes(), eraser, private)  # the search finds things


def held_in(file, eraser, private):
    """What of private samples is among the bytes of a file: pixels, uids, their hashes, features, rows, sums."""
    features = eraser.backbone.features(private.images)
    pieces = {"uid": [uid.encode() for uid in private.uids.tolist()]}
    pieces["pixels"] = [image.tobytes() for image in private.images]
    pieces["hash"] = [one.tobytes() for one in private.digests] + [private.keys.tobytes()[:32]]
    pieces["feature"] = [feature.astype(kind).tobytes() for feature in features for kind in (np.float32, np.float64)]
    models = eraser.state_.models.values()
    pieces["rows"] = [row.tobytes() for model in models for row in model.arrays.get("rows", [])]
    pieces["losses"] = [model.arrays["losses"].tobytes() for model in models if "losses" in model.arrays]
    pieces["sums"] = [] if eraser.state_.sums is None else [eraser.state_.sums[0].tobytes()]
    if isinstance(eraser, RidgeEraser):
        pieces["inputs"] = [row.tobytes() for row in head_inputs(eraser, private)]
    return [name for name, parts in pieces.items() if any(part in file for part in parts)]


def test_an_earlier_model_is_warned_of_with_how_many_left_between(backbone, private, split, tmp_path):
    eraser = RidgeEraser(backbone, verbose=False).fit(private, public=split.public)
    earlier = publish(eraser, tmp_path / "earlier.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        publish(eraser, tmp_path / "same.safetensors", [earlier])  # nothing lies between
    eraser.forget(private.uids[:3])
    with pytest.warns(UserWarning, match=r"earlier.safetensors: at least 3 samples left .* 1 of 1 heads differ.*100%"):
        later = publish(eraser, tmp_path / "later.safetensors", [earlier])
    eraser.add(private[:2])
    with pytest.warns(UserWarning) as caught:
        publish(eraser, tmp_path / "now.safetensors", [str(earlier), later])
    said = [str(warning.message) for warning in caught]
    assert "at least 1 sample left" in said[0] and "samples left or joined" in said[1] and len(said) == 2


def test_clusters_of_few_samples_are_warned_of(backbone, private, split, tmp_path):
    eraser = LMEraser(backbone, HierarchicalClusters(40), Recipe(prompt="none", epochs=1), verbose=False)
    eraser.fit(private, public=split.public)
    few = sum(n < publishing.FEW for n in eraser.sizes().values())
    with pytest.warns(UserWarning, match=f"^{few} of .* clusters have fewer than 10 samples"):
        publish(eraser, tmp_path / "model.safetensors")


def test_what_cannot_be_published_is_refused_and_nothing_is_written(backbone, private, split, tmp_path):
    def refused(eraser, message, earlier=()):
        with pytest.raises(ValueError, match=message):
            publish(eraser, tmp_path / "model.safetensors", earlier)
        assert not (tmp_path / "model.safetensors").exists()

    class Own(PromptTuning):
        pass

    heads = Recipe(prompt="none", epochs=1)
    kept = HierarchicalClusters(3, fit_on="private-once")
    refused(LMEraser(backbone, kept, heads, verbose=False).fit(private), "prototypes of private features")
    own = Eraser(backbone, HashClusters(2), Own(heads), verbose=False).fit(private)
    refused(own, "is of your own")
    ridge = RidgeEraser(backbone, verbose=False)
    refused(ridge, "not fitted")
    ridge.fit(private, public=split.public)
    backbone.save(tmp_path / "other.safetensors")
    refused(ridge, "is no published model", [tmp_path / "other.safetensors"])
    refused(None, "eraser is None")
    for wrong in (ridge.save(tmp_path / "eraser.safetensors"), tmp_path / "other.safetensors"):
        with pytest.raises(ValueError, match="is no published model of this kit: publish"):
            PublishedModel.load(wrong)
    ridge.forget(private.uids)
    refused(ridge, "no private sample is held")
    assert isinstance(backbone, Backbone)


@pytest.mark.committed
def test_the_warning_quotes_the_reference():
    table = pd.read_csv(ROOT / "results/reference/cifar10-reconstruction/tables/reconstruction_together.csv")
    found = table[table["attack"] == "least squares"].set_index("leave")["named_share"]
    for m, share in publishing.NAMED.items():
        assert round(found[m], 3) == share
