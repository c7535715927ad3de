"""The generate stage: text to image, or to a short video."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from safelight.engines.films import FilmRequest, Films
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import DrawRequest, Draws, InterpolateRequest, Request
from safelight.media.camera import Camera
from safelight.media.canvas import on_canvas
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.clips import clip_identity, keep_clip
from tasks.base.keeping import record_of
from tasks.base.sampling import SamplingParams, guides_of, is_none, keep_drawn, prompt_fields
from tasks.base.stage import stage

SECONDS, FPS, MOTION = 3.0, 24, 0.5
"""Of a video that is not said otherwise, as in animate."""
CAMERA: Camera = "zoom_in"
OF_VIDEOS = ("duration", "fps", "motion", "camera")
OF_PICTURES = (
    "loras",
    "embeddings",
    "vae",
    "clip_skip",
    "scheduler",
    "use_controlnet",
    "use_ipadapter",
    "canvas_width",
    "canvas_height",
)


def _is_image(value: object) -> bool:
    return value == "image"


class GenerateParams(SamplingParams):
    """What to draw and at which size."""

    width: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    height: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    canvas_width: int | None = Field(default=None, ge=64, le=4096)
    """Pixels of a result that is wider than what the model draws: its border goes on."""
    canvas_height: int | None = Field(default=None, ge=64, le=4096)
    """The same for a taller one: models made for squares draw things twice in other shapes."""
    makes: Literal["image", "video"] = Field(default="image", exclude_if=_is_image)
    """video: a short one, by a model in `video` of the models folder, which `model` names then;
    without one, a camera moves over a picture."""
    duration: float | None = Field(default=None, ge=2, le=5, exclude_if=is_none)
    """Seconds of a video. None: 3."""
    fps: Literal[24, 25, 30, 50, 60] | None = Field(default=None, exclude_if=is_none)
    """Frames a second of a video; those that a model does not draw are interpolated. None: 24."""
    motion: float | None = Field(default=None, ge=0, le=1, exclude_if=is_none)
    """How far the camera goes in a video that no model draws. None: 0.5."""
    camera: Camera | None = Field(default=None, exclude_if=is_none)
    """How it moves. None: zoom_in."""

    @model_validator(mode="after")
    def _fields_are_of_what_it_makes(self) -> Self:
        others = OF_PICTURES if self.makes == "video" else OF_VIDEOS
        given = [name for name in others if getattr(self, name)]
        if given:
            raise ValueError(f"{given[0]} is not for makes {self.makes}; leave it out")
        if self.makes == "video" and self.num_images > 1:
            raise ValueError(
                f"num_images is {self.num_images}, and one video is made at a time; set it to 1"
            )
        return self

    @property
    def seconds(self) -> float:
        """Of a video."""
        return SECONDS if self.duration is None else self.duration

    @property
    def rate(self) -> int:
        """Of a video."""
        return FPS if self.fps is None else self.fps


def _request(params: GenerateParams) -> DrawRequest:
    return DrawRequest(**prompt_fields(params), width=params.width, height=params.height)


def _still(params: GenerateParams) -> DrawRequest:
    """The picture of a video; `model` names what draws videos."""
    return _request(params.but(model=None))


def _film(params: GenerateParams) -> FilmRequest:
    return FilmRequest(
        still=_still(params),
        seconds=params.seconds,
        fps=params.rate,
        motion=MOTION if params.motion is None else params.motion,
        camera=params.camera or CAMERA,
        model=params.model,
    )


def _needs(params: GenerateParams, _: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    if params.makes == "image":
        return (_request(params),)
    return _film(params), InterpolateRequest(params.rate), _still(params)


def _counts_as(params: GenerateParams, identities: Sequence[EngineIdentity]) -> EngineIdentity:
    if params.makes == "image":
        return identities[0]
    films, interpolates, draws = identities
    whole = clip_identity(films, interpolates)
    if films.weights:
        return whole
    # what has no weights of its own moves a picture that another engine draws
    return whole.model_copy(
        update={
            "version": f"{whole.version}.{draws.engine_id}{draws.version}",
            "weights": (*draws.weights, *whole.weights),
        }
    )


@stage(
    reads={},
    makes="stated",
    origin="creates",
    needs=_needs,
    identity=_counts_as,
)
def generate(params: GenerateParams) -> list[ArtifactRef]:
    """Draw pictures from a prompt, or a short video.

    Args:
        params: prompt, seed, size and model.

    Returns:
        `num_images` new artifacts, (height, width, 3) uint8 sRGB PNG, on the canvas where one is
        given; or one MP4 without sound, `duration` x `fps` frames.

    Raises:
        MissingRequiredFieldError: there is no seed.
        DependencyMissingError: a model, LoRA, embedding or adapter is missing.
        InvalidFieldValueError: the video model does not draw in this size.
        InvalidMediaError: the model's files cannot be loaded.
        OutOfMemoryError: too little memory even with everything moved off the device (retried).
    """
    guides = guides_of(params, params.width, params.height)
    if params.makes == "video":
        record = record_of(params, [])
        clip = serving(Films).film(_film(params), lambda: _drawn(params))
        return [keep_clip(clip, record, params.seconds, params.rate)]
    pictures = serving(Draws).draw(_request(params), guides)
    wide, tall = params.canvas_width or params.width, params.canvas_height or params.height
    shown = [on_canvas(each, wide, tall) for each in pictures.pixels]
    return keep_drawn(shown, params, [], pictures)


def _drawn(params: GenerateParams) -> Pixels:
    return serving(Draws).draw(_still(params)).pixels[0]
