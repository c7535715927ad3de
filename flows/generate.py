"""Text to image, or to a short video."""

from typing import Annotated

from pydantic import Field

from flows.running.characters import Shown, with_character
from flows.running.single import stage_flow
from presets.base.portrait import DETAIL_FACES, UPSCALE_TWICE
from safelight.errors import InvalidFieldValueError
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.base.sampling import ReferenceUse
from tasks.detail import DetailParams, detail
from tasks.generate import GenerateParams
from tasks.generate import generate as stage
from tasks.upscale import upscale


def _finished(
    pictures: list[ArtifactRef],
    params: GenerateParams,
    use_facedetailer: Annotated[
        bool, Field(description="Draw faces again at the model's full resolution.")
    ] = False,
    use_upscale: Annotated[
        bool, Field(description="Make each picture twice as wide and as high.")
    ] = False,
) -> list[ArtifactRef]:
    made = pictures
    if use_facedetailer:
        made = [detail(each, _faces(params, at)) for at, each in enumerate(made)]
    return [upscale(each, UPSCALE_TWICE) for each in made] if use_upscale else made


def _faces(params: GenerateParams, position: int) -> DetailParams:
    """As the picture was drawn; its person stays who it is."""
    tags = "".join(f" <lora:{lora.name}:{lora.weight:g}>" for lora in params.loras)
    shown = (
        ReferenceUse(
            images=params.ipadapter_images,
            model=params.ipadapter_model,
            weight=params.ipadapter_weight,
        )
        if params.use_ipadapter
        else None
    )
    return DETAIL_FACES.but(
        prompt=params.prompt + tags,
        negative_prompt=params.negative_prompt,
        seed=((params.seed or 0) + position) % SEEDS,
        steps=params.steps,
        guidance_scale=params.guidance_scale,
        model=params.model,
        scheduler=params.scheduler,
        reference=shown,
    )


def _shown(params: GenerateParams, character: Shown = None) -> GenerateParams:
    if character is None:
        return params
    prompt, references = with_character(params, params.prompt, character)
    if not references:
        return params.but(prompt=prompt)
    images = tuple(ref.uri for ref in references)
    return params.but(prompt=prompt, use_ipadapter=True, ipadapter_images=images)


def _ahead(params: GenerateParams, use_facedetailer: bool, use_upscale: bool) -> None:
    if use_facedetailer and params.makes == "video":
        raise InvalidFieldValueError(
            "use_facedetailer is true, and makes is video: each frame would be drawn by itself",
            "leave use_facedetailer out, or run video_identity_consistency_v1 on the video",
        )
    recorder().expected_stages = 1 + params.num_images * (use_facedetailer + use_upscale)


generate = stage_flow(stage, after=_finished, before=_shown, ahead=_ahead)
