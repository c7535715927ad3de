"""Shots of a scene drawn from one prompt, on a sheet."""

from typing import ClassVar

from presets.base.preset import Knobs, Preset
from tasks.generate import GenerateParams
from tasks.grade import GradeParams
from tasks.storyboard import StoryboardParams

WIDE = (16, 9)
"""Width to height of the frames that a storyboard plans."""
PROMPT = "{prompt}, storyboard frame, cinematic composition"
"""Words that pull models towards one whole scene; {prompt} stands for the caller's."""
NEGATIVE = "comic panels, collage, split screen, frame, border, watermark, text"
"""What models draw when they read storyboard: a page of them instead of one shot."""
SHEET = StoryboardParams(
    columns=2,  # two wide frames beside each other are read on a screen without scrolling
    cell=768,
)


class StoryboardKnobs(Knobs):
    """Every knob of the storyboard, by step."""

    redraws: ClassVar[bool] = True
    aspect: tuple[int, int] = WIDE
    """Width to height; the pixels follow from the model, unless an override gives them."""
    generate: GenerateParams
    """The drawing of each shot; shot n takes the seed of the run plus n - 1."""
    grade: GradeParams | None = None
    """The consistency pass: one look over all shots, so that they belong to one film."""
    storyboard: StoryboardParams
    """The sheet."""


def _generate(steps: int) -> GenerateParams:
    return GenerateParams(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        steps=steps,
        guidance_scale=7.5,  # the value these models were tuned at: a plan follows its words
    )


PRESET = Preset[StoryboardKnobs](
    id="storyboard_builder_v1",
    name="Storyboard",
    description="Two to ten shots drawn from one prompt with a shot number in it, on a sheet.",
    category="image_generation",
    required_inputs=("prompt_template", "shot_count"),
    optional_inputs=("identity_reference", "character", "seed"),
    engines=("diffusers", "local_comfy", "provider_fal"),
    safety_notes=(
        "With an identity reference it shows a real person: publish only what they agreed to.",
    ),
    consent="with_reference",
    failure_modes={
        "INVALID_FIELD_VALUE": "Write {shot_number} into the prompt, and ask for 2 to 10 shots.",
        "DEPENDENCY_MISSING": "Put a model into the models folder, or leave the reference out.",
        "OUT_OF_MEMORY": "Choose quality low, or close other programs that use the device.",
        "CONSENT_MISSING": "Ask the person in the reference, then set consent_given to true.",
    },
    levels={
        "low": StoryboardKnobs(
            generate=_generate(20),  # enough to read who stands where
            storyboard=SHEET,
        ),
        "standard": StoryboardKnobs(
            generate=_generate(30),  # faces and hands can be read
            storyboard=SHEET,
        ),
        "pro": StoryboardKnobs(
            generate=_generate(40),  # no visible change beyond
            grade=GradeParams(
                colour="cinematic",
                colour_strength=0.5,  # pulls shots together, leaves skin its own colour
                tone=0.3,  # the same exposure for bright and dark shots
            ),
            storyboard=SHEET,
        ),
    },
)
