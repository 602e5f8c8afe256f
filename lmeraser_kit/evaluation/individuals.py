"""The worst off beside the average: KLOM of single samples, memorisation, and who is named with the most confidence.

An attack that is no better than guessing on average may name a few people for sure (Carlini et al. 2022), and a forget
set that was drawn at random is easier to forget than one of samples that models know by heart (Zhao et al. 2024, RUM).
Arrays of the wrong shape, NaN and arguments out of their range raise ValueError, in every function here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmeraser_kit import checks
from lmeraser_kit.evaluation.distances import klom
from lmeraser_kit.evaluation.roc import share_interval

WORST = 10
PERCENTILE = 95  # that KLOM is quoted at beside its mean (Georgiev et al. 2024)


def klom_row(unlearned: np.ndarray, retrained: np.ndarray, bins: int = 20) -> dict[str, float]:
    """KLOM over the samples of a set: mean, 95th percentile and largest, and the same of retraining.

    KLOM (Georgiev et al. 2024) is the KL divergence of a sample's margin over many models, unlearned against retrained.
    With few models it is far from 0 for equal distributions, too: compare with `retrained_...`, which is retrained
    models against other retrained models, as many of each kind.

    Args:
        unlearned: Margins of the unlearned models, (n_models, N).
        retrained: Margins of retrained models, (2 n_models at least, N): those after the first n_models are the others.
        bins: As for `distances.klom`.

    Returns:
        `klom_mean`, `klom_95`, `klom_largest`; `retrained_klom_mean`, ...; `models` of each kind, and `samples`.
    """
    unlearned = checks.array("unlearned", unlearned, "n_models", "N")
    n, samples = unlearned.shape
    retrained = checks.array("retrained", retrained, "2 n_models", samples)
    if len(retrained) < 2 * n:
        raise ValueError(f"retrained has {len(retrained)} models, expected twice the {n} unlearned ones at least")
    row: dict[str, float] = {}
    for name, models in (("klom", unlearned), ("retrained_klom", retrained[n : 2 * n])):
        found = klom(models, retrained[:n], bins)
        row |= {f"{name}_mean": float(found.mean()), f"{name}_{PERCENTILE}": float(np.percentile(found, PERCENTILE))}
        row[f"{name}_largest"] = float(found.max())
    return row | {"models": n, "samples": samples}


def memorisation(margins: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much a sample's own presence raises its margin: the mean over models with it less that over models without.

    Feldman and Zhang (2020) have the probability of the label in place of the margin. It is an estimate from few
    models, so its standard error is told, too.

    Args:
        margins: Margins by reference models, (n_models, N).
        inside: Whether a sample was in a model's training set, bool (n_models, N); each in two, and out of two.

    Returns:
        Estimates and their standard errors, (N,) each.
    """
    margins = checks.array("margins", margins, "n_models", "N")
    inside = _truths("inside", inside, margins.shape)
    counts = inside.sum(axis=0), (~inside).sum(axis=0)
    if min(counts[0].min(), counts[1].min()) < 2:
        raise ValueError("inside: every sample must be in, and out of, at least two models")
    parts = [np.where(use, margins, np.nan) for use in (inside, ~inside)]
    means = [np.nanmean(part, axis=0) for part in parts]
    variances = [np.nanvar(part, axis=0, ddof=1) / n for part, n in zip(parts, counts, strict=True)]
    return means[0] - means[1], np.sqrt(variances[0] + variances[1])


def most_certain(scores: np.ndarray, inside: np.ndarray, uids: np.ndarray, n: int = WORST) -> pd.DataFrame:
    """Whom an attack names with the highest scores, and whether it is right.

    Args:
        scores: Higher for "it was in", (N,).
        inside: Who was in, bool (N,).
        uids: Names, (N,).
        n: How many.

    Returns:
        Columns `uid`, `score` and `member`, the highest score first; ties in the order of uids.
    """
    scores = checks.array("scores", scores, "N", inf=True)
    inside, uids = _truths("inside", inside, scores.shape), np.asarray(checks.names("uids", uids))
    if len(uids) != len(scores):
        raise ValueError(f"uids are {len(uids)}, expected one for each of the {len(scores)} scores")
    first = np.lexsort((uids, -scores))[: checks.whole("n", n, 1, len(scores))]
    return pd.DataFrame({"uid": uids[first], "score": scores[first], "member": inside[first]})


def precision_row(table: pd.DataFrame) -> dict[str, float]:
    """The share of members in a table of `most_certain`, with Clopper and Pearson's 95% interval."""
    members = checks.as_array("member", checks.instance("table", table, pd.DataFrame).get("member", []))
    members = _truths("member", members, members.shape)
    low, high = share_interval(int(members.sum()), len(members))
    return {"precision": float(members.mean()), "precision_low": low, "precision_high": high, "named": len(members)}


def _truths(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = checks.as_array(name, value)
    if array.dtype != bool or array.shape != shape or not array.size:
        raise ValueError(f"{name} is an array of {array.dtype} {array.shape}, expected bool {shape}, not empty")
    return array
