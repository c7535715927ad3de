"""The detail stage: faces, hands or people drawn again at full resolution and blended back."""

from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

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
from safelight.engines.mending import (
    FindsHands,
    FindsPeople,
    HandRequest,
    Part,
    PersonRequest,
    RestoreRequest,
    RestoresFaces,
)
from safelight.engines.results import Face
from safelight.errors import MissingRequiredFieldError
from safelight.media.aligning import SIDE, cut_out, lay_back, scale_of, turning_of
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
NAMES = {"face": ("face", "faces"), "hand": ("hand", "hands"), "person": ("person", "people")}
"""Of one region, and of several."""
LARGEST_RESTORED = 2
"""A face is restored up to so many times what restorers make; larger ones would lose detail."""


class DetailParams(Params):
    """Which parts to draw again, and how freely."""

    region: Literal["face", "hand", "person"] = "face"
    """What to look for; people are found by their faces."""
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
    """Restore each face, after it was drawn, with a network made for that, such as GFPGAN."""
    restorer: str | None = None
    """Name of a file among the restorers in the models folder; None takes the first."""
    restore_weight: float = Field(default=1, ge=0, le=1)
    """How much of the restored face is seen."""

    reference: ReferenceUse | None = None
    """Pictures of the person whose face it is, so that drawing it again keeps who it is."""

    @model_validator(mode="after")
    def _restores_what_it_finds(self) -> Self:
        if self.restore_faces and self.region != "face":
            raise ValueError(
                f"restore_faces is true and region is {self.region}; set region to face, or "
                "restore_faces to false"
            )
        return self

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the reference pictures as links."""
        if self.reference is None:
            return self
        images = tuple(map(keep, self.reference.images))
        return self.but(reference=self.reference.but(images=images))

    @property
    def draws(self) -> bool:
        """Whether a denoising step is taken."""
        return int(self.steps * self.strength) >= 1

    @property
    def changes_nothing(self) -> bool:
        """Whether nothing is drawn and nothing restored."""
        return not self.draws and not (self.restore_faces and self.restore_weight)


def _needs(params: DetailParams, _: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    """A model, what finds the region, and where faces are restored a network for that."""
    drawing, finding = _drawing(params, params.seed), _finding(params)
    if not params.restore_faces:
        return drawing, *finding
    return drawing, *finding, RestoreRequest(params.restorer)


def _finding(params: DetailParams) -> tuple[Request, ...]:
    if params.region == "hand":
        return (HandRequest(params.confidence),)
    faces = FaceRequest(params.confidence)
    return (faces, PersonRequest()) if params.region == "person" else (faces,)


def _identity(params: DetailParams, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    """Detector, model and restorer together."""
    del params
    draws, *others = engines
    beside = "".join(f".{each.engine_id}{each.version}" for each in others)
    return EngineIdentity(
        engine_id=draws.engine_id,
        version=f"{draws.version}{beside}+{REVISION}",
        weights=(*draws.weights, *(each for other in others for each in other.weights)),
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
    """Find faces, hands or people in a picture, or each frame of a video, and draw each again.

    Args:
        picture: (H, W, 3) uint8 sRGB, or a video.
        params: what to look for, and how to draw it.

    Returns:
        A new artifact of the same size, equal to `picture` outside the squares around them;
        `picture` itself when none is drawn. Metadata `regions` says how many were found.

    Raises:
        DependencyMissingError: the detector, restorer or model asked for is not there.
        InvalidFieldValueError: the scheduler is not known, or the restorer restores no faces.
        MissingRequiredFieldError: some were found and there is no seed to draw them with.
        OutOfMemoryError: too little memory even with everything moved off the device.
    """
    if picture.kind == "video":
        return _video(picture, params)
    layers = load_layers(picture)
    image = layers.colours
    places = _places(image, params)
    note(_found(len(places), params))
    if not places or params.changes_nothing:
        return picture.described(regions=len(places))
    strength = texture_of(params.texture, picture) if params.draws else 0.0
    made = _mended(image, places, params, strength)
    if np.array_equal(made, image):
        return picture.described(regions=len(places))
    record = record_of(params.but(texture=strength), [picture])
    return keep_image(made, record, like=layers).described(regions=len(places))


def _video(video: ArtifactRef, params: DetailParams) -> ArtifactRef:
    """Each frame by itself, with the same noise, so that what stands still stays as it is."""
    if params.changes_nothing:
        note(f"{params.steps} steps at strength {params.strength:g} are none: it is unchanged")
        return video
    strength = texture_of(params.texture, video) if params.draws else 0.0
    total = video.frames or 1
    looked, shown = 0, 0

    def frame(image: Pixels, at: int) -> Pixels:
        nonlocal looked, shown
        places = _places(image, params)
        looked, shown = looked + 1, shown + bool(places)
        if not places:
            return image
        with part(min(at, total - 1), total):
            return _mended(image, places, params, strength)

    made = transformed(
        video,
        record_of(params.but(texture=strength), [video]),
        resuming(cache_key(detail, [video, params]), frame),
        lambda make, frames: (make(each, at) for at, each in enumerate(frames)),
    )
    note(f"a {params.region} in {shown} of the {looked} frames that were looked at")
    return made


def _places(image: Pixels, params: DetailParams) -> Sequence[Face | Part]:
    if params.region == "hand":
        return serving(FindsHands).find_hands(HandRequest(params.confidence), image)
    faces = serving(FindsFaces).find_faces(FaceRequest(params.confidence), image)
    if params.region == "face":
        return faces
    return serving(FindsPeople).find_people(PersonRequest(), image, faces)


def _mended(
    image: Pixels, places: Sequence[Face | Part], params: DetailParams, texture: float
) -> Pixels:
    """Drawn again, the texture that was there laid over it, and then restored."""
    made = image
    if params.draws:
        boxes = [Box(each.left, each.top, each.right, each.bottom) for each in places]
        made = with_fine_waves(image, _redrawn(image, boxes, params), texture)
    if params.restore_faces and params.restore_weight:
        faces = [each for each in places if isinstance(each, Face)]
        made = _restored(made, faces, params)
    return made


def _restored(image: Pixels, faces: Sequence[Face], params: DetailParams) -> Pixels:
    restores, request = serving(RestoresFaces), RestoreRequest(params.restorer)
    for index, face in enumerate(faces):
        turning = turning_of(face.landmarks)
        side = SIDE / scale_of(turning)
        if side > LARGEST_RESTORED * SIDE:
            note(f"face {index + 1} takes {side:.0f} px, restorers make {SIDE}: left as it is")
            continue
        mended = restores.restore_face(request, cut_out(image, turning))
        image = lay_back(image, mended, turning, params.restore_weight)
    return image


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
            f"detail: field seed is missing, and a {params.region} has to be drawn",
            "give seed a value",
        )
    return params.seed


def _found(count: int, params: DetailParams) -> str:
    one, several = NAMES[params.region]
    if not count:
        return f"no {one} found at confidence {params.confidence:g}"
    found = f"{count} {one if count == 1 else several} found"
    if params.draws:
        return found
    nothing = f"{found}; {params.steps} steps at strength {params.strength:g} are none: "
    return nothing + ("the picture is unchanged" if params.changes_nothing else "only restored")
