"""What the portrait presets have in common."""

from typing import ClassVar

from presets.base.preset import Knobs
from tasks.detail import DetailParams
from tasks.generate import GenerateParams
from tasks.upscale import UpscaleParams

UPRIGHT = (2, 3)
"""Width to height of a classic portrait print; square models draw it without doubling heads."""
NEGATIVE = (
    "plastic skin, airbrushed, waxy, doll, oversaturated, extra fingers, deformed hands, "
    "cross-eyed, watermark, text"
)
"""The usual faults of photographic models, named so that guidance leads away from them."""
DETAIL_FACES = DetailParams(
    region="face",
    confidence=0.9,  # below, patterned cloth is taken for faces
    padding=0.35,  # hair and chin belong to the crop, so that the blend lies on calm areas
    strength=0.35,  # sharpens eyes and teeth; from 0.45 on it becomes another person
)
"""A second look at faces, which are small in an upright frame and come out soft."""
UPSCALE_TWICE = UpscaleParams(upscale_factor=2)
"""Print size without invented texture."""


class PortraitKnobs(Knobs):
    """Every knob of a portrait from a prompt, by step."""

    redraws: ClassVar[bool] = True
    aspect: tuple[int, int] = UPRIGHT
    """Width to height; the pixels follow from the model, unless an override gives them."""
    generate: GenerateParams
    """The drawing itself."""
    detail: DetailParams | None = None
    """Faces drawn again at the model's full resolution."""
    upscale: UpscaleParams | None = None
    """The picture enlarged."""
