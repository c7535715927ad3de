"""Ways for a model to draw with less memory; each puts the model back as it was."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from safelight.engines.diffusers.model import DiffusionModel


@contextmanager
def attention_in_slices(view: Any) -> Generator[None]:  # noqa: ANN401
    """Attention head by head; the processors are put back as they were, the models are shared."""
    with ExitStack() as put_back:
        for module in view.components.values():
            if hasattr(module, "set_attention_slice"):
                put_back.callback(module.set_attn_processor, dict(module.attn_processors))
        view.enable_attention_slicing()
        yield


@contextmanager
def decoder_in_tiles(view: Any) -> Generator[None]:  # noqa: ANN401
    """The decoder tile by tile, which changes the picture a little."""
    view.vae.enable_tiling()
    try:
        yield
    finally:
        view.vae.disable_tiling()


@contextmanager
def decoder_one_by_one(view: Any) -> Generator[None]:  # noqa: ANN401
    """A batch through the decoder picture by picture: the same values with less memory."""
    view.vae.enable_slicing()
    try:
        yield
    finally:
        view.vae.disable_slicing()


@contextmanager
def off_the_device(model: DiffusionModel, view: Any) -> Generator[None]:  # noqa: ANN401
    """Only the part of the model at work is on the device."""
    device = model.pipeline.device
    try:
        view.enable_model_cpu_offload()
        yield
    finally:
        view.remove_all_hooks()
        view.to(device)
        model.views.clear()  # this one remembers that it was moved
