"""What a deployment or a flow run may ask of the pool: its job variables."""

import copy
import time
from contextvars import ContextVar
from typing import Any, Literal, Self, TypeVar

import anyio
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.logging.loggers import PrefectLogAdapter
from prefect.settings import Settings, get_current_settings
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorkerResult
from pydantic import Field, PrivateAttr

from safelight.client.asking import PATIENCE_SECONDS, passes
from safelight.settings import settings as our_settings

POOL_TYPE = "safelight-gpu"
"""The worker type of runs that need a device, as work pools name it."""
BATCH_TYPE = "safelight-batch"
"""The worker type of runs that wait for others."""
KNOWN_DEPLOYMENT: ContextVar[DeploymentResponse | None] = ContextVar(
    "known_deployment", default=None
)
"""The deployment of the run that is being submitted."""
_environment: tuple[Settings, dict[str, str]] | None = None  # it takes 20 ms to make
RUN_MAY_SET = frozenset(
    {
        "PREFECT_LOGGING_LEVEL",
        "PREFECT_TASKS_REFRESH_CACHE",
        "PREFECT_TASKS_DEFAULT_RETRIES",
        "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS",
    }
)
"""Variables that any run may set by `env`. The others are the worker's: with them a run could read
what it may not, keep its results elsewhere, or load code."""
_GUARDS = ("SAFELIGHT_", "PREFECT_", "PYTHON", "LD_", "AWS_", "HF_", "GIT_", "SSL_", "FFREPORT")
_GUARD_NAMES = frozenset({"VOLUME_ROOT", "PATH", "HOME", "TMPDIR", "BASH_ENV"})
Wanted = Literal["any", "cpu", "cuda", "mps"]
AGAIN_SECONDS = 1.0
V = TypeVar("V", FlowRun, DeploymentResponse)


class RunConfiguration(BaseJobConfiguration):
    """The job variables of one flow run, filled in."""

    working_dir: str | None = None
    grace_seconds: float = Field(default=20.0, ge=0)
    restarts: int = Field(default=1, ge=0)
    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Variables of `env` that a run may not set, sorted."""
        return self._ignored

    def say_ignored(self, logger: PrefectLogAdapter) -> None:
        """Tell the run's log which variables were left out."""
        if self._ignored:
            logger.warning(
                "ignored of env, since a run may not set it: %s. Fix: set it for the worker, or "
                "name it in the worker's SAFELIGHT_POOL_RUN_ENV if it guards nothing",
                ", ".join(self._ignored)[:1000],
            )

    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        *args: Any,  # noqa: ANN401  (Prefect's own)
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Leave out what a run may not set, then do as Prefect does."""
        self.env, self._ignored = settable(self.env)
        super().prepare_for_flow_run(flow_run, *args, **kwargs)

    @classmethod
    async def resolve_for_flow_run(
        cls,
        flow_run: FlowRun,
        *,
        deployment: DeploymentResponse | None = None,
        **known: Any,  # noqa: ANN401  (Prefect's own)
    ) -> Self:
        """Fill in the job variables; a deployment that the worker has just read is not read again.

        A question that the server fails to answer is asked again while that may pass: Prefect calls
        a run crashed whose variables cannot be read.

        Args:
            flow_run: whose they are.
            deployment: of the run.
            known: see Prefect's own.
        """
        read = KNOWN_DEPLOYMENT.get()
        if deployment is None and read is not None and read.id == flow_run.deployment_id:
            deployment = read
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            # Prefect takes what it merges out of them
            run, its = _with_own_variables(flow_run), deployment
            if its is not None:
                its = _with_own_variables(its)
            try:
                return await super().resolve_for_flow_run(run, deployment=its, **known)
            except httpx.HTTPError as error:
                if not passes(error) or time.monotonic() > end:
                    raise
                await anyio.sleep(AGAIN_SECONDS)

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        global _environment
        settings = get_current_settings()
        if _environment is None or _environment[0] is not settings:
            _environment = (settings, super()._base_environment())
        return dict(_environment[1])


class PoolJobConfiguration(RunConfiguration):
    """Those of a run that needs a device."""

    device: Wanted = "any"
    min_vram_gib: float = Field(default=0.0, ge=0)
    model: str | None = None


class BatchJobConfiguration(RunConfiguration):
    """Those of a run that waits for others.

    It dies with its machine rather than of what it does, and finds again what it has made.
    """

    restarts: int = Field(default=3, ge=0)


def _with_own_variables(known: V) -> V:
    return known.model_copy(update={"job_variables": copy.deepcopy(known.job_variables)})


def settable(wanted: dict[str, str | None]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """What a run may set of the environment it asks for, and the names it may not.

    Guards stay the worker's own, also where the setting `pool_run_env` names one.

    Args:
        wanted: the job variable `env`.
    """
    extra = {name.strip() for name in our_settings().pool_run_env.split(",")} - {""}
    more = {n for n in extra if n not in _GUARD_NAMES and not n.startswith(_GUARDS)}
    allowed = RUN_MAY_SET | more
    kept = {name: value for name, value in wanted.items() if name in allowed}
    return kept, tuple(sorted(wanted.keys() - allowed))


class RunVariables(BaseVariables):
    """What the forms of all our work pools have."""

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


class PoolVariables(RunVariables):
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


class BatchVariables(RunVariables):
    """The form of a work pool of this type."""

    restarts: int = Field(
        default=3,
        ge=0,
        description="How often a run whose process died is started again by itself. It goes on "
        "with the runs that it has made.",
    )


class PoolResult(BaseWorkerResult):
    """How the process of a flow run ended."""
