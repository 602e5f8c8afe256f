"""The same feature for less work: what nobody reads is not computed.

Tuning a prompt spends its time in the frozen backbone, forward and backward to the pixels. Two parts of that can go,
and change the feature by rounding at most:

- A Vision Transformer that is read at its class token (ViT, Dosovitskiy et al. 2021) computes all tokens in its last
  block, and throws the others away. There the class token alone asks, and it alone is passed on.
- Where images are cut into patches, a convolution whose windows do not overlap is one matrix product; oneDNN's backward
  pass of that convolution to the pixels takes several times as long.
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from timm.layers import Attention
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
        last = twin.blocks[-1]
        if type(last.attn) is Attention and last.attn.gate is None:
            last.attn.forward = functools.partial(_class_token_asks, last.attn)
        for module in (last.norm2, twin.norm):
            module.register_forward_pre_hook(_first_token)
    return twin


def _first_token(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> torch.Tensor:
    return arguments[0][:, :1]  # (B, 1, D): added to all tokens, and right for the first


def _class_token_asks(attention: Attention, tokens: torch.Tensor, **_) -> torch.Tensor:
    """What attention gives to the first token, (B, N, D) -> (B, 1, D)."""
    b, width = len(tokens), attention.attn_dim
    asked = F.linear(tokens[:, :1], *(part[:width] for part in attention.qkv.parameters()))
    q = asked.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    answers = F.linear(tokens, *(part[width:] for part in attention.qkv.parameters()))
    k, v = answers.unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    return attention.proj(attention.norm(seen.transpose(1, 2).reshape(b, 1, width)))


def _cuts_into_patches(module: torch.nn.Module) -> bool:
    plain = isinstance(module, torch.nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    return plain and module.stride == module.kernel_size and module.padding == (0, 0) and module.dilation == (1, 1)


def _patches_times_weight(conv: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """What the convolution gives, (B, 3, S, S) -> (B, D, S / p, S / p), as one matrix product."""
    (b, c, *sides), (p, q) = images.shape, conv.kernel_size
    h, w = sides[0] // p, sides[1] // q
    patches = images[:, :, : h * p, : w * q].reshape(b, c, h, p, w, q).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w, -1)
    return F.linear(patches, conv.weight.flatten(1), conv.bias).transpose(1, 2).unflatten(2, (h, w))


def suited(model: torch.nn.Module, device: torch.device, precision: str, is_timm: bool) -> None:
    """Choose memory formats and kernels that are fast for a network here, in place."""
    if any(isinstance(module, torch.nn.Conv2d) and module.groups > 1 for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # depthwise convolutions are faster so
    if is_timm and device.type == "cpu" and precision == "bfloat16":  # fused attention is slow then
        for module in filter(lambda module: hasattr(module, "fused_attn"), model.modules()):
            module.fused_attn = False
