"""Tensors of single files that diffusers reads whole, and whether their values are numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch


def tensors_in(path: Path) -> "dict[str, torch.Tensor]":
    """All of a single file."""
    import torch
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    held = cast("dict[str, object]", load_single_file_checkpoint(str(path), local_files_only=True))
    return {name: t for name, t in held.items() if isinstance(t, torch.Tensor)}


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a single file."""
    return shapes_of(tensors_in(path))


def shapes_of(tensors: "Mapping[str, torch.Tensor]") -> dict[str, tuple[int, ...]]:
    """Sides of each tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def first_not_finite(named: "Mapping[str, torch.Tensor]") -> str | None:
    """The first tensor with values that are no finite numbers; the device is asked once."""
    import torch

    whole = torch.stack([torch.isfinite(each).all() for each in named.values()])
    fine = zip(named, whole.tolist(), strict=True)
    return next((name for name, is_fine in fine if not is_fine), None)
