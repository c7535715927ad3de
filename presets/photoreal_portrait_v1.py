"""Photographs of people that look like skin, not plastic."""

from presets.base.portrait import DETAIL_FACES, NEGATIVE, UPSCALE_TWICE, PortraitKnobs
from presets.base.preset import Preset
from tasks.generate import GenerateParams

PROMPT = (
    "{prompt}, portrait photograph, natural skin texture with pores, soft window light, 85 mm lens"
)
"""Words that pull photographic models towards real skin; {prompt} stands for the caller's."""


PRESET = Preset[PortraitKnobs](
    id="photoreal_portrait_v1",
    name="Photoreal portrait",
    description="A portrait photograph with natural skin, from a prompt.",
    category="image_generation",
    required_inputs=("prompt",),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("diffusers", "local_comfy", "provider_fal"),
    safety_notes=(
        "The people do not exist; do not pass the picture off as a photograph of someone.",
        "With an identity reference it shows a real person: publish only what they agreed to.",
    ),
    consent="with_reference",
    failure_modes={
        "DEPENDENCY_MISSING": "Put a model into the models folder, or leave the reference out.",
        "OUT_OF_MEMORY": "Choose quality low, or close other programs that use the device.",
        "CONSENT_MISSING": "Ask the person in the reference, then set consent_given to true.",
    },
    levels={
        "low": PortraitKnobs(
            generate=GenerateParams(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                steps=25,  # enough for second-order samplers to settle
                guidance_scale=6.5,  # lower keeps skin softer while steps are few
            ),
        ),
        "standard": PortraitKnobs(
            generate=GenerateParams(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                steps=40,  # fine hair stops changing here
                guidance_scale=7.5,  # the value these models were tuned at
            ),
            detail=DETAIL_FACES,
        ),
        "pro": PortraitKnobs(
            generate=GenerateParams(
                prompt=PROMPT,
                negative_prompt=NEGATIVE,
                steps=50,  # no visible change beyond
                guidance_scale=8.0,  # more steps bear more guidance without burnt colours
            ),
            detail=DETAIL_FACES,
            upscale=UPSCALE_TWICE,
        ),
    },
)
