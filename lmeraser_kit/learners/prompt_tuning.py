"""Tuning one cluster: its prompt and its head, as one pure function of its samples.

LMEraser (arXiv 2404.11056) tunes a visual prompt and a linear head for every cluster. The published code tunes all of
them with one optimiser, one schedule and mixed batches, so each has felt every sample. `tune_cluster` reads nothing
but its arguments; that alone makes forgetting exact.

Inside a cluster, tuning may go on in slices (SISA, Bourtoule et al. 2021): a sample's slice is a hash of its uid, and
after each slice a checkpoint is kept. A checkpoint is a function of the samples in the slices so far, so it has an
address like everything else: when a sample of slice r leaves, tuning goes on from the checkpoint before r.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lmeraser_kit.backbones.backbone import FEATURE_BATCH, Backbone
from lmeraser_kit.ground import checks
from lmeraser_kit.ground.determinism import environment, exact_arithmetic, memory_to_spare
from lmeraser_kit.ground.hashing import digest
from lmeraser_kit.ground.minibatches import augment, train
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.prompts import prompt_canvas
from lmeraser_kit.learners.recipe import Recipe, optimiser_for
from lmeraser_kit.learners.ridge import SHARPNESS, head_from_rows, with_one


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """What tuning a cluster leaves: a prompt and a head. All of it is deleted when a member leaves.

    Attributes:
        prompt: Values of the prompted pixels in normalised units, float32 (3, P).
        weight: The head's weight, float32 (n_classes, D).
        bias: The head's bias, float32 (n_classes,).
        losses: Mean cross-entropy of each epoch since `start`, in nats, float64 (epochs,).
        n_samples: How many samples the cluster (or, for a checkpoint, its slices so far) has.
        sample_gradients: What tuning has cost since `start`: samples passed forward and backward once, counted as
            they passed (for a head alone, through the head: the features do not change, and are computed once).
        address: Hash of everything that the above is computed from.
        start: The checkpoint that tuning went on from; None for the first.
    """

    prompt: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    losses: np.ndarray
    n_samples: int
    sample_gradients: int
    address: str
    start: ClusterModel | None = None

    def __post_init__(self) -> None:
        for array in (self.prompt, self.weight, self.bias, self.losses):
            array.setflags(write=False)

    @property
    def digest(self) -> str:
        """A hash of every bit that the cluster keeps, in hex; computed from the arrays every time."""
        arrays = (self.prompt, self.weight, self.bias, self.losses)
        bits = (part for array in arrays for part in (array.shape, array.tobytes()))
        start = "" if self.start is None else self.start.digest
        return digest("cluster", self.address, self.n_samples, self.sample_gradients, start, *bits)

    def checkpoints(self) -> list[ClusterModel]:
        """What was kept after each slice, in order; the last is the model itself."""
        return [*([] if self.start is None else self.start.checkpoints()), self]


def cluster_addresses(
    backbone: Backbone, samples: Samples, recipe: Recipe, seed: int, threads: int = 1
) -> dict[int, str]:
    """The address of a cluster's checkpoint after each slice; the last is the address of its model.

    An address is a hash of exactly what a checkpoint is a function of: uid, label and pixels of every member in the
    slices so far (in the order of uids, so that the order of arrival does not matter), the number of classes, the
    recipe, the seed, the frozen backbone, and the environment that rounds.

    Returns:
        Slice -> address in hex; slices before the first member have none.
    """
    samples, seed = checks.instance("samples", samples, Samples).sorted(), checks.seed(seed)
    checks.instance("backbone", backbone, Backbone)
    slices = checks.instance("recipe", recipe, Recipe).slices_of(samples.keys, seed)
    common = (
        samples.n_classes,
        json.dumps(dataclasses.asdict(recipe), sort_keys=True),
        seed,
        backbone.fingerprint,
        json.dumps(environment(backbone.device, threads), sort_keys=True),
    )
    return {
        r: digest("address", r, samples.digests[slices <= r].tobytes(), *common)
        for r in range(slices.min(initial=recipe.slices), recipe.slices)
    }


def tune_cluster(
    backbone: Backbone,
    samples: Samples,
    recipe: Recipe,
    seed: int,
    threads: int = 1,
    start: ClusterModel | None = None,
) -> ClusterModel:
    """Tune the prompt and the head of one cluster. A pure function: the same arguments give the same bits.

    Args:
        backbone: The frozen backbone.
        samples: The cluster's members, at least one; their order does not matter.
        recipe: How to tune.
        seed: Keys the prompt's start, the order of the samples and their augmentation (with uid and epoch).
        threads: Intra-op threads; bits may depend on it.
        start: A checkpoint of these samples to go on from; it saves work and changes no bit.

    Returns:
        The cluster's model, with the checkpoints before it.

    Raises:
        ValueError: If there is no sample, an argument is none, or `start` is no checkpoint of these samples.
        FloatingPointError: If the loss is not finite (a rate is too high).
    """
    checks.instance("backbone", backbone, Backbone), checks.instance("recipe", recipe, Recipe)
    seed, threads = checks.seed(seed), checks.whole("threads", threads)
    if not len(checks.instance("samples", samples, Samples)):
        raise ValueError("samples are none: a cluster without samples has no model")
    if start is not None:
        checks.instance("start", start, ClusterModel)
    samples = samples.sorted()
    slices, addresses = (
        recipe.slices_of(samples.keys, seed),
        cluster_addresses(backbone, samples, recipe, seed, threads),
    )
    done = [r for r, address in addresses.items() if start is not None and address == start.address]
    if start is not None and not done:
        raise ValueError("the checkpoint to go on from was not made of these samples")
    for r, address in addresses.items():
        if not done or r > done[0]:
            start = _tune_slice(backbone, samples[slices <= r], recipe, seed, threads, start, r, address)
    return start


def _tune_slice(
    backbone: Backbone,
    samples: Samples,
    recipe: Recipe,
    seed: int,
    threads: int,
    start: ClusterModel | None,
    r: int,
    address: str,
) -> ClusterModel:
    """Tune on the samples of the slices up to r, from the checkpoint before r."""
    device, mask = backbone.device, recipe.mask(backbone.size, seed)
    only_the_head = recipe.prompt == "none" and not (recipe.shift or recipe.rotate or recipe.zoom or recipe.flip)
    from_ridge = start is None and recipe.head_start == "ridge"
    clean = cluster_features(backbone, samples, threads) if only_the_head or from_ridge else None
    if start is None:
        prompt = torch.randn(3, int(mask.sum()), generator=torch.Generator().manual_seed(seed)) * recipe.prompt_std
        weight, bias = torch.zeros(samples.n_classes, backbone.n_features), torch.zeros(samples.n_classes)
        if from_ridge:
            weight, bias = ridge_start(clean, samples)
    else:
        prompt, weight, bias = (torch.tensor(array) for array in (start.prompt, start.weight, start.bias))
    prompt, weight, bias = (tensor.to(device) for tensor in (prompt, weight, bias))
    parameters = {"weight": weight, "bias": bias} | ({} if recipe.prompt == "none" else {"prompt": prompt})
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    images, labels = at_hand(np.asarray(samples.images), device), torch.from_numpy(samples.labels).to(device)
    passed, always_the_same = 0, torch.from_numpy(clean).to(device) if only_the_head else None

    def features_of(rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        if always_the_same is not None:
            return always_the_same[rows]
        views = augment(backbone.views(images[rows]), draws, recipe.shift, recipe.rotate, recipe.zoom, recipe.flip)
        return backbone(views + prompt_canvas(prompt, mask))

    def loss_of(rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        nonlocal passed
        passed += len(rows)
        return F.cross_entropy(F.linear(features_of(rows, draws), weight, bias), labels[rows])

    epochs = range(r * recipe.slice_epochs, (r + 1) * recipe.slice_epochs)
    optimiser, batch = optimiser_for(recipe, parameters), recipe.batch_of(len(samples))
    advice = f"lower Recipe.batch_size ({recipe.batch_size}), which gives another model, or use precision='bfloat16'"
    with exact_arithmetic(threads), memory_to_spare(f"tuning with a batch of {batch} images", advice):
        losses = train(
            loss_of, optimiser, samples.keys, epochs, batch, seed, recipe.warmup, micro_batch=backbone.micro_batch
        )
    if not np.isfinite(losses).all():
        raise FloatingPointError(
            f"the loss of a cluster of {len(samples)} samples is not finite: lower prompt_lr ({recipe.prompt_lr}) "
            f"or head_lr ({recipe.head_lr})"
        )
    arrays = [tensor.detach().cpu().numpy() for tensor in (prompt, weight, bias)]
    return ClusterModel(*arrays, np.array(losses), len(samples), passed, address, start)


def cluster_features(backbone: Backbone, samples: Samples, threads: int, layers: bool = False) -> np.ndarray:
    """Clean features of a whole cluster, (N, D), in batches no larger than it needs: nobody else looks at them."""
    n = len(checks.instance("samples", samples, Samples))
    even = math.ceil(n / max(1, math.ceil(n / FEATURE_BATCH)))
    return backbone.features(
        np.asarray(samples.images), threads, batch_size=max(1, even), layers=layers, uids=samples.uids
    )


def ridge_start(features: np.ndarray, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """A head in closed form from features, (N, D), sharpened into logits: weight and bias."""
    rows = np.c_[with_one(features), np.eye(samples.n_classes)[samples.labels]]
    head = torch.from_numpy((SHARPNESS * head_from_rows(rows, features.shape[1] + 1)).astype(np.float32))
    return head[:-1].T.contiguous(), head[-1].contiguous()


def at_hand(images: np.ndarray, device: torch.device) -> np.ndarray | torch.Tensor:
    """Images on a GPU if they take at most a quarter of its free memory; otherwise they stay where they are."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return images
    return torch.from_numpy(np.array(images)).to(device)
