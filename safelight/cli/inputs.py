"""From what was typed to the parameters of a flow."""

import json
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.store.uploads import upload_local

MEDIA_OPTIONS = frozenset({"image", "mask", "video", "audio", "identity_reference"})
"""Options that name files; a file on this machine is put into the store first."""


def parse_options(words: list[str]) -> dict[str, JsonValue]:
    """`--key value`, `--key=value` and bare `--flag` as flow parameters.

    Text stays text, the flow's own types decide what it means; only values that start with { or [
    are read as JSON. Dashes inside names become underscores.

    Raises:
        InvalidFieldValueError: a word that is no option, an option given twice, broken JSON.
    """
    parsed: dict[str, JsonValue] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise InvalidFieldValueError(
                f"found {word!r} where an option was expected", "write --name value"
            )
        name, has_value, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in parsed:
            raise InvalidFieldValueError(f"--{name} is given twice", "give it once")
        if not has_value and rest and not rest[0].startswith("--"):
            has_value, value = "=", rest.pop(0)
        parsed[name] = _value(name, value) if has_value else True
    return parsed


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
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def upload(file: Path) -> str:
    """Put a file of this machine into the store; its `store:` link.

    Raises:
        PipelineError: there is no such file, or it holds no picture, video or sound.
    """
    return upload_local(file)


def _value(name: str, text: str) -> JsonValue:
    if name in MEDIA_OPTIONS and Path(text).is_file():
        return upload(Path(text))
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidFieldValueError(
            f"--{name} is {text!r}, which is not JSON: {error}", f"correct --{name}"
        ) from error
