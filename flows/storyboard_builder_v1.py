"""Shots of a scene drawn from one prompt, on a sheet."""

from typing import Annotated

from pydantic import Field

from flows.running.characters import Shown, in_portrait
from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.drawing import draw, expect_drawings
from flows.running.gating import gated
from flows.running.inputs import Changes, QualityLevel, Seed, knobs_of
from flows.running.recorded import recorded_flow
from presets.storyboard_builder_v1 import PRESET
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.base.sampling import lora_tags
from tasks.grade import grade
from tasks.storyboard import storyboard

NONE: Changes = {}
NUMBER = "{shot_number}"
Template = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1900,
        pattern=r"\{shot_number\}",
        description="What a shot shows; {shot_number} in it becomes 1, 2 and so on.",
    ),
]
ShotCount = Annotated[int, Field(ge=2, le=10, description="How many shots.")]


@recorded_flow
def storyboard_builder_v1(
    prompt_template: Template,
    shot_count: ShotCount,
    identity_reference: References = None,
    character: Shown = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw the shots of a scene and lay them out on a sheet with what each shows."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides, character)
    knobs = knobs_of(PRESET, quality, overrides)
    recorder().expected_stages = shot_count * (len(knobs.steps()) - 1) + 1
    expect_drawings(knobs.generate, knobs.aspect, shot_count)
    worded, shown = in_portrait(knobs.generate, prompt_template, character, people)
    shots: list[ArtifactRef] = []
    texts = [prompt_template.replace(NUMBER, str(at + 1)) for at in range(shot_count)]
    for at in range(shot_count):
        text = worded.replace(NUMBER, str(at + 1))
        first = (seed or 0) + at
        shot, _ = gated(
            lambda drawn, text=text: draw(
                knobs.generate, knobs.aspect, text, drawn, shown, overrides
            ),
            first % SEEDS,
            knobs.gate,
            shown,
            apart=shot_count,
        )
        shots.append(shot if knobs.grade is None else grade(shot, knobs.grade.but(seed=seed)))
    captions = knobs.storyboard.captions or tuple(lora_tags(text)[0] for text in texts)
    return storyboard(shots, knobs.storyboard.but(captions=captions))
