"""The room Batches: runs of many as a light table that fills while they run."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from safelight.errors import MissingFileError
from safelight.gallery.index import gallery
from safelight.gateway.jobs import Job, Status, find_job
from safelight.gateway.listing import list_jobs
from safelight.gateway.page.grids import TOGETHER, Choice, Grid, board_of, grid_of
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import cancel, retry
from safelight.gateway.workflows import WorkflowType
from safelight.provenance.batches import BatchReport, Tally, load_report
from safelight.provenance.boards import PAGE, Board, Counted, load_board

router = APIRouter(prefix="/batches", include_in_schema=False, route_class=PageRoute)
MOST = 50
"""Batches of the list."""
LIVE = (Status.QUEUED, Status.RUNNING)
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
    """None before it has told anything; of a batch of very many, a page of its requests."""
    report: BatchReport | None
    """None before it has ended."""
    counted: Counted | None = None
    """How all requests stand, where the board has a page of them."""
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
    """One batch as a grid, which fills while it runs; one of very many in pages."""
    found = _found(shared, batch_id, page)
    chosen = Choice(x, y, layer, page)
    grid = grid_of(found.board, chosen) if found.board else None
    if grid is not None:
        chosen = Choice(grid.x, grid.y, grid.layer, page)
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
    page: Page = 1,
) -> Response:
    """What has changed since a number: cells of the grid, and the figures above it."""
    found = _found(shared, batch_id, page)
    if found.board is None and found.live:
        return Response(status_code=204)
    if found.board is None or since < 0:  # it begins, or it ends: the page is another one
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    chosen = Choice(x, y, layer, page)
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
        page: of one of very many, from 1.

    Raises:
        UnknownJobError: there is none of this id.
    """
    job = find_job(shared.client, shared.flows, batch_id)
    board = load_board(batch_id)
    try:
        report = load_report(batch_id)
    except MissingFileError:
        report = None
    if board is not None and board.counted is not None:
        shown = load_board(batch_id, page) or board  # none of its cells is told yet
        return Shown(job, shown, report, board.counted, range(1, board.pages + 1))
    if board is None and report is not None and job.status not in LIVE:
        outcomes = report.page((page - 1) * PAGE, PAGE) if report.parts else report.outcomes
        ids = [outcome.flow_run_id for outcome in outcomes if outcome.flow_run_id]
        board = board_of(report, outcomes, gallery().ran_now(ids))
        return Shown(job, board, report, pages=range(1, report.parts + 1))
    return Shown(job, board, report)


def _told(found: Shown, chosen: Choice) -> dict[str, object]:
    board = found.board
    address = urlencode({**chosen.query(), "since": board.changes if board else -1})
    return {
        "job": found.job,
        "board": board,
        "live": found.live,
        "chosen": chosen,
        "figures": figures_of(board, found.report, found.counted, live=found.live)
        if board
        else None,
        "next": f"/batches/{found.job.id}/live?{address}",
        "has_report": found.report is not None,
    }


def figures_of(
    board: Board, report: BatchReport | None, counted: Counted | None = None, *, live: bool
) -> Figures:
    """How far a batch is.

    Args:
        board: what it has told.
        report: of its end; None before.
        counted: how all its requests stand, where the board has a page of them.
        live: whether it goes on.
    """
    if report is not None and not live:
        return _figures(report.requests, 0, report.tally(), board, live=False)
    if counted is not None:
        return _figures(counted.requests, counted.going, counted.ended, board, live=live)
    over = [cell for cell in board.cells if cell.is_over]
    ended = Tally(
        states=Counter(cell.state for cell in over),
        reused=sum(cell.reused for cell in over),
        seconds=sum(cell.seconds for cell in over if not cell.reused),
    )
    going = sum(cell.state == "running" for cell in board.cells)
    return _figures(len(board.cells), going, ended, board, live=live)


def _figures(whole: int, going: int, ended: Tally, board: Board, *, live: bool) -> Figures:
    gone = (time.time() if live else board.told) - board.began
    own = ended.ended - ended.reused
    rate = own / gone if own and gone > 0 and board.began else None
    return Figures(
        whole=whole,
        done=ended.states.get("succeeded", 0),
        reused=ended.reused,
        going=going if live else 0,
        failed=ended.states.get("failed", 0) + ended.states.get("crashed", 0),
        stopped=ended.states.get("cancelled", 0),
        work=ended.seconds,
        rate=rate,
        left=(whole - ended.ended) / rate if rate and live else None,
        cost=ended.cost_usd,
    )
