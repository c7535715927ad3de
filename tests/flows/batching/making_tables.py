"""Makes `data/tables`: files of requests as programs save them, all with the same three requests.

`python -m tests.flows.batching.making_tables FOLDER` needs LibreOffice, openpyxl, XlsxWriter and
odfpy, which are no dependency of ours; the files are kept instead.
"""

import csv
import datetime
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEADER = ["prompt", "steps", "guidance_scale", "seed"]
HOUSE = "ein grünes Haus 日本"
ROWS: list[list[Any]] = [
    ["a red heart, large", 8, 7.5, 7],
    [HOUSE, 8, 2, 8],
    [HOUSE, 9, 2, 9],
]
TABLE: list[list[Any]] = [HEADER, *ROWS]


def of_libreoffice(folder: Path) -> None:
    """LibreOffice opens a table and saves it in its formats."""
    source = folder / "source.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows(TABLE)
    for name, filter_name in {
        "lo_commas.csv": "Text - txt - csv (StarCalc):44,34,76",
        "lo_semicolons.csv": "Text - txt - csv (StarCalc):59,34,76",
        "lo_tabs.csv": "Text - txt - csv (StarCalc):9,34,76",
        "lo_quotes_everywhere.csv": "Text - txt - csv (StarCalc):44,34,76,1,,0,true",
        "lo_apostrophes.csv": "Text - txt - csv (StarCalc):44,39,76,1,,0,true",
        "lo_utf16.csv": "Text - txt - csv (StarCalc):44,34,65535",
        "lo_latin.csv": "Text - txt - csv (StarCalc):44,34,1",
        "lo_bars.csv": "Text - txt - csv (StarCalc):124,34,76",
        "lo.xlsx": "Calc MS Excel 2007 XML",
        "lo.xlsm": "Calc MS Excel 2007 VBA XML",
        "lo_strict.xlsx": "Calc Office Open XML",
        "lo.ods": "calc8",
        "lo.ots": "calc8_template",
        "lo.fods": "OpenDocument Spreadsheet Flat XML",
        "lo.xls": "MS Excel 97",
        "lo_2003.xml": "MS Excel 2003 XML",
        "lo.html": "HTML (StarCalc)",
        "lo.slk": "SYLK",
        "lo.dif": "DIF",
        "lo.pdf": "calc_pdf_Export",
    }.items():
        ending = name.rpartition(".")[2]
        words = ["soffice", "--headless", "--infilter=CSV:44,34,76", "--convert-to"]
        words += [f"{ending}:{filter_name}", "--outdir", str(folder / "lo"), str(source)]
        subprocess.run(words, check=True, capture_output=True)
        (folder / "lo" / f"source.{ending}").rename(folder / name)
    (folder / "lo").rmdir()
    source.unlink()


def of_openpyxl(folder: Path) -> None:
    """What Python programs save, and people who work on after them."""
    from openpyxl import Workbook
    from openpyxl.comments import Comment
    from openpyxl.styles import Font
    from openpyxl.worksheet.table import Table

    def saved(name: str, change: Callable[[Any], None] | None = None, header: bool = True) -> None:
        book = Workbook()
        for row in TABLE if header else []:
            book.active.append(row)
        if change:
            change(book.active)
        book.save(folder / f"op_{name}.xlsx")

    def merged(sheet: Any) -> None:
        sheet["A4"] = None
        sheet.merge_cells("A3:A4")

    def moved(sheet: Any) -> None:
        sheet.move_range("A1:D4", rows=3, cols=2)

    def empty_rows(sheet: Any) -> None:
        sheet.insert_rows(3, 2)

    def comments(sheet: Any) -> None:
        sheet["A2"].comment = Comment("not for machines", "me")
        sheet["A2"].font = Font(bold=True)
        sheet["C2"].number_format = "0.00%"
        sheet.freeze_panes = "B2"

    def table(sheet: Any) -> None:
        sheet.add_table(Table(displayName="Requests", ref="A1:D4"))

    def two_sheets(sheet: Any) -> None:
        sheet.parent.create_sheet("Notes").append(["not for machines"])

    def hidden_first(sheet: Any) -> None:
        hidden = sheet.parent.create_sheet("Old", 0)
        hidden.append(["prompt"])
        hidden.append(["an old one"])
        hidden.sheet_state = "hidden"
        sheet.parent.active = 1

    def hidden_rows(sheet: Any) -> None:
        sheet.row_dimensions[3].hidden = True
        sheet.column_dimensions["B"].hidden = True

    def capitals(sheet: Any) -> None:
        for cell, name in zip(
            sheet[1], ["Prompt", "STEPS", "Guidance Scale", " seed "], strict=True
        ):
            cell.value = name

    def texts(sheet: Any) -> None:
        for row in sheet["B2:D4"]:
            for cell in row:
                cell.value = str(cell.value)

    def put(place: str, value: Any) -> Callable[[Any], None]:
        return lambda sheet: sheet.__setitem__(place, value)

    saved("plain")
    saved("merged", merged)
    saved("moved", moved)
    saved("empty_rows", empty_rows)
    saved("comments", comments)
    saved("table", table)
    saved("two_sheets", two_sheets)
    saved("hidden_first", hidden_first)
    saved("hidden_rows", hidden_rows)
    saved("capitals", capitals)
    saved("texts", texts)
    saved("whole_as_real", put("B2", 8.0))
    saved("date", put("D3", datetime.date(2026, 11, 28)))
    saved("time", put("D3", datetime.time(8, 30)))
    saved("true", put("D3", True))
    saved("words_for_number", put("B3", "many"))
    saved("unknown_column", put("B1", "stepz"))
    saved("unnamed_column", put("E2", "odd"))
    saved("unsaved_formula", put("B3", "=4*2"))
    saved("large_seed", put("D3", 2**60))
    saved("empty", header=False)


