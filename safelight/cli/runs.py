"""Creates flow runs through the Prefect API, follows them, and reads what they leave."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Crashed
from pydantic import JsonValue

from safelight.cli.server import configured_api_url, prefect_api, stop_process
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.provenance.manifest import MANIFESTS, Manifest, load_manifest
from safelight.store.results import register_results
from safelight.store.store import current_store

POLL_SECONDS = 0.3
LINGER_SECONDS = 30.0
"""A child whose run has ended may take this long to send its last log lines."""
FRESH = {"PREFECT_TASKS_REFRESH_CACHE": "true"}
"""Makes Prefect run every task again."""
GRACE_SECONDS = 20.0
"""Between a request to stop and the end of a run that does not heed it."""
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class Outcome:
    """How a flow run ended."""

    flow_run: FlowRun
    """As the Prefect API describes it."""
    manifest: Manifest | None
    """What it left; None when it was refused before it began."""

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
    """A Prefect API with a way to have runs executed: its workers, or a child process of ours."""

    def __init__(self, api_url: str, *, embedded: bool) -> None:
        self.api_url = api_url
        self._embedded = embedded

    def run(
        self,
        flow: str,
        parameters: dict[str, JsonValue],
        on_progress: OnProgress | None = None,
        *,
        fresh: bool = False,
    ) -> Outcome:
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
        with get_client(sync_client=True) as client:
            deployment_id = self._deployment(client, flow)
            extra_env = FRESH if fresh else {}
            try:
                created = client.create_flow_run_from_deployment(
                    deployment_id,
                    parameters=parameters,
                    job_variables={"env": extra_env} if extra_env else None,
                )
            except PrefectHTTPStatusError as error:
                raise InvalidFieldValueError(
                    f"the server refused the parameters of {flow}: {error.response.text}",
                    "correct the field it names",
                ) from error
            with self._executing(created.id, extra_env) as child:
                return self._follow(client, created.id, child, on_progress)

    def _deployment(self, client: SyncPrefectClient, flow: str) -> UUID:
        if self._embedded:
            flow_id = client.create_flow_from_name(flow)
            return client.create_deployment(
                flow_id,
                name=flow,
                entrypoint=f"flows.{flow}.{flow}",
                enforce_parameter_schema=False,  # the flow refuses with our own codes
            )
        try:
            return client.read_deployment_by_name(f"{flow}/{flow}").id
        except ObjectNotFound as error:
            raise DependencyMissingError(
                f"the server at {self.api_url} has no deployment {flow}/{flow}",
                "run: safelight deploy",
            ) from error

    @contextmanager
    def _executing(
        self, flow_run_id: UUID, extra_env: dict[str, str]
    ) -> Generator["subprocess.Popen[bytes] | None"]:
        if not self._embedded:
            yield None  # a worker of the configured server takes it
            return
        environment = {
            **os.environ,
            **extra_env,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
        }
        command = [sys.executable, "-m", "safelight.pool.child", "--flow-run-id", str(flow_run_id)]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            yield process
            process.wait(LINGER_SECONDS)
        finally:
            stop_process(process)

    def _follow(
        self,
        client: SyncPrefectClient,
        flow_run_id: UUID,
        child: "subprocess.Popen[bytes] | None",
        on_progress: OnProgress | None,
    ) -> Outcome:
        asked_to_stop = False
        patience = float("inf")
        while True:
            try:
                if child is not None and time.monotonic() > patience:
                    child.kill()
                    child.wait()
                gone = child is not None and child.poll() is not None
                flow_run = client.read_flow_run(flow_run_id)
                if flow_run.state is not None and flow_run.state.is_final():
                    return Outcome(flow_run, _manifest_of(flow_run_id))
                if gone and child is not None:
                    client.set_flow_run_state(flow_run_id, _lost(child, asked_to_stop), force=True)
                    continue
                if on_progress is not None:
                    on_progress(*_progress(client, flow_run_id))
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                if asked_to_stop:
                    raise
                asked_to_stop = True
                patience = time.monotonic() + GRACE_SECONDS
                client.set_flow_run_state(flow_run_id, Cancelling(message="stopped with Ctrl-C"))
                if child is not None:
                    child.terminate()


@contextmanager
def session() -> Generator[Session]:
    """A session on the configured Prefect server, or on an embedded one."""
    embedded = configured_api_url() is None
    with prefect_api() as url:
        if embedded:
            register_results()
        yield Session(url, embedded=embedded)


def _lost(child: "subprocess.Popen[bytes]", asked_to_stop: bool) -> State[None]:
    if asked_to_stop:
        return Cancelled(message=f"did not stop within {GRACE_SECONDS:.0f} s and was killed")
    return Crashed(message=f"the process of the run ended with {child.returncode}")


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
