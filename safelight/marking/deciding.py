"""Which files are signed; loads neither C2PA nor keys, which few processes need."""

from dataclasses import dataclass
from pathlib import Path

from safelight.provenance.record import FileRecord
from safelight.settings import settings

PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
SIGNED = PICTURES | {"video/mp4"}
"""Media types whose place for a manifest is used."""
DRAWS = ("creates", "redraws")


@dataclass(frozen=True)
class Source:
    """A file that a stage read."""

    sha256: str
    """Of its bytes."""
    media_type: str
    """What they are."""
    path: Path
    """Where they lie."""


def to_be_signed(record: FileRecord) -> bool:
    """Whether the settings want files with this record signed."""
    wanted = settings().marking
    if wanted == "off":
        return False
    return wanted == "all" or any(step.origin in DRAWS for step in (*record.history, record))
