"""The requests of a batch: read from a file, a list or a grid, and all checked before any runs."""

import csv
import hashlib
import importlib
import json
import math
import os
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

from pydantic import BaseModel, JsonValue, ValidationError

import flows
from flows.running.recorded import RecordedFlow
from flows.running.signature import parameters_model
from safelight.errors import (
    ContractMismatchError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingRequiredFieldError,
    PipelineError,
)
from safelight.params import refusal, refuse_unkept
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import disk_errors
from safelight.store.inputs import open_allowed
from safelight.store.store import SCHEME, current_store

MOST_REQUESTS = 2000
"""Each becomes a flow run and a row of a table that people look at."""
LARGEST_FILE = 32 * 2**20
"""Bytes of a request file; pictures are named in it, not contained."""
MOST_BYTES = 512 * 1024
"""Of a request's parameters as JSON: a Prefect server takes no more."""
LONGEST_LINE = 2**20
"""Characters of one request."""
_STORED = re.compile(r"store:(?:outputs|uploads)/[0-9a-f]{2}/([0-9a-f]{64})\.[a-z0-9]+")
NOT_FOR_BATCHES = ("batch", "shard")


class BadRequestError(InvalidFieldValueError):
    """A request of a file cannot be read."""


@dataclass(frozen=True)
class Row:
    """One request as it was written."""

    where: str
    """`line 3`, `request 3` or `cell 3`: how an error names it."""
    values: dict[str, JsonValue]
    """Parameters by name."""
    place: tuple[int, ...] = ()
    """In a grid: position on each axis."""
    text: bool = False
    """From a table: every value is text, which the field's own type gives a meaning."""


@dataclass(frozen=True)
class Request:
    """One request that the target flow has accepted."""

    number: int
    """From 1, in the order of the file or grid."""
    where: str
    """How an error names it."""
    parameters: dict[str, JsonValue]
    """As the run gets them."""
    digest: str
    """Of flow and parameters, the same wherever the request stands."""
    occurrence: int
    """How many equal requests stand before it."""
    place: tuple[int, ...] = field(default=())
    """In a grid: position on each axis."""

    @property
    def identity(self) -> str:
        """Names the request within its batch, also after others were added or removed."""
        return f"{self.digest[:24]}-{self.occurrence}"


def target_names() -> tuple[str, ...]:
    """Names of all flows that a batch can run."""
    names = (module.name for module in pkgutil.iter_modules(flows.__path__))
    return tuple(sorted(name for name in names if _flow_in(name) is not None))


def find_target(name: str) -> RecordedFlow[...]:
    """The flow of that name.

    Raises:
        ContractMismatchError: there is none, or it is the batch itself.
    """
    known = name in {module.name for module in pkgutil.iter_modules(flows.__path__)}
    found = _flow_in(name) if known else None
    if found is None:
        raise ContractMismatchError(
            f"flow is {name!r}; a batch can run {', '.join(target_names())}", "correct flow"
        )
    return found


def _flow_in(name: str) -> RecordedFlow[...] | None:
    if name in NOT_FOR_BATCHES:
        return None
    found = getattr(importlib.import_module(f"flows.{name}"), name, None)
    return found if isinstance(found, RecordedFlow) else None


def read_file(location: str) -> list[Row]:
    """The requests of a file: one JSON object a line, or a table with a header (CSV).

    Args:
        location: a file that inputs may come from, or the store: link of one.

    Raises:
        BadRequestError: not UTF-8, neither format, or a line that cannot be read.
        ForbiddenPathError: it lies where inputs may not come from.
        MissingFileError: there is none.
    """
    if location.startswith(SCHEME):
        named = _STORED.fullmatch(location)
        if named is None:
            raise ForbiddenPathError(
                f"file is {location[:200]!r}, no store: link of an upload or output",
                "pass the link of a stored file",
            )
        ref = ArtifactRef(uri=location, sha256=named[1], media_type="text/plain", bytes=0)
        path = current_store().fetch(ref)
        with disk_errors(path), path.open("rb") as opened:
            return parse(opened.read(LARGEST_FILE + 1))
    with open_allowed(location) as (handle, path), os.fdopen(os.dup(handle), "rb") as opened:
        with disk_errors(path):
            data = opened.read(LARGEST_FILE + 1)
    return parse(data)


def parse(data: bytes) -> list[Row]:
    """The requests in the bytes of a file; its first character tells JSON lines from a table.

    Raises:
        BadRequestError: as `read_file` says.
    """
    if len(data) > LARGEST_FILE:
        raise BadRequestError(
            f"the file has more than {LARGEST_FILE} bytes", "split it into several batches"
        )
    text = _decoded(data)
    start = text.lstrip()[:1]
    if not start:
        raise BadRequestError(
            "the file holds no request", 'write one {"parameter": value} a line, or a table'
        )
    if start == "[":
        raise BadRequestError(
            "line 1 starts with [: a JSON list", "write one object a line, without the list"
        )
    rows = list(_json_lines(text) if start == "{" else _table(text))
    if not rows:
        raise BadRequestError("the table has a header and no row", "add a row for each request")
    return rows


def listed(values: Sequence[Mapping[str, JsonValue]]) -> list[Row]:
    """Requests that the caller gave as a list."""
    return [Row(f"request {n}", dict(given)) for n, given in enumerate(values, 1)]


