"""What a fitted eraser answers when it is asked about images."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.unlearning.arguments import as_queries
from lmeraser_kit.unlearning.display import DisplayedEraser


class AnsweringEraser(DisplayedEraser):
    """Predictions of `BaseEraser`, by the vote over what its state holds."""

    def predict_proba(self: Any, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities.

        Args:
            samples: Samples, or images uint8 (N, C, H, W).

        Returns:
            Probabilities, float64 (N, n_classes).

        Raises:
            ValueError: If images are not as above, or no cluster has a model, because every sample was forgotten.
        """
        self.check_unchanged()
        queries, choices = as_queries(samples, self.state_.empty, self.n_classes_), self.choices()
        context = self.rebuild().context.of(queries, any_batch=True)
        return choices.vote.predict_proba(self.gathered(), choices.learner, self.state_.partition, queries, context)

    def predict(self: Any, samples: Samples | np.ndarray) -> np.ndarray:
        """The most probable class of each sample, (N,) int."""
        return self.predict_proba(samples).argmax(axis=1)

    def score(self: Any, samples: Samples | np.ndarray, labels: np.ndarray | None = None) -> float:
        """Accuracy on samples, or on images and labels: a share in [0, 1].

        Args:
            samples: Samples, or images uint8 (N, C, H, W), at least one.
            labels: Class indices, (N,); by default the samples' own.

        Raises:
            ValueError: As for `predict_proba`; or if there are no labels, or some are none of the task's classes.
        """
        self.check_unchanged()
        if (labels := getattr(samples, "labels", None) if labels is None else labels) is None:
            raise ValueError("labels are missing: score(samples) takes Samples, score(images, labels) takes both")
        if not (n := len(as_queries(samples, self.state_.empty, self.n_classes_))):
            raise ValueError("there is no sample to score")
        labels = checks.class_labels(labels, n, self.n_classes_)
        return float(np.mean(self.predict(samples) == labels))

    def forward_passes(self: Any) -> int:
        """Passes through the backbone that a prediction takes, at most."""
        self.check_unchanged()
        choices, routing = self.choices(), self.state_.partition
        blank = np.zeros((1, self.backbone.n_features), np.float32)
        weights = routing.votes(blank, np.array(sorted(self.state_.models)))
        return choices.vote.forward_passes(choices.learner, routing, weights)

    def gathered(self: Any) -> Any:
        """What the vote needs of all clusters; it goes with the state. Raises ValueError if nobody is held."""
        state, choices = self.state_, self.choices()
        if state.partition is not None and "vote" not in state.derived:
            state.derived["vote"] = choices.vote.gather(choices.learner, state, self.rebuild().context)
        return state.derived["vote"]
