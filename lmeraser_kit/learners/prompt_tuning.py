"""Prompt tuning: a prompt and a head for each cluster, each tuned by itself.

LMEraser (arXiv 2404.11056) tunes a visual prompt and a linear head for every cluster. The published code tunes all of
them with one optimiser, one schedule and mixed batches, so each has felt every sample. Here a cluster's tuning reads
nothing but its own samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.backbones.preprocessing import START
from lmeraser_kit.ground.determinism import exact_arithmetic, memory_errors
from lmeraser_kit.ground.minibatches import augment, train
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.clusters import learn_cluster
from lmeraser_kit.learners.prompts import prompt_canvas
from lmeraser_kit.learners.protocol import Arrays, ClusterModel, Context
from lmeraser_kit.learners.recipe import Recipe, optimiser_for
from lmeraser_kit.learners.ridge import SHARPNESS, head_from_rows, with_one


class PromptTuning(BaseEstimator):
    """A prompt and a head for each cluster, by gradient descent; or the head alone (a `SlicedLearner`).

    A cluster keeps `prompt`, values of the prompted pixels in normalised units, float32 (3, P); the head's `weight`,
    float32 (n_classes, D), and `bias`, float32 (n_classes,); and `losses`, the mean cross-entropy of each epoch since
    the checkpoint before, in nats, float64 (epochs,).

    Args:
        recipe: How to tune; by default Recipe().
    """

    def __init__(self, recipe: Recipe | None = None):
        self.recipe = recipe

    @property
    def _recipe(self) -> Recipe:
        return self.recipe if self.recipe is not None else Recipe()

    def check(self) -> None:
        """Refuse what is no recipe. Raises ValueError."""
        checks.instance("recipe", self._recipe, Recipe)

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone without a start if tuning starts from it, or with another prompt's. Raises ValueError."""
        if self._recipe.head_start != "public":
            return
        if START["weight"] not in backbone.noted:
            raise ValueError("the backbone has no start: public_start(backbone, public, recipe) tunes one")
        started, mask = backbone.noted[START["prompt"]].shape, self._recipe.mask(backbone.size, 0)
        if started != (3, mask.sum()):
            raise ValueError(
                f"the backbone's start has a prompt of {tuple(started)}, expected (3, {mask.sum()}): tune it anew"
            )

    @property
    def uses_features(self) -> bool:
        """Whether a prediction needs clean features, because there is no prompt."""
        return self._recipe.prompt == "none"

    def n_slices(self) -> int:
        """The recipe's."""
        return self._recipe.slices

    def slices_of(self, keys: np.ndarray, seed: int) -> np.ndarray:
        """The slice of each sample, (N,) int: a hash of its uid."""
        return self._recipe.slices_of(keys, seed)

    def learn(self, samples: Samples, context: Context) -> tuple[dict[str, np.ndarray], int]:
        """Tune a cluster that has one slice."""
        return self.learn_slice(samples, context, None, 0)

    def learn_slice(
        self, samples: Samples, context: Context, start: Arrays | None, r: int
    ) -> tuple[dict[str, np.ndarray], int]:
        """Tune on the samples of the slices up to r, from the checkpoint before r.

        Raises:
            FloatingPointError: If the loss is not finite (a rate is too high).
        """
        recipe, backbone, seed, device = self._recipe, context.backbone, context.seed, context.backbone.device
        mask = recipe.mask(backbone.size, seed)
        head_alone = recipe.prompt == "none" and not (recipe.shift or recipe.rotate or recipe.zoom or recipe.flip)
        from_ridge = start is None and recipe.head_start == "ridge"
        clean = context.features(samples) if head_alone or from_ridge else None
        if start is None:
            prompt = torch.randn(3, int(mask.sum()), generator=torch.Generator().manual_seed(seed)) * recipe.prompt_std
            weight, bias = torch.zeros(samples.n_classes, backbone.n_features), torch.zeros(samples.n_classes)
            if from_ridge and clean is not None:
                weight, bias = ridge_start(clean, samples)
            elif recipe.head_start == "public":
                self.check_backbone(backbone)
                prompt, weight, bias = (backbone.noted[START[name]].clone() for name in ("prompt", "weight", "bias"))
                if len(bias) != samples.n_classes:
                    raise ValueError(f"the backbone's start has {len(bias)} classes, the samples {samples.n_classes}")
        else:
            prompt, weight, bias = (torch.tensor(start[name]) for name in ("prompt", "weight", "bias"))
        prompt, weight, bias = (tensor.to(device) for tensor in (prompt, weight, bias))
        parameters = {"weight": weight, "bias": bias} | ({} if recipe.prompt == "none" else {"prompt": prompt})
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        images, labels = on_device(np.asarray(samples.images), device), torch.from_numpy(samples.labels).to(device)
        passed, always_the_same = 0, torch.from_numpy(clean).to(device) if head_alone else None

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
        advice = (
            f"lower Recipe.batch_size ({recipe.batch_size}), which gives another model, or use precision='bfloat16'"
        )
        with exact_arithmetic(context.threads), memory_errors(f"tuning with a batch of {batch} images", advice):
            losses = train(
                loss_of, optimiser, samples.keys, epochs, batch, seed, recipe.warmup, micro_batch=backbone.micro_batch
            )
        if not np.isfinite(losses).all():
            raise FloatingPointError(
                f"the loss of a cluster of {len(samples)} samples is not finite: lower prompt_lr ({recipe.prompt_lr}) "
                f"or head_lr ({recipe.head_lr})"
            )
        tuned = {"prompt": prompt, "weight": weight, "bias": bias}
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tuned.items()}
        return arrays | {"losses": np.array(losses)}, passed

    def gather(self, models: Sequence[Arrays], context: Context) -> dict[str, torch.Tensor]:
        """Prompts and heads of all clusters on the device: `prompt` (K, 3, P), `weight` and `bias`."""
        return {
            name: torch.from_numpy(np.stack([model[name] for model in models])).to(context.backbone.device)
            for name in ("prompt", "weight", "bias")
        }

    def predict_pairs(
        self,
        gathered: dict[str, torch.Tensor],
        samples: Samples,
        rows: np.ndarray,
        clusters: np.ndarray,
        context: Context,
    ) -> np.ndarray:
        """Class probabilities, float64 (M, n_classes): a prompted pass for each pair, in batches that mix clusters.

        Without prompts a pair takes a product alone: of one cluster after another.
        """
        backbone, mask = context.backbone, self._recipe.mask(context.backbone.size, context.seed)
        prompts, weights, biases = gathered["prompt"], gathered["weight"], gathered["bias"]
        images, probabilities = np.asarray(samples.images), []
        if self.uses_features:
            clean = torch.from_numpy(context.features(samples)).to(backbone.device)
            order, said = np.argsort(clusters, kind="stable"), np.empty((len(rows), weights.shape[1]))
            by_cluster = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1) if len(rows) else []
            with exact_arithmetic(context.threads), torch.inference_mode():
                for mine in by_cluster:
                    logits = F.linear(clean[rows[mine]], weights[clusters[mine[0]]], biases[clusters[mine[0]]])
                    said[mine] = logits.cpu().double().softmax(dim=1).numpy()
            return said
        with exact_arithmetic(context.threads), torch.inference_mode():
            for start in range(0, len(rows), backbone.feature_batch):
                part = slice(start, start + backbone.feature_batch)
                i, k = rows[part], clusters[part]
                features = backbone(backbone.views(images[i]) + prompt_canvas(prompts[k], mask))
                logits = torch.bmm(weights[k], features[:, :, None])[:, :, 0] + biases[k]
                probabilities.append(logits.cpu().double().softmax(dim=1).numpy())
        return np.concatenate([np.zeros((0, weights.shape[1])), *probabilities])

    def predict_proba(self, learnt: Arrays, samples: Samples, context: Context) -> np.ndarray:
        """Class probabilities according to one cluster, float64 (N, n_classes)."""
        rows = np.arange(len(samples))
        return self.predict_pairs(self.gather([learnt], context), samples, rows, np.zeros_like(rows), context)


