"""Pictures mixed where a model thinks: encoded by its VAE, weighted, and decoded again."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from safelight.engines.diffusers.frugal import decoder_in_tiles
from safelight.engines.diffusers.model import DiffusionModel, model_of, quiet
from safelight.engines.machine.memory import with_less_memory
from safelight.media.fitting import require_multiple
from safelight.media.images import to_uint8
from safelight.pixels import Pixels
from safelight.weights.checkpoints import WeightsCard

if TYPE_CHECKING:
    import torch


def mixed(card: WeightsCard, pictures: Sequence[Pixels], weights: Sequence[float]) -> Pixels:
    """The weighted mean of pictures in the latent space of a model.

    What is mixed are the means of the encoder's distributions, so nothing is drawn at random, and
    the mean is linear: sum of weight times latent over the sum of weights.

    Args:
        card: the model.
        pictures: (H, W, 3) uint8 sRGB, all of one size.
        weights: of each picture, 0 or more, their sum above 0.

    Raises:
        InvalidFieldValueError: a side is no multiple of what the model's VAE takes.
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even tile by tile.
    """
    model = model_of(card)
    pipeline = model.pipeline
    for picture in pictures:
        require_multiple(picture, int(pipeline.vae_scale_factor), f"the VAE of {card.name}")

    def whole() -> Pixels:
        return _through(model, pictures, weights)

    def in_tiles() -> Pixels:
        with decoder_in_tiles(pipeline):
            return _through(model, pictures, weights)

    with model.lock, quiet():
        rungs = [("the whole picture", whole), ("the VAE in tiles, which shows a little", in_tiles)]
        return with_less_memory(f"blending with {card.name}", rungs)


def _through(model: DiffusionModel, pictures: Sequence[Pixels], weights: Sequence[float]) -> Pixels:
    import torch

    with torch.inference_mode(), _exact_enough(model.pipeline.vae) as vae:
        total, sum_of_weights = None, sum(weights)
        for picture, weight in zip(pictures, weights, strict=True):
            levels = torch.from_numpy(np.ascontiguousarray(picture)).to(vae.device)
            values = levels.permute(2, 0, 1)[None].to(vae.dtype) / 127.5 - 1
            latent = _mean(vae.encode(values)) * (weight / sum_of_weights)
            total = latent if total is None else total + latent
        decoded = vae.decode(total).sample[0].permute(1, 2, 0)
        return to_uint8((decoded.float() / 2 + 0.5).clamp(0, 1).cpu().numpy())


def _mean(encoded: Any) -> "torch.Tensor":  # noqa: ANN401  (diffusers is untyped)
    """Of the distribution that a VAE gives; a tiny one gives latents themselves."""
    distribution = getattr(encoded, "latent_dist", None)
    return encoded.latents if distribution is None else distribution.mode()


@contextmanager
def _exact_enough(vae: Any) -> Generator[Any]:  # noqa: ANN401
    """The VAE in a number format that it does not overflow in, as the pipelines do it."""
    import torch

    if vae.dtype != torch.float16 or not vae.config.get("force_upcast", False):
        yield vae
        return
    vae.to(torch.float32)
    try:
        yield vae
    finally:
        vae.to(torch.float16)
