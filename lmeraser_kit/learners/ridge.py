"""Linear heads in closed form: ridge regression of one-hot labels on features (Hoerl and Kennard 1970).

`head_from_rows` is where the head of a prompted cluster starts. Its `l2` is a share of the mean diagonal of `X^T X`, or
of `X X^T` where that is smaller (fewer samples than features). It was chosen on CIFAR-10, on private samples of splits
that no table uses. Exact sums and corrections have their own, and use `factor` and `solve`. The number of threads is
fixed, because bits may depend on it.
Arrays of the wrong shape, NaN and an l2 too small to tell from 0 raise ValueError.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import one_thread

SHARPNESS = 5.0  # scores of about 0 and 1 become logits
L2 = 0.4
LEAST_L2 = 1e-12  # below it the system is singular in floating point


def with_one(features: np.ndarray) -> np.ndarray:
    """Features and a one for the bias: float64 (N, D + 1)."""
    features = checks.array("features", features, "N", "D", empty=True)
    return np.c_[features, np.ones(len(features))].astype(np.float64)


def sums(rows: np.ndarray, inputs: int) -> np.ndarray:
    """`X^T X` and `X^T Y` side by side, of rows that hold X (`inputs` columns) and Y side by side."""
    rows = checks.array("rows", rows, "N", "columns", empty=True)
    inputs = checks.whole("inputs", inputs, 1, rows.shape[1] - 1)
    with one_thread:
        return rows[:, :inputs].T @ rows


def head_from_sums(total: np.ndarray, l2: float = L2) -> np.ndarray:
    """The head, (D + 1, n_classes), from what `sums` gives."""
    total, l2 = checks.array("total", total, "D + 1", "columns"), checks.number("l2", l2, LEAST_L2)
    inputs = checks.whole("the number of rows of total", len(total), 1, total.shape[1] - 1)
    gram, moments = total[:, :inputs], total[:, inputs:]
    with one_thread:
        return np.linalg.solve(gram + l2 * np.trace(gram) / inputs * np.eye(inputs), moments)


def head_from_rows(rows: np.ndarray, inputs: int, l2: float = L2) -> np.ndarray:
    """The head, (D + 1, n_classes), from X and Y side by side, one row at least; in the dual form if there are few."""
    rows, l2 = checks.array("rows", rows, "N", "columns"), checks.number("l2", l2, LEAST_L2)
    inputs = checks.whole("inputs", inputs, 1, rows.shape[1] - 1)
    if len(rows) > inputs:
        return head_from_sums(sums(rows, inputs), l2)
    x, y = rows[:, :inputs], rows[:, inputs:]
    with one_thread:
        kernel = x @ x.T
        return x.T @ np.linalg.solve(kernel + l2 * np.trace(kernel) / len(x) * np.eye(len(x)), y)


def factor(system: np.ndarray, penalty: float) -> np.ndarray:
    """The Cholesky factor of a symmetric matrix with a penalty on its diagonal, for `scipy.linalg.cho_solve`.

    Args:
        system: The matrix, (D, D), of which the upper triangle is read; it is overwritten.
        penalty: What is added to the diagonal, above 0.

    Raises:
        ValueError: If the penalty is too small to tell from 0 beside the matrix.
    """
    n = len(checks.array("system", system, "D", "D"))
    system = checks.array("system", system, n, n)
    system[np.diag_indices(len(system))] += checks.number("penalty", penalty, beyond=True)
    try:
        with one_thread:
            return cho_factor(system, overwrite_a=True, check_finite=False)[0]
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the penalty {penalty:.3g} (l2) is too small: the system is singular ({error})") from error


def solve(cholesky: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What solves the system of a `factor`, (D, D), for right-hand sides, (D, C)."""
    n = len(checks.array("cholesky", cholesky, "D", "D"))
    cholesky, right = checks.array("cholesky", cholesky, n, n), checks.array("right", right, n, "C")
    with one_thread:
        return cho_solve((cholesky, False), right, check_finite=False)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores that are about 0 and 1 as class probabilities, (N, n_classes): the softmax, made sharper."""
    return softmax(SHARPNESS * checks.array("scores", scores, "N", "n_classes", empty=True), axis=1)
