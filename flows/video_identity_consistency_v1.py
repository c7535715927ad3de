"""Videos in which a face stays that of the person on photographs."""

from flows.running.characters import Shown, in_faces
from flows.running.consenting import Consent, ConsentBy, References, people_of
from flows.running.inputs import Changes, Media, QualityLevel, Seed, ingest_media, knobs_of
from flows.running.recorded import recorded_flow
from presets.video_identity_consistency_v1 import PRESET
from safelight.store.artifact import ArtifactRef
from tasks.deflicker import deflicker
from tasks.detail import detail
from tasks.interpolate import interpolate, require_target

NONE: Changes = {}


@recorded_flow
def video_identity_consistency_v1(
    video: Media,
    identity_reference: References = None,
    character: Shown = None,
    seed: Seed = None,
    quality: QualityLevel = "standard",
    consent_given: Consent = False,
    consent_by: ConsentBy = None,
    overrides: Changes = NONE,
) -> ArtifactRef:
    """Draw the face of each frame again as that of a person on photographs, or of a character."""
    people = people_of(PRESET, identity_reference, consent_given, consent_by, overrides, character)
    knobs = knobs_of(PRESET, quality, overrides)
    faces = in_faces(knobs.detail, character, people)
    source = ingest_media("video", video, ("video",))
    if knobs.interpolate is not None:
        require_target(source, knobs.interpolate)  # before the work of the steps that come first
    shown = detail(source, faces.but(seed=seed))
    shown = deflicker(shown, knobs.deflicker)
    return shown if knobs.interpolate is None else interpolate(shown, knobs.interpolate)