def tune_cluster(
    backbone: Backbone,
    samples: Samples,
    recipe: Recipe,
    seed: int,
    threads: int = 1,
    start: ClusterModel | None = None,
) -> ClusterModel:
    """Tune the prompt and the head of one cluster: `learn_cluster` with `PromptTuning`, and its errors."""
    checks.instance("backbone", backbone, Backbone)
    context = Context(backbone, checks.seed(seed), checks.whole("threads", threads))
    return learn_cluster(PromptTuning(checks.instance("recipe", recipe, Recipe)), samples, context, start)


def public_start(
    backbone: Backbone, public: Samples, recipe: Recipe | None = None, seed: int = 0, threads: int = 1
) -> Backbone:
    """The backbone with a prompt and a head tuned on public samples, from which clusters start: see `head_start`.

    No private sample is in them, so forgetting stays exact. But public *labels* are.

    Args:
        backbone: The frozen backbone.
        public: Public samples with their labels.
        recipe: How to tune, as of a cluster, from the ridge head; by default Recipe().
        seed: Keys the draws.
        threads: Intra-op threads.
    """
    recipe = replace(checks.instance("recipe", recipe or Recipe(), Recipe), head_start="ridge")
    tuned = tune_cluster(backbone, public, recipe, seed, threads).arrays
    return backbone.noting(backbone.noted | {noted: torch.tensor(tuned[name]) for name, noted in START.items()})


def ridge_start(features: np.ndarray, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """A head in closed form from features, (N, D), sharpened into logits: weight and bias."""
    rows = np.c_[with_one(features), np.eye(samples.n_classes)[samples.labels]]
    head = torch.from_numpy((SHARPNESS * head_from_rows(rows, features.shape[1] + 1)).astype(np.float32))
    return head[:-1].T.contiguous(), head[-1].contiguous()


def on_device(images: np.ndarray, device: torch.device) -> np.ndarray | torch.Tensor:
    """Images on a GPU if they take at most a quarter of its free memory; otherwise they stay where they are."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return images
    return torch.from_numpy(np.array(images)).to(device)
