"""Reference models of the page "press Forget": made once, in parts, each of which can be shown as soon as it is there.

They are what an attacker would train who has the data: each on a random half of the private images.

    python -m lmeraser_kit.lab.references
"""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.backbones.named import backbone_for
from lmeraser_kit.baselines.shadows import halves, shadow_logits
from lmeraser_kit.data import Split, load_dataset
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.ground.determinism import environment
from lmeraser_kit.ground.files import replacing
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.lab.models import EPOCHS, INEXACT, NAMES, WHOLE, new_eraser
from lmeraser_kit.lab.outcomes import membership_scores
from lmeraser_kit.learners.recipe import Recipe

N_MODELS, N_PARTS = 64, 8
BACKBONE_EPOCHS = 30  # few, so that the page is soon there
SEED = 1000  # of the first reference model


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """What several processes may want to make is made by one of them; the others get False.

    Args:
        path: A file that stands for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def split_and_backbone(backbone_epochs: int = BACKBONE_EPOCHS, root: Path | str = DATA) -> tuple[Split, Backbone]:
    """Digits, and a small ViT trained on their public part; trained once, and kept under data/backbones.

    Args:
        backbone_epochs: Passes over the public images.
        root: Where data lie.
    """
    split = load_dataset("digits", seed=0)
    backbone = CachedFeatures(backbone_for("small-vit", split.public, backbone_epochs, root=root))
    for part in (split.public, split.private, split.test):
        backbone.features(part.images)
    return split, backbone


class References:
    """The reference models of a split and a backbone, under data/shadows.

    Args:
        split: Private images: each is in the training set of exactly half of the models.
        backbone: The frozen backbone.
        n_models: How many models there are of each method.
        root: Where data lie.
    """

    def __init__(self, split: Split, backbone: Backbone, n_models: int = N_MODELS, root: Path | str = DATA):
        self.split, self.backbone, self.n_models = split, backbone, n_models
        self.inside = halves(n_models, len(split.private), seed=0)
        here = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]  # no part of the kit's hash
        made_of = [
            split.digest,
            backbone.fingerprint,
            EPOCHS,
            n_models,
            sorted(environment(backbone.device, 1).items()),
        ]
        self.folder = Path(root) / "shadows" / f"lab-{digest(str(made_of), *here)[:16]}"

    def parts(self) -> list[np.ndarray]:
        """The numbers of the models of each part."""
        return np.array_split(np.arange(self.n_models), min(N_PARTS, self.n_models))

    def path(self, name: str, part: int) -> Path:
        """Where the scores of a part of a method's models are."""
        return self.folder / f"{WHOLE if name in INEXACT else name}-{part}.npy"

    def prepare(self, names: tuple[str, ...] = tuple(NAMES), n_jobs: int | None = None) -> None:
        """Make the models that are not there yet, unless another process does: a part of every method's in turn."""
        with alone(self.folder / "lock") as mine:
            for number, name in itertools.product(range(len(self.parts())) if mine else (), names):
                path = self.path(name, number)
                if not path.is_file():
                    with replacing(path) as partial:
                        partial.write_bytes(self._scores(name, self.parts()[number], n_jobs).tobytes())

    def being_made(self) -> bool:
        """Whether a process makes them now."""
        with alone(self.folder / "lock") as mine:
            return not mine

    def n_ready(self, name: str) -> int:
        """How many of a method's models are there."""
        return sum(len(models) for part, models in enumerate(self.parts()) if self.path(name, part).is_file())

    def available(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a method's models that are there, (n, N), and who is in the training set of each, bool (n, N)."""
        ready = [(self.path(name, i), models) for i, models in enumerate(self.parts())]
        ready = [(path, models) for path, models in ready if path.is_file()]
        n = len(self.split.private)
        scores = [np.frombuffer(path.read_bytes()).reshape(len(models), n) for path, models in ready]
        chosen = np.concatenate([models for _, models in ready] or [np.zeros(0, int)])
        return np.concatenate([np.zeros((0, n)), *scores]), self.inside[chosen]

    def _scores(self, name: str, models: np.ndarray, n_jobs: int | None) -> np.ndarray:
        """Membership scores of the private images in some models, float64 (n, N)."""

        def build(backbone, n_clusters, recipe, seed=0, **options):
            return new_eraser(name, backbone, seed)

        private = self.split.private
        logits = shadow_logits(
            self.backbone,
            private,
            self.inside[models],
            private,
            Recipe(epochs=EPOCHS),
            build,
            public=self.split.public,
            seed=SEED + int(models[0]),
            n_jobs=n_jobs,
        )
        return membership_scores(np.exp(logits["trained"]), private.labels)


if __name__ == "__main__":
    References(*split_and_backbone()).prepare(n_jobs=-1)
