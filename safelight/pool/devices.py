"""The devices of this machine that a worker may run flow runs on."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from safelight.errors import DependencyMissingError, InvalidFieldValueError

GIB = 2**30
DeviceKind = Literal["cpu", "cuda", "mps"]
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
_MIB = 2**20


@dataclass(frozen=True)
class Device:
    """One place where one flow run at a time runs."""

    name: str
    """`cuda:0`, `mps`, or `cpu:0` for the first of several processes that share the cores."""
    kind: DeviceKind
    memory_gib: float
    """Memory of the GPU, or of the machine; GiB."""
    environment: tuple[tuple[str, str], ...]
    """What a process needs in its environment to see this device alone."""


ANY_DEVICE = Device("any device", "cpu", 0.0, ())
"""Of a process that mostly waits: what it computes itself, it computes where its settings say."""


def find_devices(wanted: str = "auto") -> tuple[Device, ...]:
    """List the devices that `SAFELIGHT_POOL_DEVICES` asks for.

    Args:
        wanted: see `Settings.pool_devices`.

    Raises:
        DependencyMissingError: there is no such GPU, or no driver for it.
        InvalidFieldValueError: `cpu:0`.
    """
    if wanted.startswith("cpu"):
        return _shared_cores(int(wanted.partition(":")[2] or 1))
    if wanted == "mps":
        return (_metal(),)
    gpus = cuda_devices()
    if wanted != "auto":
        return tuple(_named(gpus, name) for name in wanted.split(","))
    if gpus:
        return gpus
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return (_metal(),)
    return _shared_cores(1)


def cuda_devices() -> tuple[Device, ...]:
    """Every NVIDIA GPU this process may see, asked of the driver; torch is not imported."""
    try:
        told = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible_devices(told, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_devices(told: str, visible: str | None) -> tuple[Device, ...]:
    """Read the driver's list.

    Args:
        told: lines of index, uuid, MiB.
        visible: `CUDA_VISIBLE_DEVICES`, indices or uuids; None is all.
    """
    rows = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line]
    if visible is not None:
        known = {name: row for row in rows for name in (row[0], row[1])}
        rows = [known[name] for name in map(str.strip, visible.split(",")) if name in known]
    return tuple(
        Device(
            name=f"cuda:{place}",
            kind="cuda",
            memory_gib=int(mebibytes) * _MIB / GIB,
            environment=(("CUDA_VISIBLE_DEVICES", uuid), ("SAFELIGHT_DEVICE", "cuda:0")),
        )
        for place, (_, uuid, mebibytes) in enumerate(rows)
    )


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory, the control group's limit where there is one."""
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (told := limit.read_text().strip()).isdigit():
        return min(int(told), psutil.virtual_memory().total)
    return psutil.virtual_memory().total


def _shared_cores(count: int) -> tuple[Device, ...]:
    if count < 1:
        raise InvalidFieldValueError(
            "SAFELIGHT_POOL_DEVICES is cpu:0, which is no process at all", "set cpu:1 or more"
        )
    threads = max(1, available_cores() // count)
    environment = (
        ("CUDA_VISIBLE_DEVICES", ""),
        ("SAFELIGHT_DEVICE", "cpu"),
        ("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(threads))),
    )
    memory = machine_memory() / GIB
    return tuple(Device(f"cpu:{place}", "cpu", memory, environment) for place in range(count))


def _metal() -> Device:
    return Device("mps", "mps", machine_memory() / GIB, (("SAFELIGHT_DEVICE", "mps"),))


def _named(gpus: tuple[Device, ...], name: str) -> Device:
    for gpu in gpus:
        if gpu.name == name:
            return gpu
    raise DependencyMissingError(
        f"SAFELIGHT_POOL_DEVICES names {name}; the NVIDIA driver shows {len(gpus)} GPUs",
        "correct SAFELIGHT_POOL_DEVICES, or install the driver",
    )
