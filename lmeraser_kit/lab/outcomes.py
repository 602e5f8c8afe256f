"""What a request to a model of the page "press Forget" has done, and how a membership score is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmeraser_kit.evaluation.distances import margin

FAR = 2.0  # standard deviations between models with an image and without it: nearer, a verdict is often wrong


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
        lie_in: In how many clusters or shards they were; 0 for a method without.
        groups: How many clusters or shards there were.
        emptied: In how many of them nobody is left.
    """

    uids: tuple[str, ...]
    passed: int
    sample_gradients: int
    seconds: float
    changed: dict[str, bool]
    hash_before: str
    hash_after: str
    lie_in: int
    groups: int
    emptied: int


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
    def nearer(self) -> bool:
        """Whether the model is nearer to the fresh fit than it was before anybody had left."""
        return self.apart < self.apart_before

    @property
    def equal(self) -> bool:
        """Whether every bit is the same."""
        return self.hash_held == self.hash_fresh


def membership_scores(proba: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How sure a model is of each sample's class, which is the attack's score: `ln p_y - ln(1 - p_y)`.

    Args:
        proba: Class probabilities of the samples, (..., N, n_classes).
        labels: Their classes, (N,).

    Returns:
        Scores, in nats, (..., N).
    """
    return margin(np.log(np.maximum(proba, np.finfo(float).tiny)), labels)


def separation(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How far reference models with a sample are from those without it: difference of means over pooled deviation.

    Args:
        scores: Membership scores in reference models, (n, N).
        inside: Who is in the training set of each, bool (n, N); at least two with and two without each sample.

    Returns:
        Distances, at least 0, (N,).
    """
    groups = [np.ma.array(scores, mask=~of) for of in (inside, ~inside)]
    apart = np.abs(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    pooled = np.sqrt((groups[0].var(axis=0, ddof=1) + groups[1].var(axis=0, ddof=1)) / 2)
    return np.asarray(apart / np.maximum(pooled, 1e-6))
