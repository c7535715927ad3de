"""Calls of diffusers' pipelines: what they are given, and how little memory they can do with."""

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from safelight.engines.diffusers.drawing import (
    Drawing,
)
from safelight.engines.diffusers.encodings import OnEncoders
from safelight.engines.diffusers.fetching import Fetching
from safelight.engines.diffusers.frugal import (
    attention_in_slices,
    decoder_in_tiles,
    off_the_device,
)
from safelight.engines.diffusers.looking import Looking
from safelight.engines.diffusers.model import DiffusionModel
from safelight.engines.diffusers.reading import note_unread
from safelight.engines.machine.device import device_class, resolve_device
from safelight.engines.machine.memory import is_out_of_memory, with_less_memory
from safelight.errors import InvalidMediaError
from safelight.installed import version
from safelight.params import SEEDS
from safelight.progress import part, step
from safelight.settings import settings

if TYPE_CHECKING:
    import torch


def steps_taken(steps: int, strength: float) -> int:
    """Of the steps asked for, those that a picture drawn over at this strength goes through."""
    return min(int(steps * strength), steps)


def libraries() -> str:
    """Part of the engine's version: what computes."""
    return f"{version('diffusers')}.torch{version('torch')}.transformers{version('transformers')}"


def compiled() -> str:
    """Part of the engine's version where models are compiled, which changes the last bits."""
    return ".compiled" if settings().compile and device_class() == "cuda" else ""


def arguments(
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    auto_class: str,
    extra: dict[str, object],
) -> dict[str, object]:
    """Arguments that this kind of pipeline understands, the same for every picture."""
    understood = set(inspect.signature(view.__call__).parameters)
    call: dict[str, object] = {
        "num_inference_steps": drawing.steps,
        "guidance_scale": drawing.guidance_scale,
        "output_type": "pt",
        **extra,
    }
    if controls := drawing.all_controls:
        alone = len(controls) == 1

        def each(values: list[Any]) -> Any:  # noqa: ANN401
            return values[0] if alone else values  # one net takes one value, several take lists

        name = "image" if auto_class == "AutoPipelineForText2Image" else "control_image"
        call[name] = each([Image.fromarray(control.image) for control in controls])
        call["controlnet_conditioning_scale"] = each([float(c.net.weight) for c in controls])
        call["control_guidance_start"] = each([float(c.start) for c in controls])
        call["control_guidance_end"] = each([float(c.end) for c in controls])
    if drawing.ip_adapter is not None:
        references = [Image.fromarray(image) for image in drawing.reference_images]
        call["ip_adapter_image"] = [references] if len(references) > 1 else references[0]
    taken = steps_taken(drawing.steps, float(str(extra.get("strength", 1.0))))
    look = Looking(*_size(extra)) if settings().live_previews else None

    def on_step(
        pipe: object, index: int, _at: object, state: dict[str, object]
    ) -> dict[str, object]:
        if look is not None and index + 1 < taken:
            look.step(pipe, state.get("latents"))
        step(min(index + 1, taken), taken)
        return state

    call["callback_on_step_end"] = on_step
    return {name: value for name, value in call.items() if name in understood}


def _size(extra: dict[str, object]) -> tuple[int, int]:
    """Width and height of what is drawn."""
    image = extra.get("image")
    if isinstance(image, list):  # of several, all of one size
        image = cast("list[object]", image)[0]
    if isinstance(image, Image.Image):
        return image.size
    return int(str(extra.get("width", 0))), int(str(extra.get("height", 0)))


def texts_of(drawings: Sequence[Drawing]) -> list[tuple[str, str]]:
    """Prompt and negative prompt of each."""
    return [(drawing.prompt, drawing.negative_prompt) for drawing in drawings]


def on_the_encoders(drawing: Drawing) -> OnEncoders:
    """What changes what the model's text encoders make of words."""
    return OnEncoders((*drawing.loras, *drawing.embeddings), drawing.clip_skip)


def say_unread(view: Any, drawing: Drawing) -> None:  # noqa: ANN401
    """Note what of its prompts no text encoder reads."""
    (pair,) = texts_of([drawing])
    note_unread(view, pair if drawing.guidance_scale > 1 else pair[:1])


@dataclass(frozen=True)
class Many:
    """What differs between pictures that are drawn together."""

    texts: list[tuple[str, str]]
    seeds: list[int]


def through(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    call: dict[str, object],
    many: Many,
) -> Fetching:
    """All of them in one go."""
    understood = set(inspect.signature(view.__call__).parameters)
    guided = drawing.guidance_scale > 1
    encoded = model.encodings.of(view, many.texts, guided, on_the_encoders(drawing))
    prompts: dict[str, Any] = {**encoded}
    if not prompts:
        prompts["prompt"] = [prompt for prompt, _ in many.texts]
        if "negative_prompt" in understood:
            prompts["negative_prompt"] = [negative for _, negative in many.texts]
    with fitting_together(f"model {drawing.card.name}", "get the model again, or what was added"):
        result = view(**prompts, generator=_generators(many.seeds), **call)
    return Fetching.of(result.images)


@contextmanager
def fitting_together(what: str, remedy: str) -> Generator[None]:
    """Name the model whose parts do not fit each other, which shows where they meet.

    Raises:
        InvalidMediaError: they do not.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidMediaError(
            f"{what} cannot draw: {str(error)[:300]}",
            f"its parts or configs do not fit each other: {remedy}",
        ) from error


def frugally(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    call: dict[str, object],
) -> Fetching:
    """All pictures of a drawing, with as little memory as it takes.

    Raises:
        OutOfMemoryError: too little memory even with everything moved off the device.
    """
    text = (drawing.prompt, drawing.negative_prompt)
    say_unread(view, drawing)

    def batches(size: int) -> Fetching:
        made: list[Fetching] = []
        firsts = range(0, drawing.num_images, size)
        for index, first in enumerate(firsts):
            count = min(size, drawing.num_images - first)
            many = Many([text] * count, [(drawing.seed + first + i) % SEEDS for i in range(count)])
            with part(index, len(firsts)):
                made.append(through(model, view, drawing, call, many))
        return Fetching.joined(made)

    def sliced() -> Fetching:
        with attention_in_slices(view):
            return batches(1)

    def offloaded() -> Fetching:
        with attention(view), off_the_device(model, view):
            return batches(1)

    def tiled() -> Fetching:
        there = off_the_device(model, view) if cuda else nullcontext()
        with attention(view), decoder_in_tiles(view), there:
            return batches(1)

    cuda = resolve_device().startswith("cuda")
    rungs: list[tuple[str, Callable[[], Fetching]]] = [
        ("the whole batch", lambda: batches(drawing.num_images))
    ]
    if drawing.num_images > 1:
        rungs.append(("one picture at a time", lambda: batches(1)))
    attention = nullcontext if drawing.ip_adapter is not None else attention_in_slices
    if drawing.ip_adapter is None:  # its attention cannot be sliced
        rungs.append(("attention in slices", sliced))
    if cuda:
        rungs.append(("the model moved to the CPU between steps", offloaded))
    rungs.append(("the decoder in tiles, which changes the picture a little", tiled))
    return with_less_memory(f"drawing with {drawing.card.name}", rungs)


def _generators(seeds: list[int]) -> "list[torch.Generator]":
    """One generator a picture, on the CPU: a batch equals the single pictures, on any device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
