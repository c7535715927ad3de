"""Drawing a picture at the size its model was made for, and large enough to be looked at."""

from flows.running.inputs import Changes, ingest_media
from safelight.store.artifact import ArtifactRef
from tasks.base.sizing import size_for
from tasks.generate import GenerateParams, generate
from tasks.upscale import UpscaleParams, upscale

PLACEHOLDER = "{prompt}"
"""Stands for the caller's prompt in a preset's own."""


def draw(
    knobs: GenerateParams,
    aspect: tuple[int, int],
    prompt: str,
    seed: int,
    identity_reference: str | None,
    overrides: Changes,
) -> ArtifactRef:
    """Generate one picture with a preset's knobs.

    Width and height follow from the model unless the knobs give them; pictures of models far
    below print size are enlarged, and drawn with the guidance that their makers recommend unless
    the caller names another.

    Args:
        knobs: tuned parameters, the caller's prompt as `{prompt}`.
        aspect: width to height.
        prompt: the caller's.
        seed: of the run.
        identity_reference: a photograph of the person to show, if any.
        overrides: the caller's changes, which are in `knobs` already.
    """
    filled = knobs.but(prompt=knobs.prompt.replace(PLACEHOLDER, prompt), seed=seed)
    if identity_reference is not None:
        person = ingest_media("identity_reference", identity_reference, ("image",))
        filled = filled.but(use_ipadapter=True, ipadapter_images=(person.uri,))
    enlargements: tuple[int, ...] = ()
    if not {"width", "height"} & knobs.model_fields_set:
        size = size_for(knobs.model, aspect)
        filled = filled.but(width=size.width, height=size.height)
        if (size.canvas_width, size.canvas_height) != (size.width, size.height):
            filled = filled.but(canvas_width=size.canvas_width, canvas_height=size.canvas_height)
        enlargements = size.enlargements
        if size.guidance_scale is not None and "guidance_scale" not in overrides.get(
            "generate", {}
        ):
            filled = filled.but(guidance_scale=size.guidance_scale)
    (picture,) = generate(filled)
    for factor in enlargements:
        picture = upscale(picture, UpscaleParams.model_validate({"upscale_factor": factor}))
    return picture
