"""Parts of people found and mended: a part of `safelight.engines.interface`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from safelight.engines.interface import Engine, Request
from safelight.engines.results import Face
from safelight.pixels import Pixels


@dataclass(frozen=True)
class Part:
    """Something found, in pixels of the picture; the box may reach beyond it."""

    left: float
    """First column."""
    top: float
    """First row."""
    right: float
    """Where it ends."""
    bottom: float
    """Where it ends."""
    confidence: float
    """0 to 1."""


class Hand(Part):
    """One hand."""


class Person(Part):
    """As much of a person as is seen; as sure as the face is."""


@runtime_checkable
class FindsHands(Engine, Protocol):
    """Hand detection."""

    def find_hands(self, request: "HandRequest", image: Pixels) -> tuple[Hand, ...]:
        """All hands of (H, W, 3) uint8 sRGB, from left to right."""
        ...


@runtime_checkable
class FindsPeople(Engine, Protocol):
    """Detection of people whose faces are known."""

    def find_people(
        self, request: "PersonRequest", image: Pixels, faces: Sequence[Face]
    ) -> tuple[Person, ...]:
        """All people of (H, W, 3) uint8 sRGB to whom these faces belong, from left to right."""
        ...


@runtime_checkable
class RestoresFaces(Engine, Protocol):
    """Face restoration."""

    def restore_face(self, request: "RestoreRequest", face: Pixels) -> Pixels:
        """One face, upright and cut out as `safelight.media.aligning` does, as (512, 512, 3)."""
        ...


@dataclass(frozen=True)
class HandRequest(Request):
    """The hands of a picture."""

    capability: ClassVar[type] = FindsHands
    confidence: float
    """Score, 0 to 1, from which something counts as a hand."""


@dataclass(frozen=True)
class PersonRequest(Request):
    """The people of a picture."""

    capability: ClassVar[type] = FindsPeople


@dataclass(frozen=True)
class RestoreRequest(Request):
    """Faces mended by a network that was made for that."""

    capability: ClassVar[type] = RestoresFaces
    model: str | None = None
    """Its name; None takes the first there is."""
