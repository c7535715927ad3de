"""The dub stage: sound laid under a video."""

from pathlib import Path

from pydantic import Field

from safelight.engines.interface import ComputeRequest
from safelight.media.video.dubbing import dub as dubbed
from safelight.media.video.opening import MKV, WEBM
from safelight.media.video.tracks import Format
from safelight.params import Params
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import keep_video, record_of
from tasks.base.stage import stage

REVISION = "1"
"""Raised when the same file would sound different."""
CONTAINERS: dict[str, Format] = {MKV: "matroska", WEBM: "webm"}
"""Of videos that are no MP4."""


class DubParams(Params):
    """How loud, and how it ends."""

    volume: float = Field(default=1.0, ge=0, le=4)
    """Factor; what it makes louder than full scale is clipped, with a note."""
    fade_seconds: float = Field(default=0.3, ge=0, le=5)
    """Where the sound is longer than the picture, how long it fades before it is cut."""


@stage(
    reads={"video": ("video",), "audio": ("audio",)},
    makes="video",
    origin="edits",
    needs=lambda *_: (ComputeRequest(REVISION),),
)
def dub(video: ArtifactRef, audio: ArtifactRef, params: DubParams) -> ArtifactRef:
    """Put a sound in the place of what is heard with a video; its picture stays bit for bit.

    Args:
        video: what is shown; MP4, WebM or MKV.
        audio: WAV, MP3, M4A, FLAC or Ogg.
        params: how loud, and how it ends.

    Returns:
        A new artifact of the same kind and length.

    Raises:
        InvalidMediaError: one of both cannot be decoded.
    """
    store = current_store()
    record = record_of(params, [video, audio])
    with store.workspace() as folder:
        path = Path(folder) / "made"
        dubbed(
            store.fetch(video),
            store.fetch(audio),
            path,
            video_tags(record),
            container=CONTAINERS.get(video.media_type, "mp4"),
            volume=params.volume,
            fade_seconds=params.fade_seconds,
        )
        return keep_video(
            path,
            width=video.width or 0,
            height=video.height or 0,
            frames=video.frames or 0,
            fps=video.fps or 0,
            media_type=video.media_type,
        )
