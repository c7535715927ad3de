"""`safelight batch` and `safelight grid`."""

from pathlib import Path
from typing import Annotated

import typer

from safelight.cli.batching import (
    read_requests,
    run_batch,
    run_requests,
    show_check,
    without_seed_rows,
)
from safelight.cli.copies import NOWHERE, Copies, Wanted
from safelight.cli.grids import read_grid
from safelight.cli.inputs import offered, parse_options, uploaded
from safelight.cli.launching import JsonOption, NamesOption, OutputOption, conclude, reporting
from safelight.cli.options import flow_words
from safelight.cli.server import configured_api_url
from safelight.client.contracts import contract

CheckOption = Annotated[
    bool, typer.Option("--check", help="Show what would be asked for, and run nothing.")
]
KeyOption = Annotated[str | None, typer.Option(help="Batches of one key share results.")]
ParallelOption = Annotated[int | None, typer.Option(help="Requests under way at once.")]
ShardsOption = Annotated[
    bool | None,
    typer.Option(help="On workers: many requests in one flow run; else as many as it is worth."),
]
ExportOption = Annotated[
    str | None, typer.Option(help="Names, as --names, of copies in exports/ beside the store.")
]
ZipOption = Annotated[Path | None, typer.Option("--zip", help="A file: the results as one zip.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="A file: the results as one page that opens offline.")
]
TitleOption = Annotated[str | None, typer.Option(help="Written above each sheet.")]
FormOption = Annotated[str | None, typer.Option(help="Of the sheets: png or webp.")]
NoSheetsOption = Annotated[bool, typer.Option("--no-sheets", help="Results alone.")]
CellOption = Annotated[int | None, typer.Option(help="Side of a picture on the sheets, px.")]
BATCH_HELP = (
    "Run a flow for every request of a file (a table or spreadsheet, JSON, or a prompt a "
    "line), or for every picture or clip of a folder or zip; extra options, for instance --steps "
    "30, are given to every request that has none of its own. "
    "safelight batch --flow NAME --help lists them."
)
GRID_HELP = (
    "Run a flow for every combination of values, on sheets with a label for each: --x "
    "steps=10,20 --y replace:red=red,blue --z model=a,b. All other options are the flow's own. "
    "safelight grid FLOW --help lists them."
)


@reporting
def batch(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file, folder or zip on this machine.")],
    flow: Annotated[str, typer.Option(help="Preset or other flow that each request runs.")],
    parallel: ParallelOption = None,
    retries: Annotated[int | None, typer.Option(help="More tries after a passing fault.")] = None,
    key: KeyOption = None,
    again: Annotated[bool, typer.Option(help="Also what is finished, with other seeds.")] = False,
    shards: ShardsOption = None,
    sheet: Annotated[str | None, typer.Option(help="Of a spreadsheet; the first.")] = None,
    read_prompts: Annotated[
        bool,
        typer.Option("--read-prompts", help="Of a folder: from metadata where no text has one."),
    ] = False,
    export: ExportOption = None,
    zipped: ZipOption = None,
    html: HtmlOption = None,
    cell: CellOption = None,
    title: TitleOption = None,
    sheet_form: FormOption = None,
    no_sheets: NoSheetsOption = False,
    check: CheckOption = False,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a batch."""
    target = contract(flow)
    shared = parse_options(flow_words(context), target.described)
    target.check(without_seed_rows(shared), partly=True)
    given = offered(
        flow=flow,
        parallel=parallel,
        retries=retries,
        key=key,
        again=again,
        shards=shards,
        sheet=sheet,
        export=export,
        cell=cell,
        title=title,
        sheet_form=sheet_form,
        sheets=not no_sheets,
    )
    contract("batch").check(given)
    copies = Copies(NOWHERE if check else Wanted(output, names, zipped, html), flow)
    asked = read_requests(file, target, shared, sheet, read_prompts=read_prompts, check=check)
    if check:
        show_check(flow, asked, as_json=as_json)
        return
    shared = uploaded(shared, here=configured_api_url() is None)
    conclude(run_batch(asked, {**given, "parameters": shared}, copies, as_json=as_json))


@reporting
def grid(
    context: typer.Context,
    flow: Annotated[str, typer.Argument(help="Preset or other flow that each cell runs.")],
    x: Annotated[str, typer.Option(help="Axis across the sheets: NAME=VALUE,VALUE.")],
    y: Annotated[str | None, typer.Option(help="Axis down the sheets.")] = None,
    z: Annotated[str | None, typer.Option(help="Axis with a sheet for each value.")] = None,
    parallel: ParallelOption = None,
    key: KeyOption = None,
    cell: CellOption = None,
    title: TitleOption = None,
    no_legends: Annotated[
        bool, typer.Option("--no-legends", help="No values beside rows and above columns.")
    ] = False,
    sheet_form: FormOption = None,
    no_sheets: NoSheetsOption = False,
    shards: ShardsOption = None,
    check: CheckOption = False,
    export: ExportOption = None,
    zipped: ZipOption = None,
    html: HtmlOption = None,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a grid."""
    target = contract(flow)
    shared = parse_options(flow_words(context), target.described)
    target.check(without_seed_rows(shared), partly=True)
    asked = read_grid(target, shared, {"x": x, "y": y, "z": z})
    given = offered(
        flow=flow,
        parallel=parallel,
        key=key,
        shards=shards,
        cell=cell,
        title=title,
        legends=not no_legends,
        sheet_form=sheet_form,
        sheets=not no_sheets,
        export=export,
        grid=asked.grid,
        **asked.axes,
    )
    contract("batch").check(given)
    copies = Copies(NOWHERE if check else Wanted(output, names, zipped, html), flow)
    if check:
        show_check(flow, asked.cells, as_json=as_json)
        return
    shared = uploaded(asked.shared, here=configured_api_url() is None)
    conclude(run_requests({**given, "parameters": shared}, copies, as_json=as_json))
