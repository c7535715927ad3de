"""How a model lies in a CUDA device's memory, and whether its blocks are compiled."""

import os
from importlib import import_module
from typing import Any, cast

from safelight.settings import settings

RECOMPILE_LIMIT = 256
"""Shapes for which blocks are compiled, all kinds together, about twenty for each size of pictures
and batches; further ones run as they are."""


def arranged(pipeline: Any) -> Any:  # noqa: ANN401  (diffusers is untyped)
    """Arrange the weights for the device they are on; nothing changes on others than CUDA.

    Convolutions of half precision run on tensor cores without transposing when channels come last.
    """
    if pipeline.device.type != "cuda":
        return pipeline
    for name in ("unet", "vae"):
        module = getattr(pipeline, name, None)
        if module is not None:
            with_channels_last(module, pipeline.device)
    if settings().compile:
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        if denoiser is not None:
            compile_blocks(denoiser)
    return pipeline


def with_channels_last(module: Any, device: Any) -> Any:  # noqa: ANN401
    """A network with its channels last on CUDA, as it was elsewhere."""
    import torch

    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module


def compile_blocks(denoiser: Any) -> None:  # noqa: ANN401
    """Compile the blocks that repeat, each kind once for all of them.

    What was compiled is kept in the volume's cache for the next process.
    """
    folder = settings().volume_root.resolve() / "cache" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    # its documented place, though the name is private
    dynamo = cast("Any", import_module("torch._dynamo.config"))
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = RECOMPILE_LIMIT
    repeated = set(getattr(denoiser, "_repeated_blocks", None) or ()) | {"ResnetBlock2D"}
    for module in denoiser.modules():
        if type(module).__name__ in repeated:
            module.compile(dynamic=False)
