"""A job: a Prefect flow run of a workflow, as callers see it. Nothing of it is kept here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.characters.tags import character_in
from safelight.client.runs import NO_PROGRESS, Progress, progress_of_all
from safelight.gateway.problems import UnknownJobError
from safelight.gateway.workflows import WorkflowType, type_of
from safelight.provenance.endings import failure_in
from safelight.provenance.manifest import Failure


class Status(StrEnum):
    """How a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


STATE_TYPES: Mapping[Status, tuple[StateType, ...]] = {
    Status.QUEUED: (StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED),
    Status.RUNNING: (StateType.RUNNING,),
    Status.SUCCEEDED: (StateType.COMPLETED,),
    Status.FAILED: (StateType.FAILED, StateType.CRASHED),
    Status.CANCELLED: (StateType.CANCELLING, StateType.CANCELLED),
}
"""Prefect's types of states that read as a status."""
_STATUS = {kind: status for status, kinds in STATE_TYPES.items() for kind in kinds}


class Job(BaseModel):
    """A run of a workflow."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: UUID
    """Of the flow run."""
    workflow: str
    """Preset or other flow that it runs."""
    workflow_type: WorkflowType
    """What kind of work it is."""
    name: str
    """What it makes: prompt or file, seed, quality."""
    status: Status
    """How it stands."""
    state: str
    """The same in Prefect's words, for instance Pending or AwaitingRetry."""
    message: str
    """What the state says; of a failed job its code, what was found, and what to do."""
    progress: float
    """0 to 100."""
    stage: str
    """Stage and step it has reached; empty where it told none."""
    error: Failure | None
    """Why it failed."""
    parameters: dict[str, JsonValue]
    """As it was submitted."""
    character_id: str | None
    """Of the character that it is for."""
    created_at: datetime | None
    """When it was submitted."""
    updated_at: datetime | None
    """When anything of it changed last."""
    started_at: datetime | None
    """When it first ran."""
    ended_at: datetime | None
    """When it came to its end."""


class Flows:
    """Names of flows by their ids, which do not change."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._names: dict[UUID, str] = {}

    def name(self, flow_id: UUID) -> str:
        """The name of a flow."""
        known = self._names.get(flow_id)
        if known is None:
            known = self._names[flow_id] = self._client.read_flow(flow_id).name
        return known


def status_of(state: State[Any] | None) -> Status:
    """How a job in this state stands."""
    return Status.QUEUED if state is None else _STATUS[state.type]


def percent_of(status: Status, progress: Progress) -> float:
    """How far a job is: all of the way once it succeeded, whatever it told last."""
    return 100.0 if status is Status.SUCCEEDED else min(max(progress.percent, 0.0), 100.0)


def error_of(state: State[Any] | None) -> Failure | None:
    """Why a job failed; None where it did not."""
    if state is None or status_of(state) is not Status.FAILED:
        return None
    return failure_in(state.message or state.name or "")


def described(run: FlowRun, flow: str, kind: WorkflowType, progress: Progress) -> Job:
    """A flow run as a job."""
    status = status_of(run.state)
    return Job(
        id=run.id,
        workflow=flow,
        workflow_type=kind,
        name=run.name,
        status=status,
        state=(run.state.name if run.state else None) or status.value,
        message=(run.state.message if run.state else None) or "",
        progress=percent_of(status, progress),
        stage=progress.text,
        error=error_of(run.state),
        parameters=run.parameters,
        character_id=character_in(run.tags),
        created_at=run.created,
        updated_at=run.updated,
        started_at=run.start_time,
        ended_at=run.end_time,
    )


def described_all(client: SyncPrefectClient, flows: Flows, runs: Sequence[FlowRun]) -> list[Job]:
    """Flow runs of workflows as jobs, in their order; what is none is left out."""
    told = progress_of_all(client, [run.id for run in runs]) if runs else {}
    jobs: list[Job] = []
    for run in runs:
        flow = flows.name(run.flow_id)
        kind = type_of(flow)
        if kind is not None:
            jobs.append(described(run, flow, kind, told.get(run.id, NO_PROGRESS)))
    return jobs


def find_run(client: SyncPrefectClient, flows: Flows, job_id: UUID) -> tuple[FlowRun, str]:
    """The flow run of a job, and the name of its flow.

    Raises:
        UnknownJobError: there is none, or it is a run of something else.
    """
    try:
        run = client.read_flow_run(job_id)
        flow = flows.name(run.flow_id)
    except ObjectNotFound as error:
        raise _unknown(job_id) from error
    if run.deployment_id is None or type_of(flow) is None:
        raise _unknown(job_id)
    return run, flow


def find_job(client: SyncPrefectClient, flows: Flows, job_id: UUID) -> Job:
    """The job of an id.

    Raises:
        UnknownJobError: there is none.
    """
    run, _ = find_run(client, flows, job_id)
    return described_all(client, flows, [run])[0]


def _unknown(job_id: UUID) -> UnknownJobError:
    return UnknownJobError(f"there is no job {job_id}", "take an id that /api/jobs lists")
