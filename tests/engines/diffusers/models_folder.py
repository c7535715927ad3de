"""A folder of models that the engine of this process reads, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from safelight.engines.machine.loaded import forget_loaded
from safelight.settings import reload_settings


@contextmanager
def models_from(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """Settings that name it, with a volume of its own inside; nothing stays loaded afterwards,
    unless that is to be kept for another test of the same folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_MODELS_DIR", str(folder))
        patch.setenv("VOLUME_ROOT", str(folder / "volume"))
        patch.setenv("SAFELIGHT_DEVICE", "cpu")
        reload_settings()
        yield folder
    reload_settings()
    if not keep:
        forget_loaded()


def with_change(held: dict[str, torch.Tensor], key: str, way: str) -> dict[str, torch.Tensor]:
    """Tensors of which one is left out, under another name, there twice, or of another kind."""
    tensors, tensor = dict(held), held[key]
    if way in ("drop", "rename"):
        del tensors[key]
    if way in ("rename", "add"):
        tensors[f"{key}_"] = tensor.clone()
    if way == "half":
        tensors[key] = tensor.half()
    if way == "whole numbers":
        tensors[key] = (tensor * 100).to(torch.int32)
    if way == "shape":
        tensors[key] = torch.cat([tensor, tensor])
    if way == "twice":
        tensors[key] = 2 * tensor
    return tensors
