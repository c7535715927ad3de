"""The room Batches: runs of many as a light table that fills while they run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from safelight.errors import MissingFileError
from safelight.gallery.index import gallery
from safelight.gallery.rows import Ran
from safelight.gateway.jobs import Job, Status, find_job
from safelight.gateway.listing import list_jobs
from safelight.gateway.page.grids import TOGETHER, Choice, Grid, board_of, grid_of
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import cancel, retry
from safelight.gateway.workflows import WorkflowType
from safelight.provenance.batches import PART, BatchReport, load_report
from safelight.provenance.boards import Board, BoardCell, load_board

router = APIRouter(prefix="/batches", include_in_schema=False, route_class=PageRoute)
MOST = 50
"""Batches of the list."""
LIVE = (Status.QUEUED, Status.RUNNING)
PAGE = PART
"""Requests of a batch in parts that a page shows."""
Name = Annotated[str, Query(max_length=200)]
Layer = Annotated[int, Query(ge=0, le=2000)]
Page = Annotated[int, Query(ge=1, le=1_000_000)]


class Pressed(BaseModel):
    """A press of a button."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Figures:
    """How far a batch is."""

    whole: int
    done: int
    reused: int
    going: int
    failed: int
    stopped: int
    work: float
    """Seconds of all its runs together."""
    rate: float | None
    """Requests a second by the clock; None before the first has ended."""
    left: float | None
    """Seconds until the end; None where that is not known, or over."""
    cost: float


@dataclass(frozen=True)
class Shown:
    """A batch as the page has it."""

    job: Job
    board: Board | None
    """None before it has told anything."""
    report: BatchReport | None
    """None before it has ended."""
    pages: range = range(0)
    """Of those that its board is one of."""

    @property
    def live(self) -> bool:
        """Whether it goes on."""
        return self.job.status in LIVE


@router.get("")
def show(request: Request, shared: Everything) -> Response:
    """All batches, the latest first."""
    jobs = list_jobs(
        shared.client,
        shared.flows,
        status=None,
        kind=WorkflowType.BATCH,
        text=None,
        limit=MOST,
        cursor=None,
    ).jobs
    return shown_page(request, "batches", "batches", batches=jobs)


@router.get("/{batch_id}")
def show_one(
    batch_id: UUID,
    request: Request,
    shared: Everything,
    x: Name = "",
    y: Name = "",
    layer: Layer = 0,
    page: Page = 1,
) -> Response:
    """One batch as a grid, which fills while it runs; one of very many at its end, in pages."""
    found = _found(shared, batch_id, page)
    chosen = Choice(x, y, layer)
    grid = grid_of(found.board, chosen) if found.board else None
    if grid is not None:
        chosen = Choice(grid.x, grid.y, grid.layer)
    return shown_page(
        request,
        "batch",
        "batches",
        grid=grid,
        together=TOGETHER,
        pages=found.pages,
        page=page,
        **_told(found, chosen),
    )


@router.get("/{batch_id}/live")
def follow(
    batch_id: UUID,
    request: Request,
    shared: Everything,
    since: Annotated[int, Query(ge=-1)] = 0,
    x: Name = "",
    y: Name = "",
    layer: Layer = 0,
) -> Response:
    """What has changed since a number: cells of the grid, and the figures above it."""
    found = _found(shared, batch_id, 1)
    if found.board is None and found.live:
        return Response(status_code=204)
    if found.board is None or since < 0:  # it begins, or it ends: the page is another one
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    chosen = Choice(x, y, layer)
    there = _numbers(grid_of(found.board, chosen))
    changed = [c for c in found.board.cells if c.change > since and c.number in there]
    return shown_part(request, "batch_live", status=200, changed=changed, **_told(found, chosen))


@router.post("/{batch_id}/cancel")
def stop(batch_id: UUID, asked: Pressed, shared: Everything) -> Response:
    """Stop it with all its requests."""
    del asked
    cancel(shared.client, shared.flows, batch_id, "")
    return Response(headers={"HX-Refresh": "true"})


