"""Which cells of a spreadsheet are merged, hold an error, or a formula that nothing computed.

Office Open XML: ECMA-376, part 1, 18.3.1.4 (cells, whose type `e` is an error) and 18.3.1.55
(merged cells). OpenDocument 1.3, part 3, 9.1.4 (cells, which may stand for several) and 9.1.5;
LibreOffice marks errors by a type of its own name space. Called in the confined process.
"""

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO
from xml.etree import ElementTree as Tree

from safelight.errors import InvalidFieldValueError

Place = tuple[int, int]
"""Row and column, from 0."""
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/spreadsheetml/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT_LINK = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_CALC = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}"
_CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")


@dataclass
class Marks:
    """What a sheet marks besides values."""

    merged: list[tuple[Place, Place]] = field(default_factory=list[tuple[Place, Place]])
    """First and last cell of each range."""
    errors: dict[Place, str] = field(default_factory=dict[Place, str])
    """What the cell shows instead of a value."""
    unsaved: list[Place] = field(default_factory=list[Place])
    """Formulas without a value: written by a program that does not compute."""


def office_marks(data: bytes, sheet: str) -> Marks:
    """Of a sheet of a .xlsx file; raises InvalidFieldValueError when its parts cannot be read."""
    return _read(data, lambda archive: _office(archive, sheet))


def opendocument_marks(data: bytes, sheet: str) -> Marks:
    """Of a sheet of an .ods file; raises InvalidFieldValueError when it cannot be read."""
    return _read(data, lambda archive: _opendocument(archive, sheet))


def _read(data: bytes, marks: Callable[[zipfile.ZipFile], Marks]) -> Marks:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return marks(archive)
    except (
        zipfile.BadZipFile,
        KeyError,
        Tree.ParseError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise InvalidFieldValueError(
            f"the spreadsheet is damaged: {str(error)[:200]}", "save it again, or as CSV"
        ) from error


def _office(archive: zipfile.ZipFile, sheet: str) -> Marks:
    marks = Marks()
    with archive.open(_part_of(archive, sheet)) as part:
        for element in _elements(part):
            name = element.tag.removeprefix(_MAIN).removeprefix(_STRICT)
            if name == "c":
                shown = next((child.text for child in element if child.tag[-1:] == "v"), None)
                if element.get("t") == "e":
                    marks.errors[_place(element.get("r", ""))] = shown or "of a formula"
                elif not shown and element.get("t") != "str" and _has_formula(element):
                    marks.unsaved.append(_place(element.get("r", "")))
                element.clear()
            elif name == "mergeCell":
                first, _, last = element.get("ref", "").partition(":")
                marks.merged.append((_place(first), _place(last or first)))
    return marks


def _has_formula(cell: Tree.Element) -> bool:
    return any(child.tag in (f"{_MAIN}f", f"{_STRICT}f") for child in cell)


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """The file of a sheet, which is named by a link, which the workbook names by the sheet."""
    links = {
        each.get("Id"): each.get("Target", "")
        for each in Tree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    }
    for element in Tree.fromstring(archive.read("xl/workbook.xml")).iter():
        if element.tag in (f"{_MAIN}sheet", f"{_STRICT}sheet") and element.get("name") == sheet:
            target = links[element.get(_LINK) or element.get(_STRICT_LINK)]
            return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    raise ValueError(f"no part holds the sheet {sheet}")


def _opendocument(archive: zipfile.ZipFile, sheet: str) -> Marks:
    marks = Marks()
    with archive.open("content.xml") as part:
        for element in _elements(part):
            if element.tag == f"{_TABLE}table":
                if element.get(f"{_TABLE}name") == sheet:
                    _walk(element, marks)
                    return marks
                element.clear()
    return marks


def _walk(table: Tree.Element, marks: Marks) -> None:
    row = 0
    for line in table.iter(f"{_TABLE}table-row"):
        column = 0
        for cell in line:
            if cell.tag not in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                continue
            rows = int(cell.get(f"{_TABLE}number-rows-spanned", "1"))
            columns = int(cell.get(f"{_TABLE}number-columns-spanned", "1"))
            if rows > 1 or columns > 1:
                marks.merged.append(((row, column), (row + rows - 1, column + columns - 1)))
            if cell.get(f"{_CALC}value-type") == "error":
                marks.errors[row, column] = "".join(cell.itertext()) or "of a formula"
            elif cell.get(f"{_TABLE}formula") and not cell.get(f"{_OFFICE}value-type"):
                marks.unsaved.append((row, column))
            column += int(cell.get(f"{_TABLE}number-columns-repeated", "1"))
        row += int(line.get(f"{_TABLE}number-rows-repeated", "1"))


def _elements(part: IO[bytes]) -> Iterator[Tree.Element]:
    for _, element in Tree.iterparse(part):
        yield element


def _place(cell: str) -> Place:
    named = _CELL.fullmatch(cell)
    if named is None:
        raise ValueError(f"{cell[:20]!r} is no cell")
    column = 0
    for letter in named[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(named[2]) - 1, column - 1
