"""Drawing a picture at the size its model was made for, and large enough to be looked at."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from flows.running.inputs import Changes
from safelight.errors import InvalidFieldValueError, MissingRequiredFieldError, PipelineError
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.base.sizing import size_for
from tasks.generate import GenerateParams, generate
from tasks.identity import IdentityParams, identity
from tasks.upscale import UpscaleParams, upscale

PLACEHOLDER = "{prompt}"
"""Stands for the caller's prompt in a preset's own."""
OF_PHOTOGRAPHS = ("method", "ipadapter_model", "weight")
"""Parameters of `identity` that say how photographs are looked at."""
D = TypeVar("D", GenerateParams, IdentityParams)


def draw(
    knobs: GenerateParams,
    aspect: tuple[int, int],
    prompt: str,
    seed: int,
    people: Sequence[ArtifactRef],
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
        people: photographs of the person to show, if any.
        overrides: the caller's changes, which are in `knobs` already.
    """
    if people:
        images = tuple(ref.uri for ref in people)
        knobs = knobs.but(use_ipadapter=True, ipadapter_images=images)
    own_guidance = "guidance_scale" in overrides.get("generate", {})
    return _drawn(knobs, aspect, prompt, seed, own_guidance, generate)


def draw_person(
    knobs: IdentityParams,
    aspect: tuple[int, int],
    prompt: str,
    seed: int,
    people: Sequence[ArtifactRef],
    overrides: Changes,
) -> ArtifactRef:
    """Draw a person on photographs, or by the LoRA of the prompt, with a preset's knobs.

    Sizes are as those of `draw`.

    Args:
        knobs: tuned parameters, the caller's prompt as `{prompt}`.
        aspect: width to height.
        prompt: the caller's.
        seed: of the run.
        people: photographs of the person; none where a LoRA in `prompt` knows them.
        overrides: the caller's changes, which are in `knobs` already.

    Raises:
        InvalidFieldValueError: a change is of what looks at photographs, and there are none.
    """
    own_guidance = "guidance_scale" in overrides.get("identity", {})
    if not people:
        idle = [name for name in OF_PHOTOGRAPHS if name in overrides.get("identity", {})]
        if idle:
            raise InvalidFieldValueError(
                f"overrides.identity.{idle[0]} is given, and a LoRA draws, which looks at no "
                "photographs",
                f"leave overrides.identity.{idle[0]} out",
            )
        alike = GenerateParams.model_fields.keys() & knobs.model_fields_set
        bare = GenerateParams.model_validate({name: getattr(knobs, name) for name in alike})
        return _drawn(bare, aspect, prompt, seed, own_guidance, generate)
    return _drawn(
        knobs,
        aspect,
        prompt,
        seed,
        own_guidance,
        lambda filled: identity(list(people), filled),
    )


def expect_drawings(
    knobs: GenerateParams | IdentityParams, aspect: tuple[int, int], count: int = 1
) -> None:
    """Count the enlargements that follow drawings of a small model among the stages of the run."""
    if _is_sized(knobs):
        return
    try:
        enlargements = size_for(knobs.model, aspect).enlargements
    except PipelineError:
        return  # the drawing meets it again, and says so
    recorder().expected_stages += count * len(enlargements)


def _is_sized(knobs: GenerateParams | IdentityParams) -> bool:
    return bool({"width", "height"} & knobs.model_fields_set)


def _drawn(
    knobs: D,
    aspect: tuple[int, int],
    prompt: str,
    seed: int,
    own_guidance: bool,
    stage: Callable[[D], list[ArtifactRef]],
) -> ArtifactRef:
    if isinstance(knobs, GenerateParams) and knobs.makes != "image":
        raise InvalidFieldValueError(
            f"overrides.generate.makes is {knobs.makes}, and the preset draws pictures",
            "leave overrides.generate.makes out; generate and image_to_video_v1 make videos",
        )
    filled = knobs.but(prompt=knobs.prompt.replace(PLACEHOLDER, prompt), seed=seed)
    enlargements: tuple[int, ...] = ()
    if not _is_sized(knobs):
        if isinstance(knobs, IdentityParams) and knobs.method == "instantid":
            raise MissingRequiredFieldError(
                "overrides.identity.method is instantid, and the size of a ComfyUI's model is not "
                "known here",
                "give overrides.identity.width and height, such as 832 and 1216",
            )
        size = size_for(knobs.model, aspect)
        filled = filled.but(width=size.width, height=size.height)
        if (size.canvas_width, size.canvas_height) != (size.width, size.height):
            filled = filled.but(canvas_width=size.canvas_width, canvas_height=size.canvas_height)
        enlargements = size.enlargements
        if size.guidance_scale is not None and not own_guidance:
            filled = filled.but(guidance_scale=size.guidance_scale)
    (picture,) = stage(filled)
    for factor in enlargements:
        picture = upscale(picture, UpscaleParams.model_validate({"upscale_factor": factor}))
    return picture
