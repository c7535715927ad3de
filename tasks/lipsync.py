"""The lipsync stage: the mouth in a video moves to a sound."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from safelight.engines.choosing import engines
from safelight.engines.lips import Fidelity, LipsyncRequest, SyncsLips
from safelight.engines.work import current_work
from safelight.errors import DependencyMissingError
from safelight.media.video.dubbing import dub
from safelight.params import Params
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.keeping import keep_written, record_of
from tasks.base.stage import stage


class LipsyncParams(Params):
    """How well."""

    fidelity: Fidelity = "standard"
    """How much work the engine puts into it."""
    model: str | None = Field(default=None, min_length=1)
    """A model of the engine; None is its own choice."""


def is_connected() -> bool:
    """Whether there is an engine that moves lips."""
    return any(
        isinstance(each, SyncsLips) and getattr(each, "is_connected", True)
        for each in engines().values()
    )


def _needs(params: LipsyncParams, _: Sequence[ArtifactRef]) -> tuple[LipsyncRequest, ...]:
    """An engine that moves lips.

    Raises:
        DependencyMissingError: none is connected.
    """
    if not is_connected():
        raise DependencyMissingError(
            "no engine that moves lips to a sound is connected",
            "set SAFELIGHT_SYNCLABS_KEY or the keys of Kling, or lay the sound under the video "
            "with the stage dub",
        )
    return (LipsyncRequest(params.fidelity, params.model),)


@stage(
    reads={"video": ("video",), "audio": ("audio",)},
    makes="video",
    origin="redraws",
    needs=_needs,
    engines=("provider_synclabs", "provider_kling"),
)
def lipsync(video: ArtifactRef, audio: ArtifactRef, params: LipsyncParams) -> ArtifactRef:
    """Have the mouth in a video move to a sound, which is heard with it.

    Args:
        video: who speaks.
        audio: WAV, MP3, M4A, FLAC or Ogg.
        params: how well.

    Returns:
        A new artifact, MP4.

    Raises:
        DependencyMissingError: no engine that can do it is connected.
        InvalidMediaError: one of both cannot be decoded, or the engine's result.
    """
    store = current_store()
    record = record_of(params, [video, audio])
    job = current_work().name()
    request = LipsyncRequest(params.fidelity, params.model)
    sound = store.fetch(audio)
    with store.workspace() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        written = serving(SyncsLips).sync_lips(request, store.fetch(video), sound, job, work)
        path = Path(folder) / "made"
        tags = video_tags(record)
        dub(written.path, sound, path, tags, container="mp4", volume=1.0, fade_seconds=0.0)
        return keep_written(path, "video/mp4")
