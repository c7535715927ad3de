"""Requests as JSON: one object a line, or one list of objects."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import JsonValue

from flows.batching.reading.rows import BadRequestError, Row
from flows.batching.reading.tables import lines_of


def value_of(text: str, where: str, remedy: str) -> JsonValue:
    """A JSON value, every field of it once and every number a finite one.

    Raises:
        BadRequestError: it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"{where} is not JSON: {str(error)[:200]}", remedy) from error


def json_lines(text: str) -> Iterator[Row]:
    """A request for each line that is not empty."""
    for number, line in lines_of(text):
        if line.strip():
            where = f"line {number}"
            yield _row(where, value_of(line, where, f"correct {where}"))


def json_list(text: str) -> list[Row]:
    """A request for each object of the list."""
    listed = value_of(text, "the list", "correct the file, or write one object a line")
    if not isinstance(listed, list):  # a `[` begins nothing else
        raise BadRequestError("the file is no JSON list", "write a list of objects")
    return [_row(f"request {number}", value) for number, value in enumerate(listed, 1)]


def _row(where: str, value: JsonValue) -> Row:
    if not isinstance(value, dict):
        raise BadRequestError(
            f"{where} is {type(value).__name__}, expected an object",
            f'write {where} as {{"parameter": value}}',
        )
    return Row(where, value)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"field {twice} is given twice")
    return named


def _no_number(text: str) -> JsonValue:
    raise ValueError(f"{text} is no number")
