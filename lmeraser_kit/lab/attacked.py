"""The model that step 3 of the page "press Forget" attacks: of a half of the private images, as reference models are.

The page's own model has learned from all of them, so it is surer of each than any reference model: its scores cannot
be compared with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.data import Split
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.lab.models import LEAST_HELD, new_model
from lmeraser_kit.lab.outcomes import membership_scores


def half_with(samples: Samples, uids: Sequence[str], seed: int) -> Samples:
    """A random half of some samples with those named in it; more than a half, where a request for many needs it.

    Args:
        samples: All of them.
        uids: Who must be in it.
        seed: Draws the others, with a key that no reference model has.
    """
    asked = np.isin(samples.uids, uids)
    drawn = keyed_uniform("attacked", seed, samples.keys)[:, 0]
    n = max(len(samples) // 2, int(asked.sum()) + LEAST_HELD)
    return samples[np.sort(np.lexsort((drawn, ~asked))[:n])]


def attacked_scores(
    name: str, split: Split, backbone: Backbone, seed: int, uid: str, request: Sequence[str] = ()
) -> dict[str, float]:
    """The membership score of an image in a model of a half of the private images.

    Args:
        name: The method, one of `models.NAMES`.
        split: Public, private and test images.
        backbone: The frozen backbone.
        seed: Draws the half, and keys the draws of tuning.
        uid: The image.
        request: All who were forgotten in one request with it; empty if the image is held.

    Returns:
        Before this request and after it; of an image that is held, "with it" alone.
    """
    image = split.private[split.private.positions([uid])]
    model = new_model(name, replace(split, private=half_with(split.private, [uid, *request], seed)), backbone, seed)

    def score() -> float:
        return float(membership_scores(model.predict_proba(image), image.labels)[0])

    before = score()
    if not request:
        return {"with it": before}
    model.forget(list(request))
    return {"before": before, "after": score()}
