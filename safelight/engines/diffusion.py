"""Drawing with diffusers, for programs: the names of `safelight.engines.diffusers` in one place."""

from safelight.engines.diffusers.draw import (
    draw,
    fill,
    identity,
    note_unknown_subject,
    preload,
    redraw,
    sampler_of,
)
from safelight.engines.diffusers.drawing import AddOn, Drawing, add_on
from safelight.engines.diffusers.model import load_model as _load
from safelight.engines.diffusers.samplers import SAMPLERS, check_scheduler
from safelight.engines.diffusers.together import Drawn, Over, draw_together
from safelight.pixels import Pixels

__all__ = [
    "SAMPLERS",
    "AddOn",
    "Drawing",
    "Drawn",
    "Over",
    "Pixels",
    "_load",
    "add_on",
    "check_scheduler",
    "draw",
    "draw_together",
    "fill",
    "identity",
    "note_unknown_subject",
    "preload",
    "redraw",
    "sampler_of",
]
