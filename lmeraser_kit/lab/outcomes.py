"""What a request to a model of the page "press Forget" has done, and how a membership score is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmeraser_kit.evaluation.distances import margin


@dataclass(frozen=True)
class Outcome:
    """What a request has done to a model.

    Attributes:
        uids: Who has left.
        passed: Samples that went through the model again, each once however often it did.
        sample_gradients: Samples passed forward and backward.
        seconds: From the request to the next answered prediction, features being at hand.
        changed: For each piece of the state, by name: whether its hash is another one (or it is new, or gone).
        hash_before: The state's hash before.
        hash_after: The state's hash after.
        before: The membership score of each who has left, just before the request (see `membership_scores`).
        after: Their scores after it.
    """

    uids: tuple[str, ...]
    passed: int
    sample_gradients: int
    seconds: float
    changed: dict[str, bool]
    hash_before: str
    hash_after: str
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """A model beside the fit on the samples that it holds, made from nothing.

    Attributes:
        hash_held: The model's hash.
        hash_fresh: The fresh fit's.
        apart: Largest difference of a predicted probability on the test images, in [0, 1].
        apart_before: The same for the model as it was before anybody had left: what doing nothing gives.
        disagree: Share of test images whose predicted class differs.
        seconds: What the fresh fit took, to the first answered prediction.
        sample_gradients: What it took in samples passed forward and backward.
    """

    hash_held: str
    hash_fresh: str
    apart: float
    apart_before: float
    disagree: float
    seconds: float
    sample_gradients: int

    @property
    def equal(self) -> bool:
        """Whether every bit is the same."""
        return self.hash_held == self.hash_fresh


def membership_scores(
    proba: np.ndarray, labels: np.ndarray, of_test: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """How much surer a model is of each sample's class than of the test images' on average: the attack's score.

    `ln p_y - ln(1 - p_y)`, less its mean over test images, which no model was trained with: models of more samples
    are surer of everything.

    Args:
        proba: Class probabilities of the samples, (..., N, n_classes).
        labels: Their classes, (N,).
        of_test: Class probabilities of test images, (..., M, n_classes).
        test_labels: Their classes, (M,).

    Returns:
        Scores, in nats, (..., N).
    """
    parts = ((proba, labels), (of_test, test_labels))
    mine, others = (margin(np.log(np.maximum(p, np.finfo(float).tiny)), y) for p, y in parts)
    return mine - others.mean(axis=-1, keepdims=True)
