"""Routes of the audit log, for admins, and of what runs cost."""

from collections import deque
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from safelight.audit.chain import Line
from safelight.audit.log import lines, log_folder
from safelight.audit.verifying import Verdict, verify
from safelight.provenance.costs import By, Costs, costs_of

router = APIRouter(prefix="/api/audit", tags=["audit"])
costs = APIRouter(tags=["costs"])
LARGEST_PAGE = 1000


class AuditPage(BaseModel):
    """The newest lines of the audit log."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    total: int
    """How many fit."""
    lines: list[Line]
    """The newest of them, the oldest first."""


@router.get("")
def list_audit(
    event_type: Annotated[
        str | None, Query(max_length=100, description="How it begins, such as key.")
    ] = None,
    actor: Annotated[str | None, Query(max_length=200, description="A part of who did it.")] = None,
    subject: Annotated[str | None, Query(max_length=200, description="Done to what.")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Lines.")] = 100,
) -> AuditPage:
    """The newest lines of the audit log."""
    kept: deque[Line] = deque(maxlen=limit)
    total = 0
    for line in lines(log_folder(), about=subject or ""):
        if (event_type or "") and not line.event_type.startswith(event_type or ""):
            continue
        if actor is not None and actor not in line.actor:
            continue
        kept.append(line)
        total += 1
    return AuditPage(total=total, lines=list(kept))


@router.get("/verify")
def verify_audit(
    known: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,18}:[0-9a-f]{64}$", description="`head` of an earlier answer."),
    ] = None,
) -> Verdict:
    """Whether nothing of it was changed, removed, moved or cut off."""
    number, _, digest = (known or "").partition(":")
    return verify(log_folder(), (int(number), digest) if known else None)


@costs.get("/api/costs")
def read_costs(
    by: Annotated[By, Query(description="What they are added up by.")] = By.PRESET,
    since: Annotated[date | None, Query(description="First day (UTC).")] = None,
    until: Annotated[date | None, Query(description="Last day (UTC).")] = None,
) -> Costs:
    """GPU-seconds and money of all runs, by what they were spent on."""
    return costs_of(by, since, until)
