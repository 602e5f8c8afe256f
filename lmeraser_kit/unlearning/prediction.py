"""Prediction, vectorised over clusters: every batch mixes samples of all clusters."""

from __future__ import annotations

import numpy as np
import torch

from lmeraser_kit.backbones.backbone import FEATURE_BATCH, Backbone
from lmeraser_kit.ground import checks
from lmeraser_kit.ground.determinism import exact_arithmetic
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.prompts import prompt_canvas
from lmeraser_kit.unlearning.state import State


def forward_passes(state: State, n_features: int, prompted: bool) -> int:
    """Passes through the backbone for one image: one to route (or for heads alone), one a prompt that votes."""
    votes = state.routing.votes(np.zeros((1, n_features), np.float32), np.array(sorted(state.models)))
    return int(prompted * np.count_nonzero(votes) + (state.routing.uses_features or not prompted))


def asked_about(samples: Samples | np.ndarray, state: State) -> Samples:
    """Samples, or images, uint8 (N, C, H, W), as samples. Raises ValueError if their shape is not the private ones'."""
    if not isinstance(samples, Samples):
        images = checks.as_array("images", samples)
        n = len(images) if images.ndim else 0
        samples = Samples(images, np.zeros(n), np.arange(n))  # checks the images
    given, held = samples.images.shape[1:], state.empty.images.shape[1:]
    if given != held:
        raise ValueError(f"images are {given} (channels, height, width), those that were fitted are {held}")
    return samples


def class_probabilities(
    backbone: Backbone, state: State, mask: np.ndarray, images: np.ndarray, threads: int = 1
) -> np.ndarray:
    """Class probabilities: one routing pass, one prompted pass for every vote (none without prompts), batched heads.

    Args:
        backbone: The frozen backbone.
        state: The fitted state.
        mask: The pixels that prompts cover, bool (S, S).
        images: Pixels, uint8 (N, C, H, W).
        threads: Intra-op threads.

    Returns:
        Probabilities, float64 (N, n_classes): the mean over clusters, weighted by their votes; for a majority vote
        the share of votes for each class.

    Raises:
        ValueError: If no cluster has a model.
    """
    if not state.models:
        raise ValueError("no cluster has a model: no private sample is held (any more); add some first")
    available = np.array(sorted(state.models))
    prompted = bool(mask.any())
    features = backbone.features(images, threads) if state.routing.uses_features or not prompted else None
    votes = np.broadcast_to(state.routing.votes(features, available), (len(images), len(available)))
    rows, columns = np.nonzero(votes)
    prompts, weights, biases = (
        torch.from_numpy(np.stack([getattr(state.models[k], name) for k in available])).to(backbone.device)
        for name in ("prompt", "weight", "bias")
    )
    majority = getattr(state.routing, "vote", "mean") == "majority"
    probabilities = np.zeros((len(images), weights.shape[1]))
    clean = None if prompted else torch.from_numpy(features).to(backbone.device)
    with exact_arithmetic(threads), torch.inference_mode():
        for start in range(0, len(rows), FEATURE_BATCH):
            i, k = rows[start : start + FEATURE_BATCH], columns[start : start + FEATURE_BATCH]
            seen = backbone(backbone.views(images[i]) + prompt_canvas(prompts[k], mask)) if prompted else clean[i]
            logits = torch.bmm(weights[k], seen[:, :, None])[:, :, 0] + biases[k]
            found = logits.cpu().double().softmax(dim=1).numpy()
            if majority:
                found = np.eye(found.shape[1])[found.argmax(axis=1)]
            np.add.at(probabilities, i, found * votes[i, k, None])
    return probabilities
