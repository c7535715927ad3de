"""Mouths that move to a sound: a part of `safelight.engines.interface`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from safelight.engines.interface import Engine, Request

Fidelity = Literal["standard", "high", "ultra"]


@dataclass(frozen=True)
class Written:
    """A file that an engine wrote."""

    path: Path
    """Where it is."""
    cost_usd: float = 0.0
    """What was charged for it."""


@runtime_checkable
class SyncsLips(Engine, Protocol):
    """Lip synchronisation."""

    def sync_lips(
        self, request: "LipsyncRequest", video: Path, sound: Path, job: str, folder: Path
    ) -> Written:
        """Move the mouth of whoever speaks.

        Args:
            request: how.
            video: MP4, WebM or MKV.
            sound: WAV, MP3, M4A, FLAC or Ogg.
            job: names this work: what was begun under the same name is gone on with.
            folder: an empty one, for the result.

        Returns:
            A video of the same rate; of its own sound nothing is taken.
        """
        ...


@dataclass(frozen=True)
class LipsyncRequest(Request):
    """A mouth that follows a sound."""

    capability: ClassVar[type] = SyncsLips
    fidelity: Fidelity = "standard"
    """How much work goes into it."""
    model: str | None = None
    """Its name; None is the engine's own choice."""
