"""By whom a run was asked for: the key of the gateway, the schedule, the run it is a part of."""

from typing import TypedDict

from prefect.context import FlowRunContext

from safelight.engines.work import payer
from safelight.provenance.usage import TAG, key_in


class Asked(TypedDict):
    """Fields of a manifest."""

    asked_by: str
    schedule: str
    part_of: str


def asked(run_id: str) -> Asked:
    """What the manifest of a run says of it.

    Args:
        run_id: of the run; one that runs inside another's flow run was asked for as that was.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    whole = payer()
    by = run.created_by if run is not None else None
    return Asked(
        asked_by=key_in(run.tags) if run is not None else "",
        schedule=str(by.id) if by is not None and by.type == "SCHEDULE" else "",
        part_of=whole if whole != run_id else "",
    )


def own_keys() -> list[str]:
    """Tags by which runs that this one creates are of the same key."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    key = key_in(run.tags) if run is not None else ""
    return [f"{TAG}{key}"] if key else []
