"""Removes from the store what nothing needs any more, by schedule."""

from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import Field

from safelight.client.asking import patient_client
from safelight.client.markdown import table
from safelight.client.page import on_page
from safelight.client.unfinished import unfinished
from safelight.retention.gathering import Limits
from safelight.retention.removing import Removed, collect, shown


@flow(name="tidy_store", persist_result=False)
def tidy_store(
    older_than_days: Annotated[
        float, Field(ge=1, description="What nothing names goes this long after it was written.")
    ] = 30.0,
    runs_older_than_days: Annotated[
        float | None,
        Field(
            ge=1,
            description="Manifests of runs this old go too, unless a file of theirs is starred; "
            "empty keeps all.",
        ),
    ] = None,
    delete: Annotated[
        bool, Field(description="Remove it; else the run only says what may go.")
    ] = False,
) -> dict[str, int]:
    """Say what nothing in the store needs any more, and remove it where `delete` is on."""
    limits = Limits(older_than_days, runs_older_than_days)
    own = str(flow_run.id or "")
    with patient_client() as client:
        removed = collect(limits, lambda: unfinished(client, without=own), delete=delete)
    told, about = _told(removed), "What went, or may go"
    on_page(lambda: create_markdown_artifact(told, key="tidy-store", description=about))
    return removed.bytes


def _told(removed: Removed) -> str:
    rows = [[kind, str(n), f"{size / 1e6:.1f} MB"] for kind, n, size in shown(removed)]
    said = "Removed." if removed.deleted else "Nothing was removed: `delete` is off."
    waits = f" {removed.waiting} files wait for runs that are under way." if removed.waiting else ""
    return f"{said}{waits}\n\n{table(['kind', 'files', 'size'], rows)}"
