"""Clips in which somebody says what a sound says."""

from typing import Annotated

from pydantic import Field

from flows.running.characters import Shown, in_faces
from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.inputs import Changes, Media, QualityLevel, Seed, ingest_media, knobs_of
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
    character: Shown = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Have the mouth in a video move to a sound; at pro the face stays who it is."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides, character)
    somebody = bool(people) or character is not None
    if somebody and PRESET.levels[quality].detail is None:
        raise InvalidFieldValueError(
            f"talking_clip_v1: photographs and characters take part at pro alone, quality is "
            f"{quality}",
            "choose quality pro, or leave identity_reference and character out",
        )

    def switched(knobs: TalkingClipKnobs) -> TalkingClipKnobs:
        return knobs if somebody else knobs.model_copy(update={"detail": None})

    knobs = knobs_of(PRESET, quality, overrides, switched)
    faces = None if knobs.detail is None else in_faces(knobs.detail, character, people)
    clip = ingest_media("video", video, ("video",))
    heard = ingest_media("audio", audio, ("audio",))
    clip = lipsync(clip, heard, knobs.lipsync)
    return clip if faces is None else detail(clip, faces.but(seed=seed))
