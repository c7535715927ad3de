"""What all worker types of Safelight have in common: they own the runs of their processes.

A worker hands each run to a process, renews its lease, stops it when it is cancelled, deleted or
somebody else's, gives it a state when its process could not, and takes up runs that nobody runs any
more. In which process a run goes is for the types to say.
"""

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar, cast
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.events import Event
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound
from prefect.workers.base import BaseWorker

from safelight.errors import PipelineError
from safelight.observing.correlating import of_run
from safelight.observing.logs import begin_log
from safelight.pool import prefect_internals as internals
from safelight.pool.announcing import ANNOUNCE_SECONDS, announce
from safelight.pool.belonging import Belonging
from safelight.pool.configuration import (
    KNOWN_DEPLOYMENT,
    PoolResult,
    RunConfiguration,
    RunVariables,
)
from safelight.pool.devices import Device
from safelight.pool.fencing import awake
from safelight.pool.listening import DUE_EVENTS, TAKEN, listen
from safelight.pool.messages import Ended, Run
from safelight.pool.orphans import LOOK_SECONDS, Leases, take_over
from safelight.pool.process import Died, Outcome, WarmProcess
from safelight.pool.reaping import collect_strangers
from safelight.pool.reporting import conclude
from safelight.pool.starting import Starting
from safelight.pool.stillness import replace_still_ones
from safelight.pool.waiting import LOOK_SECONDS as WAITING_SECONDS
from safelight.pool.waiting import WaitingRoom, say_why
from safelight.pool.watching import FLOW_RUN, Running, beat, renew, watch
from safelight.private import keep_private
from safelight.progress import StopReason, end_in, request_stop_in

