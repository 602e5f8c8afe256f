"""How far an unlearned model is from a retrained one, in what it predicts. NumPy on logits, no models.

A score near 0 is not "better forgotten": the model retrained without the forgotten samples is the yardstick, in both
directions, and its own spread from seed to seed is the smallest distance that means anything. Logits may be any
numbers whose softmax gives the class probabilities, so log probabilities will do.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, logsumexp

from lmeraser_kit.attacks import loss_attack

PARTS = ("forget", "retain", "test")


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose most probable class is their label. `logits`: (N, n_classes); `labels`: (N,)."""
    return float(np.mean(logits.argmax(axis=1) == labels))


def accuracies(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """What Unlearn-Saliency (Fan et al. 2024) reports, from logits (N, n_classes) and labels (N,) of each of PARTS.

    Returns:
        UA: 1 - accuracy on the forget set; RA, TA: accuracy on the retain and the test set;
        MIA: AUC of the loss-threshold attack, forgotten samples against test samples.
    """
    acc = {part: accuracy(logits[part], labels[part]) for part in PARTS}
    losses = {part: cross_entropy(logits[part], labels[part]) for part in PARTS}
    mia = loss_attack(losses["forget"], losses["test"])["auc"]
    return {"UA": 1 - acc["forget"], "RA": acc["retain"], "TA": acc["test"], "MIA": mia}


def compare(
    unlearned: dict[str, np.ndarray], retrained: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> dict[str, float]:
    """Everything about an unlearned model against the retrained one, from logits and labels of each of PARTS.

    Returns:
        What `accuracies` gives for the unlearned model; AvgGap and ToW; KL and TV on the forget set.
    """
    mine, theirs = accuracies(unlearned, labels), accuracies(retrained, labels)
    return mine | {
        "AvgGap": average_gap(mine, theirs),
        "ToW": tug_of_war(mine, theirs),
        "KL": kl_divergence(retrained["forget"], unlearned["forget"]),
        "TV": total_variation(retrained["forget"], unlearned["forget"]),
    }


def average_gap(unlearned: dict[str, float], retrained: dict[str, float]) -> float:
    """AvgGap (Fan et al. 2024): mean absolute difference over UA, RA, TA and MIA, as `accuracies` has them."""
    return float(np.mean([abs(unlearned[name] - retrained[name]) for name in ("UA", "RA", "TA", "MIA")]))


def tug_of_war(unlearned: dict[str, float], retrained: dict[str, float]) -> float:
    """ToW (Zhao et al. 2024, RUM): product over forget, retain and test of 1 - |accuracy difference|; 1 is best."""
    return float(np.prod([1 - abs(unlearned[name] - retrained[name]) for name in ("UA", "RA", "TA")]))


def kl_divergence(retrained: np.ndarray, unlearned: np.ndarray) -> float:
    """Mean over samples of KL(retrained || unlearned) of the predictions, in nats. Logits (N, n_classes)."""
    p, q = log_softmax(retrained, axis=1), log_softmax(unlearned, axis=1)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def total_variation(retrained: np.ndarray, unlearned: np.ndarray) -> float:
    """Mean over samples of the total variation between predicted distributions, in [0, 1]. Logits (N, n_classes)."""
    p, q = np.exp(log_softmax(retrained, axis=1)), np.exp(log_softmax(unlearned, axis=1))
    return float(0.5 * np.abs(p - q).sum(axis=1).mean())


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each sample, in nats, (N,)."""
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label's logit over all others together, `z_y - logsumexp(z of the others)`, (..., N).

    It is `ln p_y - ln(1 - p_y)`, LiRA's phi, computed without losing digits.

    Args:
        logits: (..., N, n_classes).
        labels: (N,).
    """
    mine = np.arange(logits.shape[-1]) == np.asarray(labels)[:, None]
    others = logsumexp(np.where(mine, -np.inf, logits), axis=-1)
    return np.where(mine, logits, 0).sum(axis=-1) - others


def klom(unlearned: np.ndarray, retrained: np.ndarray, bins: int = 20) -> np.ndarray:
    """KLOM (Georgiev et al. 2024): KL over models of the margin, unlearned against retrained, for each sample.

    Histograms of `bins` equal bins over both, one count added to each bin so that it is finite; in nats.

    Args:
        unlearned: Margins of the unlearned models, (n_models, N).
        retrained: Margins of the retrained models, (n_models', N).
        bins: How many bins.

    Returns:
        (N,).
    """
    values = []
    for u, r in zip(unlearned.T, retrained.T, strict=True):
        edges = np.histogram_bin_edges(np.concatenate([u, r]), bins)
        p, q = (np.histogram(x, edges)[0] + 1.0 for x in (u, r))
        p, q = p / p.sum(), q / q.sum()
        values.append((p * np.log(p / q)).sum())
    return np.array(values)
