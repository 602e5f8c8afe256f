"""What an approximate method is given: a tuned prompt and head, the forget set, and the retain set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import exact_arithmetic
from lmeraser_kit.ground.minibatches import minibatches
from lmeraser_kit.ground.names import named
from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.learners.prompt_tuning import optimiser_for
from lmeraser_kit.learners.prompts import prompt_canvas
from lmeraser_kit.unlearning.lmeraser import LMEraser

Parameters = dict[str, torch.Tensor]
BATCH = 64


@dataclass(frozen=True, eq=False)
class Part:
    """Samples as a method sees them: inputs (features, or images to be prompted), labels (N,), keys (N,)."""

    inputs: torch.Tensor
    labels: torch.Tensor
    keys: np.ndarray

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch, in an order keyed by seed, uid and epoch."""
        for rows, _ in minibatches(self.keys, seed, epoch, BATCH):
            yield self.inputs[rows], self.labels[rows]


class UnlearningTask:
    """A fitted unpartitioned model, its forget set and its retain set.

    Args:
        eraser: A fitted LMEraser with one cluster, without slices.
        uids: Names of the forget set.

    Attributes:
        start: The parameters before: weight, bias, and the prompt if there is one.
        forget: The forget set.
        retain: The retain set.
        passed: Sample gradients so far.

    Raises:
        ValueError: If the eraser is none of these, or a uid is not held.
    """

    def __init__(self, eraser: LMEraser, uids: list[str]):
        if not hasattr(checks.instance("eraser", eraser, LMEraser), "state_"):
            raise ValueError(f"eraser is {type(eraser).__name__}, expected a fitted LMEraser that tunes its heads")
        if len(eraser.state_.models) != 1:
            raise ValueError(f"approximate methods take one cluster, and there are {len(eraser.state_.models)}")
        (model,), samples = eraser.state_.models.values(), eraser.state_.samples
        self.eraser, self.seed, self.passed = eraser, eraser.seed, 0
        self.recipe, self.n_classes = eraser.arguments()["recipe"], eraser.n_classes_
        self.prompted = self.recipe.prompt != "none"
        self.mask = self.recipe.mask(eraser.backbone.size, eraser.seed)
        if self.recipe.slices > 1:
            raise ValueError(f"the eraser was tuned in {self.recipe.slices} slices, expected Recipe(slices=1)")
        names = ("weight", "bias", "prompt") if self.prompted else ("weight", "bias")
        self.start = {name: torch.tensor(model.arrays[name]).to(eraser.backbone.device) for name in names}
        leaving = np.isin(samples.uids, named(uids, set(samples.uids.tolist())))
        self.forget, self.retain = self.part(samples[leaving]), self.part(samples[~leaving])

    def part(self, samples: Samples) -> Part:
        """Samples as a method sees them."""
        checks.instance("samples", samples, Samples)
        backbone, images = self.eraser.backbone, np.asarray(samples.images)
        if not self.prompted:
            images = backbone.features(images, self.eraser.threads)
        inputs = torch.from_numpy(np.array(images)).to(backbone.device)
        return Part(inputs, torch.from_numpy(samples.labels).to(backbone.device), samples.keys)

    def embed(self, parameters: Parameters, inputs: torch.Tensor) -> torch.Tensor:
        """Features, (B, D), through the prompt if there is one."""
        if not self.prompted:
            return inputs
        backbone = self.eraser.backbone
        return backbone(backbone.views(inputs) + prompt_canvas(parameters["prompt"], self.mask))

    def logits(self, parameters: Parameters, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, (B, n_classes); counted if gradients are wanted."""
        self.passed += len(inputs) * torch.is_grad_enabled()
        return F.linear(self.embed(parameters, inputs), parameters["weight"], parameters["bias"])

    @torch.no_grad()
    def predict(self, parameters: Parameters, part: Part) -> np.ndarray:
        """Logits of all samples of a part, float64 (N, n_classes)."""
        with exact_arithmetic(self.eraser.threads):
            batches = [self.logits(parameters, inputs) for inputs in part.inputs.split(BATCH)]
        return torch.cat(batches).cpu().double().numpy()

    def copy(self) -> Parameters:
        """The parameters before, to be changed."""
        return {name: tensor.clone().requires_grad_(True) for name, tensor in self.start.items()}

    def optimiser(self, parameters: Parameters, share: float) -> torch.optim.Optimizer:
        """The optimiser that the model was tuned with, at a share of its rates."""
        return optimiser_for(self.recipe, parameters, share)
