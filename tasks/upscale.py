"""The upscale stage: a picture or video enlarged with Real-ESRGAN, in tiles, without seams."""

from contextlib import closing
from pathlib import Path
from typing import Literal

from pydantic import Field

from safelight.engines import realesrgan
from safelight.engines.identity import EngineIdentity
from safelight.engines.realesrgan import Model, open_enlarger
from safelight.media.layers import as_grey
from safelight.media.video import map_frames
from safelight.params import Params
from safelight.progress import StopRequestedError, stop_requested
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.store import current_store
from tasks.keeping import keep_changed, keep_video, record_of
from tasks.resuming import resuming
from tasks.stage import cache_key, stage


class UpscaleParams(Params):
    """How far to enlarge, with which network and in what bites."""

    upscale_factor: Literal[2, 3, 4] = 2
    """Output pixels per input pixel, along each side."""
    model: Literal["auto", "photo", "anime", "video"] = "auto"
    """photo draws the most detail, anime keeps flat areas and lines, video is twenty times as fast.
    auto takes photo for pictures and video for videos."""
    denoise: float = Field(default=0.0, ge=0, le=1)
    """How far noise is smoothed before enlarging, edges kept. 0 leaves it to the network, which
    takes fine noise for dirt and strong noise for texture."""
    tile: int = Field(default=256, ge=64, multiple_of=8)
    """Side of one tile, input px. On the CPU 256 takes 2.9 GB with photo and 0.6 GB with video;
    512 is a third faster with photo and takes 6 GB. Lowered by itself when memory runs out."""

    def for_kind(self, kind: MediaKind) -> "UpscaleParams":
        """The same with `auto` decided."""
        if self.model != "auto":
            return self
        return self.model_copy(update={"model": "video" if kind == "video" else "photo"})


def _identity(params: UpscaleParams) -> EngineIdentity:
    return realesrgan.identity(*_networks(params))


@stage(takes=("image", "video"), gives="same", identity=_identity)
def upscale(picture: ArtifactRef, params: UpscaleParams) -> ArtifactRef:
    """Enlarge one stored picture, or a video frame by frame with its sound.

    Args:
        picture: a still or an animated picture, with or without transparency, or a video.
        params: factor, network, denoising and tile size.

    Returns:
        A new artifact, `upscale_factor` times as wide and as high: PNG for a picture, animated
        where it was, MP4 or MKV for a video.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
        OutOfMemoryError: no room for tiles of 64 px, or for the result.
        DependencyMissingError: the weights package is not installed.
    """
    chosen = params.for_kind(picture.kind)
    record = record_of("upscale", chosen, _identity(chosen), [picture])
    (network,) = _networks(chosen)
    opened = open_enlarger(network, chosen.upscale_factor, chosen.tile, chosen.denoise)
    if picture.kind != "video":
        with closing(opened) as enlarger:
            return keep_changed(picture, record, lambda frames: map(enlarger.enlarge, frames))
    store = current_store()
    key = cache_key(upscale, [picture, params])
    with (
        store.workspace() as folder,
        closing(opened) as enlarger,
        resuming(
            key, lambda frame: as_grey(enlarger.enlarge(frame, _stop_if_asked), frame)
        ) as enlarge,
    ):
        path = Path(folder) / "upscaled"
        made = map_frames(store.fetch(picture), path, enlarge, video_tags(record))
        return keep_video(
            path,
            width=made.width,
            height=made.height,
            frames=made.frames,
            fps=float(made.fps),
            media_type=made.media_type,
        )


def _networks(params: UpscaleParams) -> tuple[Model, ...]:
    return ("photo", "video") if params.model == "auto" else (params.model,)


def _stop_if_asked(done: int, total: int) -> None:
    """Between the tiles of a frame; progress is told by the frame."""
    if stop_requested():
        raise StopRequestedError(f"stopped after tile {done} of {total} of a frame")
