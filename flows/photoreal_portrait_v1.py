"""Photographs of people that look like skin, not plastic."""

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
from presets.photoreal_portrait_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.detail import detail
from tasks.upscale import upscale

NONE: Changes = {}


@recorded_flow
def photoreal_portrait_v1(
    prompt: Prompt,
    identity_reference: Reference = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent: Consent = False,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw a portrait photograph with natural skin; from standard on faces get a second look."""
    require_consent(PRESET, consent, identity_reference)
    knobs = knobs_of(PRESET, quality, overrides)
    picture = draw(knobs.generate, knobs.aspect, prompt, seed or 0, identity_reference, overrides)
    if knobs.detail is not None:
        picture = detail(picture, knobs.detail.but(prompt=prompt, seed=seed))
    if knobs.upscale is not None:
        picture = upscale(picture, knobs.upscale)
    return picture
