"""Videos in which a face stays that of the person on photographs."""

from presets.base.preset import Knobs, Preset
from tasks.base.sampling import ReferenceUse
from tasks.deflicker import DeflickerParams
from tasks.detail import DetailParams
from tasks.interpolate import InterpolateParams

PLACE = "identity_reference"
"""Stands where the photographs of the run go."""


class VideoIdentityKnobs(Knobs):
    """Every knob of the consistency pass, by step."""

    detail: DetailParams
    """The face of each frame drawn again, looking at the photographs."""
    deflicker: DeflickerParams
    """Light held steady: each frame is drawn by itself."""
    interpolate: InterpolateParams | None = None
    """More frames a second."""


def _faces(strength: float, weight: float, steps: int) -> DetailParams:
    return DetailParams(
        region="face",
        confidence=0.9,  # below, patterned cloth is taken for faces
        padding=0.35,  # hair and chin belong to the crop, so that the blend lies on calm areas
        strength=strength,
        steps=steps,
        prompt="portrait photograph of a person",  # the photographs say who
        reference=ReferenceUse(images=(PLACE,), weight=weight),
    )


PRESET = Preset[VideoIdentityKnobs](
    id="video_identity_consistency_v1",
    name="Video identity consistency",
    description="A video in which the face of each frame is drawn again as that of the person on "
    "one to three photographs, or of a character. The sound is kept.",
    category="character_performance",
    required_inputs=("video",),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("diffusers", "rife"),
    safety_notes=(
        "It shows a real person: publish only what they agreed to.",
        "It does not put a face into a video of somebody else; do not use it for that.",
    ),
    consent="always",
    failure_modes={
        "CONSENT_MISSING": "Ask the person, then set consent_given to true.",
        "DEPENDENCY_MISSING": "Put a model and an IP-Adapter that fits it into the models folder.",
        "INVALID_FIELD_VALUE": "Export the video as MP4, MOV, MKV or WebM. At pro, one of 60 or "
        'more frames a second: overrides {"interpolate": {"target_fps": 120}}, or 240.',
        "OUT_OF_MEMORY": "Choose quality low, or close other programs that use the device.",
    },
    levels={
        "low": VideoIdentityKnobs(
            detail=_faces(0.25, 0.6, 12),  # three steps a face: to see whether it holds
            deflicker=DeflickerParams(level=1.0),  # light is steady or it is not
        ),
        "standard": VideoIdentityKnobs(
            detail=_faces(0.3, 0.75, 20),  # from 0.35 on the mouth leaves the sound
            deflicker=DeflickerParams(level=1.0),
        ),
        "pro": VideoIdentityKnobs(
            detail=_faces(0.3, 0.8, 30),
            deflicker=DeflickerParams(level=1.0),
            interpolate=InterpolateParams(target_fps=60),  # what screens show
        ),
    },
)
