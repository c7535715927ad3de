"""Portraits of one person: the face of the photographs, whatever the prompt puts around it."""

from typing import ClassVar

from presets.base.gate import GateParams
from presets.base.portrait import DETAIL_FACES, NEGATIVE, UPRIGHT
from presets.base.preset import Knobs, Preset
from tasks.detail import DetailParams
from tasks.identity import IdentityParams
from tasks.upscale import UpscaleParams

PROMPT = "{prompt}, portrait photograph, natural skin texture, sharp focus on the face"
"""Words that pull models towards a face that can be recognised; {prompt} is the caller's."""


ONE_FACE = GateParams(
    faces=1,
    tries=3,  # a model that draws none in three seeds has a prompt that wants none
    then="warn",  # the detector misses drawn styles and faces from the side
)


class IdentityLockKnobs(Knobs):
    """Every knob of the identity lock, by step."""

    redraws: ClassVar[bool] = True
    aspect: tuple[int, int] = UPRIGHT
    """Width to height; the pixels follow from the model, unless an override gives them."""
    identity: IdentityParams
    """The drawing, which looks at the photographs."""
    detail: DetailParams | None = None
    """Faces drawn again at the model's full resolution; they look at the photographs too."""
    upscale: UpscaleParams | None = None
    """The picture enlarged."""


def _identity(steps: int, guidance_scale: float, weight: float) -> IdentityParams:
    return IdentityParams(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        steps=steps,
        guidance_scale=guidance_scale,
        weight=weight,
        consent_given=True,  # the flow asks for it before anything else
    )


PRESET = Preset[IdentityLockKnobs](
    id="identity_lock_portrait_v1",
    name="Identity lock portrait",
    description="A portrait of the person on one to three photographs, or of a character, from a "
    "prompt.",
    category="character_performance",
    required_inputs=("prompt",),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("diffusers",),
    safety_notes=(
        "It shows a real person: publish only what they agreed to.",
        "Say beside it that the picture was made; the person never stood there.",
    ),
    consent="always",
    failure_modes={
        "CONSENT_MISSING": "Ask the person, then set consent_given to true.",
        "DEPENDENCY_MISSING": "Put a model and an IP-Adapter that fits it into the models folder.",
        "FILE_NOT_FOUND": "Put the photographs under VOLUME_ROOT, or name links of artifacts.",
        "OUT_OF_MEMORY": "Choose quality low, or close other programs that use the device.",
    },
    levels={
        "low": IdentityLockKnobs(
            identity=_identity(
                30,
                7.0,
                0.6,  # alike at a glance, and the prompt still decides pose and dress
            ),
        ),
        "standard": IdentityLockKnobs(
            identity=_identity(
                35,
                7.5,
                0.75,  # features are those of the photographs
            ),
            gate=ONE_FACE,  # without a face there is nothing to recognise
        ),
        "pro": IdentityLockKnobs(
            identity=_identity(
                40,
                8.0,  # holds the prompt against the stronger photographs
                0.8,  # beyond, the background of the photographs comes along
            ),
            gate=ONE_FACE,
            detail=DETAIL_FACES.but(strength=0.3),  # below the portraits' 0.35: likeness goes first
        ),
    },
)
