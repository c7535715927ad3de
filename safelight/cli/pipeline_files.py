"""Pipeline files: JSON or YAML, and the line that a problem stands on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from safelight.cli.inputs import read_json
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.plain_yaml import PlainLoader, plain_yaml

LARGEST_PIPELINE = 2**20
"""Bytes of a pipeline file."""
ENDINGS = (".yaml", ".yml")


def read_pipeline(file: Path) -> dict[str, Any]:
    """A pipeline file.

    Raises:
        MissingFileError: there is none.
        InvalidFieldValueError: it is no JSON or YAML object, or too large for one.
    """
    return pipeline_in(pipeline_text(file), file)


def pipeline_in(data: bytes, file: Path) -> dict[str, Any]:
    """What the bytes of a pipeline file say.

    Raises:
        InvalidFieldValueError: it is no JSON or YAML object.
    """
    found = plain_yaml(data, str(file)) if is_yaml(file) else _json(data, file)
    if not isinstance(found, dict):
        raise InvalidFieldValueError(
            f"{file} is not a JSON object with stages", 'write {"stages": [...]} into it'
        )
    return cast("dict[str, Any]", found)


def _json(data: bytes, file: Path) -> object:
    try:
        return read_json(data, str(file))
    except InvalidFieldValueError as error:
        broken = error.__cause__
        if not isinstance(broken, json.JSONDecodeError):
            raise
        raise InvalidFieldValueError(
            f"{file}:{broken.lineno} is not JSON: {broken.msg} at character {broken.colno}",
            f"correct {file}",
        ) from broken


def start_of(file: Path, most: int) -> bytes:
    """The first bytes of a file on this machine.

    Raises:
        MissingFileError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise MissingFileError(
            f"{file} cannot be read: {error.strerror}", "correct the path or its rights"
        ) from error


def pipeline_text(file: Path) -> bytes:
    """The bytes of a pipeline file.

    Raises:
        MissingFileError: there is none.
        InvalidFieldValueError: it is too large for one.
    """
    if not is_file(str(file)):
        what = "is a folder, no" if file.is_dir() else "is no"
        raise MissingFileError(f"{file} {what} pipeline file", "correct the path")
    data = start_of(file, LARGEST_PIPELINE + 1)
    if len(data) > LARGEST_PIPELINE:
        raise InvalidFieldValueError(
            f"{file} has more than {LARGEST_PIPELINE} bytes, too many for a pipeline",
            "name a pipeline file",
        )
    return data


def line_of(data: bytes, path: Sequence[str | int]) -> int | None:
    """The line of a value, from 1, or of the nearest value around it that is there.

    Args:
        data: of a pipeline file that could be read; JSON is YAML too, but for tabs.
        path: names and places from the outside in.
    """
    try:
        node: Any = yaml.compose(data.replace(b"\t", b" "), Loader=PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    line = None
    for step in (None, *path):
        if step is None:
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            held = next(((key, value) for key, value in node.value if key.value == step), None)
            if held is None:
                break
            line, node = held[0].start_mark.line + 1, held[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                break
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def is_yaml(file: Path) -> bool:
    """Whether a file says by its name that it is YAML."""
    return file.suffix.lower() in ENDINGS


def is_file(text: str) -> bool:
    """Whether a word names a file."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
