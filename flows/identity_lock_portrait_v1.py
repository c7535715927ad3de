"""Portraits of one person: the face of the photographs, whatever the prompt puts around it."""

from flows.running.consenting import Consent, ConsentBy, NeededReferences, people_of
from flows.running.drawing import draw_person
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
    identity_reference: NeededReferences,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    use_facedetailer: UseFacedetailer = None,
    use_upscale: UseUpscale = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw the person on the photographs as the prompt says; at pro faces get a second look."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides)
    knobs = knobs_of(PRESET, quality, overrides, Switches(use_facedetailer, use_upscale).steps)
    drawing = knobs.identity
    picture, drawn_by = gated(
        lambda drawn: draw_person(drawing, knobs.aspect, prompt, drawn, people, overrides),
        seed or 0,
        knobs.gate,
    )
    shown = ReferenceUse(
        images=tuple(ref.uri for ref in people),
        model=drawing.ipadapter_model,
        weight=drawing.weight,
    )
    return finished(picture, (knobs.detail, knobs.upscale), prompt, drawn_by, shown)
