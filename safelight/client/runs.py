"""Creates flow runs through the Prefect API, follows them, and reads what they leave."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from pydantic import JsonValue

from safelight.audit.log import Entry, record_all
from safelight.errors import DependencyMissingError
from safelight.naming import run_name
from safelight.observing.correlating import labels
from safelight.provenance.manifest import MANIFESTS, Manifest, load_manifest
from safelight.store.store import current_store

POLL_SECONDS = 0.3
GRACE_SECONDS = 20.0
"""Between a request to stop and the end of a run that does not heed it."""
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class RunEnd:
    """How a flow run ended."""

    flow_run: FlowRun
    """As the Prefect API describes it."""
    manifest: Manifest | None
    """What it left; None when it was refused before it began."""
    flow: str
    """Name of its flow."""
    interrupted: bool = False
    """Whether it was asked to stop from here."""

    @property
    def succeeded(self) -> bool:
        """Whether the run is COMPLETED."""
        return self.flow_run.state is not None and self.flow_run.state.is_completed()

    @property
    def message(self) -> str:
        """The state's message: for a failed run its code, what was found, and what to do."""
        state = self.flow_run.state
        return (state.message or state.name or "") if state else "the run has no state"


class Runner(Protocol):
    """What runs a flow run where no worker does."""

    def wait(self, seconds: float) -> None:
        """Wait until its work has ended, at most that long."""
        ...

    def settled(self, flow_run: FlowRun, *, asked_to_stop: bool) -> bool:
        """Whether its work had ended without a final state, and the run was given one."""
        ...

    def stop(self) -> None:
        """Ask the work to stop at its next step."""
        ...

    def kill(self) -> None:
        """End its process."""
        ...


def find_deployment(client: SyncPrefectClient, flow: str) -> UUID:
    """The deployment of a flow that has the flow's own name.

    Raises:
        DependencyMissingError: the server has none.
    """
    try:
        return client.read_deployment_by_name(f"{flow}/{flow}").id
    except ObjectNotFound as error:
        raise DependencyMissingError(
            f"the server at {client.api_url} has no deployment {flow}/{flow}",
            "run: safelight deploy",
        ) from error


def create_run(
    client: SyncPrefectClient,
    deployment_id: UUID,
    flow: str,
    parameters: dict[str, JsonValue],
    environment: Mapping[str, str],
    key: str | None = None,
    tags: Sequence[str] = (),
) -> FlowRun:
    """Create one run of a deployment, also when the first answer is lost.

    Args:
        client: of the server.
        deployment_id: of the flow.
        flow: its name; the run is named by what it makes.
        parameters: as the flow takes them.
        environment: what the run's process has beside its own.
        key: a second run of the flow with the same one is the first; None draws one.
        tags: of the run, beside those of its deployment.

    Raises:
        InvalidFieldValueError: the server refused the parameters.
    """
    made = client.create_flow_run_from_deployment(
        deployment_id,
        parameters=parameters,
        name=run_name(flow, parameters),
        job_variables={"env": dict(environment)} if environment else None,
        idempotency_key=key or str(uuid4()),
        tags=tags,
        labels=labels(),
    )
    asked = Entry("job.submit", str(made.id), {"flow": flow})
    agreed = [Entry("consent.given", str(made.id), {"flow": flow})]
    record_all([asked, *(agreed if parameters.get("consent_given") is True else [])])
    return made


def follow(
    client: SyncPrefectClient,
    flow_run_id: UUID,
    flow: str,
    on_progress: OnProgress | None = None,
    runner: Runner | None = None,
) -> RunEnd:
    """Follow a run to its end; Ctrl-C cancels it, a second one leaves it.

    Args:
        client: of the server.
        flow_run_id: of the run.
        flow: name of its flow.
        on_progress: called with percent and text while the run goes on.
        runner: who runs it; None where a worker does.
    """
    asked_to_stop = False
    patience = float("inf")
    while True:
        try:
            if runner is not None and time.monotonic() > patience:
                runner.kill()
            flow_run = client.read_flow_run(flow_run_id)
            if flow_run.state is not None and flow_run.state.is_final():
                return RunEnd(flow_run, manifest_of(flow_run_id), flow, interrupted=asked_to_stop)
            if runner is not None and runner.settled(flow_run, asked_to_stop=asked_to_stop):
                continue
            if on_progress is not None:
                on_progress(*progress_of(client, flow_run_id))
            if runner is None:
                time.sleep(POLL_SECONDS)
            else:
                runner.wait(POLL_SECONDS)
        except KeyboardInterrupt:
            if asked_to_stop:
                raise
            asked_to_stop = True
            patience = time.monotonic() + GRACE_SECONDS
            client.set_flow_run_state(flow_run_id, Cancelling(message="stopped with Ctrl-C"))
            record_all([Entry("job.cancel", str(flow_run_id), {"reason": "Ctrl-C"})])
            if runner is not None:
                runner.stop()


def succeeded_runs(
    client: SyncPrefectClient, flow: str, sort: FlowRunSort, limit: int
) -> list[FlowRun]:
    """Runs of a flow that completed.

    Args:
        client: of the server.
        flow: by name.
        sort: which come first.
        limit: how many at most.
    """
    done = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        flow_run_filter=FlowRunFilter(state=done),
        sort=sort,
        limit=limit,
    )


def manifest_of(flow_run_id: UUID) -> Manifest | None:
    """What a run left; None when it was refused before it began."""
    key = f"{MANIFESTS}{flow_run_id}.json"
    if not current_store().backend.exists(key):
        return None
    return load_manifest(key)


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    percent: float
    """0 to 100."""
    text: str
    """Stage and step."""
    updated: datetime | None
    """When the run said so."""


NO_PROGRESS = Progress(0.0, "", None)


def progress_of(client: SyncPrefectClient, flow_run_id: UUID) -> tuple[float, str]:
    """Percent, 0 to 100, and the text of a run's progress."""
    found = progress_of_all(client, [flow_run_id]).get(flow_run_id, NO_PROGRESS)
    return found.percent, found.text


def progress_of_all(
    client: SyncPrefectClient, flow_run_ids: Sequence[UUID]
) -> dict[UUID, Progress]:
    """The progress of those runs that have told any, asked for in one question."""
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(flow_run_ids)),
            type=ArtifactFilterType(any_=["progress"]),
        ),
        sort=ArtifactSort.UPDATED_DESC,  # runs of older versions have one of each try
    )
    told: dict[UUID, Progress] = {}
    for artifact in found:
        run, percent = artifact.flow_run_id, artifact.data
        if run is not None and run not in told and isinstance(percent, int | float):
            told[run] = Progress(float(percent), artifact.description or "", artifact.updated)
    return told
