"""Many pictures that differ in prompt, seed and what is drawn over alone, drawn together."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.engines.diffusers.add_ons import put_on
from safelight.engines.diffusers.batch_sizes import MOST, BatchSizes, batch_sizes
from safelight.engines.diffusers.calling import (
    Many,
    arguments,
    compiled,
    frugally,
    on_the_encoders,
    say_unread,
    steps_taken,
    texts_of,
    through,
)
from safelight.engines.diffusers.draw import draw, fill, note_unknown_subject, redraw
from safelight.engines.diffusers.drawing import Drawing
from safelight.engines.diffusers.exactness import NotExactError, as_alone
from safelight.engines.diffusers.fetching import Fetching
from safelight.engines.diffusers.frugal import (
    decoder_one_by_one,
)
from safelight.engines.diffusers.model import DiffusionModel, model_of, quiet
from safelight.engines.diffusers.quantising import quantised
from safelight.engines.diffusers.samplers import check_scheduler
from safelight.engines.diffusers.weighting import length_of
from safelight.engines.machine.company import Receive, made_together
from safelight.engines.machine.device import device_class, named, resolve_device
from safelight.engines.machine.memory import give_back, until_it_fits
from safelight.pixels import Pixels
from safelight.progress import note, noting, part
from safelight.provenance.surroundings import ONE_OF_MANY
from safelight.settings import settings

_Call = dict[str, object]


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn together with others."""

    pixels: Pixels
    """(height, width, 3) uint8 sRGB."""
    batch: int
    """Pictures that went through the model together; on CUDA the last bits depend on it."""
    place: int
    """Of this one among them, from 0."""
    seconds: float
    """Its part of the time that they took."""
    notes: tuple[str, ...]
    """What is to be said of this one alone."""


@dataclass(frozen=True)
class Over:
    """What a picture is drawn over."""

    image: Pixels
    """(H, W, 3) uint8 sRGB, sides multiples of 8."""
    strength: float
    """See `redraw`."""
    mask: NDArray[np.uint8] | None = None
    """(H, W) uint8, 255 is repainted; None draws over all of it."""

    @property
    def way(self) -> str:
        """The pipeline that does so."""
        return "AutoPipelineForImage2Image" if self.mask is None else "AutoPipelineForInpainting"

    def alone(self, drawing: Drawing) -> list[Pixels | None]:
        """Drawn by itself."""
        if self.mask is None:
            return redraw(drawing, self.image, self.strength)
        return fill(drawing, self.image, self.mask, self.strength)


_Wanted = tuple[Drawing, Over | None]


def draw_in_company(drawing: Drawing, width: int, height: int) -> list[Pixels | None]:
    """As `draw`, of one picture together with what others of its company ask for."""
    drawn = _in_company(drawing, width, height, None)
    if drawn is None:
        return draw(drawing, width, height)
    note_unknown_subject(drawing.card, drawing.prompt)
    return _noted_of(drawn)


def draw_over_in_company(drawing: Drawing, over: Over) -> list[Pixels | None]:
    """As `redraw`, or `fill` where there is a mask, likewise; pictures have one size then."""
    if steps_taken(drawing.steps, over.strength) < 1:
        return over.alone(drawing)
    height, width = over.image.shape[:2]
    drawn = _in_company(drawing, width, height, over)
    return over.alone(drawing) if drawn is None else _noted_of(drawn)


def _in_company(drawing: Drawing, width: int, height: int, over: Over | None) -> Drawn | None:
    """None where it is to be drawn alone."""
    if drawing.num_images > 1:
        return None

    def make(wanted: Sequence[_Wanted], receive: Receive[Drawn]) -> None:
        drawings = [each for each, _ in wanted]
        several = [each for _, each in wanted if each is not None]

        def received(at: int, drawn: Drawn) -> object:
            return receive(at, drawn, drawn.seconds)

        draw_together(drawings, width, height, received, over=several)

    way = (over.way, over.strength) if over is not None else ()
    kind = (repr(_bare(drawing)), *map(id, _seen(drawing)), width, height, *way)
    return made_together(kind, (drawing, over), make)


