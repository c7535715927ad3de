"""Videos of a prompt: a part of `safelight.engines.interface`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from safelight.engines.interface import DrawRequest, Engine, Request
from safelight.engines.results import Clip
from safelight.media.camera import Camera
from safelight.pixels import Pixels


@runtime_checkable
class Films(Engine, Protocol):
    """Text to video."""

    def film(self, request: "FilmRequest", draw: Callable[[], Pixels]) -> Clip:
        """Make at least as many seconds as asked for.

        Args:
            request: what.
            draw: has the picture of the request drawn, (H, W, 3) uint8 sRGB; for engines that can
                only move one.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FilmRequest(Request):
    """A short video of a prompt."""

    capability: ClassVar[type] = Films
    still: DrawRequest
    """Prompt, seed, steps and size; its picture for engines that move one."""
    seconds: float
    """How long it is."""
    fps: int
    """Rate of the result; where an engine gives fewer frames the others are interpolated."""
    motion: float = 0.5
    """0 to 1, how much moves."""
    camera: Camera = "zoom_in"
    """For engines that can only move a camera."""
    model: str | None = None
    """Name of a video model; None is the engine's own choice."""
