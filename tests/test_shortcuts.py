import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmeraser_kit.backbones import untrained
from lmeraser_kit.ground.determinism import exact_arithmetic
from lmeraser_kit.ground.minibatches import train


def through(model, views):
    """A feature, the gradient of some of it to the views, and the operations that both take."""
    views = views.clone().requires_grad_(True)
    with FlopCounterMode(display=False) as counter, exact_arithmetic(1):
        feature = model(views)
        (feature * torch.linspace(-1, 1, feature.shape[1], device=feature.device)).sum().backward()
    return feature.detach(), views.grad, counter.get_total_flops()


@pytest.mark.parametrize("name", ["test_vit", "small-vit", "test_convnext", "swin_tiny_patch4_window7_224@56"])
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 4e-2)])
def test_a_shortened_model_gives_the_same_feature_and_gradient(name, precision, tolerance):
    backbone = untrained(name).at(precision)
    views = torch.randn(3, 3, backbone.size, backbone.size, generator=torch.Generator().manual_seed(0))
    views = views.to(next(backbone.model.parameters()))
    for theirs, ours in zip(through(backbone.model, views)[:2], through(backbone.short, views)[:2], strict=True):
        assert float((theirs - ours).abs().max()) <= tolerance * float(theirs.abs().max())


def test_it_saves_work_and_shares_the_weights():
    backbone = untrained("test_vit")
    views = torch.randn(2, 3, backbone.size, backbone.size, device=backbone.device)
    whole, short = through(backbone.model, views), through(backbone.short, views)
    block = sum(w.numel() for w in backbone.model.blocks[-1].parameters()) / sum(
        w.numel() for w in backbone.model.blocks.parameters()
    )
    assert short[2] < (1 - block / 2) * whole[2]  # most of one of the blocks is saved
    with torch.no_grad():
        backbone.model.norm.bias += 1.0
    torch.testing.assert_close(through(backbone.short, views)[0], whole[0] + 1.0)


@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_the_gradients_of_micro_batches_add_up(micro_batch):
    x, y = torch.randn(23, 5, generator=torch.Generator().manual_seed(0)), torch.arange(23) % 3

    def tuned(largest):
        weight, passed = torch.zeros(3, 5, requires_grad=True), []

        def loss_of(rows, draws):
            passed.append(len(rows))
            return torch.nn.functional.cross_entropy(x[rows] @ weight.T, y[rows])

        optimiser = torch.optim.SGD([weight], lr=0.5)
        losses = train(loss_of, optimiser, np.arange(23, dtype=np.uint64), range(3), 8, 0, 0.2, micro_batch=largest)
        return weight.detach().numpy(), np.array(losses), passed

    (weight, losses, passed), (expected, expected_losses, _) = tuned(micro_batch), tuned(sys.maxsize)
    assert sum(passed) == 3 * 23 and max(passed) <= micro_batch
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-6)


FAULTS = """
import resource, torch
from lmeraser_kit.ground.determinism import keep_freed_memory
keep_freed_memory({keep})
for turn in range(40):
    if turn == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's settings are GNU's")
def test_freed_memory_is_kept_for_the_next_tensor():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], check=True, capture_output=True).stdout)
        for keep in (True, False)
    )
    assert kept < given_back / 10  # pages that the system has to clear
