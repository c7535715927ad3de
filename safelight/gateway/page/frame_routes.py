"""What the frame around all rooms asks for: what goes on now, and the finder."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from starlette.responses import Response

from safelight.errors import PipelineError
from safelight.gallery.index import gallery
from safelight.gallery.searching import found, parse
from safelight.gateway.jobs import STATE_TYPES, Status
from safelight.gateway.listing import list_jobs
from safelight.gateway.offers import models
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_part, static_names
from safelight.gateway.page.shelf import choices
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.workflows import flows_of

router = APIRouter(prefix="/page", include_in_schema=False, route_class=PageRoute)
MOST = 6
"""Things of a kind that the finder shows."""


@dataclass(frozen=True)
class Now:
    """What goes on."""

    running: int
    waiting: int
    away: bool = False
    """The server does not answer."""


def counted(shared: Shared, status: Status) -> int:
    """How many jobs have this status."""
    return shared.client.count_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(flows_of()))),
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(is_null_=False),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(STATE_TYPES[status]))),
        ),
    )


@router.get("/now")
def read_now(request: Request, shared: Everything) -> Response:
    """What runs and what waits, for the top line."""
    try:
        now = Now(counted(shared, Status.RUNNING), counted(shared, Status.QUEUED))
    except PipelineError:
        now = Now(0, 0, away=True)
    return shown_part(request, "now", now=now)


@router.get("/find")
def find(
    request: Request, shared: Everything, q: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Anything by its name: what can be drawn, runs, pictures, models."""
    words = q.strip().casefold()
    shelf = [each for each in choices(static_names()) if words in each.title.casefold()]
    jobs = list_jobs(
        shared.client, shared.flows, status=None, kind=None, text=q or None, limit=MOST, cursor=None
    ).jobs
    try:
        files = found(gallery(), parse(q), None).files[:MOST] if words else []
    except PipelineError:  # half a search word, as it is typed
        files = []
    known = [each for each in models(None).models if words in each.name.casefold()] if words else []
    return shown_part(
        request, "found", q=q, shelf=shelf[:MOST], jobs=jobs, files=files, models=known[:MOST]
    )
