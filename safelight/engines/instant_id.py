"""People drawn by InstantID: a part of `safelight.engines.interface`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from safelight.engines.interface import DrawRequest, Engine
from safelight.engines.results import Pictures
from safelight.pixels import Pixels


@runtime_checkable
class DrawsByInstantId(Engine, Protocol):
    """Text to image of a person, by the embedding and the key points of a face."""

    def draw_person(self, request: "InstantIdRequest", photographs: Sequence[Pixels]) -> Pictures:
        """Draw the person on photographs, (H, W, 3) uint8 sRGB; the pose is that of the first."""
        ...


@dataclass(frozen=True, kw_only=True)
class InstantIdRequest(DrawRequest):
    """Pictures of a person from a prompt."""

    capability: ClassVar[type] = DrawsByInstantId
    weight: float = 0.8
    """0 to 1, how strongly face and key points count."""
    adapter: str | None = None
    """Name of the InstantID model; None is the engine's own choice."""