C = TypeVar("C", bound=RunConfiguration)
V = TypeVar("V", bound=RunVariables)
R = TypeVar("R", bound=PoolResult)  # Prefect's hooks have a subclass keep all three
AGAIN_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""When the server is asked again for a run that it told of and does not show: its event is sent
before the transaction that makes the run ends."""
LATER_SECONDS = 1.0
"""After this long the server is asked again that did not answer, or that is not known yet."""
STOP_SECONDS = 20.0
"""Time for running stages to stop when the worker must go at once."""
LAST_SECONDS = 50.0
"""After this long such a worker ends, whatever it waits for: others take up what it had."""
LABEL_SECONDS = 1.0
"""How long after its start a run is labelled with its worker, so as not to delay the start."""


class SupervisingWorker(BaseWorker[C, V, R], ABC):
    """Hands flow runs to processes of its own.

    Runs start when their event arrives rather than at the next poll. After SIGTERM or Ctrl-C it
    takes no new ones; the second stops those it has at their next step, and another worker goes on
    with them.
    """

    hands_on: ClassVar[bool] = False
    """Whether the first signal stops the runs as well, instead of waiting for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (Prefect's own)
        super().__init__(*args, **kwargs)
        keep_private()
        begin_log("worker")
        self._running: dict[UUID, Running] = {}
        self._awaited: dict[UUID, int] = {}
        self._starting = Starting(lambda run_id: self.client.read_flow_run(run_id))
        self._belonging = Belonging(lambda run_id: self.client.read_flow_run(run_id))
        self._submitting = anyio.Lock()
        self._wake = asyncio.Event()
        self._draining = False
        self._drain_asked = asyncio.Event()
        self._services: anyio.CancelScope | None = None

    @property
    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """What it runs on; nothing when its runs need no device."""

    @abstractmethod
    def _has_place(self) -> bool:
        """Whether another run could be started now."""

    @abstractmethod
    async def _chosen(self, due: Iterator[WorkerFlowRunResponse]) -> list[WorkerFlowRunResponse]:
        """Those of the due runs that are started now."""

    @abstractmethod
    async def _seat(self, run_id: UUID, configuration: C) -> WarmProcess:
        """The process for a run, which has it to itself until `_leave`."""

    @abstractmethod
    async def _leave(self, process: WarmProcess) -> None:
        """Take a process back whose run is over."""

    def _deployment_of(self, run_id: UUID) -> DeploymentResponse | None:
        """The deployment of a run that is about to start, when it has been read already."""
        del run_id
        return None

    async def setup(self) -> None:
        """Start the services beside the poll."""
        await super().setup()
        internals.before_requests_of(self, self._starting.guard)
        self._main = internals.current_task()
        self._services = anyio.CancelScope()
        internals.start_soon(self, self._serve)
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # not the main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)

    async def teardown(self, *exc_info: Any) -> None:  # noqa: ANN401  (Prefect's own)
        """End the services."""
        if self._services is not None:
            self._services.cancel()
        await super().teardown(*exc_info)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take the due runs for which there is a place."""
        if self._draining:
            return []
        async with self._submitting:
            asked = awake()
            found = await internals.due_flow_runs(self)
            self._ask_again({entry.flow_run.id for entry in found})
            due = self._startable(found)
            wanted = await self._belonging.those_wanted(self.client, due, asked)
            chosen = await self._chosen(iter(wanted))
            self._starting.saw((entry.flow_run.id for entry in chosen), asked)
            await internals.submit(self, chosen)
            return [entry.flow_run for entry in chosen]

    async def run(
        self,
        flow_run: FlowRun,
        configuration: C,
        task_status: "anyio.abc.TaskStatus[int] | None" = None,
    ) -> R:
        """Run a flow run in a process and see to it that it ends in a state."""
        process = await self._seat(flow_run.id, configuration)
        configuration.say_ignored(self.get_flow_run_logger(flow_run))
        running = Running(flow_run, process, configuration.grace_seconds)
        self._running[flow_run.id] = running
        try:
            asked = self._starting.asked(flow_run.id)
            command = Run(
                flow_run_id=flow_run.id,
                flow_run=None if asked is None else flow_run,
                asked=asked or 0.0,
                environment={k: v for k, v in configuration.env.items() if v is not None},
                working_dir=configuration.working_dir,
                worker=running.claim.worker,
                number=running.claim.number,
                correlation=of_run(flow_run.id, flow_run.labels),
            )
            future = await anyio.to_thread.run_sync(process.run, command)
            internals.start_soon(self, lambda: self._label(flow_run.id))
            if task_status is not None:
                status = cast("anyio.abc.TaskStatus[Any]", task_status)
                status.started(running.owner)
            if self._draining:
                self._hand_on(running)
            outcome = await self._finished(running, asyncio.wrap_future(future))
            self._ran(process, flow_run, configuration)
            code = 0
            if isinstance(outcome, Died) or outcome.outcome != "reported":
                code = await conclude(
                    flow_run.id,
                    running.claim,
                    outcome,
                    running.cancelling,
                    configuration.restarts,
                )
            return cast("R", PoolResult(identifier=running.owner, status_code=code))
        finally:
            running.over.set()
            del self._running[flow_run.id]
            await self._leave(process)

    def _ran(self, process: WarmProcess, flow_run: FlowRun, configuration: C) -> None:
        """Note that a run is over in this process."""

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: C,
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
        KNOWN_DEPLOYMENT.set(self._deployment_of(flow_run.id))
        try:
            await internals.submit_one(self, flow_run)
        except httpx.HTTPError as error:  # it would end the worker and every run it has
            self._logger.warning("flow run %s was not started, later: %s", flow_run.id, error)
            internals.let_go(self, flow_run.id)
            asyncio.get_running_loop().call_later(LATER_SECONDS, self._wake.set)
            return
        finally:
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
                group.start_soon(watch, self.client, self._running, self._tell, self._belonging)
                group.start_soon(renew, self.client, self._running, self.name)
                group.start_soon(beat, self._running)
                group.start_soon(replace_still_ones, self._running)
                group.start_soon(collect_strangers)
                group.start_soon(self._announce)
                group.start_soon(self._adopt)
                if self.devices:
                    group.start_soon(self._say_what_runs_wait_for)
                group.start_soon(self._drain)

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._has_place():
                continue  # a process that becomes free wakes us; Prefect's poll goes on meanwhile
            try:
                await self.get_and_submit_flow_runs()
            except httpx.HTTPError:
                asyncio.get_running_loop().call_later(LATER_SECONDS, self._wake.set)

    async def _listen(self) -> None:
        await self._synced()
        await listen(self.work_pool.id, self._wake.set, self._heard)

    async def _synced(self) -> None:
        while self._work_pool is None:
            await anyio.sleep(LATER_SECONDS)

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

    def _startable(self, found: list[WorkerFlowRunResponse]) -> Iterator[WorkerFlowRunResponse]:
        """Those that are due and that this worker has not taken."""
        starting = internals.in_progress(self)
        for entry in found:
            run_id = entry.flow_run.id
            if run_id in starting or run_id in self._running:
                continue
            if self._is_due(entry.flow_run):
                yield entry

    def _is_due(self, flow_run: FlowRun) -> bool:
        due = flow_run.next_scheduled_start_time
        wait = due.timestamp() - time.time() if due else 0.0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._wake.set)
        return wait <= 0

    async def _announce(self) -> None:
        await self._synced()
        while True:
            announce(self.work_pool.name, self.name, self.devices)
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

    def _on_signal(self) -> None:
        if self._draining:
            self._logger.info("stopping now; running flow runs go on in another worker")
            request_stop_in(STOP_SECONDS, StopReason.RESCHEDULE)  # threads that wait for a store
            end_in(LAST_SECONDS)  # a log or an event that a server does not take is waited for
            self._main.cancel()
            return
        self._draining = True
        self._drain_asked.set()
        count = len(self._running)
        if self.hands_on:
            self._logger.info("taking no new runs, handing %d on to another worker", count)
        else:
            self._logger.info("taking no new runs, waiting for %d", count)

    def _hand_on(self, running: Running) -> None:
        if self.hands_on and running.stopping is None:
            self._tell(running, StopReason.RESCHEDULE)

    async def _drain(self) -> None:
        await self._drain_asked.wait()
        for running in list(self._running.values()):
            self._hand_on(running)
        while self._running or internals.in_progress(self):
            await anyio.sleep(0.1)
        self._main.cancel()
