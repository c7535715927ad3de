"""The room Batches: runs of many as a light table, with the axes along which they differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import JsonValue
from starlette.responses import Response

from safelight.client.runs import NO_PROGRESS, progress_of_all
from safelight.errors import MissingFileError
from safelight.gallery.index import gallery
from safelight.gallery.rows import Filed, Ran
from safelight.gateway.jobs import Status, status_of
from safelight.gateway.page.forms import text_of
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page
from safelight.gateway.shared import Everything, Shared
from safelight.provenance.batches import PART, BatchOutcome, load_report

router = APIRouter(prefix="/batches", include_in_schema=False, route_class=PageRoute)
FLOW = "batch"
MOST = 50
"""Batches of the list."""
LONGEST_AXIS = 40
"""Values; a parameter that has more is no axis."""
PAGE = PART
"""Requests of a batch in parts that a page shows."""
Name = Annotated[str, Query(max_length=200)]
Page = Annotated[int, Query(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class Listed:
    """A batch in the list."""

    run: FlowRun
    status: Status
    percent: float
    stage: str


@dataclass(frozen=True)
class Cell:
    """What stands where two values meet."""

    outcome: BatchOutcome
    file: Filed | None


@dataclass(frozen=True)
class Grid:
    """Outcomes by the values of two parameters."""

    x: str
    y: str
    columns: list[str]
    rows: list[tuple[str, list[list[Cell]]]]


@router.get("")
def show(request: Request, shared: Everything) -> Response:
    """All batches, the latest first."""
    return shown_page(request, "batches", "batches", batches=_list(shared))


@router.get("/{batch_id}")
def show_one(
    batch_id: UUID,
    request: Request,
    shared: Everything,
    x: Name = "",
    y: Name = "",
    page: Page = 1,
) -> Response:
    """One batch as a grid, or how far it is; a batch of very many in pages."""
    try:
        report = load_report(batch_id)
    except MissingFileError:
        going = next((each for each in _list(shared) if each.run.id == batch_id), None)
        if going is None:
            raise
        return shown_page(request, "batch", "batches", report=None, going=going, batch_id=batch_id)
    index = gallery()
    index.refresh(wait=index.is_empty())
    shown = report.page((page - 1) * PAGE, PAGE) if report.parts else report.outcomes
    ids = [outcome.flow_run_id for outcome in shown if outcome.flow_run_id]
    ran, files = _in_parts(ids)
    axes = axes_of(shown, ran)
    grid = grid_of(shown, ran, files, x or next(iter(axes), ""), y or next(iter([*axes][1:]), ""))
    counts = report.counts()
    tally = report.tally()
    return shown_page(
        request,
        "batch",
        "batches",
        report=report,
        going=None,
        batch_id=batch_id,
        axes=axes,
        grid=grid,
        counts=counts,
        spent=tally.seconds,
        ended=tally.ended,
        pages=range(1, report.parts + 1),
        page=page,
    )


def _list(shared: Shared) -> list[Listed]:
    runs = shared.client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=MOST,
    )
    told = progress_of_all(shared.client, [run.id for run in runs]) if runs else {}
    return [
        Listed(
            run,
            status_of(run.state),
            told.get(run.id, NO_PROGRESS).percent,
            told.get(run.id, NO_PROGRESS).text,
        )
        for run in runs
    ]


def _in_parts(ids: Sequence[str]) -> tuple[dict[str, Ran], dict[str, Filed]]:
    """SQLite takes a limited number of values at once."""
    index = gallery()
    ran: dict[str, Ran] = {}
    files: dict[str, Filed] = {}
    for at in range(0, len(ids), 500):
        some = ids[at : at + 500]
        ran |= index.ran(some)
        files |= index.first_of_runs(some)
    return ran, files


def axes_of(outcomes: Sequence[BatchOutcome], ran: Mapping[str, Ran]) -> dict[str, list[str]]:
    """Parameters that differ within a batch, with their values; those with the most come first."""
    values: dict[str, dict[str, JsonValue]] = {}
    for outcome in outcomes:
        run = ran.get(outcome.flow_run_id)
        for name, value in (run.parameters if run else {}).items():
            values.setdefault(name, {})[text_of(value)] = value
    several = {name: _ordered(v) for name, v in values.items() if 1 < len(v) <= LONGEST_AXIS}
    return dict(sorted(several.items(), key=lambda each: -len(each[1])))


def _ordered(values: Mapping[str, JsonValue]) -> list[str]:
    numbers = all(isinstance(v, int | float) for v in values.values())
    if numbers:
        return sorted(values, key=lambda text: float(json.loads(text)))
    return list(values)


def grid_of(
    outcomes: Sequence[BatchOutcome],
    ran: Mapping[str, Ran],
    files: Mapping[str, Filed],
    x: str,
    y: str,
) -> Grid:
    """Outcomes of a batch by two of its axes; what left no manifest stands in a row of its own.

    Args:
        outcomes: of a batch, or a page of it.
        ran: its runs.
        files: the first result of each.
        x: the axis of columns; empty where there is none.
        y: of rows, likewise.
    """
    axes = axes_of(outcomes, ran)
    columns = axes.get(x, [""])
    cells: dict[tuple[str, str], list[Cell]] = {}
    for outcome in outcomes:
        run = ran.get(outcome.flow_run_id)
        given = run.parameters if run else {}
        across = text_of(given.get(x)) if x in axes and run else columns[0]
        down = text_of(given.get(y)) if y in axes and run else ("" if run else "?")
        file = files.get(outcome.flow_run_id)
        cells.setdefault((down, across), []).append(Cell(outcome, file))
    order = axes.get(y, [])
    downs = sorted(
        {down for down, _ in cells}, key=lambda d: order.index(d) if d in order else len(order)
    )
    rows = [(down, [cells.get((down, across), []) for across in columns]) for down in downs]
    return Grid(x if x in axes else "", y if y in axes else "", columns, rows)
