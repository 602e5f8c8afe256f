"""A ridge head with noise: differential privacy by output perturbation. Its bits are not those of a new fit.

Dwork et al. (2006) add noise to what is published, in proportion to how much one sample can change it; Chaudhuri et al.
(2011, Algorithm 1) do so for the minimiser of a regularised loss. Here it is ridge regression, whose change has a
closed form, with the Gaussian noise of Balle and Wang (2018). Features are mapped by public samples alone first:
`PublicMap` keeps the directions in which these vary most, with variance 1 in each, and bounds the length.

What is promised: for any two sets of samples that differ in one, and any set S of heads, `P(head in S)` of one is at
most `e^epsilon P(head in S) + delta` of the other. A sample held by several published versions spends one epsilon in
each. The noise must come from a generator that nobody else can seed. A new head after a deletion, with new noise, has
the distribution of a head fitted without the sample; its bits are other ones, so no hash can show that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import log_ndtr

from lmeraser_kit import checks
from lmeraser_kit.learners.ridge import factor, solve, with_one


@dataclass(frozen=True)
class PublicMap:
    """A map of features to inputs of bounded length, from public samples alone.

    Attributes:
        centre: The mean public feature, (D,).
        directions: The leading principal directions of public features, over their standard deviations, (D, d).
        bound: Longer inputs are scaled to this length: the median of the public ones.
    """

    centre: np.ndarray
    directions: np.ndarray
    bound: float

    @classmethod
    def of(cls, public: np.ndarray, n_directions: int) -> PublicMap:
        """The map of public features, (M, D), to so many directions.

        Raises:
            ValueError: If public features do not vary in so many directions.
        """
        public = checks.array("public", public, "M", "D")
        most = min(len(public) - 1, public.shape[1])
        n = checks.whole("n_directions", n_directions, 1, most)
        centre = public.mean(axis=0)
        _, deviations, directions = np.linalg.svd(public - centre, full_matrices=False)
        if deviations[n - 1] <= 1e-9 * deviations[0]:
            raise ValueError(f"n_directions is {n}, and public features do not vary in so many")
        whitened = cls(centre, directions[:n].T * (np.sqrt(len(public)) / deviations[:n]), np.inf)
        return cls(centre, whitened.directions, float(np.median(np.linalg.norm(whitened(public), axis=1))))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Inputs of a head, the last entry for the bias: float64 (N, d + 1), none longer than `bound`."""
        features = checks.array("features", features, "N", len(self.centre))
        inputs = with_one((features - self.centre) @ self.directions)
        return inputs * np.minimum(1.0, self.bound / np.linalg.norm(inputs, axis=1))[:, None]


def ridge_head(inputs: np.ndarray, labels: np.ndarray, n_classes: int, penalty: float) -> np.ndarray:
    """The head that solves `(X^T X + penalty I) W = X^T Y`, (D, n_classes).

    Args:
        inputs: X, with the input of the bias, (N, D).
        labels: Classes, of which Y is the one-hot matrix, (N,).
        n_classes: Their number.
        penalty: What is added to the diagonal, above 0.
    """
    inputs = checks.array("inputs", inputs, "N", "D").astype(np.float64)
    n_classes = checks.whole("n_classes", n_classes)
    labels = np.eye(n_classes)[checks.class_labels(labels, len(inputs), n_classes)]
    return solve(factor(inputs.T @ inputs, penalty), inputs.T @ labels)


