"""The detail stage: faces drawn again at the model's full resolution and blended back."""

from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import (
    NO_GUIDES,
    AddOnUse,
    FaceRequest,
    FindsFaces,
    Guides,
    RedrawRequest,
    Redraws,
    Request,
)
from safelight.errors import DependencyMissingError, MissingRequiredFieldError
from safelight.media.regions import BLOCK, Box, redrawn
from safelight.media.texture import with_fine_waves
from safelight.params import SEEDS, Params, Seed
from safelight.pixels import Pixels
from safelight.progress import note, part
from safelight.prompts.lora_tags import lora_tags
from safelight.store.artifact import ArtifactRef
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.calling import serving
from tasks.base.keeping import keep_image, load_layers, record_of
from tasks.base.resuming import resuming
from tasks.base.sampling import Prompt, ReferenceUse
from tasks.base.stage import cache_key, stage
from tasks.base.texturing import texture_of
from tasks.base.video_stage import transformed

REVISION = 3
"""Raised when cutting out or blending changes the pixels."""


class DetailParams(Params):
    """Which parts to draw again, and how freely."""

    region: Literal["face", "hand", "person"] = "face"
    """What to look for; only the detector of faces is there."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """How sure the detector must be; below 0.9 patterned cloth may pass for a face."""
    padding: float = Field(default=0.35, ge=0, le=2)
    """Room drawn with it on each side, as part of its longer side; the blend lies there."""
    strength: float = Field(default=0.35, ge=0, le=1)
    """How freely it is drawn: 0 changes nothing, from 0.45 on it becomes another person."""
    prompt: Prompt = Field(default="", max_length=2000)
    """What it shows; the prompt of the whole picture does well."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What it must not show."""
    seed: Seed = None
    """Same seed, same picture; each region takes the next. Flows draw it when missing."""
    steps: int = Field(default=20, ge=1, le=150)
    """Denoising steps of a whole drawing; strength of them are taken."""
    guidance_scale: float = Field(default=7.5, ge=0, le=30)
    """How closely to follow the prompt."""
    model: str | None = None
    """Name of a model in the models folder; None takes the first, else the shipped one."""
    scheduler: str | None = None
    """As for generate; None is the model's own."""
    texture: float | None = Field(default=None, ge=0, le=1)
    """How much of the fine texture and grain that was there is laid over each drawn face again.
    None is 1 for photographs and 0 for drawings; the notes say which it was taken for, and why."""
    restore_faces: bool = False
    """Restore the faces with a network made for that; none is there yet."""

    reference: ReferenceUse | None = None
    """Pictures of the person whose face it is, so that drawing it again keeps who it is."""

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the reference pictures as links."""
        if self.reference is None:
            return self
        images = tuple(map(keep, self.reference.images))
        return self.but(reference=self.reference.but(images=images))

    @property
    def changes_nothing(self) -> bool:
        """Whether no denoising step is taken."""
        return int(self.steps * self.strength) < 1


def _needs(params: DetailParams, _: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    """A detector and a model.

    Raises:
        DependencyMissingError: the region or restoration asked for is not there.
    """
    _require_networks(params)
    return FaceRequest(params.confidence), _drawing(params, params.seed)


def _identity(params: DetailParams, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    """Detector and model together."""
    del params
    finds, draws = engines
    return EngineIdentity(
        engine_id=draws.engine_id,
        version=f"{draws.version}.{finds.engine_id}{finds.version}+{REVISION}",
        weights=(*draws.weights, *finds.weights),
        device_class=draws.device_class,
    )


@stage(
    reads={"picture": ("image", "video")},
    makes="same",
    origin="redraws",
    needs=_needs,
    identity=_identity,
)
def detail(picture: ArtifactRef, params: DetailParams) -> ArtifactRef:
    """Find faces in a picture, or in each frame of a video, and draw each again with more detail.

    Args:
        picture: (H, W, 3) uint8 sRGB, or a video.
        params: what to look for, and how to draw it.

    Returns:
        A new artifact of the same size, equal to `picture` outside the squares around the faces;
        `picture` itself when none is drawn. Metadata `regions` says how many were found.

    Raises:
        DependencyMissingError: the region, restoration or model asked for is not there.
        InvalidFieldValueError: the scheduler is not known.
        MissingRequiredFieldError: faces were found and there is no seed to draw them with.
        OutOfMemoryError: too little memory even with everything moved off the device.
    """
    if picture.kind == "video":
        return _video(picture, params)
    layers = load_layers(picture)
    image = layers.colours
    boxes = _faces(image, params)
    note(_found(len(boxes), params))
    if not boxes or params.changes_nothing:
        return picture.described(regions=len(boxes))
    made = _redrawn(image, boxes, params)
    if np.array_equal(made, image):
        return picture.described(regions=len(boxes))
    strength = texture_of(params.texture, picture)
    made = with_fine_waves(image, made, strength)
    record = record_of(params.but(texture=strength), [picture])
    return keep_image(made, record, like=layers).described(regions=len(boxes))


def _video(video: ArtifactRef, params: DetailParams) -> ArtifactRef:
    """Each frame by itself, with the same noise, so that what stands still stays as it is."""
    if params.changes_nothing:
        note(f"{params.steps} steps at strength {params.strength:g} are none: it is unchanged")
        return video
    strength = texture_of(params.texture, video)
    total = video.frames or 1
    looked, shown = 0, 0

    def frame(image: Pixels, at: int) -> Pixels:
        nonlocal looked, shown
        boxes = _faces(image, params)
        looked, shown = looked + 1, shown + bool(boxes)
        if not boxes:
            return image
        with part(min(at, total - 1), total):
            return with_fine_waves(image, _redrawn(image, boxes, params), strength)

    made = transformed(
        video,
        record_of(params.but(texture=strength), [video]),
        resuming(cache_key(detail, [video, params]), frame),
        lambda make, frames: (make(each, at) for at, each in enumerate(frames)),
    )
    note(f"a face in {shown} of the {looked} frames that were looked at")
    return made


def _faces(image: Pixels, params: DetailParams) -> list[Box]:
    found = serving(FindsFaces).find_faces(FaceRequest(params.confidence), image)
    return [Box(face.left, face.top, face.right, face.bottom) for face in found]


def _redrawn(image: Pixels, boxes: Sequence[Box], params: DetailParams) -> Pixels:
    card = find_checkpoint(params.model)
    seed, redraws = _seed(params), serving(Redraws)
    shown = params.reference
    guides = NO_GUIDES if shown is None else Guides(references=shown.pictures())

    def draw(crop: Pixels, index: int) -> Pixels:
        with part(index, len(boxes)):
            request = _drawing(params, (seed + index) % SEEDS)
            return redraws.redraw(request, crop, guides).pixels[0]

    longest = max(card.native_width, card.native_height) // BLOCK * BLOCK
    return redrawn(image, boxes, params.padding, longest, draw)


def _drawing(params: DetailParams, seed: int | None) -> RedrawRequest:
    prompt, loras = lora_tags(params.prompt)
    shown = params.reference
    return RedrawRequest(
        model=params.model,
        prompt=prompt,
        loras=tuple(
            AddOnUse(lora.name, lora.weight, text_weight=lora.text_weight) for lora in loras
        ),
        negative_prompt=params.negative_prompt,
        seed=seed,
        steps=params.steps,
        guidance_scale=params.guidance_scale,
        scheduler=params.scheduler,
        ip_adapter=None if shown is None else AddOnUse(shown.model, shown.weight),
        strength=params.strength,
    )


def _seed(params: DetailParams) -> int:
    if params.seed is None:
        raise MissingRequiredFieldError(
            "detail: field seed is missing, and a face has to be drawn", "give seed a value"
        )
    return params.seed


def _found(faces: int, params: DetailParams) -> str:
    if not faces:
        return f"no face found at confidence {params.confidence:g}"
    found = f"{faces} {'face' if faces == 1 else 'faces'} found"
    if params.changes_nothing:
        return (
            f"{found}; {params.steps} steps at strength {params.strength:g} are none: "
            "the picture is unchanged"
        )
    return found


def _require_networks(params: DetailParams) -> None:
    if params.region != "face":
        raise DependencyMissingError(
            f"detail.region is {params.region!r}, and only a detector of faces is installed",
            "set detail.region to face, or paint the part white in a mask and run inpaint",
        )
    if params.restore_faces:
        raise DependencyMissingError(
            "detail.restore_faces is true, and no network that restores faces (GFPGAN, "
            "CodeFormer) is installed",
            "set detail.restore_faces to false",
        )
