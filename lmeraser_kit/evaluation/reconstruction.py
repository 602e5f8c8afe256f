"""Whom do two published heads betray, one from before a deletion and one from after it? NumPy on heads and features.

A ridge head W solves `A W = X^T Y` with `A = X^T X + l2 I`. When the samples of a set S leave, the new head W' obeys

    A (W' - W) = sum over i in S of x_i r_i^T,    r_i = x_i^T W' - y_i,

because A becomes `A - X_S^T X_S`. For one sample the change has rank one, and A times it is the deleted feature, up to
a factor (Bertran et al. 2024, "Reconstruction Attacks on Machine Unlearning", arXiv 2405.20272). An attacker
does not have A, and takes the Gram matrix of public samples in its place: `public_gram`. For several samples the left
singular vectors of the change span their features, as long as they are no more than classes. Whoever also has labels,
guessed or known, computes every candidate's residual r_i from the new head, and has one term of the sum for each
candidate: `matched_filter` compares the change with one term at a time, `least_squares` explains it by all of them
together. A head tuned by gradients on the cross-entropy changes by nearly the same, with `softmax(x^T W') - y` for r_i.

Inner products of features are taken in the metric of A's inverse, which makes samples of the same kind as the public
ones nearly uncorrelated. Features have the input of the bias, a one, as their last entry.
Arrays of the wrong shape, NaN and arguments out of their range raise ValueError, in every function here.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import softmax

from lmeraser_kit import checks

ATTACKS = ("rebuilt", "span", "matched filter", "least squares")
LEAST = np.finfo(float).tiny
L2 = 1e-3  # of `least_squares`: the best of 0.1 to 1e-4 for 64 of 689 digits, 0.01 is as good


def public_gram(public: np.ndarray, n_samples: int, penalty: float) -> np.ndarray:
    """An attacker's guess of A: the Gram matrix of public features, for as many samples as the model has.

    Args:
        public: Public features, the last entry a one, (M, D).
        n_samples: How many private samples the model was fitted on.
        penalty: What the model's ridge regression adds to the diagonal, above 0.

    Returns:
        `n_samples / M * P^T P + penalty I`, (D, D).
    """
    public = checks.array("public", public, "M", "D").astype(np.float64)
    share = checks.whole("n_samples", n_samples) / len(public)
    return share * (public.T @ public) + checks.number("penalty", penalty, beyond=True) * np.eye(public.shape[1])


def reconstruct(before: np.ndarray, after: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The feature of a deleted sample: A u, with u the first left singular vector of the heads' difference.

    Args:
        before: The head before the deletion, (D, n_classes).
        after: The head after it, (D, n_classes).
        gram: A, or a guess of it, (D, D).

    Returns:
        The feature scaled to length 1, with the sign that makes the last entry, the bias's input, positive, (D,).

    Raises:
        ValueError: If the heads are equal: then nothing can be read from them.
    """
    change = _change(before, after)
    feature = _matrix(gram, len(change)) @ np.linalg.svd(change, full_matrices=False)[0][:, 0]
    return feature * (np.sign(feature[-1]) or 1.0) / np.linalg.norm(feature)


