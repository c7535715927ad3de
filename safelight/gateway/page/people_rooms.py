"""The room People: characters with their pictures and LoRAs, and trainings while they learn."""

import re
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from starlette.responses import Response

from safelight.characters import keeping
from safelight.characters.versions import list_versions
from safelight.gateway.character_routes import NewCharacter, create_character
from safelight.gateway.jobs import Job, Status, find_job
from safelight.gateway.listing import list_jobs
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.workflows import WorkflowType

router = APIRouter(prefix="/people", include_in_schema=False, route_class=PageRoute)
KEY = "training"
"""Of the artifact that a training leaves on its page while it goes on."""
TRAININGS = 20
_PICTURE = re.compile(r"!\[([^\]]*)\]\((data:image/(?:webp|jpeg|png);base64,[A-Za-z0-9+/=]+)\)")


@dataclass(frozen=True)
class Board:
    """What a training tells of itself."""

    text: str
    pictures: list[tuple[str, str]]
    """What each shows, and the picture as `data:`."""


@router.get("")
def show(
    request: Request,
    shared: Everything,
    name: Annotated[str, Query(max_length=100)] = "",
    job: UUID | None = None,
) -> Response:
    """All characters, and the latest trainings."""
    trainings = list_jobs(
        shared.client,
        shared.flows,
        status=None,
        kind=WorkflowType.TRAIN,
        text=None,
        limit=TRAININGS,
        cursor=None,
    ).jobs
    return shown_page(
        request,
        "people",
        "people",
        characters=keeping.list_all(),
        trainings=trainings,
        person=_person(name) if name else None,
        training=_training(shared, job) if job else None,
    )


@router.post("")
def create(wanted: NewCharacter, request: Request) -> Response:
    """Make a character."""
    made = create_character(wanted, Response())
    answer = shown_part(request, "person", person=_person(made.id))
    answer.headers["HX-Redirect"] = f"/people?name={made.id}"
    return answer


@router.get("/{character}/drawer")
def drawer(character: str, request: Request) -> Response:
    """One character."""
    return shown_part(request, "person", person=_person(character))


@router.get("/training/{job_id}")
def training(job_id: UUID, request: Request, shared: Everything) -> Response:
    """One training: its loss, and what it draws meanwhile."""
    return shown_part(request, "training", training=_training(shared, job_id))


def _person(named: str) -> dict[str, object]:
    found = keeping.find(named)
    links = [(picture, found.ref(picture).uri) for picture in found.pictures]
    return {"character": found, "pictures": links, "versions": list_versions(found.id)}


def _training(shared: Shared, job_id: UUID) -> dict[str, object]:
    job: Job = find_job(shared.client, shared.flows, job_id)
    return {
        "job": job,
        "live": job.status in (Status.QUEUED, Status.RUNNING),
        "board": board_of(shared, job_id),
    }


def board_of(shared: Shared, job_id: UUID) -> Board | None:
    """The board of a training; None where it has not told anything yet."""
    found = shared.client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[job_id]),
            key=ArtifactFilterKey(any_=[KEY]),
        ),
        limit=1,
    )
    return read_board(str(found[0].data or "")) if found else None


def read_board(markdown: str) -> Board:
    """A board from its markdown."""
    return Board(_PICTURE.sub("", markdown).strip().strip("`"), _PICTURE.findall(markdown))
