"""Looking at pictures that are finished: a part of `safelight.engines.interface`."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from safelight.engines.interface import Engine, Face, Request
from safelight.pixels import Floats, Pixels


@runtime_checkable
class JudgesSafety(Engine, Protocol):
    """Tells pictures that are not for everybody."""

    def is_unsafe(self, request: "SafetyRequest", image: Pixels) -> bool:
        """Whether (H, W, 3) uint8 sRGB shows what its checker was made to find."""
        ...


@runtime_checkable
class KnowsFaces(Engine, Protocol):
    """Tells whose face it is."""

    def embed_face(self, request: "EmbedRequest", image: Pixels, face: Face) -> Floats:
        """A vector of length 1; that of the same person points the same way.

        Args:
            request: by which model.
            image: (H, W, 3) uint8 sRGB.
            face: where it is.
        """
        ...


@dataclass(frozen=True)
class SafetyRequest(Request):
    """Whether a picture is for everybody."""

    capability: ClassVar[type] = JudgesSafety
    model: str | None = None
    """Name of a checker; None is the engine's own choice."""


@dataclass(frozen=True)
class EmbedRequest(Request):
    """Whose face it is."""

    capability: ClassVar[type] = KnowsFaces
    model: str | None = None
    """Its name; None is the engine's own choice."""
