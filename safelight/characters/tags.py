"""Which character a run shows or learns: a tag of the run, by which its runs are found."""

from collections.abc import Iterable, Mapping

from safelight.characters.keeping import find
from safelight.errors import MissingFileError

TAG = "character:"
PARAMETER = "character"
"""By which flows take one, by name or id."""


def tag_of(character_id: str) -> str:
    """The tag of runs of a character."""
    return TAG + character_id


def character_tags(parameters: Mapping[str, object]) -> list[str]:
    """The tag of the character that parameters name; none where there is no such character."""
    named = parameters.get(PARAMETER)
    if not isinstance(named, str):
        return []
    try:
        return [tag_of(find(named).id)]
    except MissingFileError:  # the run itself says so
        return []


def character_in(tags: Iterable[str]) -> str | None:
    """Id of the character that a run's tags name."""
    return next((tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)), None)
