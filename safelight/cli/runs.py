"""Creates flow runs through the Prefect API, follows them, and reads what they leave."""

import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from pydantic import JsonValue

from safelight.cli.contracts import entrypoint
from safelight.cli.inputs import typed
from safelight.cli.server import configured_api_url, prefect_api
from safelight.client.asking import patient_client
from safelight.errors import DependencyMissingError
from safelight.naming import run_name, tagged
from safelight.pool.devices import GIB, Device, machine_memory
from safelight.pool.messages import Run
from safelight.pool.process import Outcome, WarmProcess
from safelight.pool.reporting import next_state
from safelight.progress import StopReason
from safelight.provenance.manifest import MANIFESTS, Manifest, load_manifest
from safelight.store.results import register_results
from safelight.store.store import current_store

POLL_SECONDS = 0.3
COMMAND_SECONDS = 60.0
"""How long a server may be away before the command that follows a run gives up."""
FRESH = {"PREFECT_TASKS_REFRESH_CACHE": "true"}
"""Makes Prefect run every task again."""
GRACE_SECONDS = 20.0
"""Between a request to stop and the end of a run that does not heed it."""
THIS_MACHINE = Device("this machine", "cpu", machine_memory() / GIB, environment=())
"""Whatever `SAFELIGHT_DEVICE` names; one process uses all of it."""
RESTARTS = 1
"""Times a run whose process died is started again."""
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


class Session:
    """A Prefect API with a way to have runs executed: its workers, or a warm process of ours."""

    def __init__(self, api_url: str, *, embedded: bool) -> None:
        self.api_url = api_url
        self._embedded = embedded
        environment = {
            "PREFECT_API_URL": api_url,
            "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
        }
        self._process = WarmProcess(THIS_MACHINE, environment) if embedded else None

    def __enter__(self) -> Self:
        """Start the process that runs flow runs while the first of them is prepared."""
        if self._process is not None:
            self._process.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End that process."""
        if self._process is not None:
            self._process.close()

    def run(
        self,
        flow: str,
        parameters: dict[str, JsonValue],
        on_progress: OnProgress | None = None,
        *,
        fresh: bool = False,
    ) -> RunEnd:
        """Create a run of a flow's deployment and follow it to its end; Ctrl-C cancels it.

        Args:
            flow: name of the flow.
            parameters: as the flow takes them.
            on_progress: called with percent and text while the run goes on.
            fresh: take no result from the cache.

        Raises:
            DependencyMissingError: the configured server has no deployment of this flow.
            InvalidFieldValueError: the server refused the parameters.
        """
        with patient_client(COMMAND_SECONDS) as client:
            deployment_id = self._deployment(client, flow)
            if not self._embedded:  # the server checks types before the flow converts them
                schema = client.read_deployment(deployment_id).parameter_openapi_schema
                parameters = typed(parameters, schema or {})
            extra_env = FRESH if fresh else {}
            created = client.create_flow_run_from_deployment(
                deployment_id,
                parameters=parameters,
                name=run_name(flow, parameters),
                job_variables={"env": extra_env} if extra_env else None,
                idempotency_key=str(uuid4()),  # one run, also when the first answer is lost
            )
            command = Run(flow_run_id=created.id, environment=extra_env)
            return self._follow(client, command, flow, on_progress)

    def _deployment(self, client: SyncPrefectClient, flow: str) -> UUID:
        if self._embedded:
            flow_id = client.create_flow_from_name(flow)
            return client.create_deployment(
                flow_id,
                name=flow,
                entrypoint=entrypoint(flow),
                enforce_parameter_schema=False,  # the flow refuses with our own codes
            )
        try:
            return client.read_deployment_by_name(f"{flow}/{flow}").id
        except ObjectNotFound as error:
            raise DependencyMissingError(
                f"the server at {self.api_url} has no deployment {flow}/{flow}",
                "run: safelight deploy",
            ) from error

    def _started(self, command: Run) -> "Future[Outcome] | None":
        return None if self._process is None else self._process.run(command)

    def _follow(
        self,
        client: SyncPrefectClient,
        command: Run,
        flow: str,
        on_progress: OnProgress | None,
    ) -> RunEnd:
        flow_run_id = command.flow_run_id
        running = self._started(command)
        restarts_left = RESTARTS
        asked_to_stop = False
        patience = float("inf")
        while True:
            try:
                if self._process is not None and time.monotonic() > patience:
                    self._process.kill()
                done = running is not None and running.done()
                flow_run = client.read_flow_run(flow_run_id)
                if flow_run.state is not None and flow_run.state.is_final():
                    return RunEnd(
                        flow_run, _manifest_of(flow_run_id), flow, interrupted=asked_to_stop
                    )
                if done and running is not None:
                    state = next_state(flow_run, running.result(), asked_to_stop, restarts_left)
                    if state.is_failed() or state.is_crashed():
                        tags = tagged(flow_run.tags, state.message)
                        client.update_flow_run(flow_run_id, tags=tags)
                    client.set_flow_run_state(flow_run_id, state, force=True)
                    if state.is_scheduled():
                        restarts_left -= 1
                        running = self._started(command)
                    continue
                if on_progress is not None:
                    on_progress(*_progress(client, flow_run_id))
                if running is None:
                    time.sleep(POLL_SECONDS)
                else:
                    wait([running], POLL_SECONDS)
            except KeyboardInterrupt:
                if asked_to_stop:
                    raise
                asked_to_stop = True
                patience = time.monotonic() + GRACE_SECONDS
                client.set_flow_run_state(flow_run_id, Cancelling(message="stopped with Ctrl-C"))
                if self._process is not None:
                    self._process.stop(flow_run_id, StopReason.CANCEL)


@contextmanager
def session() -> Generator[Session]:
    """A session on the configured Prefect server, or on an embedded one."""
    embedded = configured_api_url() is None
    with prefect_api() as url:
        if embedded:
            register_results()
        with Session(url, embedded=embedded) as opened:
            yield opened


def _manifest_of(flow_run_id: UUID) -> Manifest | None:
    key = f"{MANIFESTS}{flow_run_id}.json"
    if not current_store().backend.exists(key):
        return None
    return load_manifest(key)


def _progress(client: SyncPrefectClient, flow_run_id: UUID) -> tuple[float, str]:
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    )
    for artifact in found:
        if artifact.type == "progress" and isinstance(artifact.data, int | float):
            return float(artifact.data), artifact.description or ""
    return 0.0, ""
