"""The same feature for less work: what nobody reads is not computed.

Tuning a prompt spends its time in the frozen backbone, forward and backward to the pixels. Two parts of that can go, and
change the feature by rounding at most:

- A Vision Transformer that is read at its class token (ViT, Dosovitskiy et al. 2021) computes all tokens in its last
  block, of which the other 196 are thrown away. What comes after attention there is computed for the class token alone.
- Where images are cut into patches, a convolution whose windows do not overlap is one matrix product; oneDNN's backward
  pass of that convolution to the pixels takes several times as long.
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer


def shortened(model: torch.nn.Module) -> torch.nn.Module:
    """A twin of a timm model, with the same weights (shared, not copied), that gives the same feature for less.

    Only its output is the model's: of the last block's tokens the first alone is right.
    """
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo=weights)
    for module in twin.modules():
        if _cuts_into_patches(module):
            module.forward = functools.partial(_patches_times_weight, module)
    if isinstance(twin, VisionTransformer) and twin.global_pool == "token" and type(twin.blocks[-1]) is Block:
        for module in (twin.blocks[-1].attn.proj, twin.blocks[-1].norm2, twin.norm):
            module.register_forward_pre_hook(_first_token)
    return twin


def _first_token(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> torch.Tensor:
    return arguments[0][:, :1]  # (B, 1, D): added to all tokens, and right for the first


def _cuts_into_patches(module: torch.nn.Module) -> bool:
    plain = isinstance(module, torch.nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    return plain and module.stride == module.kernel_size and module.padding == (0, 0) and module.dilation == (1, 1)


def _patches_times_weight(conv: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """What the convolution gives, (B, 3, S, S) -> (B, D, S / p, S / p), as one matrix product."""
    (b, c, *sides), (p, q) = images.shape, conv.kernel_size
    h, w = sides[0] // p, sides[1] // q
    patches = images[:, :, : h * p, : w * q].reshape(b, c, h, p, w, q).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w, -1)
    return F.linear(patches, conv.weight.flatten(1), conv.bias).transpose(1, 2).unflatten(2, (h, w))