def of_xlsxwriter(folder: Path) -> None:
    """Another writer: shared and inline texts, formulas with their values, errors."""
    import xlsxwriter

    def saved(name: str, change: Callable[[Any], None], **options: object) -> None:
        book = xlsxwriter.Workbook(folder / f"xw_{name}.xlsx", options)
        sheet = book.add_worksheet("Products")
        for number, row in enumerate(TABLE):
            sheet.write_row(number, 0, row)
        change(sheet)
        book.close()

    saved("plain", lambda sheet: None)
    saved("inline", lambda sheet: None, constant_memory=True)
    saved("formula", lambda sheet: sheet.write_formula("B3", "=4*2", None, 8))
    saved("text_formula", lambda sheet: sheet.write_formula("A2", "=A9", None, ROWS[0][0]))
    saved("error", lambda sheet: sheet.write_formula("B3", "=1/0", None, "#DIV/0!"))
    saved("filter", lambda sheet: sheet.autofilter("A1:D4"))
    saved("protected", lambda sheet: sheet.protect("secret"))
    saved("link", lambda sheet: sheet.write_url("A2", "https://a.example", None, ROWS[0][0]))


def of_odfpy(folder: Path) -> None:
    """OpenDocument by another hand."""
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import CoveredTableCell, Table, TableCell, TableRow
    from odf.text import P

    def cell(value: Any, **more: object) -> Any:
        if isinstance(value, int | float):
            made = TableCell(valuetype="float", value=value, **more)
        else:
            made = TableCell(valuetype="string", **more)
        made.addElement(P(text=str(value)))
        return made

    for name in ("plain", "merged", "repeated", "empty_rows"):
        book, table = OpenDocumentSpreadsheet(), Table(name="Products")
        for number, row in enumerate(TABLE):
            made = TableRow()
            for place, value in enumerate(row):
                if name == "merged" and place == 0 and number == 2:
                    made.addElement(cell(value, numberrowsspanned=2, numbercolumnsspanned=1))
                elif name == "merged" and place == 0 and number == 3:
                    made.addElement(CoveredTableCell())
                elif name == "repeated" and number == 1 and place == 0:
                    made.addElement(cell(value))
                else:
                    made.addElement(cell(value))
            table.addElement(made)
            if name == "empty_rows":
                table.addElement(TableRow(numberrowsrepeated=3))
        if name == "repeated":  # as LibreOffice fills a sheet to its last row
            table.addElement(TableRow(numberrowsrepeated=1_048_000))
        book.spreadsheet.addElement(table)
        book.save(str(folder / f"od_{name}.ods"))


def of_python(folder: Path) -> None:
    """Text: tables in the dialects of the standard library, JSON, and a prompt a line."""
    for dialect in ("excel", "excel-tab", "unix"):
        with (folder / f"py_{dialect}.csv").open("w", newline="") as file:
            csv.writer(file, dialect).writerows(TABLE)
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows(TABLE)
    (folder / "py_sep.csv").write_text("sep=;\r\n" + text.getvalue())
    (folder / "py_bom.csv").write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    objects = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    lines = [json.dumps(each) for each in objects]
    (folder / "py_lines.jsonl").write_text("\n".join(lines))
    (folder / "py_list.json").write_text(json.dumps(objects, indent=2, ensure_ascii=False))
    prompts = [f"{p} --steps {s} --cfg_scale {g:g} --seed {n}" for p, s, g, n in ROWS]
    (folder / "py_prompts.txt").write_text("\n".join(prompts))
    (folder / "py_half.json").write_text(json.dumps(objects)[:-9])


def main(folder: Path) -> None:
    """Make them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in (of_libreoffice, of_openpyxl, of_xlsxwriter, of_odfpy, of_python):
        make(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
