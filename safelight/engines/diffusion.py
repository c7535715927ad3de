"""Text-to-image models through diffusers: draw, draw over, fill in."""

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.engines.device import device_class, named, resolve_device
from safelight.engines.diffusers.add_ons import put_on
from safelight.engines.diffusers.batch_sizes import MOST, BatchSizes, batch_sizes
from safelight.engines.diffusers.drawing import (
    AddOn,
    Drawing,
    Pixels,
    add_on,
)
from safelight.engines.diffusers.fetching import Fetching
from safelight.engines.diffusers.frugal import (
    attention_in_slices,
    decoder_in_tiles,
    decoder_one_by_one,
    off_the_device,
)
from safelight.engines.diffusers.model import DiffusionModel, load_model, model_of, quiet
from safelight.engines.diffusers.reading import note_unread
from safelight.engines.diffusers.samplers import SAMPLERS, check_scheduler, name_of
from safelight.engines.identity import EngineIdentity
from safelight.engines.memory import give_back, until_it_fits, with_less_memory
from safelight.installed import version
from safelight.progress import note, part, step
from safelight.settings import settings
from safelight.weights.checkpoints import WeightsCard, find_checkpoint, models_folder

if TYPE_CHECKING:
    import torch

__all__ = [
    "SAMPLERS",
    "AddOn",
    "Drawing",
    "Drawn",
    "Pixels",
    "add_on",
    "check_scheduler",
    "draw",
    "draw_together",
    "fill",
    "identity",
    "note_unknown_subject",
    "preload",
    "redraw",
    "sampler_of",
]
REVISION = "3"
"""Raised when the arithmetic around the library changes."""


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn together with others."""

    pixels: Pixels
    """(height, width, 3) uint8 sRGB."""
    batch: int
    """Pictures that went through the model together; on CUDA the last bits depend on it."""
    place: int
    """Of this one among them, from 0."""


def identity(card: WeightsCard, add_ons: Sequence[AddOn] = ()) -> EngineIdentity:
    """What the result depends on apart from the parameters; loads nothing."""
    libraries = (
        f"{version('diffusers')}.torch{version('torch')}.transformers{version('transformers')}"
    )
    return EngineIdentity(
        engine_id="diffusers",
        version=f"{libraries}+{REVISION}.{settings().precision}{_compiled()}",
        weights=(card.sha256, *(add_on.sha256 for add_on in add_ons)),
        device_class=device_class(),
    )


def draw(drawing: Drawing, width: int, height: int) -> list[Pixels]:
    """Text to image.

    Returns:
        `num_images` pictures, (height, width, 3) uint8 sRGB.

    Raises:
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device.
        StopRequestedError: the run was asked to stop.
    """
    note_unknown_subject(drawing.card, drawing.prompt)
    extra: dict[str, object] = {"width": width, "height": height}
    return _run(drawing, "AutoPipelineForText2Image", extra)


def draw_together(
    drawings: Sequence[Drawing],
    width: int,
    height: int,
    receive: Callable[[int, Drawn], object],
    most: int | None = None,
) -> None:
    """Text to image for many prompts, as many at a time as the device draws fastest.

    How many that is, is found by trying sizes on the first pictures, and remembered. While the
    pictures of a batch come from the device and are received, it draws the next ones.

    Args:
        drawings: one picture each; they differ in prompt, negative prompt and seed alone.
        width: pixels.
        height: pixels.
        receive: called with the place in `drawings` and the picture, in order, in this thread.
        most: how many at a time at most; None is up to `MOST`, and 1 on the CPU, where each picture
            has the bytes that `draw` gives it: in a batch the last bit of a level may differ.

    Raises:
        ValueError: the drawings differ in more, or one asks for several pictures.
        As `draw`, and what `receive` raises.
    """
    if not drawings:
        return
    first = drawings[0]
    _require_alike(drawings)
    for drawing in drawings:
        note_unknown_subject(drawing.card, drawing.prompt)
    check_scheduler(first.scheduler, first.steps, first.card.base_model)
    model, device = model_of(first.card), resolve_device()
    kind = f"{first.card.sha256} {width}x{height} {named(device)} {settings().precision}"
    sizes = batch_sizes(kind + _compiled(), most or (1 if device == "cpu" else MOST))
    extra: dict[str, object] = {"width": width, "height": height}
    way = "AutoPipelineForText2Image"
    on_its_way: tuple[int, Fetching] | None = None
    with model.lock, quiet(), put_on(model, first) as controlnet:
        view = model.view(way, first.scheduler, controlnet)
        call = _call(view, first, way, extra)
        done = 0
        while done < len(drawings):
            count, started, fetching = _together(model, view, call, drawings, done, sizes)
            if not sizes.settled:
                fetching.wait()
                sizes.took(count, time.perf_counter() - started)
            before, on_its_way = on_its_way, (done, fetching)
            done += count
            coming = drawings[done : done + sizes.next(len(drawings) - done)]
            model.encodings.ahead(view, _texts(coming), first.guidance_scale > 1, _on_it(first))
            if before is not None:
                _deliver(*before, receive)
        if on_its_way is not None:
            _deliver(*on_its_way, receive)


def redraw(drawing: Drawing, image: Pixels, strength: float) -> list[Pixels]:
    """Image to image.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        strength: 0 gives the picture back, 1 keeps nothing of it.

    Raises:
        As `draw`.
    """
    if _steps_taken(drawing.steps, strength) < 1:
        return [image.copy() for _ in range(drawing.num_images)]
    extra: dict[str, object] = {"image": Image.fromarray(image), "strength": strength}
    return _run(drawing, "AutoPipelineForImage2Image", extra)


def fill(drawing: Drawing, image: Pixels, mask: NDArray[np.uint8], strength: float) -> list[Pixels]:
    """Paint the white part of a mask anew; the caller puts the rest back exactly.

    Args:
        drawing: model and prompt.
        image: (H, W, 3) uint8 sRGB, sides multiples of 8.
        mask: (H, W) uint8, 255 is repainted.
        strength: as for `redraw`.

    Raises:
        As `draw`.
    """
    if _steps_taken(drawing.steps, strength) < 1:
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
    if _steps_taken(drawing.steps, strength) < 1:
        return ""
    return drawing.scheduler or name_of(model_of(drawing.card).own_scheduler)


def _steps_taken(steps: int, strength: float) -> int:
    return min(int(steps * strength), steps)


def _compiled() -> str:
    """Part of the engine's version where models are compiled, which changes the last bits."""
    return ".compiled" if settings().compile and device_class() == "cuda" else ""


