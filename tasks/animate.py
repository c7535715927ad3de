"""The animate stage: a picture becomes a short video."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    AnimateRequest,
    Animates,
    InterpolateRequest,
    Interpolates,
    Interpolating,
    Request,
)
from safelight.media.camera import Camera
from safelight.media.video.retiming import Pending, in_order, retimed_at
from safelight.media.video.stream import FrameWriter, probe
from safelight.params import Params, Seed
from safelight.pixels import Pixels
from safelight.progress import step
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_video, load_image, record_of
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
    return EngineIdentity(
        engine_id=mover.engine_id,
        version=f"{mover.version}.{interpolator.engine_id}{interpolator.version}",
        weights=(*mover.weights, *interpolator.weights),
        device_class=interpolator.device_class,  # both work on the one that the settings name
    )


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
    opened: list[Interpolating] = []

    def begin(first: Pixels, second: Pixels, timestep: float) -> Pending:
        if not opened:  # not at all where the engine gives every frame itself
            opened.append(serving(Interpolates).open_interpolator(InterpolateRequest(params.fps)))
        return opened[0].begin(first, second, timestep)

    count, rate = round(params.duration * params.fps), Fraction(params.fps)
    shown = ((at / clip.fps, frame) for at, frame in enumerate(clip.frames))
    frames = in_order(retimed_at(shown, count, rate, begin, 1 / clip.fps))
    with current_store().workspace() as folder:
        path = Path(folder) / "made"
        with FrameWriter(path, rate, video_tags(record)) as writer:
            for at, frame in enumerate(frames, 1):
                writer.add(frame)
                step(at, count)
        info = probe(path)
        return keep_video(
            path,
            width=info.width,
            height=info.height,
            frames=info.frames,
            fps=float(info.fps),
            media_type=writer.media_type,
        )
