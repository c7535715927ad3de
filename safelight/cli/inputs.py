"""From what was typed to the parameters of a flow."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from safelight.client.contracts import Described, option, types
from safelight.errors import (
    InvalidFieldValueError,
    MissingFileError,
    MissingRequiredFieldError,
)
from safelight.store.artifact import MediaKind
from safelight.store.inputs import allowed_file, upload_local
from safelight.store.store import SCHEME

MEDIA_OPTIONS: Mapping[str, tuple[MediaKind, ...]] = {
    "image": ("image",),
    "picture": ("image",),
    "mask": ("image",),
    "video": ("video",),
    "audio": ("audio",),
    "pictures": ("image", "video"),
    "identity_reference": ("image",),
    "references": ("image",),
    "product_image": ("image",),
}
"""Options that name files, or lists of them; a file on this machine is put into the store first."""
ENDINGS: Mapping[str, tuple[MediaKind, ...]] = {
    "_image": ("image",),
    "_video": ("video",),
    "_audio": ("audio",),
}
"""How options of workflows end that name files."""
NOTHING: Described = {}
SWITCHES = ("true", "false", "yes", "no", "on", "off", "1", "0")
STRUCTURES = frozenset({"object", "array"})


def is_switch(part: Mapping[str, Any]) -> bool:
    """Whether an option may stand without a value."""
    return types(part) == frozenset({"boolean"})


def parse_options(words: list[str], described: Described = NOTHING) -> dict[str, JsonValue]:
    """`--key value`, `--key=value` and bare `--flag` as flow parameters.

    Text stays text, the flow's own types decide what it means: only what takes lists or objects
    and no text is read as JSON, and a list in brackets where text would do. Dashes inside names
    become underscores, but not in the name of a stage before a dot.

    Args:
        words: as they were typed.
        described: the parameters that there are.

    Raises:
        InvalidFieldValueError: a word that is no option, an option given twice, broken JSON.
        MissingRequiredFieldError: an option that is no switch has no value.
    """
    parsed: dict[str, JsonValue] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise InvalidFieldValueError(
                f"found {word[:80]!r} where an option was expected",
                "write --name value, and put quotes around text with spaces",
            )
        name, has_value, value = word[2:].partition("=")
        name = parameter(name)
        if name in parsed:
            raise InvalidFieldValueError(f"{option(name)} is given twice", "give it once")
        part = described.get(name, {})
        if not has_value and takes_next(rest, part):
            has_value, value = "=", rest.pop(0)
        if has_value:
            parsed[name] = _structured(name, value) if _is_json(value, part) else value
        elif part and not is_switch(part):
            raise MissingRequiredFieldError(
                f"{option(name)} has no value", f"write {option(name)} VALUE"
            )
        else:
            parsed[name] = True
    return typed(parsed, {"properties": dict(described)})  # a choice of numbers takes no text


def _is_json(value: str, part: Mapping[str, Any]) -> bool:
    """Whether a value is a list or an object in JSON: also a list where text would do."""
    takes = types(part)
    return takes <= STRUCTURES or ("array" in takes and value.lstrip().startswith("["))


def parameter(name: str) -> str:
    """The parameter that an option names."""
    owner, dot, field = name.rpartition(".")
    return f"{owner}{dot}{field.replace('-', '_')}"


def takes_next(rest: list[str], part: Mapping[str, Any]) -> bool:
    """Whether the next word is the value of an option without `=`."""
    if not rest or rest[0].startswith("--"):
        return False
    return not (part and is_switch(part)) or rest[0].lower() in SWITCHES


def offered(**values: JsonValue) -> dict[str, JsonValue]:
    """The options that were given; the others keep the flow's defaults."""
    return {name: value for name, value in values.items() if value is not None}


def typed(parameters: dict[str, JsonValue], schema: dict[str, Any]) -> dict[str, JsonValue]:
    """Turn text into numbers and switches where a flow's JSON schema takes no text.

    Args:
        parameters: as `parse_options` gives them.
        schema: of the flow's parameters.

    Returns:
        The same with `"7"` as 7; what is no JSON stays as it is, for the server to refuse.
    """
    described = schema.get("properties", {})
    return {name: _typed(value, described.get(name, {})) for name, value in parameters.items()}


def _typed(value: JsonValue, described: dict[str, Any]) -> JsonValue:
    kinds = {kind.get("type") for kind in described.get("anyOf", [described])}
    if not isinstance(value, str) or not kinds <= {"integer", "number", "boolean", "null"}:
        return value
    if "boolean" in kinds and value.lower() in SWITCHES:
        return SWITCHES.index(value.lower()) % 2 == 0
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def local(file: Path) -> str:
    """A file that an argument names, as a parameter.

    Raises:
        MissingFileError: there is none on this machine.
    """
    if not _is_file(str(file)):
        is_folder = os.path.isdir(file)
        what = f"{file} is a folder, no file" if is_folder else f"there is no file {file}"
        raise MissingFileError(f"{what} (looked in {Path.cwd()})", "correct the path")
    return str(file.absolute())


def media_kinds(name: str) -> tuple[MediaKind, ...]:
    """What the file may hold that an option names; nothing where it names none."""
    ending = next((kinds for end, kinds in ENDINGS.items() if name.endswith(end)), ())
    return MEDIA_OPTIONS.get(name, ending)


def given_file(parameters: Mapping[str, JsonValue]) -> str:
    """Name of the one file that a run works on, as it was typed; empty where none is."""
    names = (parameters.get(name) for name in ("image", "video"))
    found = next((name for name in names if isinstance(name, str)), "")
    return "" if found.startswith(SCHEME) else Path(found).name


def uploaded(parameters: dict[str, JsonValue], *, here: bool) -> dict[str, JsonValue]:
    """The parameters with the files of this machine put into the store.

    Args:
        parameters: checked ones.
        here: the run reads files on this machine, so that a missing one is refused at once.

    Raises:
        PipelineError: a file is missing, or not what its option takes.
    """
    found = dict(parameters)
    for name, value in parameters.items():
        kinds = media_kinds(name)
        if not kinds:
            continue
        if isinstance(value, list):
            found[name] = [_uploaded(item, kinds, here=here) for item in value]
        else:
            found[name] = _uploaded(value, kinds, here=here)
    return found


def _uploaded(value: JsonValue, kinds: tuple[MediaKind, ...], *, here: bool) -> JsonValue:
    if not isinstance(value, str) or value.startswith(SCHEME):
        return value
    if _is_file(value):
        return upload_local(Path(value), kinds)
    if here:
        allowed_file(value)
    return value


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # characters of no file, or too many
        return False


def read_json(text: str | bytes, where: str) -> JsonValue:
    """A JSON value in which nothing is given twice and all numbers are finite.

    Raises:
        InvalidFieldValueError: it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        said = text if isinstance(text, str) else text.decode(errors="replace")
        shown = repr(said[:80]) + ("..." if len(said) > 80 else "")
        raise InvalidFieldValueError(
            f"{where} is {shown}, which is not JSON: {str(error)[:200]}", f"correct {where}"
        ) from error


def _structured(name: str, text: str) -> JsonValue:
    return read_json(text, option(name))


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice")
    return dict(pairs)


def _no_number(text: str) -> JsonValue:
    raise ValueError(f"{text} is no number")
