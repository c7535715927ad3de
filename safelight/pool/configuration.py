"""What a deployment or a flow run may ask of the pool: its job variables."""

from typing import Literal

from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field

POOL_TYPE = "safelight-gpu"
"""The worker type, as work pools name it."""
Wanted = Literal["any", "cpu", "cuda", "mps"]


class PoolJobConfiguration(BaseJobConfiguration):
    """The job variables of one flow run, filled in."""

    device: Wanted = "any"
    min_vram_gib: float = Field(default=0.0, ge=0)
    model: str | None = None
    working_dir: str | None = None
    grace_seconds: float = Field(default=20.0, ge=0)
    restarts: int = Field(default=1, ge=0)


class PoolVariables(BaseVariables):
    """The form of a work pool of this type."""

    device: Wanted = Field(default="any", description="Device class the run needs.")
    min_vram_gib: float = Field(
        default=0.0, ge=0, title="Minimum VRAM", description="Least memory of the GPU, GiB."
    )
    model: str | None = Field(
        default=None,
        description="Runs with the same hint go to the same warm process when it is free. Without "
        "one, runs of the same deployment do.",
    )
    working_dir: str | None = Field(
        default=None,
        title="Working directory",
        description="Folder the run works in; without one, where the worker was started.",
    )
    grace_seconds: float = Field(
        default=20.0,
        ge=0,
        title="Grace period",
        description="A cancelled run that goes on for longer is killed, seconds.",
    )
    restarts: int = Field(
        default=1,
        ge=0,
        description="How often a run whose process died is started again by itself. Its finished "
        "stages come from the store.",
    )


class PoolResult(BaseWorkerResult):
    """How the process of a flow run ended."""
