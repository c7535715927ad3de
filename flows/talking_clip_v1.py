"""Clips in which somebody says what a sound says."""

from typing import Annotated

from pydantic import Field

from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.inputs import Changes, Media, QualityLevel, Seed, ingest_media, knobs_of
from flows.running.portraits import as_the_person
from flows.running.recorded import recorded_flow
from presets.talking_clip_v1 import PRESET, TalkingClipKnobs
from safelight.errors import InvalidFieldValueError
from safelight.store.artifact import ArtifactRef
from tasks.detail import detail
from tasks.lipsync import lipsync

NONE: Changes = {}
Sound = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="WAV, MP3, M4A, FLAC or Ogg of what is said: a file under the volume root, or "
        "the store: link of an artifact.",
    ),
]


@recorded_flow
def talking_clip_v1(
    video: Media,
    audio: Sound,
    identity_reference: References = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Have the mouth in a video move to a sound; at pro the face stays that of the photographs."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides)
    if people and PRESET.levels[quality].detail is None:
        raise InvalidFieldValueError(
            f"talking_clip_v1: photographs take part at pro alone, quality is {quality}",
            "choose quality pro, or leave identity_reference out",
        )

    def switched(knobs: TalkingClipKnobs) -> TalkingClipKnobs:
        return knobs if people else knobs.model_copy(update={"detail": None})

    knobs = knobs_of(PRESET, quality, overrides, switched)
    clip = ingest_media("video", video, ("video",))
    heard = ingest_media("audio", audio, ("audio",))
    clip = lipsync(clip, heard, knobs.lipsync)
    if knobs.detail is None:
        return clip
    return detail(clip, as_the_person(knobs.detail, people).but(seed=seed))
