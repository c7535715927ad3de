"""Tables of text: cells between commas, semicolons or tabs, under a header."""

import csv
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from flows.batching.reading.columns import columns, known_among
from flows.batching.reading.rows import LONGEST_LINE, BadRequestError, Row
from safelight.errors import MissingRequiredFieldError

DELIMITERS = ",;\t"
"""In this order where nothing else decides. Spreadsheets write semicolons where a comma is the
decimal point."""
_DECLARED = "sep="
"""A first line of this kind tells spreadsheets the delimiter."""


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line, without its end."""
    end, number = -1, 0
    while end < len(text):
        start, number = end + 1, number + 1
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end]
        if len(line) > LONGEST_LINE:
            raise BadRequestError(
                f"line {number} has {len(line)} characters, at most {LONGEST_LINE} are read",
                f"shorten line {number}",
            )
        yield number, line


def declared_delimiter(text: str) -> str | None:
    """What the first line declares; None when it is no declaration."""
    end = text.find("\n")
    first = (text if end < 0 else text[:end]).strip("\r \"'")
    declared = first[len(_DECLARED) :] if first.casefold().startswith(_DECLARED) else ""
    return declared if len(declared) == 1 else None


def header_of(text: str, names: Collection[str]) -> tuple[str, list[str]]:
    """Delimiter and cells of the first line that is not empty, as a table's header.

    The delimiter between most names of parameters counts, then the one that stands there most.
    """
    declared = declared_delimiter(text)
    lines = (line.strip("\r") for _, line in lines_of(text) if line.strip())
    first = next(islice(lines, 1 if declared else 0, None), "")
    tried = [(mark, _cells(first, mark)) for mark in (declared or DELIMITERS)]
    return max(tried, key=lambda each: (known_among(each[1], names), len(each[1])))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a quoted cell of several lines; read as a table it will say what is wrong
        return line.split(delimiter)


def table_rows(text: str, names: Collection[str]) -> Iterator[Row]:
    """A request for each row.

    Raises:
        BadRequestError: a row has other cells than the header, or is no row.
        PipelineError: as `columns` says.
    """
    delimiter, _ = header_of(text, names)
    skipped = 1 if declared_delimiter(text) else 0
    lines = (line + "\n" for _, line in islice(lines_of(text), skipped, None))
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] | None = None
    nameless = before = 0
    try:
        for cells in reader:
            where, before = f"line {before + 1 + skipped}", reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                named = _without_empty_end(cells)
                header, nameless = columns(named, where, names), len(cells) - len(named)
                continue
            if any(cell.strip() for cell in cells[len(header) : len(header) + nameless]):
                raise MissingRequiredFieldError(
                    f"line {1 + skipped}: a column has no name, and {where} has a value in it",
                    "name every column after a parameter",
                )
            yield Row(where, _values(header, cells, where, delimiter), text=True)
    except csv.Error as error:
        line = before + 1 + skipped
        raise BadRequestError(
            f"line {line} is no row of a table: {error}", f"correct line {line}"
        ) from error


def _values(
    header: Sequence[str], cells: Sequence[str], where: str, delimiter: str
) -> dict[str, str]:
    more = cells[len(header) :]
    if len(cells) < len(header) or any(cell.strip() for cell in more):
        mark = {",": "a comma", ";": "a semicolon", "\t": "a tab"}.get(delimiter, repr(delimiter))
        raise BadRequestError(
            f"{where} has {len(cells)} cells, the header {len(header)}",
            f"correct {where}; put text that holds {mark} into quotes",
        )
    return {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}


def _without_empty_end(cells: Sequence[str]) -> list[str]:
    """Programs write delimiters for columns to which nobody gave a name."""
    kept = list(cells)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept
