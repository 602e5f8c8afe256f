"""Attacks on models and on what they keep: was this sample in the training data? NumPy and scikit-learn on logits.

Every attack gives a score to each sample, higher for "it was in". `evaluate` tells how good scores are; what it
tells at few false positives counts more than the mean (Carlini et al. 2022), so ROC curves are drawn in log-log.
Arrays of the wrong shape, NaN and arguments out of their range raise ValueError, in every function here.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lmeraser_kit import checks
from lmeraser_kit.evaluation.roc import auc, evaluate, evaluate_samples

FOLDS = 5
WITH_REFERENCES = ("lira online", "lira offline", "rmia")  # they compare the attacked model with reference models
MEMBERSHIP = (*WITH_REFERENCES, "loss", "logistic")  # who was in?
ATTACKS = (*MEMBERSHIP, "u-lira", "canaries", "prototypes", "before-after")  # what 08_attacks has


def two_sided(auc: np.ndarray | float) -> np.ndarray | float:
    """What an attacker has who may turn the sign of the scores: `max(auc, 1 - auc)`, from 0.5 to 1.

    For every place where AUCs are ranked or compared with a limit: an AUC of 0.2 gives away as much as one of 0.8.
    """
    if not np.all((np.asarray(auc) >= 0) & (np.asarray(auc) <= 1)):
        raise ValueError(f"auc is {auc!r}, expected a share in [0, 1]")
    return np.maximum(auc, 1 - auc)


def loss_attack(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Loss threshold (Yeom et al. 2018): a low loss says "in". Losses, (N,) and (M,); what `evaluate` returns."""
    losses = checks.array("members", members, "N", inf=True), checks.array("others", others, "M", inf=True)
    return evaluate(*(np.negative(loss, dtype=float) for loss in losses))


def logistic_scores(log_probabilities: np.ndarray, inside: np.ndarray, seed: int = 0) -> np.ndarray:
    """A classifier that is shown some members and others: cross-validated logistic regression, the teaching version.

    Args:
        log_probabilities: What the attacked model says of each sample, (N, n_classes); classes are sorted by it.
        inside: Who was in, bool (N,), at least 5 of each; a fifth of the samples is scored by a classifier that has
            seen the rest.
        seed: Divides them into folds.

    Returns:
        Scores, (N,).
    """
    log_probabilities = checks.array("log_probabilities", log_probabilities, "N", "n_classes")
    inside = _truths("inside", inside, len(log_probabilities), least=FOLDS)
    order = np.random.default_rng(checks.seed(seed)).permutation(len(inside))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = np.empty(len(inside))
    x = np.sort(log_probabilities, axis=1)[order]
    scores[order] = cross_val_predict(model, x, inside[order], cv=FOLDS, method="decision_function")
    return scores


