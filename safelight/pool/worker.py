"""The Prefect worker type `safelight-gpu`: flow runs in processes that keep their models loaded."""

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound
from prefect.workers.base import BaseWorker

from safelight.errors import PipelineError
from safelight.pool import prefect_internals as internals
from safelight.pool.announcing import ANNOUNCE_SECONDS, announce
from safelight.pool.configuration import (
    KNOWN_DEPLOYMENT,
    POOL_TYPE,
    PoolJobConfiguration,
    PoolResult,
    PoolVariables,
    Wanted,
)
from safelight.pool.devices import find_devices
from safelight.pool.fencing import awake
from safelight.pool.messages import Ended, Run
from safelight.pool.orphans import LOOK_SECONDS, Leases, take_over
from safelight.pool.process import Died, Outcome, WarmProcess
from safelight.pool.reporting import settle
from safelight.pool.routing import choose, fits, job_variables, remember
from safelight.pool.starting import Starting
from safelight.pool.waiting import LOOK_SECONDS as WAITING_SECONDS
from safelight.pool.waiting import WaitingRoom, say_why
from safelight.pool.watching import FLOW_RUN, Running, beat, renew, watch
from safelight.progress import StopReason
from safelight.settings import settings

SCHEDULED = "prefect.flow-run.Scheduled"
CANCELLING = "prefect.flow-run.Cancelling"
TAKEN = "prefect.flow-run.Pending"
DUE_EVENTS = (
    SCHEDULED,
    "prefect.flow-run.AwaitingRetry",
    "prefect.flow-run.Resuming",
    "prefect.flow-run.Late",
)
RECONNECT_SECONDS = 1.0
AGAIN_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""When the server is asked again for a run that it told of and does not show: its event is sent
before the transaction that makes the run ends."""
STOP_SECONDS = 20.0
"""Time for running stages to stop when the worker must go at once."""
LABEL_SECONDS = 1.0
"""How long after its start a run is labelled with its worker, so as not to delay the start."""


@dataclass(frozen=True)
class _Wants:
    """What a run asks of its process, known before it is taken."""

    device: Wanted = "any"
    min_vram_gib: float = 0.0
    key: str = ""
    deployment: DeploymentResponse | None = None

    def suit(self, process: WarmProcess) -> bool:
        """Whether a process may run it."""
        return fits(process.device, self.device, self.min_vram_gib)


class SafelightWorker(BaseWorker[PoolJobConfiguration, PoolVariables, PoolResult]):
    """Hands flow runs to one warm process per device.

    Runs start when their event arrives rather than at the next poll. SIGTERM or Ctrl-C lets
    running flow runs finish and takes no new ones; the second stops them at their next step, and
    another worker goes on with them.
    """

    type: ClassVar[str] = POOL_TYPE  # pyright: ignore[reportIncompatibleVariableOverride]
    job_configuration = PoolJobConfiguration
    job_configuration_variables = PoolVariables
    _display_name = "Safelight GPU"
    _description = (
        "Runs flow runs in long-lived processes, one per GPU, so that models stay loaded."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (Prefect's own)
        super().__init__(*args, **kwargs)
        devices = find_devices(settings().pool_devices)
        internals.limit_runs(self, len(devices))
        self._processes = [WarmProcess(device, devices=len(devices)) for device in devices]
        self._free = list(self._processes)
        self._running: dict[UUID, Running] = {}
        self._wants: dict[UUID, _Wants] = {}
        self._awaited: dict[UUID, int] = {}
        self._starting = Starting(lambda run_id: self.client.read_flow_run(run_id))
        self._submitting = anyio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._draining = False
        self._drain_asked = asyncio.Event()
        self._services: anyio.CancelScope | None = None

    async def setup(self) -> None:
        """Start the processes and the services beside the poll."""
        await super().setup()
        internals.before_requests_of(self, self._starting.guard)
        self._main = internals.current_task()
        self._services = anyio.CancelScope()
        internals.start_soon(self, self._serve)
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # not the main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)
        for process in self._processes:
            await anyio.to_thread.run_sync(process.start)

    async def teardown(self, *exc_info: Any) -> None:  # noqa: ANN401  (Prefect's own)
        """End the services, then the processes."""
        if self._services is not None:
            self._services.cancel()
        try:
            await super().teardown(*exc_info)
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    for process in self._processes:
                        group.start_soon(anyio.to_thread.run_sync, process.close)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take the due runs that a free device suits."""
        if self._draining:
            return []
        async with self._submitting:
            asked = awake()
            found = await internals.due_flow_runs(self)
            self._ask_again({entry.flow_run.id for entry in found})
            chosen = await self._suitable(found)
            self._starting.saw((entry.flow_run.id for entry in chosen), asked)
            await internals.submit(self, chosen)
            return [entry.flow_run for entry in chosen]

    async def run(
        self,
        flow_run: FlowRun,
        configuration: PoolJobConfiguration,
        task_status: "anyio.abc.TaskStatus[int] | None" = None,
    ) -> PoolResult:
        """Run a flow run in a warm process and see to it that it ends in a state."""
        process = await self._seat(flow_run.id, configuration)
        if configuration.ignored:
            self.get_flow_run_logger(flow_run).warning(
                "ignored of env, since a run may not set it: %s. Fix: set it for the worker, or "
                "name it in the worker's SAFELIGHT_POOL_RUN_ENV if it guards nothing",
                ", ".join(configuration.ignored)[:1000],
            )
        running = Running(flow_run, process, configuration.grace_seconds)
        self._running[flow_run.id] = running
        try:
            command = Run(
                flow_run_id=flow_run.id,
                environment={k: v for k, v in configuration.env.items() if v is not None},
                working_dir=configuration.working_dir,
                worker=running.claim.worker,
                number=running.claim.number,
            )
            future = await anyio.to_thread.run_sync(process.run, command)
            internals.start_soon(self, lambda: self._label(flow_run.id))
            if task_status is not None:
                status = cast("anyio.abc.TaskStatus[Any]", task_status)
                status.started(running.owner)
            outcome = await self._finished(running, asyncio.wrap_future(future))
            remember(process, _key(flow_run, configuration))
            code = 0
            if isinstance(outcome, Died) or outcome.outcome != "reported":
                code = await settle(
                    flow_run.id,
                    running.claim,
                    outcome,
                    running.cancelling,
                    configuration.restarts,
                )
            return PoolResult(identifier=running.owner, status_code=code)
        finally:
            running.over.set()
            del self._running[flow_run.id]
            self._free.append(process)
            self._wake.set()
            async with self._changed:
                self._changed.notify_all()

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: PoolJobConfiguration,
        grace_seconds: int = 30,
    ) -> None:
        """Stop a run that was cancelled before it began; Prefect's own path for pending runs."""
        del configuration, grace_seconds  # each run has its own
        for running in list(self._running.values()):
            if running.owner == infrastructure_pid:
                self._tell(running, StopReason.CANCEL)
                await running.over.wait()
                return
        raise InfrastructureNotFound(f"{infrastructure_pid} is not running")

    async def _label(self, run_id: UUID) -> None:
        await anyio.sleep(LABEL_SECONDS)
        with suppress(httpx.HTTPError, ObjectNotFound):
            await internals.label(self, run_id)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        KNOWN_DEPLOYMENT.set(self._wants.get(flow_run.id, _Wants()).deployment)
        try:
            await internals.submit_one(self, flow_run)
        except httpx.HTTPError as error:  # it would end the worker and every run it has
            self._logger.warning("flow run %s was not started, later: %s", flow_run.id, error)
            internals.let_go(self, flow_run.id)
            asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._wake.set)
            return
        finally:
            self._wants.pop(flow_run.id, None)
            self._starting.forget(flow_run.id)
        if flow_run.id not in self._running:  # another worker was faster, the place is free again
            self._wake.set()

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Leave it for a moment later: the run need not wait for it."""

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Leave the run as Pending: the process is there, so it is Running a moment later."""

    async def _serve(self) -> None:
        if self._services is None:
            return
        with self._services:
            async with anyio.create_task_group() as group:
                group.start_soon(self._dispatch)
                group.start_soon(self._listen)
                group.start_soon(watch, self.client, self._running, self._tell)
                group.start_soon(renew, self.client, self._running, self.name)
                group.start_soon(beat, self._running)
                group.start_soon(self._announce)
                group.start_soon(self._adopt)
                group.start_soon(self._say_what_runs_wait_for)
                group.start_soon(self._drain)

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._unreserved():
                continue  # a process that becomes free wakes us; Prefect's poll goes on meanwhile
            try:
                await self.get_and_submit_flow_runs()
            except httpx.HTTPError:
                asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._wake.set)

    async def _listen(self) -> None:
        while True:
            if self._work_pool is None:  # not synced yet
                await anyio.sleep(RECONNECT_SECONDS)
                continue
            pool = EventAnyResourceFilter(id=[f"prefect.work-pool.{self.work_pool.id}"])
            names = EventNameFilter(name=[*DUE_EVENTS, TAKEN, CANCELLING])
            try:
                async with get_events_subscriber(
                    EventFilter(event=names, any_resource=pool), reconnect_on_clean_close=True
                ) as events:
                    self._wake.set()
                    async for event in events:
                        self._heard(event)
            except Exception as error:  # noqa: BLE001  (Prefect raises a bare Exception)
                self._logger.info("no events from the server, polling meanwhile: %s", error)
            await anyio.sleep(RECONNECT_SECONDS)

    def _heard(self, event: Event) -> None:
        run_id = UUID(event.resource.id.removeprefix(FLOW_RUN))
        if event.event in DUE_EVENTS:
            self._awaited[run_id] = 0
            self._wake.set()
        elif event.event == TAKEN:
            self._awaited.pop(run_id, None)
        elif run_id in self._running:
            self._tell(self._running[run_id], StopReason.CANCEL)

    def _ask_again(self, shown: set[UUID]) -> None:
        for run_id, times in list(self._awaited.items()):
            if run_id in shown or times == len(AGAIN_SECONDS):
                del self._awaited[run_id]
            else:
                self._awaited[run_id] += 1
                seconds = AGAIN_SECONDS[times]
                asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def _announce(self) -> None:
        devices = [process.device for process in self._processes]
        while True:
            if self._work_pool is None:  # not synced yet
                await anyio.sleep(RECONNECT_SECONDS)
                continue
            announce(self.work_pool.name, self.name, devices)
            await anyio.sleep(ANNOUNCE_SECONDS)

    async def _adopt(self) -> None:
        leases = Leases()
        while True:
            with suppress(httpx.HTTPError, ObjectNotFound):
                if self._work_pool is not None:
                    mine = set(self._running) | internals.in_progress(self)
                    await take_over(self.client, self.work_pool.name, mine, leases)
            await anyio.sleep(LOOK_SECONDS)

    async def _say_what_runs_wait_for(self) -> None:
        rooms: dict[str, WaitingRoom] = {}
        while True:
            await anyio.sleep(WAITING_SECONDS)
            if self._work_pool is None:
                continue
            name = self.work_pool.name
            with suppress(PipelineError, ObjectNotFound):
                await anyio.to_thread.run_sync(say_why, name, self.name, rooms)

    def _tell(self, running: Running, reason: StopReason) -> None:
        if running.stopping not in (reason, StopReason.GIVE_UP):
            running.stopping = reason
            internals.start_soon(self, lambda: self._stop(running, reason))

    async def _stop(self, running: Running, reason: StopReason) -> None:
        run_id = running.flow_run.id
        await anyio.to_thread.run_sync(running.process.stop, run_id, reason)
        with anyio.move_on_after(running.grace_seconds):
            await running.over.wait()
        if not running.over.is_set():
            self._logger.warning(
                "flow run %s did not stop in %.0f s; its process is killed",
                run_id,
                running.grace_seconds,
            )
            running.process.kill()

    async def _finished(self, running: Running, future: "asyncio.Future[Outcome]") -> Ended | Died:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:  # the worker must go, this run shall go on elsewhere
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(
                    running.process.stop, running.flow_run.id, StopReason.RESCHEDULE
                )
                await asyncio.wait([future], timeout=STOP_SECONDS)
                if not future.done():
                    running.process.kill()
                await future
            return future.result()

    async def _seat(self, run_id: UUID, configuration: PoolJobConfiguration) -> WarmProcess:
        async with self._changed:
            while True:
                suiting = [
                    process
                    for process in self._free
                    if fits(process.device, configuration.device, configuration.min_vram_gib)
                ]
                if suiting:
                    break
                await self._changed.wait()
            process = choose(suiting, self._wants.get(run_id, _Wants()).key)
            self._free.remove(process)
            return process

    async def _suitable(self, found: list[WorkerFlowRunResponse]) -> list[WorkerFlowRunResponse]:
        """Those that are due and that a free device suits; one device for each."""
        starting = internals.in_progress(self)
        free = self._unreserved()
        chosen: list[WorkerFlowRunResponse] = []
        deployments: dict[UUID, DeploymentResponse | None] = {}
        for entry in found:
            if not free:
                break
            flow_run = entry.flow_run
            if flow_run.id in starting or flow_run.id in self._running:
                continue
            if not self._is_due(flow_run):
                continue
            wants = await self._wanted(flow_run, deployments)
            if _reserve(free, wants):
                self._wants[flow_run.id] = wants
                chosen.append(entry)
        return chosen

    def _unreserved(self) -> list[WarmProcess]:
        """The free processes without those that runs which were taken will need."""
        free = list(self._free)
        for run_id in internals.in_progress(self) - set(self._running):
            _reserve(free, self._wants.get(run_id, _Wants()))
        return free

    def _is_due(self, flow_run: FlowRun) -> bool:
        due = flow_run.next_scheduled_start_time
        wait = due.timestamp() - time.time() if due else 0.0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._wake.set)
        return wait <= 0

    async def _wanted(
        self, flow_run: FlowRun, deployments: dict[UUID, DeploymentResponse | None]
    ) -> _Wants:
        deployment: DeploymentResponse | None = None
        if flow_run.deployment_id is not None:
            if flow_run.deployment_id not in deployments:
                deployments[flow_run.deployment_id] = await self._deployment(flow_run.deployment_id)
            deployment = deployments[flow_run.deployment_id]
        wants = job_variables(self.work_pool, deployment, flow_run)
        return _Wants(
            device=wants.get("device", "any"),
            min_vram_gib=float(wants.get("min_vram_gib") or 0),
            key=wants.get("model") or str(flow_run.deployment_id),
            deployment=deployment,
        )

    async def _deployment(self, deployment_id: UUID) -> DeploymentResponse | None:
        with suppress(ObjectNotFound):
            return await self.client.read_deployment(deployment_id)
        return None

    def _on_signal(self) -> None:
        if self._draining:
            self._logger.info("stopping now; running flow runs go on in another worker")
            self._main.cancel()
            return
        self._draining = True
        self._drain_asked.set()
        self._logger.info("taking no new runs, waiting for %d", len(self._running))

    async def _drain(self) -> None:
        await self._drain_asked.wait()
        while self._running or internals.in_progress(self):
            await anyio.sleep(0.1)
        self._main.cancel()


def _key(flow_run: FlowRun, configuration: PoolJobConfiguration) -> str:
    return configuration.model or str(flow_run.deployment_id)


def _reserve(free: list[WarmProcess], wants: _Wants) -> bool:
    for process in free:
        if wants.suit(process):
            free.remove(process)
            return True
    return False
