"""Clips in which somebody says what a sound says."""

from presets.base.preset import Knobs, Preset
from presets.video_identity_consistency_v1 import PRESET as CONSISTENCY
from tasks.detail import DetailParams
from tasks.lipsync import LipsyncParams


class TalkingClipKnobs(Knobs):
    """Every knob of the talking clip, by step."""

    lipsync: LipsyncParams
    """The mouth."""
    detail: DetailParams | None = None
    """Where photographs are given: the face of each frame drawn again as theirs."""


PRESET = Preset[TalkingClipKnobs](
    id="talking_clip_v1",
    name="Talking clip",
    description="A video in which the mouth moves to a sound; at pro the face stays that of the "
    "person on photographs or of a character, where one is given.",
    category="character_performance",
    required_inputs=("video", "audio"),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("provider_synclabs", "provider_kling", "diffusers"),
    safety_notes=(
        "It puts words into a person's mouth: publish only what they agreed to say.",
        "Say beside it that the clip was made.",
    ),
    consent="with_reference",
    failure_modes={
        "DEPENDENCY_MISSING": "Connect an engine that moves lips, or use the stage dub.",
        "INVALID_FIELD_VALUE": "Use MP4 for the video, and WAV or MP3 for the sound.",
        "FILE_NOT_FOUND": "Put the files under VOLUME_ROOT, or name links of artifacts.",
        "CONSENT_MISSING": "Ask the person in the reference, then set consent_given to true.",
        "ENGINE_OFFLINE": "Start the engine that the message names, and run it again.",
    },
    levels={
        "low": TalkingClipKnobs(lipsync=LipsyncParams(fidelity="standard")),
        "standard": TalkingClipKnobs(lipsync=LipsyncParams(fidelity="high")),
        "pro": TalkingClipKnobs(
            lipsync=LipsyncParams(fidelity="ultra"),
            detail=CONSISTENCY.levels["standard"].detail,  # more would move the mouth again
        ),
    },
)
