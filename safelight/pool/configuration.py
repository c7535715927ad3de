"""What a deployment or a flow run may ask of the pool: its job variables."""

from contextvars import ContextVar
from typing import Any, Literal, Self

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import Settings, get_current_settings
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field

POOL_TYPE = "safelight-gpu"
"""The worker type, as work pools name it."""
KNOWN_DEPLOYMENT: ContextVar[DeploymentResponse | None] = ContextVar(
    "known_deployment", default=None
)
"""The deployment of the run that is being submitted."""
_environment: tuple[Settings, dict[str, str]] | None = None  # it takes 20 ms to make
Wanted = Literal["any", "cpu", "cuda", "mps"]


class PoolJobConfiguration(BaseJobConfiguration):
    """The job variables of one flow run, filled in."""

    device: Wanted = "any"
    min_vram_gib: float = Field(default=0.0, ge=0)
    model: str | None = None
    working_dir: str | None = None
    grace_seconds: float = Field(default=20.0, ge=0)
    restarts: int = Field(default=1, ge=0)

    @classmethod
    async def resolve_for_flow_run(
        cls,
        flow_run: FlowRun,
        *,
        deployment: DeploymentResponse | None = None,
        **known: Any,  # noqa: ANN401  (Prefect's own)
    ) -> Self:
        """Fill in the job variables; a deployment that the worker has just read is not read again.

        Args:
            flow_run: whose they are.
            deployment: of the run.
            known: see Prefect's own.
        """
        read = KNOWN_DEPLOYMENT.get()
        if deployment is None and read is not None and read.id == flow_run.deployment_id:
            deployment = read
        return await super().resolve_for_flow_run(flow_run, deployment=deployment, **known)

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        global _environment
        settings = get_current_settings()
        if _environment is None or _environment[0] is not settings:
            _environment = (settings, super()._base_environment())
        return dict(_environment[1])


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
