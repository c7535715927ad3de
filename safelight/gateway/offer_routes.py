"""Routes of what there is to choose from, of uploads, and of the gateway itself."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from prefect import __version__ as prefect_version
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import WorkerStatus
from pydantic import BaseModel, ConfigDict

from safelight.errors import EngineOfflineError, PipelineError
from safelight.gateway import offers
from safelight.gateway.shared import Everything
from safelight.gateway.workflows import WorkflowType
from safelight.installed import version
from safelight.provenance.surroundings import versions
from safelight.settings import settings
from safelight.store.store import current_store

router = APIRouter()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Health(_Frozen):
    """Whether the gateway can work."""

    status: Literal["ok"] = "ok"
    """The Prefect server answers; where it does not the answer is an error."""
    store: Literal["ok", "away"] = "ok"
    """Whether what is stored can be read now."""
    workers: int = 0
    """Workers that gave a sign of life within the last minute or so."""


class Info(_Frozen):
    """What this gateway is."""

    name: Literal["safelight"] = "safelight"
    """Of the program."""
    version: str
    """Of Safelight."""
    prefect: str
    """Version of Prefect here."""
    store: Literal["folder", "s3"]
    """Where artifacts lie."""
    workflow_types: list[WorkflowType]
    """Kinds of work that jobs do."""
    versions: dict[str, str]
    """Of Python and of the packages that take part, as manifests name them."""
    marking: Literal["drawn", "all", "off"]
    """Which files are signed."""
    log_files: bool
    """Whether logs are written to the volume."""


@router.get("/health", tags=["gateway"])
def read_health(shared: Everything) -> Health:
    """Whether the gateway and its Prefect server answer."""
    error = shared.client.api_healthcheck()
    if error is not None:
        raise EngineOfflineError(
            f"the Prefect server does not answer: {type(error).__name__}",
            "start it; the gateway goes on by itself",
        )
    return Health(store=_store_state(), workers=_workers(shared.client))


def _store_state() -> Literal["ok", "away"]:
    try:
        current_store().backend.exists("outputs/manifests/none.json")
    except PipelineError:
        return "away"
    return "ok"


def _workers(client: SyncPrefectClient) -> int:
    """Those that the server takes for online, in all pools."""
    pools = client.read_work_pools()
    found = [worker for pool in pools for worker in client.read_workers_for_work_pool(pool.name)]
    return sum(worker.status == WorkerStatus.ONLINE for worker in found)


@router.get("/info", tags=["gateway"])
def read_info() -> Info:
    """What this gateway is."""
    return Info(
        version=version("safelight"),
        prefect=prefect_version,
        store="s3" if settings().store else "folder",
        workflow_types=list(WorkflowType),
        versions=versions(),
        marking=settings().marking,
        log_files=settings().log_files,
    )


@router.get("/api/presets", tags=["catalog"])
def list_presets(
    category: Annotated[str | None, Query(description="Shelf they stand on.")] = None,
    engine: Annotated[str | None, Query(description="Engine they may use.")] = None,
) -> offers.Presets:
    """All presets."""
    return offers.presets(category, engine)


@router.get("/api/presets/{preset_id}", tags=["catalog"])
def read_preset(preset_id: str) -> offers.PresetDetails:
    """One preset, with what a job of it takes."""
    return offers.preset(preset_id)


@router.get("/api/operations", tags=["catalog"])
def list_operations() -> offers.Operations:
    """What is done in one stage, with what a job of it takes."""
    return offers.operations()


@router.get("/api/workflows", tags=["catalog"])
def list_workflows() -> offers.Workflows:
    """Workflows of ComfyUI that are flows, with what a job of each takes."""
    return offers.workflows()


@router.get("/api/workflows/{workflow_id}", tags=["catalog"])
def read_workflow(workflow_id: str) -> offers.WorkflowCard:
    """One workflow of ComfyUI, with what a job of it takes."""
    return offers.workflow(workflow_id)


@router.get("/api/engines", tags=["catalog"])
def list_engines() -> offers.Engines:
    """Engines of this machine: state, version, balance, what they do, and the day's costs."""
    return offers.engines()


@router.get("/api/models", tags=["catalog"])
def list_models(
    model_type: Annotated[str | None, Query(description="checkpoint, lora, vae, ...")] = None,
) -> offers.Models:
    """Models that this machine knows."""
    return offers.models(model_type)
