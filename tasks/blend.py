"""The blend stage: two or more pictures or videos become one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import repeat
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safelight.engines.interface import (
    ComputeRequest,
    InterpolateRequest,
    Interpolates,
    LatentRequest,
    MixesLatents,
    Request,
)
from safelight.errors import InvalidFieldValueError
from safelight.media.blending import layered, mask_of, weighted_mean
from safelight.media.video.stream import is_transparent, read_frames, read_layers
from safelight.params import Params
from safelight.pixels import Pixels
from safelight.progress import note, step
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_image, load_image, load_pixels, record_of
from tasks.base.resuming import resuming
from tasks.base.stage import cache_key, stage
from tasks.base.video_stage import transformed

REVISION = "2"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""
SAME_RATE = 0.0015
"""Videos whose rates differ by less are shown frame by frame: 29.97 and 30 do."""
MORPH_FPS = 60
"""A morph is one moment between two pictures; to interpolators any rate says the same."""
OF_LAYERS = ("crossfade", "mask")
"""Modes that blend transparency too; to models nothing is transparent."""
Mix = Callable[[Sequence[Pixels]], Pixels]
"""From one picture of each source, all of one size, to the blended one."""


class BlendParams(Params):
    """How pictures are laid over each other, and how much each counts."""

    mode: Literal["crossfade", "mask", "latent", "morph"] = "crossfade"
    """crossfade is the mean of their levels. mask shows each picture after the first where its own
    mask is white: the masks follow the pictures. latent mixes what a model's VAE makes of them.
    morph moves the one into the other, as frames between two frames."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(), max_length=64)
    """One for each picture, of any sum above 0; none counts all alike. A picture that alone has a
    weight is the result, as it is. In mode mask they multiply what the masks show."""
    model: str | None = None
    """For mode latent: name of a model in the models folder; None takes the first, else the shipped
    one."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if self.weights and not sum(self.weights) > 0:
            raise ValueError(f"weights are {self.weights}; at least one must be above 0")
        return self


def _needs(params: BlendParams, sources: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    del sources
    if sum(weight > 0 for weight in params.weights) != 1:  # else one of them is the result
        if params.mode == "latent":
            return (LatentRequest(params.model),)
        if params.mode == "morph":
            return (InterpolateRequest(MORPH_FPS),)
    return (ComputeRequest(REVISION),)


@stage(
    reads={"pictures": ("image", "video")},
    makes="same",
    origin="edits",
    needs=_needs,
)
def blend(pictures: list[ArtifactRef], params: BlendParams) -> ArtifactRef:
    """Blend pictures, or videos frame by frame with the sound of the first.

    Args:
        pictures: two or more of one size, the first a video where any is; a picture among videos
            stands still. In mode mask as many masks less one follow.
        params: mode and weights.

    Returns:
        A new picture, or a video as long as the first; one of `pictures` itself where it alone has
        a weight.

    Raises:
        InvalidFieldValueError: too few pictures, another number of weights or masks, or sizes or
            frame rates that differ.
        InvalidMediaError: one of them cannot be decoded.
        DependencyMissingError: the model, or the weights of the interpolator, are missing.
    """
    count = _count(pictures, params)
    largest = max(params.weights, default=1.0)
    weights = tuple(weight / largest for weight in params.weights) or (1.0,) * count
    _require_alike(pictures)
    counting = [ref for ref, weight in zip(pictures, weights, strict=False) if weight > 0]
    if len(counting) == 1 and counting[0].kind == pictures[0].kind:
        note("all other weights are 0: it is the result as it is")
        return counting[0]
    mix = _mix(params, weights, count)
    record = record_of(params, pictures)
    if pictures[0].kind == "image":
        load = load_pixels if params.mode in OF_LAYERS else load_image
        blended = mix([load(picture) for picture in pictures])
        step(1, 1)
        return keep_image(blended, record)
    first, *others = pictures
    _note_ends(first, others)
    layers = params.mode in OF_LAYERS and is_transparent(current_store().fetch(first))
    held = [
        _held(other, layers=layers or position >= count) for position, other in enumerate(others, 1)
    ]
    key = cache_key(blend, [pictures, params])
    # a mean is made again sooner than it is read, and what is kept has no transparency
    made_once = nullcontext(_mixed(mix)) if layers else resuming(key, _mixed(mix))
    return transformed(
        first,
        record,
        made_once,
        lambda make, frames: (make(*each) for each in zip(frames, *held, strict=False)),
        layered=layers,
    )


def _mixed(mix: Mix) -> Callable[..., Pixels]:
    return lambda *frames: mix(frames)


def _count(pictures: Sequence[ArtifactRef], params: BlendParams) -> int:
    """How many of them are blended; the others are masks.

    Raises:
        InvalidFieldValueError: too few, or not as many as weights and masks want.
    """
    found = len(pictures)
    count = found if params.mode != "mask" else (found + 1) // 2
    if count < 2:
        wanted = "2 or more" if params.mode != "mask" else "2 and a mask, or more of both"
        raise InvalidFieldValueError(
            f"blend: {found} pictures, {params.mode} takes {wanted}", "name more pictures"
        )
    if params.mode == "mask" and found % 2 == 0:
        raise InvalidFieldValueError(
            f"blend: {found} pictures in mode mask, expected {count} and {count - 1} masks",
            "name one mask less than there are pictures, after them",
        )
    if params.weights and len(params.weights) != count:
        raise InvalidFieldValueError(
            f"blend: {len(params.weights)} weights for {count} pictures",
            "give weights one number for each picture, none for masks",
        )
    return count


def _require_alike(pictures: Sequence[ArtifactRef]) -> None:
    """Refuse what does not lie on each other pixel by pixel and frame by frame."""
    first, *others = pictures
    for position, other in enumerate(others, 2):
        if (other.width, other.height) != (first.width, first.height):
            raise InvalidFieldValueError(
                f"blend: picture {position} is {other.width}x{other.height} px, "
                f"the first {first.width}x{first.height}",
                "scale or crop them to one size",
            )
        if other.kind != "video":
            continue
        if first.kind != "video":
            raise InvalidFieldValueError(
                f"blend: picture {position} is a video, the first is not", "name the video first"
            )
        rates = first.fps or 0, other.fps or 0
        if abs(rates[0] - rates[1]) > SAME_RATE * rates[0]:
            raise InvalidFieldValueError(
                f"blend: video {position} has {rates[1]:.3f} frames a second, "
                f"the first {rates[0]:.3f}",
                "bring them to one rate first, the lower ones with interpolate",
            )


def _mix(params: BlendParams, weights: Sequence[float], count: int) -> Mix:
    """How pictures become one in this mode; what needs an engine is opened here, once."""
    if params.mode == "crossfade":
        return lambda shown: weighted_mean(shown, weights)
    if params.mode == "mask":
        return lambda shown: weighted_mean(
            shown[:count], layered([mask_of(mask) for mask in shown[count:]], weights)
        )
    if params.mode == "latent":
        engine, request = serving(MixesLatents), LatentRequest(params.model)
        return lambda shown: engine.mix_latents(request, shown, weights)
    interpolator = serving(Interpolates).open_interpolator(InterpolateRequest(MORPH_FPS))

    def morphed(shown: Sequence[Pixels]) -> Pixels:
        # one after the other: the share of the next among all that came so far
        made, before = shown[0], weights[0]
        for picture, weight in zip(shown[1:], weights[1:], strict=True):
            before += weight
            if weight == before:
                made = picture
            elif weight > 0:
                made = interpolator.begin(made, picture, weight / before)()
        return made

    return morphed


def _held(source: ArtifactRef, *, layers: bool) -> Iterator[Pixels]:
    """The frames of a video, its last one on and on; of a picture that one.

    Args:
        source: what is blended with the first, or a mask.
        layers: whether what is transparent stays so, instead of being laid on white with a note.
    """
    if source.kind != "video":
        yield from repeat(load_pixels(source) if layers else load_image(source))
        return
    path = current_store().fetch(source)
    transparent = is_transparent(path)
    if transparent and not layers:
        note("a video after the first is transparent in parts: laid on white")
    shown: Pixels | None = None
    for shown in read_layers(path) if transparent and layers else read_frames(path):
        yield shown
    if shown is not None:
        yield from repeat(shown)


def _note_ends(first: ArtifactRef, others: Sequence[ArtifactRef]) -> None:
    """Say whose sound is heard, and what became of videos of another length."""
    for position, other in enumerate(others, 2):
        if other.kind != "video":
            continue
        note(f"the sound of video {position} is left out: that of the first goes on")
        frames = other.frames or 0, first.frames or 0
        if frames[0] < frames[1]:
            note(f"video {position} ends after {frames[0]} of {frames[1]} frames: the last is held")
        elif frames[0] > frames[1]:
            note(f"video {position} goes on after {frames[1]} frames: left out")