def _noted_of(drawn: Drawn) -> list[Pixels | None]:
    for text in drawn.notes:
        note(text)
    if drawn.batch > 1 and device_class() == "cuda":
        note(f"{ONE_OF_MANY}{drawn.place + 1} of a batch of {drawn.batch}")
    return [drawn.pixels]


def draw_together(
    drawings: Sequence[Drawing],
    width: int,
    height: int,
    receive: Callable[[int, Drawn], object],
    most: int | None = None,
    over: Sequence[Over] = (),
) -> None:
    """Text or image to image for many prompts, as many at a time as the device draws fastest.

    How many that is, is found by trying sizes on the first pictures, and remembered. While the
    pictures of a batch come from the device and are received, it draws the next ones.

    Args:
        drawings: one picture each; they differ in prompt, negative prompt and seed alone.
        width: pixels.
        height: pixels.
        receive: called with the place in `drawings` and the picture, in order, in this thread;
            not for one that holds values that are no numbers.
        most: how many at a time at most; None is up to `MOST`, on the CPU fewer where they are
            large. There each picture has the bytes that `draw` gives it, see `exactness`.
        over: what each is drawn over, of one size and strength, all with a mask or none.

    Raises:
        ValueError: the drawings differ in more, or one asks for several pictures.
        As `draw`, and what `receive` raises.
    """
    if not drawings:
        return
    first = drawings[0]
    _require_alike(drawings, over)
    check_scheduler(first.scheduler, first.steps, first.card.base_model)
    model, device = model_of(first.card), resolve_device()
    model.say_account()
    way = over[0].way if over else "AutoPipelineForText2Image"
    kind = f"{' '.join(first.card.weights)} {width}x{height} {named(device)} {settings().precision}"
    if over:
        kind += f" {way}"
    if device == "cpu":
        most = min(most or MOST, max(PIXELS_ON_CPU // (width * height), 1))
    most = most or MOST
    sizes = batch_sizes(kind + quantised() + compiled(), most, compiled=bool(compiled()))
    on_its_way: _Coming | None = None
    with model.lock, quiet(), put_on(model, first) as controlnet:
        view = model.view(way, first.scheduler, controlnet)

        def call(at: int, count: int) -> _Call:
            extra = _extra(over[at : at + count], width, height)
            return arguments(view, first, way, extra)

        asked = _Asked(model, view, drawings, call, width * height)
        done = 0
        while done < len(drawings):
            coming = _together(asked, done, sizes)
            if not sizes.settled:
                coming.fetching.wait()
                if coming.counts:
                    sizes.took(len(coming.drawings), time.perf_counter() - coming.started)
            before, on_its_way = on_its_way, coming
            done += len(coming.drawings)
            following = drawings[done : done + sizes.next(len(drawings) - done)]
            model.encodings.ahead(
                view, texts_of(following), first.guidance_scale > 1, on_the_encoders(first)
            )
            if before is not None:
                before.deliver(receive)
        if on_its_way is not None:
            on_its_way.deliver(receive)


def _extra(over: Sequence[Over], width: int, height: int) -> dict[str, object]:
    """Size, and what some pictures are drawn over, as pipelines take it."""
    size: dict[str, object] = {"width": width, "height": height}
    if not over:
        return size
    pictures = [Image.fromarray(each.image) for each in over]
    extra: dict[str, object] = {"image": _one_or_all(pictures), "strength": over[0].strength}
    if over[0].mask is None:
        return extra
    masks = [Image.fromarray(each.mask) for each in over if each.mask is not None]
    return {**extra, **size, "mask_image": _one_or_all(masks)}


def _one_or_all(pictures: list[Image.Image]) -> object:
    return pictures[0] if len(pictures) == 1 else pictures


def _bare(drawing: Drawing) -> Drawing:
    return replace(drawing, prompt="", negative_prompt="", seed=0)


def _require_alike(drawings: Sequence[Drawing], over: Sequence[Over]) -> None:
    kinds = {(each.way, each.strength, each.image.shape) for each in over}
    if len(kinds) > 1 or (over and len(over) != len(drawings)):
        raise ValueError("what is drawn over differs in more than its pixels")
    first = drawings[0]
    for drawing in drawings:
        same = _bare(drawing) == _bare(first) and drawing.num_images == 1
        if not same or any(a is not b for a, b in zip(_seen(drawing), _seen(first), strict=True)):
            raise ValueError("drawings differ in more than prompt, negative prompt and seed")


def _seen(drawing: Drawing) -> list[Pixels]:
    return [*(control.image for control in drawing.all_controls), *drawing.reference_images]


@dataclass(frozen=True)
class _Coming:
    """Pictures that were drawn together and are on their way from the device."""

    first: int
    drawings: Sequence[Drawing]
    notes: Sequence[tuple[str, ...]]
    started: float
    fetching: Fetching
    counts: bool = True
    """Whether its time tells what another batch of the size takes."""

    def deliver(self, receive: Callable[[int, Drawn], object]) -> None:
        pictures = self.fetching.pictures()
        count = len(pictures)
        each = (time.perf_counter() - self.started) / count
        for place, (pixels, notes) in enumerate(zip(pictures, self.notes, strict=True)):
            if pixels is None:  # it is drawn alone, and refused alone
                continue
            receive(self.first + place, Drawn(pixels, count, place, each, notes))


@dataclass(frozen=True)
class _Asked:
    """All pictures that are asked for, and the model with its add-ons."""

    model: DiffusionModel
    view: Any
    drawings: Sequence[Drawing]
    call: Callable[[int, int], _Call]
    """Arguments for so many of them from one on."""
    pixels: int
    """Of each."""


def _together(asked: _Asked, done: int, sizes: BatchSizes) -> _Coming:
    """As many pictures from `done` on as fit."""
    model, view, drawings = asked.model, asked.view, asked.drawings

    def coming() -> Sequence[Drawing]:
        some = drawings[done : done + sizes.next(len(drawings) - done)]
        if len(some) == 1:
            return some
        lengths = [length_of(view, text) for text in texts_of(some)]
        alike = sum(1 for _ in takewhile(lambda length: length == lengths[0], lengths))
        return some[:alike]  # encodings of one length alone stand side by side

    def attempt() -> _Coming:
        some, started = coming(), time.perf_counter()
        with part(done, len(drawings)):
            if len(some) > 1:
                known = len(model.apart)
                try:
                    fetching = _several(asked, some, done)
                    notes = [_noted(view, drawing) for drawing in some]
                    looked_at = len(model.apart) > known
                    return _Coming(done, some, notes, started, fetching, counts=not looked_at)
                except NotExactError:
                    sizes.did_not_fit(2)  # one by one from here on
                    some, started = some[:1], time.perf_counter()
            with noting() as said:
                fetching = frugally(model, view, some[0], asked.call(done, 1))
            return _Coming(done, some, [tuple(said)], started, fetching)

    def save(error: Exception) -> None:
        count = len(coming())
        if count == 1:
            raise error  # it has tried all it can
        sizes.did_not_fit(count)
        model.encodings.clear()
        note(f"out of memory: {count} pictures do not fit together, fewer are drawn at a time")

    return until_it_fits(attempt, save, give_back)


def _several(asked: _Asked, some: Sequence[Drawing], done: int) -> Fetching:
    first, view, call = some[0], asked.view, asked.call(done, len(some))
    many = Many(texts_of(some), [drawing.seed for drawing in some])
    with ExitStack() as inside:
        if view.device.type == "cpu":
            inside.enter_context(as_alone(asked.model, view, first, len(some)))
        inside.enter_context(_one_by_one(view, asked.pixels))
        return through(asked.model, view, first, call, many)


def _noted(view: Any, drawing: Drawing) -> tuple[str, ...]:  # noqa: ANN401
    with noting() as said:
        say_unread(view, drawing)
    return tuple(said)


PIXELS_ON_CPU = 2**20
"""Of a batch on the CPU, which large pictures keep busy one by one."""
DECODED_TOGETHER = 512 * 512
"""Pixels a picture above which a batch is decoded one by one also on CUDA: the decoder keeps the
device busy with one, and takes several GB for each."""


def _one_by_one(view: Any, pixels: int) -> Any:  # noqa: ANN401
    together = view.device.type == "cuda" and pixels <= DECODED_TOGETHER
    return nullcontext() if together else decoder_one_by_one(view)
