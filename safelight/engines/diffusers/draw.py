"""Text-to-image models through diffusers: draw, draw over, fill in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.engines.diffusers.add_ons import put_on
from safelight.engines.diffusers.calling import (
    arguments,
    compiled,
    frugally,
    libraries,
    steps_taken,
)
from safelight.engines.diffusers.drawing import AddOn, Drawing
from safelight.engines.diffusers.fetching import no_numbers
from safelight.engines.diffusers.model import model_of, quiet
from safelight.engines.diffusers.quantising import quantised
from safelight.engines.diffusers.samplers import check_scheduler, name_of
from safelight.engines.identity import EngineIdentity
from safelight.engines.machine.device import device_class
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.settings import settings
from safelight.weights.checkpoints import WeightsCard, find_checkpoint
from safelight.weights.places import models_folder

REVISION = "4"
"""Raised when the arithmetic around the library changes."""


def identity(card: WeightsCard, add_ons: Sequence[AddOn] = ()) -> EngineIdentity:
    """What the result depends on apart from the parameters; loads nothing."""
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries()}+{REVISION}.{settings().precision}{quantised()}{compiled()}{_said_of(card)}",
        weights=(*card.weights, *(add_on.sha256 for add_on in add_ons)),
        device_class=device_class(),
    )


def _said_of(card: WeightsCard) -> str:
    """What changes pictures and stands beside the weights: their sha256 does not tell it."""
    said = (card.prediction_type, card.zero_terminal_snr and "zero snr")
    return "".join(f".{each}" for each in said if each)


def draw(drawing: Drawing, width: int, height: int) -> list[Pixels | None]:
    """Text to image.

    Returns:
        `num_images` pictures, (height, width, 3) uint8 sRGB; None stands where one holds values
        that are no numbers.

    Raises:
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device.
        PictureRefusedError: all of them hold values that are no numbers.
        StopRequestedError: the run was asked to stop.
    """
    note_unknown_subject(drawing.card, drawing.prompt)
    extra: dict[str, object] = {"width": width, "height": height}
    return _run(drawing, "AutoPipelineForText2Image", extra)


def redraw(drawing: Drawing, image: Pixels, strength: float) -> list[Pixels | None]:
    """Image to image.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        strength: 0 gives the picture back, 1 keeps nothing of it.

    Raises:
        As `draw`.
    """
    if steps_taken(drawing.steps, strength) < 1:
        return [image.copy() for _ in range(drawing.num_images)]
    extra: dict[str, object] = {"image": Image.fromarray(image), "strength": strength}
    return _run(drawing, "AutoPipelineForImage2Image", extra)


def fill(
    drawing: Drawing, image: Pixels, mask: NDArray[np.uint8], strength: float
) -> list[Pixels | None]:
    """Paint the white part of a mask anew; the caller puts the rest back exactly.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        mask: (H, W) uint8, 255 is repainted.
        strength: as for `redraw`.

    Raises:
        As `draw`.
    """
    if steps_taken(drawing.steps, strength) < 1:
        return [image.copy() for _ in range(drawing.num_images)]
    height, width = image.shape[:2]
    extra: dict[str, object] = {
        "image": Image.fromarray(image),
        "mask_image": Image.fromarray(mask),
        "strength": strength,
        "width": width,
        "height": height,
    }
    return _run(drawing, "AutoPipelineForInpainting", extra)


def note_unknown_subject(card: WeightsCard, prompt: str) -> None:
    """For models that know few subjects: say so when the prompt names none of them."""
    if not card.subjects:
        return
    text = f" {' '.join(''.join(c if c.isalnum() else ' ' for c in prompt.lower()).split())} "
    if not any(f" {word.lower()} " in text for word in card.subjects):
        note(
            f"the model {card.name} does not know what {prompt!r} asks for; put a diffusers folder "
            f"or a .safetensors file into {models_folder()}"
        )


def preload(name: str | None) -> None:
    """Load a model now, so that the first picture does not wait for it.

    Args:
        name: see `find_checkpoint`.

    Raises:
        DependencyMissingError: there is no such model.
    """
    model_of(find_checkpoint(name))


def sampler_of(drawing: Drawing, strength: float = 1.0) -> str:
    """The name of the sampler that drew, also where it was the model's own.

    Args:
        drawing: what was drawn.
        strength: as for `redraw`; where it left no step to take, nothing drew and none is named.
    """
    if steps_taken(drawing.steps, strength) < 1:
        return ""
    return drawing.scheduler or name_of(model_of(drawing.card).own_scheduler)


def _run(drawing: Drawing, auto_class: str, extra: dict[str, object]) -> list[Pixels | None]:
    check_scheduler(drawing.scheduler, drawing.steps, drawing.card.base_model)
    model = model_of(drawing.card)
    model.say_account()
    with model.lock, quiet(), put_on(model, drawing) as controlnet:
        view = model.view(auto_class, drawing.scheduler, controlnet)
        call = arguments(view, drawing, auto_class, extra)
        made = frugally(model, view, drawing, call).pictures()
    if not any(each is not None for each in made):
        raise no_numbers(len(made), len(made))
    return made
