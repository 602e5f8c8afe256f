"""The models of the page "press Forget": one a method, all with the same requests and hashes. No widgets here."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.baselines.approximate import APPROXIMATE, unlearn
from lmeraser_kit.baselines.methods import METHODS, build_method
from lmeraser_kit.baselines.unlearning_task import Parameters, UnlearningTask
from lmeraser_kit.data import Split
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.lab.outcomes import Comparison, Outcome
from lmeraser_kit.learners.recipe import Recipe
from lmeraser_kit.unlearning.base import BaseEraser

EXACT = {"lmeraser": "LMEraser", "sisa (mean)": "SISA", "ridge head": "Ridge head"}
INEXACT = {"gradient ascent": "Gradient ascent", "newton": "Newton step"}
NAMES = EXACT | INEXACT  # the kit's name of a method: what the page calls it
WHOLE = "one prompt"  # the model that approximate methods change
GROUPS = {"lmeraser": "cluster", "sisa (mean)": "shard"}  # what a method divides private images into
PARTS = GROUPS | {"ridge head": "bucket"}  # what the state calls a cluster, in the method's own word
EPOCHS = 5
LEAST_HELD = 40


@dataclass(eq=False)
class Model(ABC):
    """A method's model of the private images of a split.

    Attributes:
        name: The method's name, one of NAMES.
        split: Public, private and test images.
        backbone: The frozen backbone.
        seed: Keys the draws of tuning.
        outcomes: The requests so far.
        fit_seconds: What the fit took, to the first answered prediction.
        fit_gradients: What it took in samples passed forward and backward.
    """

    name: str
    split: Split
    backbone: Backbone
    seed: int = 0
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    fit_seconds: float = field(default=0.0, init=False)
    fit_gradients: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.fit()

    @property
    def gone(self) -> list[str]:
        """The uids of those who have left."""
        return [uid for outcome in self.outcomes for uid in outcome.uids]

    @property
    def held(self) -> Samples:
        """The private images that are left."""
        return self.split.private.without(self.gone)

    def fit(self) -> None:
        """Learn from everybody; requests so far are undone."""
        started = time.perf_counter()
        self.eraser = self.new_eraser().fit(self.split.private, public=self.split.public)
        self.outcomes = []
        self.start_again()
        self.predict_proba(self.split.test[:1])
        self.fit_seconds = time.perf_counter() - started
        self.fit_gradients = self.eraser.receipt_.sample_gradients
        self.proba_at_first = self.predict_proba(self.split.test)

    def new_eraser(self) -> BaseEraser:
        """An unfitted estimator of this method, or of the model that an approximate method changes."""
        return new_eraser(self.name, self.backbone, self.seed)

    def forget(self, uids: list[str]) -> Outcome:
        """Forget the samples named.

        Raises:
            ValueError: If none is named, one is not held, or too few would be left; nothing has changed then.
        """
        self.check(uids)
        before, hash_before, where = self.pieces(), self.hash(), self.groups()
        started = time.perf_counter()
        passed, gradients = self.unlearn(uids)
        self.predict_proba(self.split.test[:1])
        seconds, after = time.perf_counter() - started, self.pieces()
        changed = {name: before.get(name) != after.get(name) for name in before | after}
        groups, left = ({*of.values()} for of in (where, self.groups()))
        lie_in = {where[uid] for uid in uids} if groups else set()
        counts = len(lie_in), len(groups), len(groups - left)
        outcome = Outcome(tuple(uids), passed, gradients, seconds, changed, hash_before, self.hash(), *counts)
        self.outcomes.append(outcome)
        return outcome

    def check(self, uids: list[str]) -> None:
        """Refuse a request that makes no sense. Raises ValueError."""
        held = set(self.split.private.uids.tolist()) - set(self.gone)
        if not uids:
            raise ValueError("nobody is chosen: choose an image, or a person, first")
        if away := sorted(set(uids) - held):
            raise ValueError(f"{away[0]} is not held by this model: it has been forgotten already")
        if len(held) - len(uids) < LEAST_HELD:
            raise ValueError(f"{len(held) - len(uids)} images would be left, expected {LEAST_HELD} at least: undo some")

    def undo(self) -> Outcome:
        """Take the last request back. Raises ValueError if there is none."""
        if not self.outcomes:
            raise ValueError("there is nothing to undo")
        last = self.outcomes[-1]
        self.take_back(last)
        self.outcomes.pop()
        return last

    def score(self) -> float:
        """Accuracy on the test images, a share."""
        return float(np.mean(self.predict_proba(self.split.test).argmax(axis=1) == self.split.test.labels))

    def hash(self) -> str:
        """A hash of everything that the model keeps, in hex."""
        return digest("lab", *(part for item in sorted(self.pieces().items()) for part in item))

    def compare(self) -> Comparison:
        """Fit on the samples held, from nothing, and look whether that is the model."""
        test, started = self.split.test, time.perf_counter()
        fresh = clone(self.eraser).fit(self.held, public=self.split.public)
        fresh.predict_proba(test[:1])
        seconds, theirs, mine = time.perf_counter() - started, fresh.predict_proba(test), self.predict_proba(test)
        fresh_hash = digest("lab", *(part for item in sorted(self.pieces_of(fresh).items()) for part in item))
        apart, undone = (float(np.abs(theirs - proba).max()) for proba in (mine, self.proba_at_first))
        disagree = float(np.mean(theirs.argmax(axis=1) != mine.argmax(axis=1)))
        return Comparison(self.hash(), fresh_hash, apart, undone, disagree, seconds, fresh.receipt_.sample_gradients)

    def groups(self) -> dict[str, int]:
        """The cluster or shard of each who is held, by uid; empty for a method without."""
        return self.eraser.state_.cluster_by_uid() if self.name in GROUPS else {}

    @abstractmethod
    def start_again(self) -> None:
        """Called after a fit."""

    @abstractmethod
    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes)."""

    def pieces(self) -> dict[str, str]:
        """A hash of every piece of the state, by name."""
        return self.pieces_of(self.eraser)

    @abstractmethod
    def pieces_of(self, eraser: BaseEraser) -> dict[str, str]:
        """The same of an eraser that was fitted in this method's way."""

    @abstractmethod
    def unlearn(self, uids: list[str]) -> tuple[int, int]:
        """Forget; return how many samples went through the model again, and how many sample gradients it took."""

    @abstractmethod
    def take_back(self, outcome: Outcome) -> None:
        """Undo the last request."""

    @abstractmethod
    def undone(self, outcome: Outcome) -> str:
        """What undoing that request has done, to be shown: images added again, or a copy put back."""


