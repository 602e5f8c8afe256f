"""A model for others in one file: what a prediction needs, and no sample, no row, no sum and no uid.

`eraser.save` writes everything that a deletion needs, the private samples above all. `publish` writes the heads, the
prompts, the routing and the backbone. That is not nothing: heads are made of private samples. Whoever has two published
models finds who left between them (`evaluation.reconstruction`, docs/attacks.md), and the head of a cluster of few
samples shows these. `publish` warns of both. It keeps no record, so that it cannot betray anybody either: the operator
names the earlier files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.weights import read_weights, write_weights
from lmeraser_kit.ground.determinism import pick_device
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.exact_sums import ExactSums
from lmeraser_kit.learners.protocol import Context
from lmeraser_kit.partitions.protocol import Partition
from lmeraser_kit.unlearning.arguments import as_queries
from lmeraser_kit.unlearning.base import BaseEraser
from lmeraser_kit.unlearning.saving import from_plain, to_plain
from lmeraser_kit.unlearning.votes import ClusterVote, SharedHead, SharedModel

KEY = "lmeraser_kit.published"
NAMED = {1: 1.0, 64: 1.0, 1000: 0.97}  # least squares, of 10,000 images: results/reference/cifar10-reconstruction
FEW = 10  # samples of a cluster: fewer than a head has classes, usually
NEEDED = ("prompt", "weight", "bias")  # of a tuned cluster; its losses say more of its samples than a prediction needs


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """A model without its samples: it predicts what the eraser did when it was published.

    Attributes:
        backbone: The frozen backbone.
        partition: The fitted routing.
        learner: What has learnt the clusters, without anything learnt.
        vote: Who answers.
        heads: The arrays of each cluster, by its number; of a ridge head, -1 is the head for everybody.
        seed: The prompts' places may depend on it.
        threads: Intra-op threads.
        n_samples: How many samples it was fitted on.
        n_classes: Number of classes.
        empty: No samples, of the images' shape.
    """

    backbone: Backbone
    partition: Partition
    learner: Any
    vote: Any
    heads: dict[int, dict[str, np.ndarray]]
    seed: int
    threads: int
    n_samples: int
    n_classes: int
    empty: Samples

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> PublishedModel:
        """Read a file that `publish` wrote. Raises ValueError for another file, or a damaged one."""
        device, (tensors, about) = str(pick_device(device)), _read(path)
        try:
            weights = {n.removeprefix("backbone/"): tensors.pop(n) for n in list(tensors) if n.startswith("backbone/")}
            arrays = [tensors[f"array/{i}"].numpy() for i in range(len(tensors))]
            parts = {name: from_plain(value, arrays) for name, value in about["parts"].items()}
            return cls(Backbone.described_by(about["backbone"], weights, device), **parts)
        except Exception as error:
            raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): is it damaged?") from error

    def predict_proba(self, samples: Samples | np.ndarray) -> np.ndarray:
        """Class probabilities, float64 (N, n_classes), of samples, or of images uint8 (N, C, H, W).

        Raises:
            ValueError: If images are not as above.
        """
        queries = as_queries(samples, self.empty, self.n_classes)
        context = Context(self.backbone, self.seed, self.threads).of(queries, any_batch=True)
        return self.vote.predict_proba(self._gathered(context), self.learner, self.partition, queries, context)

    def predict(self, samples: Samples | np.ndarray) -> np.ndarray:
        """The most probable class of each sample, (N,) int."""
        return self.predict_proba(samples).argmax(axis=1)

    def _gathered(self, context: Context) -> Any:
        clusters = sorted(k for k in self.heads if k >= 0)
        if isinstance(self.learner, ExactSums):
            corrections = {k: self.heads[k]["head"] for k in clusters}
            models: Any = dict.fromkeys(clusters)  # a correction that is there is not computed
            shared = np.asfortranarray(
                self.heads[-1]["head"]
            )  # as LAPACK leaves it: a product's last bits depend on it
            return SharedModel(shared, self.learner.steps(context), models, self.vote.l2, corrections)
        return np.array(clusters), self.learner.gather([self.heads[k] for k in clusters], context)


def publish(eraser: BaseEraser, path: Path | str, earlier: Iterable[Path | str] = ()) -> Path:
    """Write a fitted eraser's model for others: heads alone.

    Args:
        eraser: A fitted LMEraser or RidgeEraser.
        path: The file.
        earlier: Files of models that others may have.

    Returns:
        The file.

    Warns:
        UserWarning: If an earlier model has other heads, with the number of samples that left between; or if clusters
            have fewer than FEW samples.

    Raises:
        ValueError: If the eraser is not fitted, holds nobody, has a part of your own, or a routing by private
            prototypes; or if an earlier file cannot be read. Nothing is written then.
    """
    path = checks.path("path", path)
    heads, sizes = _heads(eraser), eraser.sizes()
    choices, arrays = eraser.choices(), list[np.ndarray]()
    parts = {
        "partition": eraser.state_.partition,
        "learner": choices.learner,
        "vote": choices.vote,
        "heads": heads,
        "seed": int(eraser.seed),
        "threads": int(eraser.threads),
        "n_samples": len(eraser.state_),
        "n_classes": int(eraser.n_classes_),
        "empty": eraser.state_.empty,
    }
    about = {
        "backbone": eraser.backbone.description(),
        "parts": {name: to_plain(value, arrays) for name, value in parts.items()},
        "heads": _digests(heads),
        "n_samples": parts["n_samples"],
    }
    if '"part": null' in json.dumps(about["parts"]) or not eraser.backbone.is_timm:
        raise ValueError("a part of the eraser is of your own, and a file holds no code: publish() cannot write it")
    for file in earlier:
        if said := compared(_read(file)[1], about):
            warnings.warn(f"{file}: {said}", stacklevel=2)
    few = [k for k, n in sizes.items() if n < FEW and k in heads]
    if few:
        warnings.warn(
            f"{len(few)} of {len(sizes)} clusters have fewer than {FEW} samples: their heads are made of few people, "
            "and show them to whoever reads the file. Fewer clusters have more samples each.",
            stacklevel=2,
        )
    tensors = {f"array/{i}": torch.from_numpy(array) for i, array in enumerate(arrays)}
    tensors |= {f"backbone/{name}": tensor for name, tensor in eraser.backbone.state_dict().items()}
    return write_weights(path, tensors, {KEY: json.dumps(about)}, mode=0o644)


def compared(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """What two published models tell who has both, in words; nothing if their heads are the same.

    Args:
        earlier: What a file says of its heads and samples: `heads`, their hashes by cluster, and `n_samples`.
        now: The same of the model that is to be published.
    """
    changed = [k for k in earlier["heads"] | now["heads"] if earlier["heads"].get(k) != now["heads"].get(k)]
    if not changed:
        return ""
    left = earlier["n_samples"] - now["n_samples"]
    near = min(NAMED, key=lambda m: abs(np.log(m / max(left, 1))))
    who = f"at least {left} sample{'s' * (left != 1)} left" if left > 0 else "samples left or joined"
    return (
        f"{who} between that model and this one, and {len(changed)} of {len(now['heads'])} heads differ. Whoever has "
        f"both can find who it was: of {near:,} of 10,000 images of CIFAR-10 that left at once an attack named "
        f"{NAMED[near]:.0%}. Collecting more requests does not hide them (docs/attacks.md)."
    )


def _heads(eraser: BaseEraser) -> dict[int, dict[str, np.ndarray]]:
    """The arrays that predictions need, by cluster."""
    checks.instance("eraser", eraser, BaseEraser).check_unchanged()
    choices, partition = eraser.choices(), eraser.state_.partition
    if partition.learns_from == "private":
        raise ValueError("the partition keeps prototypes of private features: publish one that public samples fit")
    if isinstance(choices.vote, SharedHead):
        shared = eraser.gathered()
        corrections = {k: shared.correction(k) for k in shared.models} if choices.vote.corrections else {}
        return {k: {"head": head} for k, head in {-1: shared.head, **corrections}.items()}
    if not isinstance(choices.vote, ClusterVote) or any(set(NEEDED) - set(m.arrays) for m in _models(eraser)):
        raise ValueError(f"the eraser is {type(eraser).__name__} with parts of your own, expected the kit's")
    return {k: {name: model.arrays[name] for name in NEEDED} for k, model in eraser.state_.models.items()}


def _models(eraser: BaseEraser) -> list[Any]:
    return list(eraser.state_.models.values())


def _digests(heads: dict[int, dict[str, np.ndarray]]) -> dict[str, str]:
    return {str(k): digest(*(array.tobytes() for array in arrays.values())) for k, arrays in heads.items()}


def _read(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, metadata = read_weights(checks.path("path", path))
    if KEY not in metadata:
        raise ValueError(f"{path} is no published model of this kit: publish(eraser, path) writes one")
    return tensors, json.loads(metadata[KEY])