def cosines(feature: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Absolute cosine of a feature, (D,), with each candidate's, (N, D); the largest is the nearest candidate's: (N,).

    Raises:
        ValueError: If a feature is zero.
    """
    feature = checks.array("feature", feature, "D")
    candidates = _features(candidates, len(feature))
    if not feature.any():
        raise ValueError("feature is zero, which has no direction")
    return np.abs(candidates @ feature) / np.linalg.norm(candidates, axis=1) / np.linalg.norm(feature)


def span_shares(
    before: np.ndarray, after: np.ndarray, gram: np.ndarray, candidates: np.ndarray, n_left: int
) -> np.ndarray:
    """How much of each candidate's feature lies in the span of those who have left, in the metric of A's inverse.

    Args:
        before: The head before the deletion, (D, n_classes).
        after: The head after it, (D, n_classes).
        gram: A, or a guess of it, (D, D).
        candidates: Features of candidates, (N, D).
        n_left: How many have left. The span has so many dimensions, and at most as many as there are classes.

    Returns:
        1 - the least-squares residual of the feature on the span, as shares of its squared length, (N,) in [0, 1].
    """
    change = _change(before, after)
    half = _half(gram, len(change))
    return _span_shares(change, half, _whitened(half, candidates), checks.whole("n_left", n_left))


def residuals(head: np.ndarray, candidates: np.ndarray, labels: np.ndarray, cross_entropy: bool = False) -> np.ndarray:
    """What the new head leaves of each candidate's label: r_i, (N, n_classes).

    Args:
        head: The head after the deletion, (D, n_classes).
        candidates: Features of candidates, (N, D).
        labels: Their classes, or the attacker's guesses, (N,).
        cross_entropy: Whether the head was tuned on the cross-entropy, so that its scores are logits; otherwise they
            are those of a ridge regression of one-hot labels.
    """
    head = checks.array("head", head, "D", "n_classes")
    scores = _features(candidates, len(head)) @ head
    labels = checks.class_labels(labels, *scores.shape)
    said = softmax(scores, axis=1) if checks.flag("cross_entropy", cross_entropy) else scores
    return said - np.eye(scores.shape[1])[labels]


def matched_filter(
    before: np.ndarray, after: np.ndarray, gram: np.ndarray, candidates: np.ndarray, left_over: np.ndarray
) -> np.ndarray:
    """The cosine of the heads' change with the change that each candidate's leaving alone would make.

    The matched filter of detection theory, for noise that has A's inverse for its covariance.

    Args:
        before: The head before the deletion, (D, n_classes).
        after: The head after it, (D, n_classes).
        gram: A, or a guess of it, (D, D).
        candidates: Features of candidates, (N, D).
        left_over: Their `residuals`, (N, n_classes).

    Returns:
        Cosines in [-1, 1], (N,); 0 for a candidate without residual.
    """
    change = _change(before, after)
    return _Terms(change, _half(gram, len(change)), candidates, left_over).cosines()


def least_squares(
    before: np.ndarray,
    after: np.ndarray,
    gram: np.ndarray,
    candidates: np.ndarray,
    left_over: np.ndarray,
    l2: float = L2,
) -> np.ndarray:
    """Which candidates together explain the heads' change? A coefficient for each, about 1 for who left, 0 for others.

    It solves `min over s of || A^(1/2) (W' - W) - sum_i s_i A^(-1/2) x_i r_i^T ||^2 + penalty ||s||^2`, in which the
    candidates' terms are known. Beyond D times n_classes candidates, the number of equations, they are not unique.

    Args:
        before: The head before the deletion, (D, n_classes).
        after: The head after it, (D, n_classes).
        gram: A, or a guess of it, (D, D).
        candidates: Features of candidates, (N, D): a matrix of (N, N) is solved.
        left_over: Their `residuals`, (N, n_classes).
        l2: The penalty, in mean diagonals of the system.

    Returns:
        Coefficients s, (N,).
    """
    change = _change(before, after)
    return _coefficients(_Terms(change, _half(gram, len(change)), candidates, left_over), l2)


def attack_scores(
    before: np.ndarray,
    after: np.ndarray,
    gram: np.ndarray,
    candidates: np.ndarray,
    labels: np.ndarray,
    n_left: int,
    cross_entropy: bool = False,
) -> dict[str, np.ndarray]:
    """Every attack's scores of candidates, by its name in ATTACKS: higher for "has left", each (N,).

    Arguments are those of `reconstruct`, `span_shares` and `residuals`; `rebuilt` is the cosine with what `reconstruct`
    gives.
    """
    change, n_left = _change(before, after), checks.whole("n_left", n_left)
    half = _half(gram, len(change))
    terms = _Terms(change, half, candidates, residuals(after, candidates, labels, cross_entropy))
    return {
        "rebuilt": cosines(reconstruct(before, after, gram), candidates),
        "span": _span_shares(change, half, terms.whitened, n_left),
        "matched filter": terms.cosines(),
        "least squares": _coefficients(terms, L2),
    }


class _Terms:
    """The candidates' terms `x_i r_i^T` in the metric of A's inverse, and their inner products with the change."""

    def __init__(self, change: np.ndarray, half: np.ndarray, candidates: np.ndarray, left_over: np.ndarray):
        candidates = _features(candidates, len(change))
        self.left_over = checks.array("left_over", left_over, len(candidates), change.shape[1])
        self.whitened = _whitened(half, candidates)
        self.products = (candidates @ change * self.left_over).sum(axis=1)
        self.length = np.linalg.norm(half @ change)

    def cosines(self) -> np.ndarray:
        """The cosine of each term with the change, (N,)."""
        lengths = np.linalg.norm(self.whitened, axis=1) * np.linalg.norm(self.left_over, axis=1) * self.length
        return self.products / np.maximum(lengths, LEAST)


def _coefficients(terms: _Terms, l2: float) -> np.ndarray:
    system = (terms.whitened @ terms.whitened.T) * (terms.left_over @ terms.left_over.T)
    penalty = checks.number("l2", l2, beyond=True) * np.trace(system) / len(system)
    system[np.diag_indices(len(system))] += max(penalty, LEAST)
    return np.linalg.solve(system, terms.products)


def _span_shares(change: np.ndarray, half: np.ndarray, whitened: np.ndarray, n_left: int) -> np.ndarray:
    span = np.linalg.svd(half @ change, full_matrices=False)[0][:, :n_left]
    return np.square(whitened @ span).sum(axis=1) / np.square(whitened).sum(axis=1)


def _half(gram: np.ndarray, n: int) -> np.ndarray:
    """The upper triangle U with `A = U^T U`."""
    gram = _matrix(gram, n)
    try:
        return cholesky(gram, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"gram is not positive definite ({error}): add a penalty to its diagonal") from error


def _whitened(half: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Features whose plain inner products are those in the metric of A's inverse, (N, D)."""
    return solve_triangular(half, _features(candidates, len(half)).T, trans="T", check_finite=False).T


def _change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    before = checks.array("before", before, "D", "n_classes")
    change = checks.array("after", after, *before.shape) - before
    if not change.any():
        raise ValueError("before and after are equal: nobody has left")
    return change


def _matrix(gram: np.ndarray, n: int) -> np.ndarray:
    return checks.array("gram", gram, n, n)


def _features(candidates: np.ndarray, n: int) -> np.ndarray:
    candidates = checks.array("candidates", candidates, "N", n)
    if not candidates.any(axis=1).all():
        raise ValueError("candidates holds a feature that is zero, which has no direction")
    return candidates
