"""Submits jobs, cancels them, and has failed ones run again."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import AwaitingRetry, Cancelling
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from safelight.audit.log import record
from safelight.characters.keeping import find
from safelight.characters.tags import PARAMETER, character_tags, tag_of
from safelight.client.runs import NO_PROGRESS, create_run, find_deployment
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.gateway.jobs import Flows, Job, Status, described, find_job, find_run, status_of
from safelight.gateway.problems import KeyTakenError, StateConflictError
from safelight.gateway.signin.caller import NO_LIMITS, current_caller
from safelight.gateway.signin.quotas import LOCK, require_share
from safelight.gateway.workflows import check, contract_of, flow_named, type_of

HOOK_TAG = "hook:"
HookName = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
CANCELLABLE = (Status.QUEUED, Status.RUNNING)
RETRIABLE = (Status.FAILED,)
STOPPED = (Status.CANCELLED,)


class Submission(BaseModel):
    """A request for a job."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "workflow": "image_generation",
                    "parameters": {"prompt": "a red heart on white", "seed": 7},
                }
            ]
        },
    )

    workflow: str = Field(max_length=200)
    """A preset's id, an operation, `pipeline`, or another workflow type."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """As the workflow takes them; what is left out keeps its default."""
    character_id: str | None = Field(default=None, min_length=1, max_length=100)
    """Id or name of the character that the job is for; drawn where the workflow draws one."""
    hooks: tuple[HookName, ...] = Field(default=(), max_length=10)
    """Ids of web hooks that are told of its end though they are for named jobs alone."""


class Reason(BaseModel):
    """Why a job is cancelled or retried."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"reason": "wrong colour"}]},
    )

    reason: str = Field(default="", max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")
    """For the audit."""


class Submitter:
    """Creates runs of deployments, whose ids it remembers."""

    def __init__(self, client: SyncPrefectClient, flows: Flows) -> None:
        self._client = client
        self._flows = flows
        self._deployments: dict[str, UUID] = {}

    def submit(self, wanted: Submission, key: str | None, tags: Sequence[str] = ()) -> Job:
        """Create the job, or find the one that was created with the same key.

        Args:
            wanted: the request.
            key: Idempotency-Key of the caller.
            tags: by which the job is found, beside that of its character.

        Raises:
            DependencyMissingError: the server has no deployment of the workflow.
            SlowDownError: the caller's jobs or seconds of the day are used up.
            ShareSpentError: the caller's money of the day is.
            KeyTakenError: the key was given with other parameters.
            PipelineError: what of the request is wrong.
        """
        flow = flow_named(wanted.workflow)
        parameters, whose = _with_character(flow, wanted)
        check(flow, parameters)
        caller = current_caller()
        unique = None if key is None else " ".join(filter(None, ("gateway", caller.id, key)))
        labels = [*whose, *(HOOK_TAG + each for each in wanted.hooks), *tags, *caller.tags]
        with LOCK if caller.limits != NO_LIMITS else nullcontext():
            require_share(self._client, caller, unique)
            run = self._create(flow, parameters, unique, labels)
        if run.parameters != parameters or not set(whose) <= set(run.tags):
            raise KeyTakenError(
                f"Idempotency-Key {key!r} was given before, with other parameters: job {run.id}",
                "send another key with another request",
            )
        kind = type_of(flow)
        if kind is None or run.state is None or not run.state.is_scheduled():
            return find_job(self._client, self._flows, run.id)  # it was there, and went on
        return described(run, flow, kind, NO_PROGRESS)

    def _create(
        self, flow: str, parameters: dict[str, JsonValue], key: str | None, tags: list[str]
    ) -> FlowRun:
        known = self._deployments.get(flow)
        if known is not None:
            try:
                return create_run(self._client, known, flow, parameters, {}, key, tags)
            except DependencyMissingError:  # it was deleted, and perhaps made again
                del self._deployments[flow]
        found = self._deployments[flow] = find_deployment(self._client, flow)
        return create_run(self._client, found, flow, parameters, {}, key, tags)


def _with_character(flow: str, wanted: Submission) -> tuple[dict[str, JsonValue], list[str]]:
    """Parameters and tags of a job for a character.

    Raises:
        MissingFileError: there is no such character.
        InvalidFieldValueError: the parameters name another one.
    """
    given = wanted.parameters
    tags = character_tags(given)
    if wanted.character_id is None:
        return given, tags
    character = find(wanted.character_id)
    own = tag_of(character.id)
    if given.get(PARAMETER) is not None and own not in tags:
        raise InvalidFieldValueError(
            f"character_id is {character.id}, the parameters name {given[PARAMETER]!r}",
            "name the character once",
        )
    if given.get(PARAMETER) is None and PARAMETER in contract_of(flow).described:
        given = {**given, PARAMETER: character.id}
    return given, [own]


def cancel(client: SyncPrefectClient, flows: Flows, job_id: UUID, reason: str) -> Job:
    """Ask a job to stop.

    Raises:
        UnknownJobError: there is none.
        StateConflictError: it has ended, or was asked before.
    """
    _require(client, flows, job_id, CANCELLABLE, "cancelled")
    _set(client, job_id, Cancelling(message=_said("cancelled", reason)), STOPPED, "cancelled")
    record("job.cancel", str(job_id), {"reason": reason})
    return find_job(client, flows, job_id)


def retry(client: SyncPrefectClient, flows: Flows, job_id: UUID, reason: str) -> Job:
    """Have a failed job run again; what its finished stages made is taken from the store.

    Raises:
        UnknownJobError: there is none.
        StateConflictError: it has not failed.
    """
    _require(client, flows, job_id, RETRIABLE, "retried")
    require_share(client, current_caller(), new=False)
    _set(client, job_id, AwaitingRetry(message=_said("retried", reason)), CANCELLABLE, "retried")
    record("job.retry", str(job_id), {"reason": reason})
    return find_job(client, flows, job_id)


def _require(
    client: SyncPrefectClient, flows: Flows, job_id: UUID, allowed: tuple[Status, ...], what: str
) -> None:
    run, _ = find_run(client, flows, job_id)
    status = status_of(run.state)
    if status not in allowed:
        raise _conflict(job_id, status, what, f"it is {status}, expected {' or '.join(allowed)}")


def _set(
    client: SyncPrefectClient,
    job_id: UUID,
    state: State[Any],
    wanted: tuple[Status, ...],
    what: str,
) -> None:
    """Change the state, unless the job went on to another meanwhile."""
    result = client.set_flow_run_state(job_id, state)
    if result.status is SetStateStatus.ACCEPT:
        return
    status = status_of(client.read_flow_run(job_id).state)
    if status not in wanted:  # the server may have chosen a state that is as good
        why = getattr(result.details, "reason", None) or "its state has changed"
        raise _conflict(job_id, status, what, f"it is {status}: {why}")


def _conflict(job_id: UUID, status: Status, what: str, why: str) -> StateConflictError:
    return StateConflictError(
        f"job {job_id} cannot be {what}: {why}", "look at its state, then decide anew", status.value
    )


def _said(what: str, reason: str) -> str:
    return f"{what} through the gateway" + (f": {reason}" if reason else "")
