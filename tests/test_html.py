"""What Jupyter shows of samples, splits, backbones, erasers and receipts."""

import base64
import io
import re

import numpy as np
import pytest
import sklearn
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lmeraser_kit import HierarchicalClusters, RidgeEraser, Samples
from lmeraser_kit.backbones import CachedFeatures
from lmeraser_kit.data import Split
from lmeraser_kit.partitions import HashClusters

NASTY = "<script>alert('me')</script>"


def shown(thing):
    """What Jupyter would show: HTML, and text."""
    formatter = DisplayFormatter()
    formatter.active_types = formatter.format_types
    formats, _ = formatter.format(thing)
    return formats["text/html"], formats["text/plain"]


def decoded(html):
    data = re.findall(r"src='data:image/png;base64,([^']+)'", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]


def test_samples_show_their_first_images_and_count_all_classes(private):
    html, text = shown(private)
    assert text == repr(private) == "Samples(120 images of (1, 8, 8), 10 classes)"
    np.testing.assert_array_equal(np.stack(decoded(html)), private.images[:8, 0])
    names = [f"{uid}, class {k}" for uid, k in zip(private.uids[:8], private.labels[:8], strict=True)]
    assert re.findall("alt='([^']*)'", html) == names
    for k, n in enumerate(np.bincount(private.labels)):
        assert f"{k}: {n}" in html
    assert "<img" not in shown(private[:0])[0]


def test_large_images_in_colour_are_made_small():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 300, 200)).astype(np.uint8)
    html, _ = shown(Samples(pixels, [0, 1], ["a", "b"]))
    assert [image.shape for image in decoded(html)] == [(128, 85, 3)] * 2


class OnDisk:
    """Images that say which of them are read."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, n):
        self.shape, self.read = (n, 3, 4, 4), []

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        numbers = np.arange(len(self))[index]
        self.read += numbers.tolist()
        return np.zeros((len(numbers), *self.shape[1:]), np.uint8)

    def __array__(self, *args, **kwargs):
        pytest.fail("all images are read")


def test_of_a_million_samples_only_those_shown_are_read():
    n = 1_000_000
    samples = Samples(OnDisk(n), np.arange(n) % 500, np.arange(n).astype(str))
    html, _ = shown(samples)
    assert samples.images.read == list(range(8))
    assert "Samples: 1,000,000 of 500 classes" in html and "9: 2,000, and 490 more" in html and len(html) < 20_000


def test_names_are_escaped(split, private):
    strange = Samples(private.images[:2], private.labels[:2], [NASTY, "it's"], 10)
    named = Split(strange, private[2:4], split.test[:2], name=NASTY, classes=(NASTY,) * 10)
    for html in (shown(strange)[0], shown(named)[0]):
        assert "<script" not in html and "&lt;script&gt;alert(&#x27;me&#x27;)" in html
        assert re.findall("alt='([^']*)'", html)[1].startswith("it&#x27;s, class")


def test_a_split_says_which_part_is_for_what(split):
    html, _ = shown(split)
    for name, part in (("public", split.public), ("private", split.private), ("test", split.test)):
        assert re.search(rf">{name}</th><td[^>]*>{len(part)} samples", html)
    np.testing.assert_array_equal(np.stack(decoded(html)), split.public.images[:8, 0])  # nobody's who may leave


def test_a_backbone_says_what_it_is(backbone):
    for one, name in ((backbone, "Backbone: a small ViT"), (CachedFeatures(backbone), "CachedFeatures: a small ViT")):
        html, text = shown(one)
        assert text == repr(one) and text.startswith(
            "Backbone(a small ViT of "
        )  # timm calls its class vit_tiny_patch16_224
        assert name in html and "16 pixels" in html and backbone.fingerprint[:16] in html and "standardised" not in html


def test_an_eraser_shows_its_arguments_before_a_fit_and_what_it_holds_afterwards(make_eraser, private, split):
    eraser = make_eraser(HierarchicalClusters(12))
    assert "sk-" in shown(eraser)[0]
    eraser.fit(private, split.public)
    html, text = shown(eraser)
    assert html == eraser._repr_html_() and text == repr(eraser) and "sk-" not in html
    assert "120 of 10 classes" in html and f"{eraser.receipt_.cost_factor:.1f}" in html
    assert eraser.state_hash()[:16] in html and f"0: {eraser.sizes()[0]}" in html
    with sklearn.config_context(display="text"):
        assert "text/html" not in eraser._repr_mimebundle_()
    eraser.set_params(seed=4)
    assert "refuses to answer" in shown(eraser)[0] and "seed from 3 to 4" in shown(eraser)[0]
    eraser.set_params(seed=3).forget(private)
    assert "0 of 10 classes" in shown(eraser)[0] and "nan" not in shown(eraser)[0]


def test_a_receipt_says_what_has_changed_what_it_cost_and_whether_it_is_exact(make_eraser, private, split):
    for clusters, exact in ((HierarchicalClusters(5), "yes, bit for bit"), (HierarchicalClusters.published(5), "no: ")):
        eraser = make_eraser(clusters).fit(private, split.public)
        receipt = eraser.forget(private.uids[0])
        ((k, _),) = receipt.clusters_tuned.items()
        html, _ = shown(receipt)
        assert f">{exact}" in html and f"{receipt.sample_gradients} sample gradients" in html
        assert f"{k} ({receipt.clusters_before[k][:8]} to {receipt.clusters_after[k][:8]})" in html
        assert receipt.hash_after[:16] in html and private.uids[0] not in html
    gone = eraser.forget(eraser.state_.samples)
    assert "to none)" in shown(gone)[0] and "nan" not in shown(gone)[0]


def test_a_receipt_of_exact_sums_speaks_of_buckets(make_eraser, private, split):
    html, _ = shown(make_eraser(HashClusters(16), RidgeEraser).fit(private, split.public).forget(private.uids[0]))
    assert "buckets changed" in html and "clusters changed" not in html