def _require_alike(drawings: Sequence[Drawing]) -> None:
    first = drawings[0]

    def bare(drawing: Drawing) -> Drawing:
        return replace(drawing, prompt="", negative_prompt="", seed=0)

    for drawing in drawings:
        same = bare(drawing) == bare(first) and drawing.control_image is first.control_image
        references = zip(drawing.reference_images, first.reference_images, strict=True)
        if not same or drawing.num_images != 1 or any(a is not b for a, b in references):
            raise ValueError("drawings differ in more than prompt, negative prompt and seed")


def _together(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401
    call: dict[str, object],
    drawings: Sequence[Drawing],
    done: int,
    sizes: BatchSizes,
) -> tuple[int, float, Fetching]:
    """As many pictures from `done` on as fit: how many, and when the attempt at them began."""

    def coming() -> Sequence[Drawing]:
        return drawings[done : done + sizes.next(len(drawings) - done)]

    def attempt() -> tuple[int, float, Fetching]:
        some, started = coming(), time.perf_counter()
        with part(done, len(drawings)):
            if len(some) == 1:
                return 1, started, _frugally(model, view, some[0], call)
            many = _Many(_texts(some), [drawing.seed for drawing in some])
            with _one_by_one(view, call):
                return len(some), started, _through(model, view, some[0], call, many)

    def save(error: Exception) -> None:
        count = len(coming())
        if count == 1:
            raise error  # it has tried all it can
        sizes.did_not_fit(count)
        model.encodings.clear()
        note(f"out of memory: {count} pictures do not fit together, fewer are drawn at a time")

    return until_it_fits(attempt, save, give_back)


DECODED_TOGETHER = 512 * 512
"""Pixels a picture above which a batch is decoded one by one on CUDA: the decoder keeps the device
busy with one, and takes several GB for each."""


def _one_by_one(view: Any, call: dict[str, object]) -> Any:  # noqa: ANN401
    pixels = int(str(call.get("width", 0))) * int(str(call.get("height", 0)))
    large = view.device.type == "cuda" and pixels > DECODED_TOGETHER
    return decoder_one_by_one(view) if large else nullcontext()


def _deliver(first: int, fetching: Fetching, receive: Callable[[int, Drawn], object]) -> None:
    pictures = fetching.pictures()
    for place, pixels in enumerate(pictures):
        receive(first + place, Drawn(pixels, len(pictures), place))


