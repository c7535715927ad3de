"""The requests of a file, whatever of the known formats it has."""

import os
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from flows.batching.reading.columns import known_among, plain, unknown
from flows.batching.reading.json_requests import json_lines, json_list
from flows.batching.reading.prompt_lines import prompt_rows
from flows.batching.reading.rows import (
    FILE_NAME,
    LARGEST_FILE,
    LONGEST_NAME,
    BadRequestError,
    Row,
)
from flows.batching.reading.sheets import sheet_requests
from flows.batching.reading.tables import declared_delimiter, header_of, table_rows
from safelight.errors import ForbiddenPathError, InvalidFieldValueError
from safelight.params import shown
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import disk_errors
from safelight.store.inputs import open_allowed
from safelight.store.store import SCHEME, current_store
from safelight.workbooks.sheets import workbook_type

_STORED = re.compile(r"store:(?:outputs|uploads)/[0-9a-f]{2}/([0-9a-f]{64})\.[a-z0-9]+")
NEARLY = 0.85
"""How alike a word and a parameter's name are at least, as `difflib` measures it."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_file(
    location: str, names: Collection[str] = (), sheet: str | None = None
) -> Iterator[Row]:
    """The requests of a file, as they are read; texts give one after the other.

    Args:
        location: a file that inputs may come from, or the store: link of one.
        names: as in `parse`.
        sheet: as in `parse`.

    Raises:
        ForbiddenPathError: it lies where inputs may not come from.
        MissingFileError: there is none.
        PipelineError: as `parse` says.
    """
    with opened_file(location) as (handle, path), os.fdopen(os.dup(handle), "rb") as opened:
        with disk_errors(path):
            content = [opened.read(LARGEST_FILE + 1)]
    return rows_in(content, names, sheet, is_text(path))


@contextmanager
def opened_file(location: str) -> Generator[tuple[int, Path]]:
    """A handle of a file of requests, and its path, for its name alone.

    Args:
        location: as in `read_file`.

    Raises:
        ForbiddenPathError: it lies where inputs may not come from.
        MissingFileError: there is none.
    """
    if not location.startswith(SCHEME):
        with open_allowed(location) as opened:
            yield opened
        return
    named = _STORED.fullmatch(location)
    if named is None:
        raise ForbiddenPathError(
            f"file is {location[:200]!r}, no store: link of an upload or output",
            "pass the link of a stored file",
        )
    ref = ArtifactRef(uri=location, sha256=named[1], media_type="text/plain", bytes=0)
    path = current_store().fetch(ref)
    with disk_errors(path):
        stored = path.open("rb")
    with stored:
        yield stored.fileno(), path


def is_text(path: Path) -> bool:
    """Whether a file is plain text by its name: its lines may be prompts.

    What is not named so may hold anything, such as keys, and is a table or refused.
    """
    return path.suffix.casefold() == ".txt"


def parse(
    data: bytes, names: Collection[str] = (), sheet: str | None = None, prompts: bool = False
) -> list[Row]:
    """All requests that `rows_in` finds in the bytes of a file.

    Raises:
        PipelineError: as it says.
    """
    return [*rows_in([data], names, sheet, prompts)]


def rows_in(
    content: list[bytes],
    names: Collection[str] = (),
    sheet: str | None = None,
    prompts: bool = False,
) -> Iterator[Row]:
    """The requests in the bytes of a file, which tell its format.

    A spreadsheet by its first bytes; JSON lines by `{`, a JSON list by `[`; plain text is a
    prompt a line, unless its first line names a parameter, or nearly so; all else is a table.

    Args:
        content: the whole file, which is taken out: once it is decoded, nothing keeps its bytes.
        names: of the target's parameters; without them columns are not checked, and every text
            that is no JSON is a table.
        sheet: of a spreadsheet; None for the first that is shown.
        prompts: whether lines of text may be prompts.

    Raises:
        BadRequestError: none of these formats, or a line that cannot be read.
        PipelineError: a column, field or option names no parameter; a sheet is not there.
    """
    data = content.pop()
    if len(data) > LARGEST_FILE:
        raise BadRequestError(
            f"the file has more than {LARGEST_FILE} bytes", "split it into several batches"
        )
    if workbook_type(data) is not None:
        rows = _all_called(sheet_requests(data, sheet, _with_name(names)), names)
    elif sheet is not None:
        raise InvalidFieldValueError(
            f"sheet is {sheet!r}, and the file is no spreadsheet", "leave out sheet"
        )
    else:
        text = decoded(data)
        data = b""
        rows = _text_rows(text, names, prompts)
        del text
    first = next(rows, None)
    if first is None:
        raise BadRequestError("the table has a header and no row", "add a row for each request")
    yield first
    yield from rows


def _text_rows(text: str, names: Collection[str], prompts: bool) -> Iterator[Row]:
    start = text.lstrip()[:1]
    if not start:
        raise BadRequestError(
            "the file holds no request", 'write one {"parameter": value} a line, or a table'
        )
    if start in "{[":
        rows = json_lines(text) if start == "{" else json_list(text)
        return _all_known(_all_called(rows, names), names)
    if prompts and names and not _is_table(text, names):
        return prompt_rows(text, names)
    return _all_called(table_rows(text, _with_name(names)), names)


def _with_name(names: Collection[str]) -> Collection[str]:
    """What a column may be called; all are taken where nobody knows the parameters."""
    return [*names, *({FILE_NAME} - {*names})] if names else names


def _all_called(rows: Iterable[Row], names: Collection[str]) -> Iterator[Row]:
    return map(_called, rows) if names and FILE_NAME not in names else iter(rows)


def _all_known(rows: Iterable[Row], names: Collection[str]) -> Iterator[Row]:
    known = set(names)
    for row in rows:
        for name in row.values.keys() - known if names else ():
            raise unknown(f"{row.where}: field", name, names)
        yield row


def _called(row: Row) -> Row:
    """The request under the name that its file gives it."""
    values = dict(row.values)
    name = values.pop(FILE_NAME, row.where)
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadRequestError(
            f"{row.where}: {FILE_NAME} is {shown(name)}, expected the name of a file",
            f"correct {FILE_NAME}",
        )
    return replace(row, where=name, values=values)


def _is_table(text: str, names: Collection[str]) -> bool:
    if declared_delimiter(text) is not None:
        return True
    _, cells = header_of(text, names)
    return known_among(cells, names) > 0 or any(_nearly(cell, names) for cell in cells)


def _nearly(cell: str, names: Collection[str]) -> bool:
    """A word that is a letter or two off: a slip in a header, which is no prompt."""
    return " " not in cell.strip() and bool(get_close_matches(plain(cell), names, 1, NEARLY))


def decoded(data: bytes) -> str:
    """The text of a file.

    Raises:
        BadRequestError: it is neither UTF-8 nor UTF-16 with its mark.
    """
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise BadRequestError(
            f"line {line}: byte {data[error.start]:#04x} is not {name}",
            "save the file as UTF-8",
        ) from error
