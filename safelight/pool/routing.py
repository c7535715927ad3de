"""Which flow run goes to which of the free processes."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse

from safelight.pool.devices import Device

KEPT_KEYS = 8
"""Affinity keys remembered of a process; its older models have likely been dropped."""


class Seat(Protocol):
    """A process that may take a run."""

    device: Device
    warm: list[str]


S = TypeVar("S", bound=Seat)


def job_variables(
    pool: WorkPool, deployment: DeploymentResponse | None, flow_run: FlowRun
) -> dict[str, Any]:
    """What a run asks for: the pool's defaults, then the deployment's words, then its own."""
    known: dict[str, dict[str, Any]] = pool.base_job_template.get("variables", {}).get(
        "properties", {}
    )
    defaults = {name: entry["default"] for name, entry in known.items() if "default" in entry}
    deployed = deployment.job_variables or {} if deployment is not None else {}
    return defaults | deployed | (flow_run.job_variables or {})


def fits(device: Device, wanted: Literal["any", "cpu", "cuda", "mps"], min_vram_gib: float) -> bool:
    """Whether a run that asks for this device class and memory may run here.

    Args:
        device: where.
        wanted: device class.
        min_vram_gib: least memory of the GPU; 0 asks for none.
    """
    if wanted not in ("any", device.kind):
        return False
    return min_vram_gib <= (0 if device.kind == "cpu" else device.memory_gib)


def choose(free: Sequence[S], key: str) -> S:
    """Pick the process for a run: one that has its model, else a fresh one, else the stalest.

    A run never waits for a busy process that has its model while another one is free.

    Args:
        free: not empty.
        key: what the run is about, the same for runs that use the same models.
    """
    holding = [seat for seat in free if key in seat.warm]
    if holding:
        return max(holding, key=lambda seat: seat.warm.index(key))
    return min(free, key=lambda seat: len(seat.warm))


def remember(seat: Seat, key: str) -> None:
    """Note that a process now has what runs with this key need."""
    seat.warm = [*(known for known in seat.warm if known != key), key][-KEPT_KEYS:]