def _run(drawing: Drawing, auto_class: str, extra: dict[str, object]) -> list[Pixels]:
    check_scheduler(drawing.scheduler, drawing.steps, drawing.card.base_model)
    model = model_of(drawing.card)
    with model.lock, quiet(), put_on(model, drawing) as controlnet:
        view = model.view(auto_class, drawing.scheduler, controlnet)
        call = _call(view, drawing, auto_class, extra)
        return _frugally(model, view, drawing, call).pictures()


def _call(
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
    if drawing.control_image is not None and drawing.controlnet is not None:
        control = Image.fromarray(drawing.control_image)
        name = "image" if auto_class == "AutoPipelineForText2Image" else "control_image"
        call[name] = control
        call["controlnet_conditioning_scale"] = float(drawing.controlnet.weight)
    if drawing.ip_adapter is not None:
        references = [Image.fromarray(image) for image in drawing.reference_images]
        call["ip_adapter_image"] = [references] if len(references) > 1 else references[0]
    taken = _steps_taken(drawing.steps, float(str(extra.get("strength", 1.0))))

    def on_step(
        pipe: object, index: int, _at: object, state: dict[str, object]
    ) -> dict[str, object]:
        del pipe
        step(min(index + 1, taken), taken)
        return state

    call["callback_on_step_end"] = on_step
    return {name: value for name, value in call.items() if name in understood}


def _texts(drawings: Sequence[Drawing]) -> list[tuple[str, str]]:
    return [(drawing.prompt, drawing.negative_prompt) for drawing in drawings]


def _on_it(drawing: Drawing) -> tuple[object, ...]:
    """What changes the model's text encoders."""
    return (*drawing.loras, *drawing.embeddings)


@dataclass(frozen=True)
class _Many:
    """What differs between pictures that are drawn together."""

    texts: list[tuple[str, str]]
    seeds: list[int]


def _through(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    call: dict[str, object],
    many: _Many,
) -> Fetching:
    """All of them in one go."""
    understood = set(inspect.signature(view.__call__).parameters)
    guided = drawing.guidance_scale > 1
    note_unread(view, [text for pair in many.texts for text in pair[: 1 + guided]])
    encoded = model.encodings.of(view, many.texts, guided, _on_it(drawing))
    prompts: dict[str, Any] = {**encoded}
    if not prompts:
        prompts["prompt"] = [prompt for prompt, _ in many.texts]
        if "negative_prompt" in understood:
            prompts["negative_prompt"] = [negative for _, negative in many.texts]
    result = view(**prompts, generator=_generators(many.seeds), **call)
    return Fetching.of(result.images)


def _frugally(
    model: DiffusionModel,
    view: Any,  # noqa: ANN401
    drawing: Drawing,
    call: dict[str, object],
) -> Fetching:
    text = (drawing.prompt, drawing.negative_prompt)

    def batches(size: int) -> Fetching:
        made: list[Fetching] = []
        firsts = range(0, drawing.num_images, size)
        for index, first in enumerate(firsts):
            count = min(size, drawing.num_images - first)
            many = _Many([text] * count, [drawing.seed + first + i for i in range(count)])
            with part(index, len(firsts)):
                made.append(_through(model, view, drawing, call, many))
        return Fetching([landing for part in made for landing in part.landings])

    def sliced() -> Fetching:
        with attention_in_slices(view):
            return batches(1)

    def tiled() -> Fetching:
        with attention(view), decoder_in_tiles(view):
            return batches(1)

    def offloaded() -> Fetching:
        with attention(view), decoder_in_tiles(view), off_the_device(model, view):
            return batches(1)

    rungs: list[tuple[str, Callable[[], Fetching]]] = [
        ("the whole batch", lambda: batches(drawing.num_images))
    ]
    if drawing.num_images > 1:
        rungs.append(("one picture at a time", lambda: batches(1)))
    attention = nullcontext if drawing.ip_adapter is not None else attention_in_slices
    if drawing.ip_adapter is None:  # its attention cannot be sliced
        rungs.append(("attention in slices", sliced))
    rungs.append(("the decoder in tiles, which changes the picture a little", tiled))
    if resolve_device().startswith("cuda"):
        rungs.append(("the model moved to the CPU between steps", offloaded))
    return with_less_memory(f"drawing with {drawing.card.name}", rungs)


def _generators(seeds: list[int]) -> "list[torch.Generator]":
    """One generator a picture, on the CPU: a batch equals the single pictures, on any device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


_load = load_model
"""The name before models were loaded in a module of their own."""
