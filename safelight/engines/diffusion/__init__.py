"""Text-to-image models through diffusers: the engine, and what is asked of it."""

from safelight.engines.diffusion.drawing import (
    SCHEDULERS,
    AddOn,
    Drawing,
    Pixels,
    add_on,
    check_scheduler,
)
from safelight.engines.diffusion.engine import (
    Drawn,
    draw,
    draw_together,
    fill,
    identity,
    note_unknown_subject,
    preload,
    redraw,
)

__all__ = [
    "SCHEDULERS",
    "AddOn",
    "Drawing",
    "Drawn",
    "Pixels",
    "add_on",
    "check_scheduler",
    "draw",
    "draw_together",
    "fill",
    "identity",
    "note_unknown_subject",
    "preload",
    "redraw",
]
