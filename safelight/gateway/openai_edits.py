"""OpenAI's edits of pictures: a form with a picture, and a mask whose transparent part is drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import Field, JsonValue, ValidationError

from safelight.errors import InvalidFieldValueError, MissingRequiredFieldError
from safelight.gateway.finished import finished, keep_pixels
from safelight.gateway.forms import FORM, Form, read_form
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.openai_routes import (
    Pictures,
    Wanted,
    answered,
    as_parameters,
)
from safelight.gateway.problems import refused_request
from safelight.gateway.shared import Everything
from safelight.media.filling import on_black
from safelight.media.fitting import resized
from safelight.media.images import decode_still
from safelight.media.layers import on_white
from safelight.pixels import Pixels
from safelight.store.store import current_store

router = APIRouter(prefix="/v1", tags=["OpenAI"])
IMAGES = ("image", "image[]")
STRENGTH = 0.75
"""How much of a picture without a mask is drawn anew."""
MULTIPLE = 8
MOST = 4096
"""Pixels of a side."""
DONE_ANYWAY = {"input_fidelity": ("low",)}


class Edit(Wanted):
    """An edit that is asked for."""

    strength: float = Field(default=STRENGTH, ge=0, le=1)
    """Not of OpenAI: how much is drawn anew."""


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompt"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "prompt": {"type": "string"},
                        "model": {"type": "string"},
                        "n": {"type": "integer", "minimum": 1, "maximum": 10},
                        "size": {"type": "string"},
                        "response_format": {"enum": ["url", "b64_json"]},
                        "seed": {"type": "integer"},
                        "strength": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                }
            }
        },
    }
}


@router.post("/images/edits", openapi_extra=_BODY)
async def edit_picture(
    request: Request, shared: Everything, key: IdempotencyKey = None
) -> Pictures:
    """Draw over a picture, or over what its mask leaves open; answers when it is there."""
    with current_store().workspace() as folder:
        form = await read_form(request, Path(folder))
        wanted = wanted_in(form)
        flow, parameters, size = await run_sync(
            edit_of, wanted, _one_image(form), form.named("mask")
        )
    job, made = await finished(shared, flow, parameters, key)
    return await run_sync(answered, job, made, wanted, size, str(request.base_url))


def wanted_in(form: Form) -> Edit:
    """The fields of a form.

    Raises:
        PipelineError: one of them is wrong.
    """
    try:
        return Edit.model_validate(form.fields)
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise refused_request(found) from error


def _one_image(form: Form) -> Path:
    found = [path for name, path in form.files if name in IMAGES]
    if not found:
        raise MissingRequiredFieldError("image is missing", "add a picture to the form")
    if len(found) > 1:
        raise InvalidFieldValueError(
            f"image has {len(found)} pictures, expected 1", "send one, or use a pipeline"
        )
    return found[0]


def edit_of(wanted: Edit, image: Path, mask: Path | None) -> tuple[str, dict[str, JsonValue], str]:
    """Flow, parameters and size of an edit; its pictures are in the store.

    Raises:
        ContractMismatchError: a field asks for what is not done here.
        InvalidFieldValueError: the mask is of another size.
        InvalidMediaError: a file is no picture.
    """
    own = {**(wanted.model_extra or {})}
    for name, values in DONE_ANYWAY.items():
        if own.get(name) in values:
            del own[name]
    plain = wanted.model_copy()
    plain.__pydantic_extra__ = own
    found = as_parameters(plain)
    pixels = decode_still(image.read_bytes()).pixels
    if wanted.size in (None, "auto"):
        found |= _own_size(pixels)
    width, height = int(str(found.pop("width"))), int(str(found.pop("height")))
    opened = _open_part(pixels, None if mask is None else decode_still(mask.read_bytes()).pixels)
    sent = keep_pixels(resized(on_white(pixels), width, height))
    size = f"{width}x{height}"
    common: Mapping[str, JsonValue] = {**found, "image": sent}
    if opened is None:
        return "transform", {**common, "strength": wanted.strength}, size
    drawn = keep_pixels(resized(on_black(opened), width, height))
    return "inpaint", {**common, "mask": drawn, "strength": max(wanted.strength, STRENGTH)}, size


def _own_size(pixels: Pixels) -> dict[str, JsonValue]:
    """The size of a picture, or the next smaller that models draw."""
    height, width = pixels.shape[:2]
    scale = min(1.0, MOST / max(width, height))
    sides = (max(int(side * scale) // MULTIPLE * MULTIPLE, 64) for side in (width, height))
    return dict(zip(("width", "height"), sides, strict=True))


def _open_part(pixels: Pixels, mask: Pixels | None) -> Pixels | None:
    """White where a mask, else the picture itself, is transparent; None where neither is.

    Raises:
        InvalidFieldValueError: the mask is of another size, or wholly opaque.
    """
    if mask is not None and mask.shape[:2] != pixels.shape[:2]:
        raise InvalidFieldValueError(
            f"mask is {mask.shape[1]}x{mask.shape[0]}, the picture "
            f"{pixels.shape[1]}x{pixels.shape[0]}",
            "send a mask of the size of the picture",
        )
    shown = pixels if mask is None else mask
    clear = shown[..., 3] < 128 if shown.shape[2] == 4 else np.zeros(shown.shape[:2], bool)
    if not clear.any():
        if mask is None:
            return None
        raise InvalidFieldValueError(
            "mask is opaque everywhere", "make transparent what is to be drawn anew"
        )
    return np.repeat(np.where(clear, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
