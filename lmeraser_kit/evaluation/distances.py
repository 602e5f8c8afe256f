"""How far an unlearned model is from a retrained one, in what it predicts. NumPy on logits, no models.

A score near 0 is not "better forgotten": the model retrained without the forgotten samples is the yardstick, in both
directions, and its own spread from seed to seed is the smallest distance that means anything. Logits may be any
numbers whose softmax gives the class probabilities, so log probabilities will do, -inf (a probability of 0) included.
Arrays of the wrong shape, NaN and labels that are no class raise ValueError, in every function here.
"""

from __future__ import annotations

from types import EllipsisType

import numpy as np
from scipy.special import log_softmax, logsumexp

from lmeraser_kit import checks
from lmeraser_kit.evaluation.attacks import loss_attack

PARTS = ("forget", "retain", "test")


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose most probable class is their label. `logits`: (N, n_classes); `labels`: (N,)."""
    logits = _logits("logits", logits)
    return float(np.mean(logits.argmax(axis=1) == checks.class_labels(labels, *logits.shape)))


def accuracies(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """What Unlearn-Saliency (Fan et al. 2024) reports, from logits (N, n_classes) and labels (N,) of each of PARTS.

    Returns:
        UA: 1 - accuracy on the forget set; RA, TA: accuracy on the retain and the test set;
        MIA: AUC of the loss-threshold attack, forgotten samples against test samples.
    """
    logits, labels = _named("logits", logits, PARTS), _named("labels", labels, PARTS)
    acc = {part: accuracy(logits[part], labels[part]) for part in PARTS}
    losses = {part: cross_entropy(logits[part], labels[part]) for part in PARTS}
    mia = loss_attack(losses["forget"], losses["test"])["auc"]
    return {"UA": 1 - acc["forget"], "RA": acc["retain"], "TA": acc["test"], "MIA": mia}


def compare(
    unlearned: dict[str, np.ndarray], retrained: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> dict[str, float]:
    """Everything about an unlearned model against the retrained one, from logits and labels of each of PARTS.

    Returns:
        What `accuracies` gives for the unlearned model; AvgGap and ToW; KL_nats (in nats) and TV on the forget set.
    """
    mine, theirs = accuracies(unlearned, labels), accuracies(retrained, labels)
    return mine | {
        "AvgGap": average_gap(mine, theirs),
        "ToW": tug_of_war(mine, theirs),
        "KL_nats": kl_divergence(retrained["forget"], unlearned["forget"]),
        "TV": total_variation(retrained["forget"], unlearned["forget"]),
    }


def average_gap(unlearned: dict[str, float], retrained: dict[str, float]) -> float:
    """AvgGap (Fan et al. 2024): mean absolute difference over UA, RA, TA and MIA, as `accuracies` has them."""
    mine, theirs = (
        _shares(*arg, ("UA", "RA", "TA", "MIA")) for arg in (("unlearned", unlearned), ("retrained", retrained))
    )
    return float(np.mean([abs(mine[name] - theirs[name]) for name in mine]))


def tug_of_war(unlearned: dict[str, float], retrained: dict[str, float]) -> float:
    """ToW (Zhao et al. 2024, RUM): product over forget, retain and test of 1 - abs(accuracy difference); 1 is best."""
    mine, theirs = (_shares(*arg, ("UA", "RA", "TA")) for arg in (("unlearned", unlearned), ("retrained", retrained)))
    return float(np.prod([1 - abs(mine[name] - theirs[name]) for name in mine]))


def kl_divergence(retrained: np.ndarray, unlearned: np.ndarray) -> float:
    """Mean over samples of KL(retrained || unlearned) of the predictions, in nats. Logits (N, n_classes)."""
    p, q = _log_probabilities(retrained, unlearned)
    with np.errstate(invalid="ignore"):  # -inf - -inf, of what has probability 0 and adds nothing
        return float((np.exp(p) * np.where(p == -np.inf, 0, p - q)).sum(axis=1).mean())


def total_variation(retrained: np.ndarray, unlearned: np.ndarray) -> float:
    """Mean over samples of the total variation between predicted distributions, in [0, 1]. Logits (N, n_classes)."""
    p, q = map(np.exp, _log_probabilities(retrained, unlearned))
    return float(0.5 * np.abs(p - q).sum(axis=1).mean())


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss of each sample, in nats, (N,). `logits`: (N, n_classes); `labels`: (N,)."""
    logits = _logits("logits", logits)
    labels = checks.class_labels(labels, *logits.shape)
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label's logit over all others together, `z_y - logsumexp(z of the others)`, (..., N).

    It is `ln p_y - ln(1 - p_y)`, LiRA's phi, computed without losing digits.

    Args:
        logits: (..., N, n_classes).
        labels: (N,).
    """
    logits = _logits("logits", logits, ...)
    mine = np.arange(logits.shape[-1]) == checks.class_labels(labels, *logits.shape[-2:])[:, None]
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
    unlearned = checks.array("unlearned", unlearned, "n_models", "N")
    retrained = checks.array("retrained", retrained, "n_models", unlearned.shape[1])
    bins, values = checks.whole("bins", bins), []
    for u, r in zip(unlearned.T, retrained.T, strict=True):
        edges = np.histogram_bin_edges(np.concatenate([u, r]), bins)
        p, q = (np.histogram(x, edges)[0] + 1.0 for x in (u, r))
        p, q = p / p.sum(), q / q.sum()
        values.append((p * np.log(p / q)).sum())
    return np.array(values)


def _logits(name: str, logits: np.ndarray, *before: int | EllipsisType) -> np.ndarray:
    logits = checks.array(name, logits, *before, "N", "n_classes", inf=True)
    most = logits.max(axis=-1)
    if (most == np.inf).any() or (most == -np.inf).any():
        raise ValueError(f"{name} holds infinity, or a row of -infinity alone, which gives no class a probability")
    return logits


def _log_probabilities(retrained: np.ndarray, unlearned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    retrained, unlearned = _logits("retrained", retrained), _logits("unlearned", unlearned)
    if retrained.shape != unlearned.shape:
        raise ValueError(f"retrained has shape {retrained.shape} and unlearned {unlearned.shape}, expected the same")
    return log_softmax(retrained, axis=1), log_softmax(unlearned, axis=1)


def _named(name: str, values: dict, expected: tuple[str, ...]) -> dict:
    if missing := [key for key in expected if key not in checks.instance(name, values, dict)]:
        raise ValueError(f"{name} lacks {missing[0]!r}, expected: {', '.join(expected)}")
    return {key: values[key] for key in expected}


def _shares(name: str, values: dict, expected: tuple[str, ...]) -> dict[str, float]:
    return {key: checks.number(f"{name}[{key!r}]", x, 0, 1) for key, x in _named(name, values, expected).items()}
