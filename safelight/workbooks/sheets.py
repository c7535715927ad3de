"""Spreadsheets (.xlsx, .xlsm, .ods) as rows of text.

Values are python-calamine's, which gives nothing for an error, and knows no merged cells of
OpenDocument: `safelight.workbooks.marks` looks for both. What a cell shows is not kept in a
spreadsheet's file, only its value: 7 and 7.00 are one. Values of formulas are those that the
program saved last. Files are opened in the confined process.
"""

import io
import math
from datetime import date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from safelight.confined.calling import call_confined
from safelight.confined.transport import Array
from safelight.errors import ContractMismatchError, InvalidFieldValueError, PipelineError
from safelight.workbooks.marks import Marks, office_marks, opendocument_marks

OFFICE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OPENDOCUMENT = "application/vnd.oasis.opendocument.spreadsheet"
MOST_CELLS = 4_000_000
"""Of a sheet from its first to its last used corner: formats reach further than values."""
_LARGEST_WHOLE = 2.0**53
"""Beyond it a spreadsheet has rounded a whole number."""
Value = object
"""Of a cell: text, number, truth, date, time or duration."""


class SheetRow(BaseModel):
    """A row that holds anything."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """From 1, as spreadsheets count."""
    cells: list[str]
    """Text of each cell; empty where it has none."""


def workbook_type(data: bytes) -> str | None:
    """The MIME type of a file that begins as spreadsheets do; None for others.

    Files of OpenDocument begin with an uncompressed entry that holds their type (OpenDocument 1.3,
    part 2, section 3.3); those of Excel before 2007 are no zip.
    """
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "application/vnd.ms-excel"
    if not data.startswith(b"PK\x03\x04"):
        return None
    return OPENDOCUMENT if OPENDOCUMENT.encode() in data[:100] else OFFICE


def read_workbook(data: bytes, sheet: str | None) -> list[SheetRow]:
    """The rows of a sheet.

    Args:
        data: the whole file.
        sheet: its name; None for the first that is shown.

    Returns:
        Rows with a value, cells merged over several rows or columns in each of them.

    Raises:
        InvalidFieldValueError: no spreadsheet, damaged, encrypted, too large, or a cell holds what
            is no text, number or truth.
        ContractMismatchError: it has no such sheet.
    """
    return call_confined(
        sheet_rows, sheet, name="the spreadsheet", file_bytes=len(data), data=data
    )[0]


def sheet_rows(data: bytes, sheet: str | None) -> tuple[list[SheetRow], Array | None]:
    """What `read_workbook` has done in the confined process."""
    kind = workbook_type(data)
    if kind not in (OFFICE, OPENDOCUMENT):
        raise InvalidFieldValueError(
            "the spreadsheet is of Excel before 2007", "save it as .xlsx, .ods or CSV"
        )
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as workbook:
            name = _sheet_name(workbook, sheet)
            marks = office_marks if kind == OFFICE else opendocument_marks
            return _rows(workbook.get_sheet_by_name(name), marks(data, name)), None
    except PasswordError as error:
        raise InvalidFieldValueError(
            "the spreadsheet is encrypted", "save it without a password"
        ) from error
    except CalamineError as error:
        raise InvalidFieldValueError(
            f"the file is no spreadsheet that can be read: {str(error)[:200]}",
            "save it as .xlsx, .ods or CSV",
        ) from error


def _sheet_name(workbook: CalamineWorkbook, wanted: str | None) -> str:
    shown = [
        each.name
        for each in workbook.sheets_metadata
        if each.typ is SheetTypeEnum.WorkSheet and each.visible is SheetVisibleEnum.Visible
    ]
    if wanted is None and shown:
        return shown[0]
    if wanted in workbook.sheet_names:
        return str(wanted)
    what = "no sheet" if wanted is None else f"no sheet {wanted!r}"
    raise ContractMismatchError(
        f"the spreadsheet has {what}; it has {', '.join(shown) or 'none'}", "name one of its sheets"
    )


def _rows(sheet: CalamineSheet, marks: Marks) -> list[SheetRow]:
    for (row, column), said in marks.errors.items():
        raise _refused(row + 1, column, f"the error {said}", "mend its formula")
    for row, column in marks.unsaved:
        remedy = "open it in a spreadsheet program and save it there"
        raise _refused(row + 1, column, "a formula without a value", remedy)
    if sheet.start is None or sheet.end is None:
        return []
    (top, left), (bottom, right) = sheet.start, sheet.end
    if (bottom - top + 1) * (right - left + 1) > MOST_CELLS:
        raise InvalidFieldValueError(
            f"the sheet {sheet.name} reaches over {bottom + 1} rows and {right + 1} columns, "
            f"at most {MOST_CELLS} cells are read",
            "delete empty rows and columns, or save it as CSV",
        )
    values: list[list[Value]] = [list(row) for row in sheet.to_python(skip_empty_area=True)]
    for (first, start), (last, end) in marks.merged:
        _fill(values, (first - top, start - left), (last - top, end - left))
    rows: list[SheetRow] = []
    for number, row in enumerate(values, top + 1):
        cells = [_text(value, number, column) for column, value in enumerate(row, left)]
        if any(cells):
            rows.append(SheetRow(number=number, cells=cells))
    return rows


def _fill(values: list[list[Value]], first: tuple[int, int], last: tuple[int, int]) -> None:
    """Merged cells have the value of their first one."""
    if min(first) < 0 or first[0] >= len(values) or first[1] >= len(values[first[0]]):
        return  # it holds nothing
    for row in values[first[0] : last[0] + 1]:
        for column in range(first[1], min(last[1] + 1, len(row))):
            row[column] = values[first[0]][first[1]]


def _text(value: Value, row: int, column: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(float(value), row, column)
    if isinstance(value, date | datetime | time | timedelta):
        raise _refused(
            row, column, f"a date or time ({value})", "format the cell as text, and write it anew"
        )
    raise _refused(row, column, f"{type(value).__name__}", "write text or a number")


def _number(value: float, row: int, column: int) -> str:
    if not math.isfinite(value):
        raise _refused(row, column, "no finite number", "write a number")
    if not value.is_integer():
        return repr(value)
    if abs(value) > _LARGEST_WHOLE:
        raise _refused(
            row,
            column,
            f"{value:.0f}, of which spreadsheets keep the first 15 digits alone",
            "format the cell as text, and write it anew",
        )
    return str(int(value))


def _refused(row: int, column: int, what: str, remedy: str) -> PipelineError:
    return InvalidFieldValueError(f"cell {_letters(column)}{row} holds {what}", remedy)


def _letters(column: int) -> str:
    """A, B, ... Z, AA, ... as spreadsheets name columns, from 0."""
    letters = ""
    while column >= 0:
        column, rest = divmod(column, 26)
        letters = chr(ord("A") + rest) + letters
        column -= 1
    return letters
