"""Portraits that look like a frame from a film."""

from presets.base.portrait import NEGATIVE, PortraitKnobs
from presets.base.preset import Preset
from tasks.generate import GenerateParams
from tasks.grade import GradeParams

PROMPT = "{prompt}, cinematic portrait, film still, dramatic side light, shallow depth of field"
"""Words that pull models towards lit scenes; {prompt} stands for the caller's."""


class CinematicPortraitKnobs(PortraitKnobs):
    """Every knob of the cinematic portrait, by step."""

    grade: GradeParams
    """Grain, and from standard on tone mapping, and at pro the colour grade."""


def _generate(steps: int) -> GenerateParams:
    return GenerateParams(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        steps=steps,
        guidance_scale=7.0,  # between the portrait levels: dark scenes burn out above
    )


PRESET = Preset[CinematicPortraitKnobs](
    id="cinematic_portrait_v1",
    name="Cinematic portrait",
    description="A portrait with the light, grain and colour of a film still, from a prompt.",
    category="image_generation",
    required_inputs=("prompt",),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("diffusers", "local_comfy", "provider_fal"),
    safety_notes=(
        "The people do not exist; do not pass the picture off as a scene that was shot.",
    ),
    consent="with_reference",
    failure_modes={
        "DEPENDENCY_MISSING": "Put a model into the models folder, or leave the reference out.",
        "OUT_OF_MEMORY": "Choose quality low, or close other programs that use the device.",
        "CONSENT_MISSING": "Ask the person in the reference, then set consent_given to true.",
    },
    levels={
        "low": CinematicPortraitKnobs(
            generate=_generate(30),  # soft light settles early
            grade=GradeParams(grain=0.25),  # seen at full size, not in a thumbnail
        ),
        "standard": CinematicPortraitKnobs(
            generate=_generate(35),
            grade=GradeParams(
                grain=0.25,
                tone=0.4,  # opens the shadows without the flat look of full tone mapping
            ),
        ),
        "pro": CinematicPortraitKnobs(
            generate=_generate(40),
            grade=GradeParams(
                grain=0.25,
                tone=0.4,
                colour="cinematic",
                colour_strength=0.6,  # teal and orange that still leave skin its own colour
            ),
        ),
    },
)
