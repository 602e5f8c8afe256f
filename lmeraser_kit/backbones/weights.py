"""Weights on disk: safetensors, whole or not at all, never unpickled."""

from __future__ import annotations

from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from lmeraser_kit.ground.files import replacing


def write_weights(
    path: Path | str, state: dict[str, torch.Tensor], metadata: dict[str, str], mode: int = 0o600
) -> Path:
    """Write tensors and metadata to one file, whole or not at all; for its owner alone, unless `mode` says more.

    Raises:
        OSError: If the disk is full, or fails.
    """
    with replacing(path, mode) as partial:
        try:
            save_file(state, partial, metadata=metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
    return Path(path)


def read_weights(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read; it may be truncated.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except Exception as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}); it may be truncated: fetch or write it again"
        ) from error
