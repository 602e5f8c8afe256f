"""An eraser on trial: samples that leave and come, and what fits in another process give."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import cloudpickle
import numpy as np
from sklearn.base import clone

from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.testing.residue import kept_outside
from lmeraser_kit.unlearning.base import BaseEraser


class Trial:
    """An eraser, samples that leave and samples that come, and what a fit in another process has given."""

    def __init__(self, eraser: BaseEraser, private: Samples, public: Samples | None, rng: np.random.Generator):
        self.eraser, self.public, self.rng = eraser, public, rng
        names = [f"name-of-sample-{i:07d}" for i in range(len(private))]  # they are searched for, so none is short
        order, n = rng.permutation(len(private)), len(private) // 6
        owners = np.empty(len(private), "U32")
        owners[order] = [f"name-of-owner-{i // n}-{i % n // 3:05d}" for i in range(len(private))]  # three samples each
        private = Samples(np.asarray(private.images), private.labels, np.array(names), private.n_classes, owners)
        self.coming, self.before = private[order[:n]], private[order[n:]]
        self.leaving, self.owners = self.before.uids[:n].tolist(), np.unique(self.before.owners[:n]).tolist()
        self.after = self.before.without(self.leaving)
        self.outside = kept_outside(eraser)  # before anything is learnt
        self._expected: dict[str, str] = {}

    def wrong(self) -> Samples:
        """The samples that leave, with other images and labels."""
        part = self.before[: len(self.leaving)]
        images = self.rng.integers(0, 256, part.images.shape).astype(np.uint8)
        labels = (part.labels + 1) % part.n_classes
        return Samples(images, labels, part.uids, part.n_classes, part.owners)

    def fresh(self) -> BaseEraser:
        """The eraser, unfitted."""
        return clone(self.eraser)

    def fit(self, samples: Samples, **changes) -> BaseEraser:
        """The eraser, with changes of its arguments, fitted."""
        return self.fresh().set_params(**changes).fit(samples, public=self.public)

    def expected(self, which: str) -> str:
        """The hash of a fit on `after`, `before` or `grown`, in another process, which sees who leaves last."""
        if not self._expected:
            cases = {"after": self.after, "before": self.before, "grown": self.before + self.coming}
            self._expected = dict(zip(cases, elsewhere(self.fresh(), self.public, list(cases.values())), strict=True))
        return self._expected[which]


def fingerprint(eraser: BaseEraser, asked: Samples) -> str:
    """A hash of everything that a fitted eraser keeps, and of what it answers."""
    return digest(eraser.state_hash(), eraser.predict_proba(asked).tobytes())


def same(actual: str, expected: str, when: str) -> None:
    """Compare fingerprints. Raises AssertionError."""
    if actual != expected:
        raise AssertionError(f"the state or its predictions are not those of a fit on the samples held, {when}")


PROGRAM = """
import sys
import cloudpickle
with open(sys.argv[1], "rb") as file:
    eraser, public, cases = cloudpickle.load(file)
from sklearn.base import clone
from lmeraser_kit.testing.trial import fingerprint
for samples in cases:
    print("hash", fingerprint(clone(eraser).fit(samples, public=public), samples))
"""


def elsewhere(eraser: BaseEraser, public: Samples | None, cases: list[Samples]) -> list[str]:
    """Hashes of fits in a new process, one after the other."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(cloudpickle.dumps((eraser, public, cases)))
        file.flush()
        command = [sys.executable, "-c", PROGRAM, file.name]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"a fit in another process has failed: {done.stderr.strip().splitlines()[-1]}")
    return [line.removeprefix("hash ") for line in done.stdout.splitlines() if line.startswith("hash ")]
