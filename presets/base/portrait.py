"""What the portrait presets have in common."""

from collections.abc import Mapping
from typing import ClassVar

from presets.base.preset import K, Knobs
from safelight.params import Params
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


SWITCHES: dict[str, tuple[str, Params]] = {
    "use_facedetailer": ("detail", DETAIL_FACES),
    "use_upscale": ("upscale", UPSCALE_TWICE),
}
"""Parameter of a flow that switches a step on or off, the step, and how it is tuned."""


def with_switched(knobs: K, on: Mapping[str, object]) -> K:
    """Knobs with the steps that are switched on, and without those that are off.

    Args:
        knobs: of a level; those without such steps stay as they are.
        on: value of each switch; what is neither true nor false leaves its step to the level.
    """
    changed: dict[str, object] = {}
    for switch, (step, tuned) in SWITCHES.items():
        value = on.get(switch)
        if isinstance(value, bool) and step in type(knobs).model_fields:
            changed[step] = (getattr(knobs, step) or tuned) if value else None
    return knobs.model_copy(update=changed)
