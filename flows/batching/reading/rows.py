"""A request as it stands in a file, and what a file may hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from safelight.errors import InvalidFieldValueError, PipelineError

LARGEST_FILE = 32 * 2**20
"""Bytes of a request file; pictures are named in it, not contained."""
LONGEST_LINE = 2**20
"""Characters of one request."""
FILE_NAME = "file_name"
"""What tables of pictures call the picture of a row; in JSON lines, it names the request."""
LONGEST_NAME = 4096
"""Characters of it."""


class BadRequestError(InvalidFieldValueError):
    """A request of a file cannot be read."""


@dataclass(frozen=True)
class Row:
    """One request as it was written."""

    where: str
    """`line 3`, `row 3`, `request 3`, `cell 3` or the name of a file: how an error names it."""
    values: Mapping[str, JsonValue]
    """Parameters by name."""
    place: tuple[int, ...] = ()
    """In a grid: position on each axis."""
    text: bool = False
    """From a table: every value is text, which the field's own type gives a meaning."""


def all_refused(refused: Sequence[tuple[str, PipelineError]]) -> PipelineError:
    """The first of several refusals, which names the others.

    Args:
        refused: what each is of, and why; at least one.
    """
    (_, first), *others = refused
    if not others:
        return first
    named = ", ".join(name for name, _ in others[:10])
    more = f" and {len(others) - 10} more" if len(others) > 10 else ""
    return type(first)(f"{first.problem}; also refused: {named}{more}", first.remedy)