class ExactModel(Model):
    """An eraser of the kit: forgetting is a fit without the samples, with what is there as the cache."""

    def start_again(self) -> None:
        """All that there is is the eraser."""

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """As the eraser's."""
        return self.eraser.predict_proba(samples)

    def pieces_of(self, eraser: BaseEraser) -> dict[str, str]:
        """The state's own, in the method's own words."""
        word = PARTS[self.name]
        return {re.sub("^cluster ", f"{word} ", name): piece for name, piece in eraser.state_.pieces().items()}

    def unlearn(self, uids: list[str]) -> tuple[int, int]:
        """Clusters that lose somebody are learned again; exact sums are subtracted from, and nobody is."""
        receipt = self.eraser.forget(uids)
        passed = 0 if receipt.summed else sum(receipt.clusters_tuned.values())
        return passed, receipt.sample_gradients

    def take_back(self, outcome: Outcome) -> None:
        """Those who left are added again, which gives the same bits as before."""
        samples = self.split.private
        self.eraser.add(samples[samples.positions(outcome.uids)])

    def undone(self, outcome: Outcome) -> str:
        """They were added, and what was learned of them is the same again."""
        n, word = len(outcome.uids), PARTS[self.name]
        images, its, it = (
            (f"{n} images were", f"their {word}s", "them") if n > 1 else ("1 image was", f"its {word}", "it")
        )
        how = f"added again, and {its} learned with {it}" if self.name in GROUPS else "added to the sums again"
        same = "the same hash as before it" if self.hash() == outcome.hash_before else "another hash than before it"
        return f"{images} {how}: {same}"


class ApproximateModel(Model):
    """One prompt and one head for everybody, which an approximate method changes at every request."""

    def start_again(self) -> None:
        """The parameters are those of the fit."""
        self.parameters: Parameters | None = None
        self.kept: list[Parameters | None] = []  # of before each request: only to undo it

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """As the changed model's."""
        if self.parameters is None:
            return self.eraser.predict_proba(samples)
        logits = self.task.predict(self.parameters, self.task.part(samples))
        return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))

    def pieces_of(self, eraser: BaseEraser) -> dict[str, str]:
        """Prompt, weight and bias."""
        (model,) = eraser.state_.models.values()
        return {name: digest(model.arrays[name].tobytes()) for name in ("prompt", "weight", "bias")}

    def pieces(self) -> dict[str, str]:
        """Prompt, weight and bias, as they are now."""
        if self.parameters is None:
            return self.pieces_of(self.eraser)
        return {name: digest(tensor.detach().cpu().numpy().tobytes()) for name, tensor in self.parameters.items()}

    def unlearn(self, uids: list[str]) -> tuple[int, int]:
        """Change the present parameters, with the method's published settings."""
        task = UnlearningTask(self.eraser, [*self.gone, *uids])
        if self.parameters is not None:
            task.start = {name: tensor.detach() for name, tensor in self.parameters.items()}
        task.forget = task.part(self.split.private[self.split.private.positions(uids)])
        changed, cost = unlearn(self.name, task)
        self.kept.append(self.parameters)
        self.task, self.parameters = task, changed
        passed = len(task.forget.labels) + (0 if self.name == "gradient ascent" else len(task.retain.labels))
        return passed, int(cost["sample_gradients"])

    def take_back(self, outcome: Outcome) -> None:
        """The parameters of before, which the page has kept."""
        self.parameters = self.kept.pop()

    def undone(self, outcome: Outcome) -> str:
        """Nothing was learned: the hash is that of the copy."""
        return "a copy of the model, kept from before it, was put back. Nothing was learned, so its hash shows nothing"


def new_eraser(name: str, backbone: Backbone, seed: int) -> BaseEraser:
    """An unfitted estimator of one of NAMES, with the page's numbers of clusters and epochs."""
    method, n_clusters = (WHOLE, 1) if name in INEXACT else (name, 8)
    options = {"clusters": METHODS["hashed clusters"][1](16)} if name == "ridge head" else {}  # few tiles to look at
    eraser = build_method(method, backbone, n_clusters, Recipe(epochs=EPOCHS), seed=seed, verbose=False)
    return eraser.set_params(**options)


def new_model(name: str, split: Split, backbone: Backbone, seed: int = 0) -> Model:
    """A fitted model.

    Args:
        name: One of NAMES.
        split: Public, private and test images.
        backbone: The frozen backbone, its features kept (`CachedFeatures`).
        seed: Keys the draws of tuning.

    Raises:
        ValueError: If the name is none of these.
    """
    if name not in NAMES:
        raise ValueError(f"unknown method {name!r:.80}; one of: {', '.join(NAMES)}")
    return (ApproximateModel if name in APPROXIMATE else ExactModel)(name, split, backbone, seed)
