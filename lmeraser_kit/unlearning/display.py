"""What an eraser shows of itself in Jupyter."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from lmeraser_kit.ground.html import card, some_of


class DisplayedEraser(BaseEstimator):
    """HTML for `BaseEraser`: what a fitted one holds; before, scikit-learn's diagram of the arguments."""

    def _repr_html_inner(self: Any) -> str:  # what scikit-learn's property _repr_html_ returns
        if not hasattr(self, "state_"):
            return super()._repr_html_inner()
        try:
            self.check_unchanged()
        except ValueError as error:
            return card(type(self).__name__, {"refuses to answer": error})
        choices, state, sizes = self.choices(), self.state_, self.sizes()
        each = some_of((f"{k}: {n:,}" for k, n in sorted(sizes.items())), len(sizes))
        facts = {
            "samples": f"{len(state):,} of {self.n_classes_} classes",
            "buckets of rows" if choices.sums_alone else "clusters": f"{len(sizes):,}",
            "samples of each": each,
            "cost factor": f"{choices.cost_factor(state):.1f}, for the request of a random person" * bool(sizes),
            "partition": choices.partition,
            "learner": type(choices.learner).__name__,
            "vote": type(choices.vote).__name__,
            "backbone": self.backbone,
            "state hash": self.state_hash()[:16],
        }
        return card(f"{type(self).__name__}, fitted", facts)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        html = getattr(self, "_repr_html_", None)  # none where scikit-learn is told to show text
        return {"text/plain": repr(self)} | ({"text/html": html()} if html else {})
