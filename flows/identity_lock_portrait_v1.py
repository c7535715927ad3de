"""Portraits of one person: the face of the photographs, whatever the prompt puts around it."""

from flows.running.characters import Shown, in_portrait
from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.drawing import draw_person, expect_drawings
from flows.running.gating import gated
from flows.running.inputs import Changes, Prompt, QualityLevel, Seed, knobs_of
from flows.running.portraits import Switches, UseFacedetailer, UseUpscale, finished
from flows.running.recorded import recorded_flow
from presets.identity_lock_portrait_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.base.sampling import ReferenceUse

NONE: Changes = {}


@recorded_flow
def identity_lock_portrait_v1(
    prompt: Prompt,
    identity_reference: References = None,
    character: Shown = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    use_facedetailer: UseFacedetailer = None,
    use_upscale: UseUpscale = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw a person on photographs, or a character; at pro faces get a second look."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides, character)
    knobs = knobs_of(PRESET, quality, overrides, Switches(use_facedetailer, use_upscale).steps)
    expect_drawings(knobs.identity, knobs.aspect)
    drawing = knobs.identity
    prompt, shown = in_portrait(drawing, prompt, character, people)
    picture, drawn_by = gated(
        lambda drawn: draw_person(drawing, knobs.aspect, prompt, drawn, shown, overrides),
        seed or 0,
        knobs.gate,
        shown,
    )
    seen = ReferenceUse.of(shown, drawing.ipadapter_model, drawing.weight)
    return finished(picture, (knobs.detail, knobs.upscale), prompt, drawn_by, seen)
