"""Portraits that look like a frame from a film."""

from flows.running.drawing import draw
from flows.running.inputs import (
    Changes,
    Consent,
    Prompt,
    QualityLevel,
    Reference,
    Seed,
    knobs_of,
    require_consent,
)
from flows.running.recorded import recorded_flow
from presets.cinematic_portrait_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.grade import grade

NONE: Changes = {}


@recorded_flow
def cinematic_portrait_v1(
    prompt: Prompt,
    identity_reference: Reference = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent: Consent = False,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw a portrait and give it the grain, tone and colour of a film still."""
    require_consent(PRESET, consent, identity_reference)
    knobs = knobs_of(PRESET, quality, overrides)
    picture = draw(knobs.generate, knobs.aspect, prompt, seed or 0, identity_reference, overrides)
    return grade(picture, knobs.grade.but(seed=seed))
