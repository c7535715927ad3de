"""`safelight jobs` and `safelight artifacts`: what the gateway says of them, in a terminal."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from prefect.client.orchestration import SyncPrefectClient

from safelight.cli.launching import JsonOption, reporting
from safelight.cli.printing import show_json, show_line, show_rows
from safelight.cli.server import prefect_api
from safelight.client.asking import patient_client
from safelight.errors import one_line
from safelight.params import refusal

if TYPE_CHECKING:
    from safelight.gateway.jobs import Flows, Job

jobs = typer.Typer(no_args_is_help=True, help="Jobs of the configured server.")
artifacts = typer.Typer(no_args_is_help=True, help="Files that jobs made.")
JobArgument = Annotated[UUID, typer.Argument(help="Id of the job.")]
ReasonOption = Annotated[str, typer.Option(help="For the audit.")]
_STATUSES = "QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED"


@jobs.command("list", help="The newest jobs.")
@reporting
def list_some(
    status: Annotated[str | None, typer.Option(help=_STATUSES)] = None,
    workflow_type: Annotated[
        str | None, typer.Option("--type", help="Kind of work, such as generate or preset.")
    ] = None,
    character: Annotated[str | None, typer.Option(help="Id or name of the character.")] = None,
    text: Annotated[str | None, typer.Option(help="Part of the name.")] = None,
    last: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """The newest jobs."""
    from pydantic import ValidationError

    from safelight.gateway.listing import AllFilters, filtered_jobs

    given = {
        "status": status and status.upper(),
        "workflow_type": workflow_type,
        "character_id": character,
        "text": text,
        "limit": last,
    }
    try:
        wanted = AllFilters.model_validate(given)
    except ValidationError as error:
        raise refusal(error, "jobs list") from error
    with _asked() as (client, flows):
        page = filtered_jobs(client, flows, wanted, wanted.workflow_type)
    if as_json:
        show_json(page.model_dump(mode="json", exclude={"next_cursor"}))
        return
    rows = [
        (
            str(job.id),
            job.status.value,
            f"{job.progress:.0f}%",
            job.workflow,
            one_line(job.name),
            _moment(job.created_at),
        )
        for job in page.jobs
    ]
    show_rows(("id", "status", "progress", "workflow", "name", "created"), rows)
    show_line(f"{len(page.jobs)} of {page.total}")


@jobs.command(help="How one job stands.")
@reporting
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """One job."""
    from safelight.gateway.jobs import find_job

    with _asked() as (client, flows):
        _told(find_job(client, flows, job), as_json=as_json)


@jobs.command(help="Ask a job to stop that waits or runs.")
@reporting
def cancel(job: JobArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Cancel a job."""
    from safelight.gateway.steering import cancel as ask_to_stop

    with _asked() as (client, flows):
        _told(ask_to_stop(client, flows, job, one_line(reason)[:500]), as_json=as_json)


@jobs.command(help="Have a failed job run again.")
@reporting
def retry(job: JobArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Retry a job."""
    from safelight.gateway.steering import retry as run_again

    with _asked() as (client, flows):
        _told(run_again(client, flows, job, one_line(reason)[:500]), as_json=as_json)


@artifacts.command("list", help="Files that a job made, results first.")
@reporting
def list_files(job: JobArgument, as_json: JsonOption = False) -> None:
    """Files of a job."""
    from safelight.gateway.files import artifacts_of

    found = artifacts_of(job)
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    rows = [
        (
            each.id,
            each.role,
            each.stage or "",
            each.media_type,
            f"{each.width}x{each.height}" if each.width else f"{each.size_bytes} bytes",
            each.uri,
        )
        for each in found.artifacts
    ]
    show_rows(("id", "role", "stage", "type", "size", "link"), rows)


@artifacts.command("find", help="Files by words of the prompt, model:, seed:, since:1w and more.")
@reporting
def find(
    words: Annotated[list[str], typer.Argument(help="As in the page's gallery.")],
    as_json: JsonOption = False,
) -> None:
    """Files by words."""
    from safelight.gallery.index import gallery
    from safelight.gallery.searching import found, parse

    index = gallery()
    index.refresh()
    page = found(index, parse(" ".join(words)), None)
    if as_json:
        show_json(
            [
                {"id": filed.ref.sha256, "job_id": filed.run, "uri": filed.ref.uri}
                for filed in page.files
            ]
        )
        return
    rows = [(filed.ref.sha256, filed.run, filed.ref.uri) for filed in page.files]
    show_rows(("id", "job", "link"), rows)
    if page.next is not None:
        show_line("there are more; add words")


@contextmanager
def _asked() -> "Generator[tuple[SyncPrefectClient, Flows]]":
    """The configured server, and the names of its flows."""
    from safelight.gateway.jobs import Flows

    with prefect_api(), patient_client() as client:
        yield client, Flows(client)


def _told(job: "Job", *, as_json: bool) -> None:
    if as_json:
        show_json(job.model_dump(mode="json"))
        return
    show_line(f"{job.id} {job.workflow} {one_line(job.name)}")
    show_line(f"{job.status} {job.progress:.0f}% {one_line(job.stage or job.message)}")
    if job.error is not None:
        show_line(f"{job.error.code} {one_line(job.error.problem)}")
        show_line(f"Fix: {one_line(job.error.remedy)}")


def _moment(at: datetime | None) -> str:
    return "" if at is None else at.isoformat(timespec="seconds")
