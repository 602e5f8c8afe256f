"""Attacks on models and on what they keep: was this sample in the training data? NumPy and scikit-learn on logits.

Every attack gives a score to each sample, higher for "it was in". `evaluate` tells how good scores are; what it
tells at few false positives counts more than the mean (Carlini et al. 2022), so ROC curves are drawn in log-log.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FALSE_POSITIVES = (0.001, 0.01)
MEMBERSHIP = ("lira online", "lira offline", "rmia", "loss", "logistic")  # who was in?
ATTACKS = (*MEMBERSHIP, "u-lira", "canaries", "prototypes", "before-after")  # what 08_attacks has


def evaluate(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """How well scores tell members from others.

    Args:
        members: Scores of samples that were in, (N,).
        others: Scores of samples that were not, (M,).

    Returns:
        `auc`, its standard error under "no difference" (`auc_se`), and the true positive rate at 0.1% and 1% false
        positives (`tpr_at_0.001`, `tpr_at_0.01`).
    """
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    scores = np.r_[members, others]
    fpr, tpr, _ = roc_curve(truth, scores)
    n, m = len(members), len(others)
    rates = {f"tpr_at_{limit}": float(tpr[fpr <= limit].max(initial=0)) for limit in FALSE_POSITIVES}
    return {"auc": float(roc_auc_score(truth, scores)), "auc_se": float(np.sqrt((n + m + 1) / (12 * n * m)))} | rates


def loss_attack(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Loss threshold (Yeom et al. 2018): a low loss says "in". Losses, (N,) and (M,); what `evaluate` returns."""
    return evaluate(-np.asarray(members), -np.asarray(others))


def logistic_scores(log_probabilities: np.ndarray, inside: np.ndarray, seed: int = 0) -> np.ndarray:
    """A classifier that is shown some members and others: cross-validated logistic regression, the teaching version.

    Args:
        log_probabilities: What the attacked model says of each sample, (N, n_classes); classes are sorted by it.
        inside: Who was in, bool (N,); a fifth of the samples is scored by a classifier that has seen the rest.
        seed: Divides them into folds.

    Returns:
        Scores, (N,).
    """
    order = np.random.default_rng(seed).permutation(len(inside))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = np.empty(len(inside))
    x = np.sort(log_probabilities, axis=1)[order]
    scores[order] = cross_val_predict(model, x, inside[order], cv=5, method="decision_function")
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
    mean_in, sd_in = _gaussian(shadows, inside)
    mean_out, sd_out = _gaussian(shadows, ~inside)
    return stats.norm.logpdf(target, mean_in, sd_in) - stats.norm.logpdf(target, mean_out, sd_out)


def lira_offline(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """LiRA, offline: how far the margin is above those of models that have not seen the sample, as a log probability.

    Arguments and result are those of `lira_online`; only the models without a sample are used.
    """
    mean, sd = _gaussian(shadows, ~inside)
    return -stats.norm.logsf(target, mean, sd)


def u_lira(unlearned: np.ndarray, retrained: np.ndarray) -> dict[str, float]:
    """U-LiRA (Hayes et al. 2024): can models that have unlearned a sample be told from models that never saw it?

    Gaussians are fitted to every other model, the rest are attacked, and the other way round. Both groups should be
    tuned on parts of the data of their own: models that share one look too much alike. How much the AUC varies by
    chance, `u_lira_band` tells.

    Args:
        unlearned: Margins of models that were trained with a sample and have unlearned it, (n_models, N).
        retrained: Margins of models that never saw it, (n_models', N).

    Returns:
        What `evaluate` returns, over all models and samples.

    Raises:
        ValueError: If there are fewer than 4 models of a kind.
    """
    if min(len(unlearned), len(retrained)) < 4:
        raise ValueError(f"U-LiRA needs 4 models of each kind, and has {len(unlearned)} and {len(retrained)}")
    scores = ([], [])
    for fold in (0, 1):
        (m_in, s_in), (m_out, s_out) = ((x[fold::2].mean(axis=0), _spread(x[fold::2])) for x in (unlearned, retrained))
        for kept, models in zip(scores, (unlearned, retrained), strict=True):
            target = models[1 - fold :: 2]
            kept.append(stats.norm.logpdf(target, m_in, s_in) - stats.norm.logpdf(target, m_out, s_out))
    return evaluate(*(np.concatenate(kept).ravel() for kept in scores))


def u_lira_band(retrained: np.ndarray, level: float = 0.95, n_splits: int = 100, seed: int = 0) -> tuple[float, float]:
    """Where U-LiRA's AUC lies when nothing is to be found: retrained models against retrained models.

    Args:
        retrained: Margins of models that never saw the samples, (n_models, N).
        level: How often an AUC is in the band. To judge m methods at once, `1 - 0.05 / m` (Bonferroni).
        n_splits: Random divisions into two halves.
        seed: Draws them.

    Returns:
        Mean -+ z standard deviations of the AUCs of these divisions.
    """
    rng, half = np.random.default_rng(seed), len(retrained) // 2
    orders = [rng.permutation(len(retrained)) for _ in range(n_splits)]
    found = [u_lira(retrained[o[:half]], retrained[o[half : 2 * half]])["auc"] for o in orders]
    wide = stats.norm.ppf((1 + level) / 2) * np.std(found, ddof=1)
    return float(np.mean(found) - wide), float(np.mean(found) + wide)


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
    ratio = target / (((1 + a) * out + 1 - a) / 2)
    ratio_z = np.sort(target_z / (((1 + a) * out_z + 1 - a) / 2))
    return np.searchsorted(ratio_z, ratio / gamma, side="left") / len(ratio_z)


def epsilon(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """Per-example epsilon of the NeurIPS 2023 unlearning challenge, from the best of all single-threshold attacks.

    `max{ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR}` over thresholds in both directions. As in the
    challenge's code a threshold with one rate of 0 is left out, one with both is a perfect attack (infinity); 0 if no
    threshold tells them apart.

    Args:
        unlearned: Outputs (such as margins) of unlearned models, (n_models, N).
        retrained: Outputs of retrained models, (n_models', N).
        delta: The challenge's is 1e-5.

    Returns:
        (N,), at least 0.
    """
    values = []
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
    """The challenge's F: mean over samples of `2^-floor(eps / 0.5)`; 1 is best."""
    return float(np.mean(2.0 ** -np.floor(np.asarray(epsilons) / 0.5)))


def prototype_attack(prototypes: np.ndarray, members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Is a sample's feature nearer to a stored prototype than chance? Prototypes (K, D), features (N, D) and (M, D)."""
    near = [-cdist(x.astype(np.float64), prototypes).min(axis=1) for x in (members, others)]
    return evaluate(*near)


def before_after_attack(before: np.ndarray, after: np.ndarray, left: np.ndarray) -> dict[str, float]:
    """Who has left, from a model published before and after a deletion (Chen et al. 2021)? Its margin has dropped most.

    Args:
        before: Margins before the deletion, (N,).
        after: Margins after it, (N,).
        left: Who has left, bool (N,); the others were never in.
    """
    drop = np.asarray(before) - np.asarray(after)
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
