"""Has models described in the confined process, many at a time."""

from collections.abc import Sequence

from pydantic import JsonValue

from safelight.confined.calling import call_confined
from safelight.errors import InvalidMediaError
from safelight.weights.describing import Described, described
from safelight.weights.scanning import Unit


def described_units(units: Sequence[Unit]) -> list[Described]:
    """What models say of themselves; of one that breaks what reads it, that it does."""
    if not units:
        return []
    try:
        return _asked(units)
    except InvalidMediaError as error:
        if len(units) == 1:
            return [Described(metadata={"problem": str(error)})]
        half = len(units) // 2  # one of them takes the others with it
        return [*described_units(units[:half]), *described_units(units[half:])]


def _asked(units: Sequence[Unit]) -> list[Described]:
    given: list[JsonValue] = [
        {"path": u.path, "folder": u.folder, "facts": u.facts, "preview": u.preview} for u in units
    ]
    name = units[0].path.rpartition("/")[2] if len(units) == 1 else f"one of {len(units)} models"
    found, _ = call_confined(described, given, name=name, file_bytes=0)
    return found
