"""Is an eraser exact? `check_eraser` tries any learner, partition and vote, as scikit-learn's `check_estimator` does.

It cannot prove that a learner is a pure function. It tries what usually goes wrong: global random generators, state
that is kept from cluster to cluster or from request to request, draws by position, results that depend on the order of
requests, on processes, or on who else is there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.testing.exactness import CHECKS
from lmeraser_kit.testing.trial import Trial
from lmeraser_kit.unlearning.base import BaseEraser

LEAST = 24  # private samples: enough for clusters from which somebody leaves, and somebody stays


@dataclass(frozen=True)
class Check:
    """What one check has found.

    Attributes:
        name: What was checked.
        failure: What was wrong; empty if nothing was.
    """

    name: str
    failure: str

    def __str__(self) -> str:
        return f"{'FAILED' if self.failure else 'passed'}  {self.name}{': ' * bool(self.failure)}{self.failure}"


class NotExactError(AssertionError):
    """An eraser has failed a check.

    Attributes:
        checks: All checks, with what they have found.
    """

    def __init__(self, results: list[Check]):
        self.checks = results
        super().__init__("\n" + "\n".join(map(str, results)))


def check_eraser(
    eraser: BaseEraser,
    private: Samples,
    public: Samples | None = None,
    seed: int = 0,
    verbose: bool = True,
    raises: bool = True,
) -> list[Check]:
    """Try whether an eraser forgets exactly; it takes about half a minute for small parts.

    Call it in a new process, before anything is fitted: what a class has kept before cannot be told from its code.

    Args:
        eraser: Unfitted; it is left as it is.
        private: Private samples, at least 24; a few dozen will do.
        public: As for `fit`.
        seed: Chooses who leaves, and where the store is interrupted.
        verbose: Print the report, and show a progress bar.
        raises: Whether a failure is an error, or only reported.

    Returns:
        What each check has found.

    Raises:
        NotExactError: If a check has failed; the message is the report.
        ValueError: If an argument is none of these.
    """
    checks.instance("eraser", eraser, BaseEraser)
    if len(checks.instance("private", private, Samples)) < LEAST:
        raise ValueError(f"private has {len(private)} samples, expected {LEAST} at least: groups leave and come back")
    trial = Trial(clone(eraser).set_params(verbose=False), private, public, np.random.default_rng(checks.seed(seed)))
    results = []
    bar = progress(CHECKS, unit="check", disable=not verbose)
    for check in bar:
        bar.set_description(check.__name__.strip("_"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                check(trial)
                failure = ""
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
        results.append(Check(check.__doc__.splitlines()[0].rstrip("."), failure))
    if raises and any(check.failure for check in results):
        raise NotExactError(results)
    if verbose:
        print(*results, sep="\n")
    return results