def grid_rows(grid: Mapping[str, Sequence[JsonValue]]) -> list[Row]:
    """Every combination of the values on each axis, the last axis changing fastest.

    Raises:
        InvalidFieldValueError: no axis, an axis without values, or too many combinations.
    """
    if not grid:
        raise InvalidFieldValueError("grid has no axis", "give grid at least one list of values")
    for name, values in grid.items():
        if not values:
            raise InvalidFieldValueError(f"grid.{name} is empty", f"give grid.{name} a value")
    _check_count(math.prod(len(values) for values in grid.values()))
    places = product(*(range(len(values)) for values in grid.values()))
    return [
        Row(
            f"cell {number}",
            {name: grid[name][at] for name, at in zip(grid, place, strict=True)},
            place,
        )
        for number, place in enumerate(places, 1)
    ]


def check_requests(
    target: RecordedFlow[...], rows: Sequence[Row], shared: Mapping[str, JsonValue]
) -> list[Request]:
    """Check all requests with the target's own types, before any of them runs.

    Args:
        target: the flow that will run them.
        rows: the requests.
        shared: parameters of every request; a request's own win.

    Raises:
        PipelineError: what is wrong with the first bad request, by its line, and which others are.
    """
    _check_count(len(rows))
    model = parameters_model(target.fn)
    textual = _textual_fields(model)
    seen: Counter[str] = Counter()
    requests: list[Request] = []
    refused: list[tuple[Row, PipelineError]] = []
    for number, row in enumerate(rows, 1):
        try:
            own = _meant(row, textual) if row.text else row.values
            parameters = _accepted(model, {**shared, **own}, f"{row.where}: {target.name}")
        except PipelineError as error:
            refused.append((row, error))
            continue
        digest = _digest(target.name, parameters)
        requests.append(Request(number, row.where, parameters, digest, seen[digest], row.place))
        seen[digest] += 1
    if refused:
        raise _all_refused(refused)
    return requests


def batch_digest(requests: Sequence[Request]) -> str:
    """Names a batch by what it asks for; the order of its requests does not matter."""
    together = "\n".join(sorted(request.identity for request in requests))
    return hashlib.sha256(together.encode()).hexdigest()[:24]


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_REQUESTS:
        raise InvalidFieldValueError(
            f"the batch has {count} requests, expected 1 to {MOST_REQUESTS}",
            "split it into several batches" if count else "give it a request",
        )


def _accepted(
    model: type[BaseModel], values: Mapping[str, JsonValue], where: str
) -> dict[str, JsonValue]:
    try:
        filled = model.model_validate(dict(values))
    except ValidationError as error:
        raise refusal(error, where) from error
    parameters = filled.model_dump(mode="json", exclude_unset=True)
    refuse_unkept(parameters, where)
    size = len(json.dumps(parameters))
    if size > MOST_BYTES:
        raise InvalidFieldValueError(
            f"{where}: its parameters have {size} bytes, at most {MOST_BYTES} are kept",
            "shorten them",
        )
    return parameters


def _all_refused(refused: list[tuple[Row, PipelineError]]) -> PipelineError:
    (_, first), *others = refused
    if not others:
        return first
    named = ", ".join(row.where for row, _ in others[:10])
    more = f" and {len(others) - 10} more" if len(others) > 10 else ""
    return type(first)(f"{first.problem}; also refused: {named}{more}", first.remedy)


def _digest(flow: str, parameters: Mapping[str, JsonValue]) -> str:
    canonical = json.dumps([flow, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRequestError(
            f"line {line}: byte {data[error.start]:#04x} is not UTF-8", "save the file as UTF-8"
        ) from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise BadRequestError(
                f"line {number} has {len(line)} characters, at most {LONGEST_LINE} are read",
                f"shorten line {number}",
            )
        yield number, line


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in _lines(text):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_once_each, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(
                f"{where} is not JSON: {str(error)[:200]}", f"correct {where}"
            ) from error
        if not isinstance(value, dict):
            raise BadRequestError(
                f"{where} is {type(value).__name__}, expected an object",
                f'write {where} as {{"parameter": value}}',
            )
        yield Row(where, cast("dict[str, JsonValue]", value))


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"field {twice} is given twice")
    return named


def _no_number(text: str) -> JsonValue:
    raise ValueError(f"{text} is no number")


def _table(text: str) -> Iterator[Row]:
    lines = (line + "\n" for _, line in _lines(text))
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            where, before = f"line {before + 1}", reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, where)
                continue
            if len(cells) != len(header):
                raise BadRequestError(
                    f"{where} has {len(cells)} cells, the header {len(header)}",
                    f"correct {where}; put text that holds a comma into quotes",
                )
            given = zip(header, cells, strict=True)
            yield Row(where, {name: cell for name, cell in given if cell != ""}, text=True)
    except csv.Error as error:
        raise BadRequestError(
            f"line {before + 1} is no row of a table: {error}", f"correct line {before + 1}"
        ) from error


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name, count in Counter(names).items():
        if not name:
            raise MissingRequiredFieldError(
                f"{where}: a column has no name", "name every column after a parameter"
            )
        if count > 1:
            raise ContractMismatchError(
                f"{where}: column {name} is there {count} times", f"keep one column {name}"
            )
    return names


def _meant(row: Row, textual: frozenset[str]) -> dict[str, JsonValue]:
    """Cells of fields that take no text may hold JSON lists and objects."""
    return {
        name: _structured(row.where, name, cast(str, cell)) if name not in textual else cell
        for name, cell in row.values.items()
    }


def _structured(where: str, name: str, cell: str) -> JsonValue:
    if cell[:1] not in ("{", "["):
        return cell
    try:
        return json.loads(cell, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            f"{where}: field {name} is not JSON: {str(error)[:200]}", f"correct {name}"
        ) from error


def _textual_fields(model: type[BaseModel]) -> frozenset[str]:
    properties = cast("dict[str, dict[str, Any]]", model.model_json_schema().get("properties", {}))
    return frozenset(
        name
        for name, schema in properties.items()
        if any(part.get("type") == "string" for part in (schema, *schema.get("anyOf", ())))
    )