@router.post("/{batch_id}/retry")
def again(batch_id: UUID, asked: Pressed, shared: Everything) -> Response:
    """Run it again: what it has finished is kept, what failed is drawn."""
    del asked
    retry(shared.client, shared.flows, batch_id, "")
    return Response(headers={"HX-Refresh": "true"})


def _numbers(grid: Grid) -> frozenset[int]:
    """Of the requests whose cells are on the page."""
    several = [cells[:TOGETHER] for row in grid.rows for cells in row.cells]
    return frozenset(cell.number for cells in (*several, grid.loose) for cell in cells)


def _found(shared: Shared, batch_id: UUID, page: int) -> Shown:
    """A batch, with what it has told.

    Args:
        shared: what all requests share.
        batch_id: of its run.
        page: of one in parts that has told no board, from 1.

    Raises:
        UnknownJobError: there is none of this id.
    """
    job = find_job(shared.client, shared.flows, batch_id)
    board = load_board(batch_id)
    try:
        report = load_report(batch_id)
    except MissingFileError:
        return Shown(job, board, None)
    if board is None and job.status not in LIVE:
        index = gallery()
        index.refresh(wait=index.is_empty())
        outcomes = report.page((page - 1) * PAGE, PAGE) if report.parts else report.outcomes
        ids = [outcome.flow_run_id for outcome in outcomes if outcome.flow_run_id]
        board = board_of(report, outcomes, _ran(ids))
        return Shown(job, board, report, range(1, report.parts + 1))
    return Shown(job, board, report)


def _ran(ids: Sequence[str]) -> dict[str, Ran]:
    """SQLite takes a limited number of values at once."""
    found: dict[str, Ran] = {}
    for at in range(0, len(ids), 500):
        found |= gallery().ran(ids[at : at + 500])
    return found


def _told(found: Shown, chosen: Choice) -> dict[str, object]:
    board = found.board
    address = urlencode({**chosen.query(), "since": board.changes if board else -1})
    return {
        "job": found.job,
        "board": board,
        "live": found.live,
        "chosen": chosen,
        "figures": figures_of(board, found.report, live=found.live) if board else None,
        "next": f"/batches/{found.job.id}/live?{address}",
        "has_report": found.report is not None,
    }


def figures_of(board: Board, report: BatchReport | None, *, live: bool) -> Figures:
    """How far a batch is.

    Args:
        board: what it has told.
        report: of its end; None before.
        live: whether it goes on.
    """
    over = [cell for cell in board.cells if cell.is_over]
    if report is not None and not live:
        return _in_the_end(report, board)
    own = [cell for cell in over if not cell.reused]
    gone = time.time() - board.began
    rate = len(own) / gone if own and gone > 0 and board.began else None
    left = (len(board.cells) - len(over)) / rate if rate and live else None
    return Figures(
        whole=len(board.cells),
        done=_count(over, "succeeded"),
        reused=sum(cell.reused for cell in over),
        going=_count(board.cells, "running") if live else 0,
        failed=_count(over, "failed", "crashed"),
        stopped=_count(over, "cancelled"),
        work=sum(cell.seconds for cell in own),
        rate=rate,
        left=left,
        cost=0.0,
    )


def _in_the_end(report: BatchReport, board: Board) -> Figures:
    """Of all its requests, also where the board has a page of them."""
    tally = report.tally()
    gone = board.told - board.began
    own = tally.ended - tally.reused
    return Figures(
        whole=report.requests,
        done=tally.states.get("succeeded", 0),
        reused=tally.reused,
        going=0,
        failed=tally.states.get("failed", 0) + tally.states.get("crashed", 0),
        stopped=tally.states.get("cancelled", 0),
        work=tally.seconds,
        rate=own / gone if own and gone > 0 and board.began else None,
        left=None,
        cost=tally.cost_usd,
    )


def _count(cells: Sequence[BoardCell], *states: str) -> int:
    return sum(cell.state in states for cell in cells)
