"""Many pictures that differ in prompt and seed alone, drawn together."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from safelight.engines.diffusers.add_ons import put_on
from safelight.engines.diffusers.batch_sizes import MOST, BatchSizes, batch_sizes
from safelight.engines.diffusers.calling import (
    Many,
    arguments,
    compiled,
    frugally,
    on_the_encoders,
    texts_of,
    through,
)
from safelight.engines.diffusers.draw import note_unknown_subject
from safelight.engines.diffusers.drawing import Drawing
from safelight.engines.diffusers.fetching import Fetching
from safelight.engines.diffusers.frugal import (
    decoder_one_by_one,
)
from safelight.engines.diffusers.model import DiffusionModel, model_of, quiet
from safelight.engines.diffusers.samplers import check_scheduler
from safelight.engines.diffusers.weighting import length_of
from safelight.engines.machine.device import named, resolve_device
from safelight.engines.machine.memory import give_back, until_it_fits
from safelight.pixels import Pixels
from safelight.progress import note, part
from safelight.settings import settings


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn together with others."""

    pixels: Pixels
    """(height, width, 3) uint8 sRGB."""
    batch: int
    """Pictures that went through the model together; on CUDA the last bits depend on it."""
    place: int
    """Of this one among them, from 0."""


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
    model.say_account()
    kind = f"{first.card.sha256} {width}x{height} {named(device)} {settings().precision}"
    most = most or (1 if device == "cpu" else MOST)
    sizes = batch_sizes(kind + compiled(), most, compiled=bool(compiled()))
    extra: dict[str, object] = {"width": width, "height": height}
    way = "AutoPipelineForText2Image"
    on_its_way: tuple[int, Fetching] | None = None
    with model.lock, quiet(), put_on(model, first) as controlnet:
        view = model.view(way, first.scheduler, controlnet)
        call = arguments(view, first, way, extra)
        done = 0
        while done < len(drawings):
            count, started, fetching = _together(model, view, call, drawings, done, sizes)
            if not sizes.settled:
                fetching.wait()
                sizes.took(count, time.perf_counter() - started)
            before, on_its_way = on_its_way, (done, fetching)
            done += count
            coming = drawings[done : done + sizes.next(len(drawings) - done)]
            model.encodings.ahead(
                view, texts_of(coming), first.guidance_scale > 1, on_the_encoders(first)
            )
            if before is not None:
                _deliver(*before, receive)
        if on_its_way is not None:
            _deliver(*on_its_way, receive)


def _require_alike(drawings: Sequence[Drawing]) -> None:
    first = drawings[0]

    def bare(drawing: Drawing) -> Drawing:
        return replace(drawing, prompt="", negative_prompt="", seed=0)

    for drawing in drawings:
        same = bare(drawing) == bare(first) and drawing.num_images == 1
        if not same or any(a is not b for a, b in zip(_seen(drawing), _seen(first), strict=True)):
            raise ValueError("drawings differ in more than prompt, negative prompt and seed")


def _seen(drawing: Drawing) -> list[Pixels]:
    return [*(control.image for control in drawing.all_controls), *drawing.reference_images]


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
        some = drawings[done : done + sizes.next(len(drawings) - done)]
        if len(some) == 1:
            return some
        lengths = [length_of(view, text) for text in texts_of(some)]
        alike = sum(1 for _ in takewhile(lambda length: length == lengths[0], lengths))
        return some[:alike]  # encodings of one length alone stand side by side

    def attempt() -> tuple[int, float, Fetching]:
        some, started = coming(), time.perf_counter()
        with part(done, len(drawings)):
            if len(some) == 1:
                return 1, started, frugally(model, view, some[0], call)
            many = Many(texts_of(some), [drawing.seed for drawing in some])
            with _one_by_one(view, call):
                return len(some), started, through(model, view, some[0], call, many)

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
