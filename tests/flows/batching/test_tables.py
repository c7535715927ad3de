"""Files as programs save them, by `making_tables`: the same three requests, or a refusal."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from flows.batching.reading.files import is_text, parse
from flows.batching.requests import check_requests, find_target
from flows.running.signature import parameters_model
from safelight.errors import PipelineError
from tests.flows.batching.making_tables import HEADER, ROWS

TABLES = Path(__file__).parent / "data" / "tables"
WANTED = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
REFUSED = {
    "lo.dif": "line 1: column 'TABLE' names no parameter",
    "lo.fods": "line 1: column '<?xml version",
    "lo.html": "line 1: column '<!DOCTYPE html>'",
    "lo.slk": "line 1: column 'ID' names no parameter",
    "lo.xls": "of Excel before 2007",
    "lo_2003.xml": "line 1: column '<?xml version",
    "lo_apostrophes.csv": "line 1: column \"'prompt'\" names no parameter; did you mean prompt?",
    "lo_bars.csv": "line 1: column 'prompt|steps|guidance_scale|seed' names no parameter",
    "lo_latin.csv": "line 3: byte 0xfc is not UTF-8",
    "op_date.xlsx": "cell D3 holds a date or time (2026-11-28)",
    "op_empty.xlsx": "the sheet is empty",
    "op_large_seed.xlsx": "cell D3 holds 1152921504606846976, of which",
    "op_time.xlsx": "cell D3 holds a date or time (08:30:00)",
    "op_true.xlsx": "row 3: generate: field seed is 'true'",
    "op_unknown_column.xlsx": "row 1: column 'stepz' names no parameter; did you mean steps?",
    "op_unnamed_column.xlsx": "row 1: a column has no name",
    "op_unsaved_formula.xlsx": "cell B3 holds a formula without a value",
    "op_words_for_number.xlsx": "row 3: generate: field steps is 'many'",
    "py_half.json": "the list is not JSON",
    "xw_error.xlsx": "cell B3 holds the error #DIV/0!",
}
"""What is said of those that cannot be read as they are, with line or cell."""
ROWS_OF_LARGE = 10_000


def asked(path: Path) -> list[dict[str, object]]:
    target = find_target("generate")
    names = parameters_model(target.fn).model_fields
    rows = parse(path.read_bytes(), names, None, is_text(path))
    return [dict(request.parameters) for request in check_requests(target, rows, {})]


def test_there_are_sixty_of_them_and_each_refusal_is_one():
    names = {path.name for path in TABLES.iterdir()}
    assert len(names) >= 60
    assert names >= REFUSED.keys()


@pytest.mark.parametrize("name", sorted(path.name for path in TABLES.iterdir()))
def test_a_file_is_read_right_or_refused_with_its_place(name: str):
    if name not in REFUSED:
        assert asked(TABLES / name) == WANTED
        return
    with pytest.raises(PipelineError) as caught:
        asked(TABLES / name)
    assert REFUSED[name] in caught.value.problem


def _sheet(rows: int) -> Iterator[str]:
    yield '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    for number in range(1, rows + 2):
        cells = [f"a cup of tea, number {number}, on a table", number % 50 + 1, 7.5, number]
        shown = [
            f'<c r="{letter}{number}" t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
            if isinstance(value, str)
            else f'<c r="{letter}{number}"><v>{value}</v></c>'
            for letter, value in zip("ABCD", HEADER if number == 1 else cells, strict=True)
        ]
        yield f'<row r="{number}">{"".join(shown)}</row>'
    yield "</sheetData></worksheet>"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A plain sheet with the table of a file of ours in its place, many times longer."""
    path = tmp_path / "large.xlsx"
    with zipfile.ZipFile(TABLES / "op_plain.xlsx") as read, zipfile.ZipFile(path, "w", 8) as made:
        for each in read.infolist():
            whole = "".join(_sheet(ROWS_OF_LARGE)).encode()
            is_sheet = each.filename == "xl/worksheets/sheet1.xml"
            made.writestr(each.filename, whole if is_sheet else read.read(each))
    return path


def test_ten_thousand_rows_are_read_in_three_seconds_of_a_core_and_200_mb(large: Path):
    words = (
        "import sys, psutil\n"
        "from pathlib import Path\n"
        "from flows.batching.reading.files import parse\n"
        "data, small = (Path(each).read_bytes() for each in sys.argv[1:])\n"
        "names = ('prompt', 'steps', 'guidance_scale', 'seed')\n"
        "parse(small, names)  # the process that opens spreadsheets is there then\n"
        "mine = psutil.Process()\n"
        "def spent():\n"
        "    family = (mine, *mine.children(recursive=True))\n"
        "    return sum(sum(each.cpu_times()[:2]) for each in family)\n"
        "began = spent()\n"
        "rows = parse(data, names)\n"
        "seconds = spent() - began\n"
        "peaks = [Path(f'/proc/{each.pid}/status').read_text().partition('VmHWM:')[2].split()[0]\n"
        "         for each in (mine, *mine.children(recursive=True))]\n"
        "print(len(rows), rows[-1].where, seconds, max(map(int, peaks)) // 1024, len(peaks))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", words, str(large), str(TABLES / "op_plain.xlsx")],
        capture_output=True,
        text=True,
        check=True,
    )
    count, _, last, seconds, mebibytes, processes = done.stdout.split()
    assert int(processes) > 1  # spreadsheets are opened in one of their own
    assert (int(count), last) == (ROWS_OF_LARGE, str(ROWS_OF_LARGE + 1))
    assert float(seconds) < 3
    assert int(mebibytes) < 200
