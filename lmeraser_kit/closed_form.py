"""Linear heads in closed form: ridge regression of one-hot labels on features (Hoerl and Kennard 1970).

`l2` is a share of the mean diagonal of `X^T X`, or of `X X^T` where that is smaller (fewer samples than features), so
that one setting serves many backbones and numbers of samples. It was chosen on CIFAR-10, on private samples of splits
that no table uses. The number of threads is fixed, because bits may depend on it.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

SHARPNESS = 5.0  # scores of about 0 and 1 become logits
L2 = 0.4


def with_one(features: np.ndarray) -> np.ndarray:
    """Features and a one for the bias: float64 (N, D + 1)."""
    return np.c_[features, np.ones(len(features))].astype(np.float64)


def sums(rows: np.ndarray, inputs: int) -> np.ndarray:
    """`X^T X` and `X^T Y` side by side, of rows that hold X (`inputs` columns) and Y side by side."""
    with threadpool_limits(1):
        return rows[:, :inputs].T @ rows


def head_from_sums(total: np.ndarray, l2: float = L2) -> np.ndarray:
    """The head, (D + 1, n_classes), from what `sums` gives."""
    inputs = len(total)
    gram, moments = total[:, :inputs], total[:, inputs:]
    with threadpool_limits(1):
        return np.linalg.solve(gram + l2 * np.trace(gram) / inputs * np.eye(inputs), moments)


def head_from_rows(rows: np.ndarray, inputs: int, l2: float = L2) -> np.ndarray:
    """The head, (D + 1, n_classes), from X and Y side by side; in the dual form if there are few rows."""
    if len(rows) > inputs:
        return head_from_sums(sums(rows, inputs), l2)
    x, y = rows[:, :inputs], rows[:, inputs:]
    with threadpool_limits(1):
        kernel = x @ x.T
        return x.T @ np.linalg.solve(kernel + l2 * np.trace(kernel) / len(x) * np.eye(len(x)), y)
