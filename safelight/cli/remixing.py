"""Reads how a picture was made before it is drawn again."""

from pathlib import Path

from pydantic import JsonValue

from safelight.cli.inputs import parse_options
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.client.contracts import contract
from safelight.provenance.remixing.reading import understand
from safelight.provenance.remixing.understood import Understood


def read_changes(
    file: Path, words: list[str], *, show: bool, as_json: bool
) -> dict[str, JsonValue]:
    """What replaces values of a picture's file; says what was understood of it.

    Args:
        file: the picture.
        words: options of `generate`.
        show: nothing is run after it, so that values may be missing.
        as_json: print nothing but, where nothing is run, one JSON object.

    Raises:
        PipelineError: the file says nothing, or `generate` would refuse what it says.
    """
    known = contract("generate")
    changes = parse_options(words, known.described)
    known.check(changes, partly=True)
    found = understand(file)
    if not as_json:
        show_understood(found)
    elif show:
        show_json(found.model_dump(mode="json"))
    if not show:
        given = {name: value for name, value in found.parameters.items() if name in known.described}
        known.check({**given, **changes})
    return changes


def show_understood(found: Understood) -> None:
    """How a picture was made, and what takes no part."""
    show_line(f"made by {found.tool}")
    taken = [(name, str(value), "") for name, value in found.parameters.items()]
    if found.hires is not None:
        told = found.hires.model_dump(exclude_defaults=True)
        taken.append(("hires", ", ".join(f"{name} {value}" for name, value in told.items()), ""))
    left = [("", "", text) for text in found.left]
    show_rows(("value", "taken", "left"), [*taken, *left])
