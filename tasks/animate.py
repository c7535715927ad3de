"""The animate stage: a picture becomes a short video."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import AnimateRequest, Animates, InterpolateRequest, Request
from safelight.media.camera import Camera
from safelight.params import Params, Seed
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.clips import clip_identity, keep_clip
from tasks.base.keeping import load_image, record_of
from tasks.base.stage import stage


class AnimateParams(Params):
    """How long, how smooth and how much moves."""

    prompt: str = Field(default="", max_length=2000)
    """What happens; for video models that read one."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What must not happen."""
    duration: float = Field(default=3.0, ge=2, le=5)
    """Seconds."""
    fps: Literal[24, 25, 30, 50, 60] = 24
    """Frames a second of the result; those that a model does not draw are interpolated."""
    motion: float = Field(default=0.5, ge=0, le=1)
    """How much moves: of a model that has such a setting, or how far the camera goes."""
    camera: Camera = "zoom_in"
    """Where no video model is installed: how a camera moves over the picture."""
    seed: Seed = None
    """Same seed, same video. Flows draw it when missing."""
    steps: int = Field(default=25, ge=1, le=150)
    """Denoising steps of a model."""
    guidance_scale: float | None = Field(default=None, ge=0, le=30)
    """How closely to follow the prompt; None is the model's own."""
    model: str | None = None
    """Name of a folder in `video` of the models folder; None takes the first there, and where there
    is none moves a camera over the picture."""


def _animate(params: AnimateParams) -> AnimateRequest:
    return AnimateRequest(
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        seconds=params.duration,
        fps=params.fps,
        motion=params.motion,
        camera=params.camera,
        seed=params.seed,
        steps=params.steps,
        guidance_scale=params.guidance_scale,
        model=params.model,
    )


def _needs(params: AnimateParams, sources: Sequence[ArtifactRef]) -> tuple[Request, Request]:
    del sources
    return _animate(params), InterpolateRequest(params.fps)


def _counts_as(params: AnimateParams, identities: Sequence[EngineIdentity]) -> EngineIdentity:
    del params
    mover, interpolator = identities
    return clip_identity(mover, interpolator)


@stage(
    reads={"picture": ("image",)},
    makes="video",
    origin="redraws",
    needs=_needs,
    identity=_counts_as,
)
def animate(picture: ArtifactRef, params: AnimateParams) -> ArtifactRef:
    """Make a short video of one stored picture.

    Args:
        picture: (H, W, 3) uint8 sRGB, the first frame.
        params: duration, rate, motion and model.

    Returns:
        A new artifact, MP4 without sound, `duration` x `fps` frames.

    Raises:
        InvalidMediaError: the picture or the model's files cannot be read.
        DependencyMissingError: the named model, or the interpolator's weights, are missing.
        OutOfMemoryError: too little memory for the model's frames.
    """
    record = record_of(params, [picture])
    clip = serving(Animates).animate(_animate(params), load_image(picture))
    return keep_clip(clip, record, params.duration, params.fps)
