"""Has flow runs executed for a command: by the workers of a server, or by a warm process here."""

import os
from collections.abc import Generator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from pydantic import JsonValue

from safelight.cli.inputs import typed
from safelight.cli.server import prefect_api
from safelight.client.asking import patient_client
from safelight.client.contracts import entrypoint
from safelight.client.leaving import leave_for
from safelight.client.runs import (
    OnProgress,
    RunEnd,
    create_run,
    find_deployment,
    follow,
)
from safelight.naming import tagged
from safelight.pool.devices import GIB, Device, machine_memory
from safelight.pool.messages import Run
from safelight.pool.process import WarmProcess
from safelight.pool.reporting import next_state
from safelight.progress import StopReason
from safelight.store.results import register_results

COMMAND_SECONDS = 60.0
"""How long a server may be away before the command that follows a run gives up."""
FRESH = {"PREFECT_TASKS_REFRESH_CACHE": "true"}
"""Makes Prefect run every task again."""
THIS_MACHINE = Device("this machine", "cpu", machine_memory() / GIB, environment=())
"""Whatever `SAFELIGHT_DEVICE` names; one process uses all of it."""
RESTARTS = 1
"""Times a run whose process died is started again."""


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
        environment = FRESH if fresh else {}
        with patient_client(COMMAND_SECONDS) as client:
            if self._process is None:
                deployment_id = find_deployment(client, flow)
                # the server checks types before the flow converts them
                schema = client.read_deployment(deployment_id).parameter_openapi_schema
                parameters = typed(parameters, schema or {})
            else:
                deployment_id = _deployed(client, flow)
            created = create_run(client, deployment_id, flow, parameters, environment)
            runner = None
            if self._process is not None:
                command = Run(flow_run_id=created.id, environment=environment)
                runner = _Here(client, self._process, command)
            return follow(client, created.id, flow, on_progress, runner)


class _Here:
    """A run in a process of the command's own."""

    def __init__(self, client: SyncPrefectClient, process: WarmProcess, command: Run) -> None:
        self._client = client
        self._process = process
        self._command = command
        self._restarts_left = RESTARTS
        self._running = process.run(command)

    def wait(self, seconds: float) -> None:
        wait([self._running], seconds)

    def settled(self, flow_run: FlowRun, *, asked_to_stop: bool) -> bool:
        if not self._running.done():
            return False
        outcome = self._running.result()
        flow_run = self._client.read_flow_run(flow_run.id)  # it may have said so just before
        if flow_run.state is not None and flow_run.state.is_final():
            return True
        state = next_state(flow_run, outcome, asked_to_stop, self._restarts_left)
        if state.is_final():
            leave_for(flow_run, state)
        if state.is_failed() or state.is_crashed():
            self._client.update_flow_run(flow_run.id, tags=tagged(flow_run.tags, state.message))
        self._client.set_flow_run_state(flow_run.id, state, force=True)
        if state.is_scheduled():
            self._restarts_left -= 1
            self._running = self._process.run(self._command)
        return True

    def stop(self) -> None:
        self._process.stop(self._command.flow_run_id, StopReason.CANCEL)

    def kill(self) -> None:
        self._process.kill()


def _deployed(client: SyncPrefectClient, flow: str) -> UUID:
    flow_id = client.create_flow_from_name(flow)
    return client.create_deployment(
        flow_id,
        name=flow,
        entrypoint=entrypoint(flow),
        enforce_parameter_schema=False,  # the flow refuses with our own codes
    )


@contextmanager
def session() -> Generator[Session]:
    """A session on the configured Prefect server, or on an embedded one."""
    started: list[Session] = []

    def beside(url: str) -> Session:
        """The warm process starts while its server does: each takes seconds of one core."""
        started.append(Session(url, embedded=True))
        return started[0]

    with prefect_api(beside) as url:
        if started:
            register_results()
            yield started[0]
            return
        with Session(url, embedded=False) as opened:
            yield opened
