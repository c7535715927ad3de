"""The rooms Models and System: what this machine has, and how it does."""

import json
import shutil
from dataclasses import dataclass
from typing import Annotated, Any

import psutil
from fastapi import APIRouter, Query, Request
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import Worker, WorkerStatus, WorkPool
from starlette.responses import Response

from safelight.client.paging import every_worker
from safelight.engines.remote.listing import engine_states
from safelight.errors import InvalidFieldValueError, PipelineError
from safelight.gallery.index import gallery
from safelight.gateway.jobs import Status
from safelight.gateway.offers import models
from safelight.gateway.page.diagnosing import VERSIONS, diagnostics
from safelight.gateway.page.frame_routes import counted
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.rendering import shown_page, shown_part
from safelight.gateway.shared import Everything, Shared
from safelight.pool.announcing import announced
from safelight.settings import settings
from safelight.weights.kinds import ModelType

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SHOWN = 200
"""Models of one page."""


@dataclass(frozen=True)
class Pool:
    """A work pool with its workers."""

    name: str
    kind: str
    paused: bool
    workers: list[Worker]
    devices: dict[str, dict[str, float]]
    """Of each worker that is there: device to its memory, GiB."""


@router.get("/models")
def show_models(
    request: Request,
    kind: Annotated[str, Query(max_length=40)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Models that this machine knows."""
    if kind and kind not in list(ModelType):
        raise InvalidFieldValueError(
            f"kind is {kind!r}, expected one of {', '.join(ModelType)}", "correct kind"
        )
    words = text.casefold()
    every = models(None).models
    fitting = [
        model
        for model in every
        if (not kind or model.model_type == kind)
        and (not words or words in f"{model.name} {' '.join(model.tags)}".casefold())
    ]
    counts = {each.value: sum(model.model_type == each for model in every) for each in ModelType}
    return shown_page(
        request,
        "models",
        "models",
        models=fitting[:SHOWN],
        total=len(fitting),
        counts=counts,
        kind=kind,
        text=text,
    )


@router.get("/system")
def show_system(request: Request, shared: Everything) -> Response:
    """How the machine, the queue, the workers and the store do."""
    return shown_page(request, "system", "system", versions=VERSIONS, **system_of(shared))


@router.get("/system/engines")
def show_engines(request: Request) -> Response:
    """All engines, each asked now."""
    return shown_part(request, "engines", engines=list(engine_states()))


@router.get("/system/diagnostics")
def download_diagnostics(shared: Everything) -> Response:
    """What helps others to help: no keys, no prompts, no pictures."""
    content = diagnostics_text(shared)
    headers = {"Content-Disposition": 'attachment; filename="safelight-diagnostics.json"'}
    return Response(content, media_type="application/json", headers=headers)


def diagnostics_text(shared: Shared) -> str:
    """The bundle as JSON."""
    return json.dumps(diagnostics(system_of(shared)), indent=1, default=str)


def _pool(client: SyncPrefectClient, pool: WorkPool) -> Pool:
    workers = list(every_worker(client, pool.name))
    online = [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]
    told = announced(client, pool.name, online)
    devices = {name: one.devices for name, one in told.items()}
    return Pool(pool.name, pool.type, pool.is_paused, workers, devices)


def system_of(shared: Shared) -> dict[str, Any]:
    """What is known of the machine and the server."""
    root = settings().volume_root.resolve()
    memory, index = psutil.virtual_memory(), gallery()
    root.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(root)
    problem, pools, queue = "", list[Pool](), dict[str, int]()
    try:
        pools = [_pool(shared.client, pool) for pool in shared.client.read_work_pools()]
        queue = {status.value: counted(shared, status) for status in Status}
    except PipelineError as error:
        problem = str(error)
    return {
        "pools": pools,
        "queue": queue,
        "problem": problem,
        "server": str(shared.client.api_url),
        "cpus": psutil.cpu_count(),
        "load": psutil.getloadavg()[0],
        "memory": memory.total,
        "memory_free": memory.available,
        "disk": disk.total,
        "disk_free": disk.free,
        "store": settings().store or "folder",
        "files": index.count("1", ()),
        "kept": index.count("star = 1", ()),
        "bytes": index.database.read(
            lambda c: c.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0]
        ),
    }
