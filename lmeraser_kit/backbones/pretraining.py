"""Small ViTs, pre-trained here on public samples, supervised, with augmentation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from lmeraser_kit import checks
from lmeraser_kit.backbones.preprocessing import clean_views, data_config
from lmeraser_kit.backbones.timm_models import create_model
from lmeraser_kit.ground import minibatches
from lmeraser_kit.ground.determinism import exact_arithmetic, pick_device, progress
from lmeraser_kit.ground.samples import Samples, not_empty

# The first takes a CPU a minute on digits; the second is made for CIFAR-10 on a GPU.
VITS = {
    "small-vit": {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4},
    "cifar-vit": {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 8, "num_heads": 3},
}
ARCHITECTURE = "vit_tiny_patch16_224"  # timm's class; VITS change its arguments


def new_vit(arguments: dict) -> tuple[str, dict, dict[str, torch.Tensor], dict]:
    """A small ViT with random weights: architecture, arguments, weights, data config (see `read_timm`)."""
    weights = create_model(ARCHITECTURE, **arguments).state_dict()
    return ARCHITECTURE, arguments, weights, data_config(arguments["img_size"])


def pretrain_vit(
    public: Samples,
    epochs: int = 70,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
    batch_size: int = 64,
    **arguments,
) -> tuple[str, dict, dict[str, torch.Tensor], dict]:
    """Pre-train a small ViT (timm's class) on public samples, supervised, with augmentation.

    Args:
        public: Public samples; nothing private may be among them.
        epochs: Passes over the public samples.
        seed: Keys the initial weights, the order and the augmentation.
        device: `auto`, or a torch device.
        threads: Intra-op threads; bits may depend on it.
        batch_size: Largest batch.
        **arguments: Replace entries of `VITS["small-vit"]` (img_size, patch_size, embed_dim, depth, num_heads).

    Returns:
        As for `new_vit`, the weights trained; the classifier is left out.

    Raises:
        ValueError: If an argument is none of these.
    """
    not_empty("public", public)
    checks.whole("epochs", epochs, 0), checks.seed(seed)
    checks.whole("threads", threads), checks.whole("batch_size", batch_size)
    device = pick_device(device)
    for name, value in arguments.items():
        checks.whole(checks.choice("an argument of a small ViT", name, VITS["small-vit"]), value)
    arguments = {**VITS["small-vit"], **arguments}
    if arguments["embed_dim"] % arguments["num_heads"] or arguments["img_size"] < arguments["patch_size"]:
        expected = "embed_dim a multiple of num_heads, and patch_size at most img_size"
        raise ValueError(f"the small ViT's arguments are {arguments}, expected {expected}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model(ARCHITECTURE, **arguments)
        head = torch.nn.Linear(model.num_features, public.n_classes)
    model, head, config = model.to(device).train(), head.to(device), data_config(arguments["img_size"])
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.05)
    labels = torch.from_numpy(public.labels).to(device)

    def loss_of(rows: np.ndarray, draws: np.ndarray) -> torch.Tensor:
        views = clean_views(public.images[rows], config, device)
        views = minibatches.augment(views, draws, shift=0.12, rotate=15, zoom=0.15)
        return F.cross_entropy(head(model(views)), labels[rows], label_smoothing=0.1)

    bar = progress(range(epochs), desc="pre-training on public samples", unit="epoch")
    with exact_arithmetic(threads):
        minibatches.train(loss_of, optimiser, public.keys, bar, batch_size=batch_size, seed=seed, warmup=0.1)
    return ARCHITECTURE, arguments, {name: w.cpu() for name, w in model.state_dict().items()}, config
