"""Routes of web hooks."""

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from safelight.audit.log import record
from safelight.errors import RateLimitExceededError
from safelight.gateway.hooks.addresses import LONGEST, addresses, place_of
from safelight.gateway.hooks.records import (
    ENDS,
    MOST_HOOKS,
    Delivery,
    Hook,
    KeptHook,
    all_hooks,
    deliveries,
    find_hook,
    forget_hook,
    keep_hook,
    new_secret,
)
from safelight.gateway.jobs import Status
from safelight.gateway.workflows import WorkflowType

router = APIRouter(prefix="/api/hooks", tags=["web hooks"])
HookId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="Of the web hook.")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NewHook(_Frozen):
    """A web hook that is to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/safelight", "statuses": ["FAILED"]}]
        }
    )

    url: str = Field(max_length=LONGEST, examples=["https://example.com/safelight"])
    """Who is told: http or https, of the internet unless the operator allows more."""
    statuses: tuple[Status, ...] = Field(default=ENDS, min_length=1, max_length=3)
    """Ends that are told: SUCCEEDED, FAILED, CANCELLED."""
    workflow_types: tuple[WorkflowType, ...] = Field(default=(), max_length=20)
    """Kinds of work; empty is all."""
    named: bool = False
    """Tell only of jobs that name it in `hooks`."""


class MadeHook(Hook):
    """A new web hook, with its secret, which is shown this once."""

    secret: str
    """Signs what is sent."""


class Hooks(_Frozen):
    """All web hooks."""

    total: int
    """How many."""
    hooks: list[Hook]
    """The first one first."""


class Deliveries(_Frozen):
    """What a web hook was told, and is to be told."""

    total: int
    """How many."""
    deliveries: list[Delivery]
    """The first one first."""


@router.get("")
def list_hooks() -> Hooks:
    """All web hooks."""
    found = [hook.shown for hook in all_hooks()]
    return Hooks(total=len(found), hooks=found)


@router.post("", status_code=201)
def create_hook(wanted: NewHook, answer: Response) -> MadeHook:
    """Make a web hook; its secret is in this answer alone."""
    place = place_of(wanted.url)
    addresses(place)
    if len(all_hooks()) >= MOST_HOOKS:
        raise RateLimitExceededError(
            f"there are {MOST_HOOKS} web hooks, no more may be", "remove one"
        )
    made = KeptHook(
        id=secrets.token_hex(8),
        created_at=datetime.now(UTC),
        secret=new_secret().get_secret_value(),
        **wanted.model_dump(),
    )
    record("hook.made", made.id, {"host": place.name})
    keep_hook(made)
    answer.headers["Location"] = f"/api/hooks/{made.id}"
    return MadeHook.model_validate(made.model_dump())


@router.get("/{hook_id}")
def read_hook(hook_id: HookId) -> Hook:
    """One web hook."""
    return find_hook(hook_id).shown


@router.delete("/{hook_id}", status_code=204, response_class=Response)
def delete_hook(hook_id: HookId) -> Response:
    """Remove a web hook, and what it was to be told."""
    find_hook(hook_id)
    record("hook.removed", hook_id)
    forget_hook(hook_id)
    return Response(status_code=204)


@router.get("/{hook_id}/deliveries")
def list_deliveries(hook_id: HookId) -> Deliveries:
    """What a web hook was told and is to be told; what is done is kept for seven days."""
    find_hook(hook_id)
    found = deliveries(hook_id)
    return Deliveries(total=len(found), deliveries=found)
