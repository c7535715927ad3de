"""Tables in spreadsheets."""

from collections.abc import Collection, Iterator

from flows.batching.reading.columns import columns
from flows.batching.reading.rows import BadRequestError, Row
from safelight.workbooks.sheets import read_workbook


def sheet_requests(data: bytes, sheet: str | None, names: Collection[str]) -> Iterator[Row]:
    """A request for each row under the header, which is the first row that holds anything.

    Args:
        data: the whole file.
        sheet: its name; None for the first that is shown.
        names: of the parameters that there are; empty when nobody knows.

    Raises:
        BadRequestError: a row has a value under no name.
        PipelineError: as `read_workbook` and `columns` say.
    """
    rows = read_workbook(data, sheet)
    if not rows:
        raise BadRequestError("the sheet is empty", "write a header and a row for each request")
    header, *requests = rows
    used = [at for at in range(len(header.cells)) if any(row.cells[at].strip() for row in rows)]
    named = columns([header.cells[at] for at in used], f"row {header.number}", names)
    for row in requests:
        cells = (row.cells[at] for at in used)
        given = {name: cell for name, cell in zip(named, cells, strict=True) if cell != ""}
        yield Row(f"row {row.number}", given, text=True)
