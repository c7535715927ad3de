"""The upscale stage: a picture or video enlarged by a network, in tiles, without seams."""

from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from safelight.engines.interface import EnlargeRequest, Enlarges
from safelight.engines.larger_videos import EnlargesVideos
from safelight.errors import InvalidMediaError
from safelight.media.ahead import several_at_once
from safelight.media.fitting import resized
from safelight.media.guided import smooth
from safelight.media.layers import as_grey
from safelight.media.video.stream import probe, read_frames
from safelight.params import SEEDS, Params
from safelight.pixels import Pixels
from safelight.progress import StopRequestedError, stop_requested
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_changed, record_of
from tasks.base.resuming import resuming_begun
from tasks.base.stage import cache_key, stage
from tasks.base.texturing import Texture, texture_of
from tasks.base.video_stage import transformed


class UpscaleParams(Params):
    """How far to enlarge, with which network and in what bites."""

    upscale_factor: Literal[2, 3, 4] = 2
    """Output pixels per input pixel, along each side."""
    model: str = Field(default="auto", min_length=1, max_length=512)
    """photo draws the most detail, anime keeps flat areas and lines, video is twenty times as fast.
    auto takes photo for pictures and video for videos. Any other is the name of an upscaler of your
    own, a .pth or .safetensors file in upscale_models of the models folder."""
    denoise: float = Field(default=0.0, ge=0, le=1)
    """How far noise is smoothed before enlarging, edges kept. 0 leaves it to the network, which
    takes fine noise for dirt and strong noise for texture."""
    tile: int = Field(default=256, ge=64, multiple_of=8)
    """Side of one tile, input px. On the CPU 256 takes 2.9 GB with photo and 0.6 GB with video;
    512 is a third faster with photo and takes 6 GB. Lowered by itself when memory runs out."""
    texture: float | None = Field(default=None, ge=0, le=1)
    """How much of the source's fine texture and grain is laid over the result again. None is 1 for
    photographs and 0 for drawings; the notes say which it was taken for, and why."""
    seed: int = Field(default=0, ge=0, le=SEEDS - 1)
    """Draws the grain of `texture`; frame n of a video takes the n-th draw of it."""

    def for_kind(self, kind: MediaKind) -> "UpscaleParams":
        """The same with `auto` decided."""
        if self.model != "auto":
            return self
        return self.model_copy(update={"model": "video" if kind == "video" else "photo"})


def _request(params: UpscaleParams, kind: MediaKind) -> EnlargeRequest:
    return EnlargeRequest(
        params.model, params.upscale_factor, params.tile, params.denoise, kind == "video"
    )


def _needs(params: UpscaleParams, sources: Sequence[ArtifactRef]) -> tuple[EnlargeRequest, ...]:
    kind = sources[0].kind if sources else "image"
    return (_request(params.for_kind(kind), kind),)


@stage(
    reads={"picture": ("image", "video")},
    makes="same",
    origin="enhances",
    needs=_needs,
    revision=4,
)
def upscale(picture: ArtifactRef, params: UpscaleParams) -> ArtifactRef:
    """Enlarge one stored picture, or a video frame by frame with its sound.

    Args:
        picture: a still or an animated picture, with or without transparency, or a video.
        params: factor, network, denoising, tile size and texture.

    Returns:
        A new artifact, `upscale_factor` times as wide and as high: PNG for a picture, animated
        where it was, MP4, WebM or MKV for a video.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
        OutOfMemoryError: no room for tiles of 64 px, or for the result.
        DependencyMissingError: the weights package is not installed, or there is no such upscaler.
        InvalidFieldValueError: the upscaler does not enlarge so far.
    """
    chosen = params.for_kind(picture.kind)
    texture = Texture(texture_of(chosen.texture, picture), chosen.seed, chosen.model)
    chosen = chosen.but(texture=texture.strength)
    record = record_of(chosen, [picture])
    engine = serving(Enlarges)
    request = _request(chosen, picture.kind)
    if picture.kind == "video" and isinstance(engine, EnlargesVideos):
        return _by_file(engine, request, picture, record, texture)
    opened = engine.open_enlarger(request)

    def wanted(frame: Pixels) -> Pixels:
        # noise that was asked to go does not come back
        return smooth(frame, chosen.denoise) if chosen.denoise else frame

    if picture.kind != "video":
        with closing(opened) as enlarger:
            return keep_changed(
                picture,
                record,
                lambda frames: (
                    texture.over(enlarger.enlarge(frame), wanted(frame), at)
                    for at, frame in enumerate(frames)
                ),
            )
    key = cache_key(upscale, [picture, params])
    with closing(opened) as enlarger, several_at_once(enlarger.together) as ahead:

        def enlarged(frame: Pixels, at: int) -> Pixels:
            made = enlarger.enlarge(frame, _stop_if_asked)
            return as_grey(texture.over(made, wanted(frame), at), frame)

        return transformed(
            picture,
            record,
            resuming_begun(key, partial(ahead.begin, enlarged)),
            lambda begin, frames: ahead.in_order(
                begin(frame, at) for at, frame in enumerate(frames)
            ),
        )


def _by_file(
    engine: EnlargesVideos,
    request: EnlargeRequest,
    video: ArtifactRef,
    record: FileRecord,
    texture: Texture,
) -> ArtifactRef:
    """A video that its engine enlarges whole: its frames at the times, and with the sound, of ours.

    Raises:
        InvalidMediaError: the engine gave other frames than it was given.
    """
    store = current_store()
    with store.workspace() as folder:
        path = engine.enlarge_video(request, store.fetch(video), Path(folder))
        given, made = probe(store.fetch(video)).frames, probe(path).frames
        if made != given:
            raise InvalidMediaError(
                f"{engine.engine_id} gave {made} frames for {given}",
                "let another engine enlarge this video",
            )

        def enlarged(frames: Iterator[Pixels]) -> Iterator[Pixels]:
            for at, (frame, larger) in enumerate(zip(frames, read_frames(path), strict=False)):
                height, width = frame.shape[:2]
                fits = resized(larger, width * request.factor, height * request.factor)
                yield as_grey(texture.over(fits, frame, at), frame)

        return transformed(video, record, nullcontext(), lambda _, frames: enlarged(frames))


def _stop_if_asked(done: int, total: int) -> None:
    """Between the tiles of a frame; progress is told by the frame."""
    if stop_requested():
        raise StopRequestedError(f"stopped after tile {done} of {total} of a frame")