def sensitivity(n: int, bound: float, share: float) -> float:
    """How much one sample can change a ridge head: an upper limit of the Frobenius norm of the difference.

    Let R be `bound`, and the penalty `l = share n R^2`. With a sample (x, y) the head is W, without it W'. The identity
    `(A' + x x^T)(W - W') = x (y - W'^T x)^T`, with A' the system without it, gives by Sherman and Morrison

        W - W' = A'^-1 x (y - W'^T x)^T / (1 + x^T A'^-1 x).

    The vector on the left has at most the length `R / (l + R^2)`: A' is at least l, so `|A'^-1 x| <= sqrt(h / l)` with
    `h = x^T A'^-1 x <= R^2 / l`, and `sqrt(h / l) / (1 + h)` grows with h as long as h is below 1, as it is if
    `share n >= 1`. The largest singular value of `W' = (X^T X + l I)^-1 X^T Y` is at most that of Y, which is at most
    sqrt(n), times the largest of `s / (s^2 + l)` over the singular values s of X, which are at most `sqrt(n) R`. That
    is `1 / (2 sqrt(l))`, or, if share is above 1, `sqrt(n) R / (n R^2 + l)`. So `|y - W'^T x| <= 1 + R |W'|`, and the
    limit is

        (1 + 1 / (2 sqrt(share))) / (R (share n + 1)),   with 1 / (1 + share) in place of 1 / (2 sqrt(share)) above 1.

    Args:
        n: An upper limit of the number of samples, which is public.
        bound: R, the largest length of an input.
        share: The penalty as a share of `n R^2`; at least 1 / n.
    """
    n, bound = checks.whole("n", n), checks.number("bound", bound, beyond=True)
    share = checks.number("share", share, 1 / n)
    slope = 1 / (2 * np.sqrt(share)) if share <= 1 else 1 / (1 + share)
    return float((1 + slope) / (bound * (share * n + 1)))


def gaussian_scale(sensitivity: float, epsilon: float, delta: float) -> float:
    """The least standard deviation of Gaussian noise that is (epsilon, delta)-private (Balle and Wang 2018, Theorem 8).

    The s at which `Phi(D / 2s - epsilon s / D) - e^epsilon Phi(-D / 2s - epsilon s / D) = delta`, with the sensitivity
    D. The well-known `D sqrt(2 ln(1.25 / delta)) / epsilon` is larger, and holds for epsilon below 1 only.

    Args:
        sensitivity: Of what is published, in the Euclidean norm.
        epsilon: Above 0, to 1e6.
        delta: From 1e-12 to below 1.
    """
    sensitivity = checks.number("sensitivity", sensitivity, beyond=True)
    epsilon = checks.number("epsilon", epsilon, 0, 1e6, beyond=True)
    delta = checks.number("delta", delta, 1e-12, 1, below=True)

    def excess(logarithm: float) -> float:
        scale = np.exp(logarithm)
        one, other = log_ndtr(0.5 / scale - epsilon * scale), epsilon + log_ndtr(-0.5 / scale - epsilon * scale)
        return float(np.exp(one) - np.exp(other) - delta)

    return float(np.exp(optimize.brentq(excess, -20, 40, xtol=1e-12)) * sensitivity)


def private_head(
    inputs: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    n: int,
    bound: float,
    share: float,
    epsilon: float,
    delta: float,
    noise: np.random.Generator,
) -> np.ndarray:
    """A ridge head plus Gaussian noise, (epsilon, delta)-differentially private; see the module's docstring.

    Args:
        inputs: What a `PublicMap` gives for private samples, none longer than `bound`, (N, d).
        labels: Their classes, (N,).
        n_classes: Number of classes.
        n: An upper limit of the number of samples, which everybody may know; the same in every version.
        bound: The largest length of an input.
        share: The penalty as a share of `n bound^2`; a larger one takes less noise, and moves the head further.
        epsilon: The budget of this one head; above 0.
        delta: As for `gaussian_scale`; less than 1 over the number of samples.
        noise: Draws the noise: `np.random.default_rng()`, and a seed only in a study.

    Returns:
        The head, (d, n_classes).

    Raises:
        ValueError: If an input is longer than `bound`, or another argument is not as above.
    """
    inputs = checks.array("inputs", inputs, "N", "d")
    n = checks.whole("n", n, len(inputs))
    scale = gaussian_scale(sensitivity(n, bound, share), epsilon, delta)
    if (longest := np.linalg.norm(inputs, axis=1).max()) > bound * (1 + 1e-9):
        raise ValueError(f"bound is {bound:g}, and an input has the length {longest:g}: the guarantee would not hold")
    head = ridge_head(inputs, labels, n_classes, share * n * bound**2)
    return head + scale * checks.instance("noise", noise, np.random.Generator).standard_normal(head.shape)
