"""Photographs of people that look like skin, not plastic."""

from flows.running.characters import Shown, in_portrait
from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.drawing import draw, expect_drawings
from flows.running.gating import gated
from flows.running.inputs import Changes, Prompt, QualityLevel, Seed, knobs_of
from flows.running.portraits import (
    Switches,
    UseControlnet,
    UseFacedetailer,
    UseIpadapter,
    UseUpscale,
    finished,
    reference_of,
)
from flows.running.recorded import recorded_flow
from presets.photoreal_portrait_v1 import PRESET
from safelight.store.artifact import ArtifactRef

NONE: Changes = {}


@recorded_flow
def photoreal_portrait_v1(
    prompt: Prompt,
    identity_reference: References = None,
    character: Shown = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    use_ipadapter: UseIpadapter = None,
    use_controlnet: UseControlnet = None,
    use_facedetailer: UseFacedetailer = None,
    use_upscale: UseUpscale = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw a portrait photograph with natural skin; from standard on faces get a second look."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides, character)
    switches = Switches(use_facedetailer, use_upscale, use_controlnet, use_ipadapter)
    knobs = knobs_of(PRESET, quality, overrides, switches.steps)
    expect_drawings(knobs.generate, knobs.aspect)
    sampling, shown = switches.sampling(knobs.generate, people)
    prompt, shown = in_portrait(sampling, prompt, character, shown)
    picture, drawn_by = gated(
        lambda drawn: draw(sampling, knobs.aspect, prompt, drawn, shown, overrides),
        seed or 0,
        knobs.gate,
        shown,
    )
    steps = knobs.detail, knobs.upscale
    return finished(picture, steps, prompt, drawn_by, reference_of(sampling, shown))