def lira_online(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """LiRA, online (Carlini et al. 2022): `ln N(phi; in) - ln N(phi; out)`, Gaussians fitted to shadow models.

    Args:
        target: The attacked model's margins, (N,).
        shadows: Shadow models' margins, (n_models, N).
        inside: Whether a sample was in a shadow model's training set, bool (n_models, N); both for every sample.

    Returns:
        Scores, (N,).
    """
    target, shadows, inside = _checked(target, shadows, inside)
    mean_in, sd_in = _gaussian(shadows, inside)
    mean_out, sd_out = _gaussian(shadows, ~inside)
    return stats.norm.logpdf(target, mean_in, sd_in) - stats.norm.logpdf(target, mean_out, sd_out)


def lira_offline(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """LiRA, offline: how far the margin is above those of models that have not seen the sample, as a log probability.

    Arguments and result are those of `lira_online`; only the models without a sample are used.
    """
    target, shadows, inside = _checked(target, shadows, inside)
    mean, sd = _gaussian(shadows, ~inside)
    return -stats.norm.logsf(target, mean, sd)


def u_lira(unlearned: np.ndarray, retrained: np.ndarray, n_resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """U-LiRA (Hayes et al. 2024): can models that have unlearned a sample be told from models that never saw it?

    Gaussians are fitted to every other model, the rest are attacked, and the other way round. Both groups should be
    tuned on parts of the data of their own: models that share one look too much alike. How much the AUC varies by
    chance, `u_lira_null` tells.

    Args:
        unlearned: Margins of models that were trained with a sample and have unlearned it, (n_models, N).
        retrained: Margins of models that never saw it, (n_models', N).
        n_resamples: For the intervals, as for `evaluation.evaluate_samples`.
        seed: As there.

    Returns:
        What `evaluate` returns, over all models and samples, with intervals over samples, because the scores of a
        sample depend on each other; instead of `members` and `others`: `unlearned_models`, `retrained_models`,
        `samples`.

    Raises:
        ValueError: If there are fewer than 4 models of a kind.
    """
    scores = _u_lira_scores(unlearned, retrained)
    counts = {"unlearned_models": len(unlearned), "retrained_models": len(retrained), "samples": scores[0].shape[1]}
    return evaluate_samples(*scores, n_resamples, seed) | counts


def u_lira_null(retrained: np.ndarray, level: float = 0.95, n_splits: int = 100, seed: int = 0) -> tuple[float, float]:
    """Where U-LiRA's AUC lies when nothing is to be found: retrained models against retrained models.

    Args:
        retrained: Margins of models that never saw the samples, (n_models, N), of at least 8 models.
        level: How often an AUC is in the interval. To judge m methods at once, `1 - 0.05 / m` (Bonferroni).
        n_splits: Random divisions into two halves, at least 2.
        seed: Draws them.

    Returns:
        Mean -+ z standard deviations of the AUCs of these divisions.
    """
    retrained, level = checks.array("retrained", retrained, "n_models", "N"), checks.number("level", level, 0, 1, True)
    n_splits, rng = checks.whole("n_splits", n_splits, 2), np.random.default_rng(checks.seed(seed))
    if (half := len(retrained) // 2) < 4:
        raise ValueError(f"the null interval needs 8 retrained models, and has {len(retrained)}")
    orders = [rng.permutation(len(retrained)) for _ in range(n_splits)]
    scores = [_u_lira_scores(retrained[o[:half]], retrained[o[half : 2 * half]]) for o in orders]
    aucs = [auc(one.ravel(), other.ravel()) for one, other in scores]
    wide = stats.norm.ppf((1 + level) / 2) * np.std(aucs, ddof=1)
    return float(np.mean(aucs) - wide), float(np.mean(aucs) + wide)


def rmia(
    target: np.ndarray, out: np.ndarray, target_z: np.ndarray, out_z: np.ndarray, a: float = 0.3, gamma: float = 1.0
) -> np.ndarray:
    """RMIA, offline (Zarifzadeh et al. 2024): the share of population samples z whose likelihood ratio x beats.

    `Pr_z[(p(x) / pbar(x)) / (p(z) / pbar(z)) > gamma]` with `pbar = ((1 + a) pbar_out + 1 - a) / 2`.

    Args:
        target: The attacked model's probability of each sample's label, (N,).
        out: Its mean over reference models that have not seen the sample, (N,).
        target_z: The attacked model's probability for population samples, (M,).
        out_z: Its mean over reference models, (M,).
        a: How much pbar_in exceeds pbar_out (the paper: 0.3).
        gamma: Threshold (the paper: 1).

    Returns:
        Scores in [0, 1], (N,).
    """
    target, target_z = _probabilities("target", target, "N"), _probabilities("target_z", target_z, "M")
    out, out_z = _probabilities("out", out, len(target)), _probabilities("out_z", out_z, len(target_z))
    a, gamma = checks.number("a", a, 0, 1), checks.number("gamma", gamma, beyond=True)
    pbar, pbar_z = (np.maximum(((1 + a) * mean + 1 - a) / 2, np.finfo(float).tiny) for mean in (out, out_z))
    ratio, ratio_z = target / pbar, np.sort(target_z / pbar_z)
    return np.searchsorted(ratio_z, ratio / gamma, side="left") / len(ratio_z)


def epsilon(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """Per-example epsilon of the NeurIPS 2023 unlearning challenge, from the best of all single-threshold attacks.

    `max{ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR}` over thresholds in both directions. As in the
    challenge's code a threshold with one rate of 0 is left out, one with both is a perfect attack (infinity); 0 if no
    threshold tells them apart.

    Args:
        unlearned: Outputs (such as margins) of unlearned models, (n_models, N).
        retrained: Outputs of retrained models, (n_models', N).
        delta: The challenge's is 1e-5; in [0, 1].

    Returns:
        (N,), at least 0.
    """
    unlearned = checks.array("unlearned", unlearned, "n_models", "N")
    retrained = checks.array("retrained", retrained, "n_models", unlearned.shape[1])
    delta, values = checks.number("delta", delta, 0, 1), []
    for u, r in zip(unlearned.T, retrained.T, strict=True):
        thresholds = np.unique(np.r_[u, r])
        above_u = (u[:, None] > thresholds).mean(axis=0)
        above_r = (r[:, None] > thresholds).mean(axis=0)
        best = 0.0
        for fpr, fnr in ((above_r, 1 - above_u), (1 - above_r, above_u)):
            if ((fpr == 0) & (fnr == 0)).any():
                best = np.inf
            use = (fpr > 0) & (fnr > 0)
            for x, y in ((fpr[use], fnr[use]), (fnr[use], fpr[use])):
                rest = np.maximum(1 - delta - x, np.finfo(float).tiny)
                best = max(best, (np.log(rest) - np.log(y)).max(initial=0.0))
        values.append(best)
    return np.array(values)


def forgetting_quality(epsilons: np.ndarray) -> float:
    """The challenge's F: mean over samples of `2^-floor(eps / 0.5)`, eps from 0; 1 is best."""
    epsilons = checks.array("epsilons", epsilons, "N", inf=True)
    if (epsilons < 0).any():
        raise ValueError(f"epsilons are {epsilons.min():g} at least, expected none below 0")
    return float(np.mean(2.0 ** -np.floor(epsilons / 0.5)))


def prototype_attack(prototypes: np.ndarray, members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Is a sample's feature nearer to a stored prototype than chance? Prototypes (K, D), features (N, D) and (M, D)."""
    prototypes = checks.array("prototypes", prototypes, "K", "D")
    members = checks.array("members", members, "N", prototypes.shape[1])
    others = checks.array("others", others, "M", prototypes.shape[1])
    return evaluate(*(-cdist(features, prototypes).min(axis=1) for features in (members, others)))


def before_after_attack(before: np.ndarray, after: np.ndarray, left: np.ndarray) -> dict[str, float]:
    """Who has left, from a model published before and after a deletion (Chen et al. 2021)? Its margin has dropped most.

    Args:
        before: Margins before the deletion, (N,).
        after: Margins after it, (N,).
        left: Who has left, bool (N,); the others were never in. There must be some of both.
    """
    before = checks.array("before", before, "N")
    after, left = checks.array("after", after, len(before)), _truths("left", left, len(before), least=1)
    drop = np.subtract(before, after, dtype=float)
    return evaluate(drop[left], drop[~left])


def _gaussian(shadows: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the models that count, for each sample."""
    values = np.where(use, shadows, np.nan)
    if (use.sum(axis=0) < 2).any():
        raise ValueError("every sample must be in, and out of, at least two shadow models")
    return np.nanmean(values, axis=0), _spread(values)


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation over models; with fewer than 32, one for all samples, which is steadier (Carlini et al.)."""
    deviation = np.nanstd(values, axis=0, ddof=1)
    shared = np.sqrt(np.nanmean(deviation**2))
    return np.maximum(deviation if len(values) >= 32 else np.full_like(deviation, shared), 1e-6)


def _u_lira_scores(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`u_lira`'s log ratios for each model and sample, of both kinds: (n_models, N) and (n_models', N)."""
    unlearned = checks.array("unlearned", unlearned, "n_models", "N")
    retrained = checks.array("retrained", retrained, "n_models", unlearned.shape[1])
    if min(len(unlearned), len(retrained)) < 4:
        raise ValueError(f"U-LiRA needs 4 models of each kind, and has {len(unlearned)} and {len(retrained)}")
    scores: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for fold in (0, 1):
        (m_in, s_in), (m_out, s_out) = ((x[fold::2].mean(axis=0), _spread(x[fold::2])) for x in (unlearned, retrained))
        for kept, models in zip(scores, (unlearned, retrained), strict=True):
            target = models[1 - fold :: 2]
            kept.append(stats.norm.logpdf(target, m_in, s_in) - stats.norm.logpdf(target, m_out, s_out))
    return np.concatenate(scores[0]), np.concatenate(scores[1])


def _checked(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LiRA's arguments, or ValueError."""
    target = checks.array("target", target, "N")
    shadows = checks.array("shadows", shadows, "n_models", len(target))
    return target, shadows, _truths("inside", inside, *shadows.shape)


def _probabilities(name: str, value: np.ndarray, *shape: int | str) -> np.ndarray:
    array = checks.array(name, value, *shape)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} is from {array.min():g} to {array.max():g}, expected probabilities in [0, 1]")
    return array


def _truths(name: str, value: np.ndarray, *shape: int, least: int = 0) -> np.ndarray:
    """An array of bool with at least so many of each, or ValueError."""
    array = checks.as_array(name, value)
    if array.dtype != bool or array.shape != shape:
        raise ValueError(f"{name} is an array of {array.dtype} {array.shape}, expected bool {shape}")
    if min(array.sum(), (~array).sum()) < least:
        raise ValueError(f"{name} has {array.sum()} True and {(~array).sum()} False, expected at least {least} of each")
    return array
