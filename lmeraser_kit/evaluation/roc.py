"""How well scores tell members from others: AUC and true positive rates, each with a 95% confidence interval.

A score is higher for "it was in". NumPy and SciPy on arrays, no models; `attacks` has what makes the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from lmeraser_kit import checks
from lmeraser_kit.evaluation.costs import ci95

FALSE_POSITIVES = (0.001, 0.01)


def evaluate(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """How well scores tell members from others.

    The intervals are for one attacked model and samples that are independent of each other. A true positive rate is
    the share of members above a threshold that no more than 0.1% (or 1%) of the others exceed; its interval is Clopper
    and Pearson's, for this threshold. Fewer than 1,000 others cannot show a false positive rate of 0.1%:
    `tpr_at_0.001` is then the rate at no false positive at all, and `false_positives_at_0.001` is 0.

    Args:
        members: Scores of samples that were in, (N,).
        others: Scores of samples that were not, (M,).

    Returns:
        `auc`, `auc_low` and `auc_high` (see `auc_interval`); for 0.1% and 1% `tpr_at_0.001`, `tpr_at_0.001_low` and
        `_high`, and how many of the others exceed the threshold (`false_positives_at_0.001`); the standard error of an
        AUC under "no difference" (`auc_se`); how many samples there are (`members`, `others`).

    Raises:
        ValueError: If a group is empty, has another shape or holds NaN.
    """
    members, others = checks.array("members", members, "N", inf=True), checks.array("others", others, "M", inf=True)
    n, m = len(members), len(others)
    rates = _rates(members, others)
    return _with_intervals(rates, _intervals(rates, n, m)) | {"auc_se": _null_error(n, m), "members": n, "others": m}


def evaluate_samples(
    members: np.ndarray, others: np.ndarray, n_resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """As `evaluate`, for scores of the same samples by many models, which depend on each other.

    The intervals are for other samples asked of the same models, by Efron's bootstrap over samples: percentiles,
    expanded for small N (Hesterberg 2015). If all draws give the same rate, as with a perfect AUC, the interval is that
    of `evaluate` for one score a sample.

    Args:
        members: Scores by models of one kind, (n_models, N).
        others: Scores by models of the other kind, (n_models', N).
        n_resamples: How often N samples are drawn with replacement, at least 2.
        seed: Draws them.

    Returns:
        What `evaluate` returns, over all models and samples, less `members` and `others`. `auc_se` is the bootstrap's.

    Raises:
        ValueError: If a shape or an argument is not as above, or a score is NaN.
    """
    members = checks.array("members", members, "n_models", "N", inf=True)
    n = members.shape[1]
    others = checks.array("others", others, "n_models", n, inf=True)
    n_resamples, rng = checks.whole("n_resamples", n_resamples, 2), np.random.default_rng(checks.seed(seed))
    rates, intervals = _rates(members.ravel(), others.ravel()), {}
    draws = rng.integers(n, size=(n_resamples, n))
    resampled = [_rates(members[:, draw].ravel(), others[:, draw].ravel()) for draw in draws]
    tail = stats.norm.cdf(math.sqrt(n / max(1, n - 1)) * stats.t.ppf(0.025, max(1, n - 1)))
    for name, of_one_score in _intervals(rates, n, n).items():
        values = np.array([one[name] for one in resampled])
        low, high = np.quantile(values, (tail, 1 - tail)).tolist()
        intervals[name] = (low, high) if np.ptp(values) > 0 else of_one_score
    return _with_intervals(rates, intervals) | {"auc_se": float(np.std([one["auc"] for one in resampled], ddof=1))}


def canary_gap(before: np.ndarray, after: np.ndarray, never: np.ndarray) -> dict[str, float]:
    """How far the belief in the canaries' wrong labels is from that of a model retrained without them.

    Args:
        before: Probabilities of these labels before the canaries leave, (N,).
        after: Probabilities of these labels after it, (N,).
        never: Those of the retrained model, (N,).

    Returns:
        `before` and `after`, the mean absolute differences, with their 95% intervals over canaries (`before_low`,
        `before_high`, ...; Student's t, within [0, 1], NaN for one canary); `before_largest` and `after_largest`;
        `canaries`, their number.

    Raises:
        ValueError: If lengths differ, or something is no number.
    """
    never = checks.array("never", never, "N")
    shares: dict[str, float] = {}
    for name, believed in (("before", before), ("after", after)):
        gaps = np.abs(checks.array(name, believed, len(never)) - never)
        low, high = np.clip(gaps.mean() + np.array([-1, 1]) * ci95(gaps), 0, 1).tolist()
        shares |= {name: float(gaps.mean()), f"{name}_low": low, f"{name}_high": high}
        shares[f"{name}_largest"] = float(gaps.max())
    return shares | {"canaries": len(never)}


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The share of pairs in which the member has the higher score; ties count half. Scores (N,) and (M,)."""
    ordered = np.sort(others)
    twice = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(twice.mean() / (2 * len(ordered)))


def auc_interval(auc: float, n: int, m: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the AUC of n and m independent scores, by method 5 of Newcombe (2006).

    As Wilson's interval of a share, it holds every AUC of which the one found is at most z standard errors away. The
    standard error is Hanley and McNeil's (1982), with (n + m) / 2 - 1 in place of n - 1 and m - 1. So a perfect AUC
    has an interval, too; those of Hanley and McNeil, and of DeLong et al. (1988), have no width there.
    """
    auc, level = checks.number("auc", auc, 0, 1), checks.number("level", level, 0, 1, beyond=True)
    n, m = checks.whole("n", n), checks.whole("m", m)
    z, rest = stats.norm.ppf((1 + level) / 2), (n + m) / 2 - 1

    def lower(observed: float) -> float:
        def beyond(true: float) -> float:
            variance = true * (1 - true) * (1 + rest * ((1 - true) / (2 - true) + true / (1 + true))) / (n * m)
            return observed - true - z * math.sqrt(variance)

        return float(optimize.brentq(beyond, 0, min(observed, 1 - 1e-12))) if observed > 0 else 0.0

    return lower(auc), 1 - lower(1 - auc)


def share_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's confidence interval of a share: `hits` of `n` independent trials, from 0 to n."""
    n, tail = checks.whole("n", n), (1 - checks.number("level", level, 0, 1, beyond=True, below=True)) / 2
    hits = checks.whole("hits", hits, 0, n)
    low = special.betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    high = special.betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return float(low), float(high)


def ranks(scores: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The rank of each who has left among those who stayed: 1 if nobody who stayed has a higher score; ties count half.

    Args:
        scores: Higher for "has left", (N,).
        left: Who has left, bool (N,), with one True at least.

    Returns:
        (n_left,), in the order of the candidates.
    """
    scores, left = _judged(scores, left)
    stayed = np.sort(scores[~left])
    low, high = (np.searchsorted(stayed, scores[left], side) for side in ("left", "right"))
    return 1 + len(stayed) - (low + high) / 2


def named(scores: np.ndarray, left: np.ndarray) -> int:
    """How many of the m who have left are among the m candidates with the highest scores; m is known to the attacker.

    Arguments are those of `ranks`. Where scores are equal, those who stayed come first.
    """
    scores, left = _judged(scores, left)
    return int(left[np.lexsort((left, -scores))[: left.sum()]].sum())


def reconstruction_rates(frame: pd.DataFrame, by: list[str], means: Iterable[str] = ()) -> pd.DataFrame:
    """Reconstruction rates of groups of deletions.

    Args:
        frame: One row a deletion: the columns `named` (see above), `left` (how many left) and `mean_rank`, and `by`.
        by: Names of the columns that tell groups apart, at least one.
        means: Names of further columns, of which the mean is told.

    Returns:
        One row a group: `named_share`, of all who left; its 95% interval `named_low` and `named_high` (Clopper and
        Pearson), which takes them as independent, and so is too narrow for samples that leave together; `mean_rank`;
        the other means; `deletions`, their number; `left_in_all`.
    """
    for column in ("named", "left", "mean_rank", *by, *means):
        checks.choice("a column of frame", column, checks.instance("frame", frame, pd.DataFrame).columns)
    groups = frame.groupby(by, sort=False)
    sums = groups[["named", "left"]].sum()
    table = pd.DataFrame({"named_share": sums["named"] / sums["left"]})
    ends = [share_interval(int(hits), int(n)) for hits, n in sums.to_numpy()]
    table["named_low"], table["named_high"] = np.array(ends).T
    table = table.join(groups[["mean_rank", *means]].mean()).assign(deletions=groups.size(), left_in_all=sums["left"])
    return table.reset_index()


def _rates(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """AUC; true positive rates, and how many false positives there are at their thresholds."""
    rates, ordered = {"auc": auc(members, others)}, np.sort(others)
    for limit in FALSE_POSITIVES:
        threshold = ordered[-1 - math.floor(limit * len(others) + 1e-9)]
        rates[f"tpr_at_{limit}"] = float((members > threshold).mean())
        rates[f"false_positives_at_{limit}"] = int((others > threshold).sum())
    return rates


def _intervals(rates: dict[str, float], n: int, m: int) -> dict[str, tuple[float, float]]:
    """95% intervals of the AUC and the true positive rates of n and m independent scores."""
    intervals = {"auc": auc_interval(rates["auc"], n, m)}
    for name in (f"tpr_at_{limit}" for limit in FALSE_POSITIVES):
        intervals[name] = share_interval(round(rates[name] * n), n)
    return intervals


def _with_intervals(rates: dict[str, float], intervals: dict[str, tuple[float, float]]) -> dict[str, float]:
    """A row of a table, in which an interval stands beside its rate."""
    row = {}
    for name, rate in rates.items():
        row[name] = rate
        if name in intervals:
            row[f"{name}_low"], row[f"{name}_high"] = intervals[name]
    return row


def _null_error(n: int, m: int) -> float:
    """Standard error of the AUC of n and m scores if there is no difference."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def _judged(scores: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, left = checks.array("scores", scores, "N"), checks.as_array("left", left)
    if left.dtype != bool or left.shape != scores.shape or not left.any():
        raise ValueError(
            f"left is an array of {left.dtype} {left.shape}, expected bool {scores.shape}, one True at least"
        )
    return scores, left
