"""The Prefect worker types `safelight-gpu`, of warm processes, and `safelight-batch`."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import anyio
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.exceptions import ObjectNotFound

from safelight.pool import prefect_internals as internals
from safelight.pool.configuration import (
    BATCH_TYPE,
    KNOWN_DEPLOYMENT,
    POOL_TYPE,
    BatchJobConfiguration,
    BatchVariables,
    PoolJobConfiguration,
    PoolResult,
    PoolVariables,
    Wanted,
)
from safelight.pool.devices import ANY_DEVICE, Device, find_devices
from safelight.pool.metering import Meter, serve_metrics
from safelight.pool.process import WarmProcess
from safelight.pool.routing import choose, fits, job_variables, remember
from safelight.pool.supervising import SupervisingWorker
from safelight.settings import settings

ALONE = {"SAFELIGHT_POOL_PRELOAD": ""}
"""Environment of a process that mostly waits: it loads nothing beforehand."""


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


class SafelightWorker(SupervisingWorker[PoolJobConfiguration, PoolVariables, PoolResult]):
    """Hands flow runs to one warm process per device.

    SIGTERM or Ctrl-C lets running flow runs finish; the second stops them at their next step.
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
        serve_metrics()
        self._processes = [
            WarmProcess(device, devices=len(devices), meter=Meter()) for device in devices
        ]
        self._free = list(self._processes)
        self._wants: dict[UUID, _Wants] = {}
        self._changed = asyncio.Condition()

    @property
    def devices(self) -> Sequence[Device]:
        """One for each process."""
        return [process.device for process in self._processes]

    async def setup(self) -> None:
        """Start the processes too."""
        await super().setup()
        internals.answer_known(self, KNOWN_DEPLOYMENT.get)
        for process in self._processes:
            await anyio.to_thread.run_sync(process.start)

    async def teardown(self, *exc_info: Any) -> None:  # noqa: ANN401  (Prefect's own)
        """End the processes at last."""
        try:
            await super().teardown(*exc_info)
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    for process in self._processes:
                        group.start_soon(anyio.to_thread.run_sync, process.close)

    def _deployment_of(self, run_id: UUID) -> DeploymentResponse | None:
        return self._wants.get(run_id, _Wants()).deployment

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        finally:
            self._wants.pop(flow_run.id, None)

    def _has_place(self) -> bool:
        return bool(self._unreserved())

    async def _chosen(self, due: Iterator[WorkerFlowRunResponse]) -> list[WorkerFlowRunResponse]:
        """Those that a free device suits; one device for each."""
        free = self._unreserved()
        chosen: list[WorkerFlowRunResponse] = []
        deployments: dict[UUID, DeploymentResponse | None] = {}
        for entry in due:
            if not free:
                break
            wants = await self._wanted(entry.flow_run, deployments)
            if _reserve(free, wants):
                self._wants[entry.flow_run.id] = wants
                chosen.append(entry)
        return chosen

    def _unreserved(self) -> list[WarmProcess]:
        """The free processes without those that runs which were taken will need."""
        free = list(self._free)
        for run_id in internals.in_progress(self) - set(self._running):
            _reserve(free, self._wants.get(run_id, _Wants()))
        return free

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

    def _ran(
        self, process: WarmProcess, flow_run: FlowRun, configuration: PoolJobConfiguration
    ) -> None:
        remember(process, configuration.model or str(flow_run.deployment_id))

    async def _leave(self, process: WarmProcess) -> None:
        self._free.append(process)
        self._wake.set()
        async with self._changed:
            self._changed.notify_all()

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


class BatchWorker(SupervisingWorker[BatchJobConfiguration, BatchVariables, PoolResult]):
    """Gives each flow run a process of its own: such runs wait for others, and need no device.

    They may be waiting for hours, so the first SIGTERM or Ctrl-C already stops them, and another
    worker goes on with them.
    """

    type: ClassVar[str] = BATCH_TYPE  # pyright: ignore[reportIncompatibleVariableOverride]
    job_configuration = BatchJobConfiguration
    job_configuration_variables = BatchVariables
    hands_on: ClassVar[bool] = True
    _display_name = "Safelight batches"
    _description = "Runs flow runs that wait for others, many at once, each in its own process."

    @property
    def devices(self) -> Sequence[Device]:
        """None."""
        return ()

    def _has_place(self) -> bool:
        return True

    async def _chosen(self, due: Iterator[WorkerFlowRunResponse]) -> list[WorkerFlowRunResponse]:
        return list(due)  # Prefect takes as many of them as its limit allows

    async def _seat(self, run_id: UUID, configuration: BatchJobConfiguration) -> WarmProcess:
        del run_id, configuration
        serve_metrics()
        return WarmProcess(ANY_DEVICE, ALONE, meter=Meter())

    async def _leave(self, process: WarmProcess) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.close)
        self._wake.set()


def _reserve(free: list[WarmProcess], wants: _Wants) -> bool:
    for process in free:
        if wants.suit(process):
            free.remove(process)
            return True
    return False
