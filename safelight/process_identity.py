"""Which process a number means: numbers are given again, host names are given twice."""

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_STARTED = 19
"""Place of the start time in /proc/PID/stat, counted after the name of the program."""
BOOT_CHARACTERS = 12


@dataclass(frozen=True)
class Place:
    """Where process numbers mean the same: one boot of one kernel, one process namespace."""

    boot: str
    namespace: str

    @property
    def tag(self) -> str:
        """Both, in letters that may stand in the name of a file."""
        return f"{self.boot}.{self.namespace}"


@lru_cache(maxsize=1)
def here() -> Place:
    """The place of this process."""
    try:
        boot = _BOOT.read_text().strip().replace("-", "")[:BOOT_CHARACTERS]
        return Place(boot, str(_NAMESPACE.stat().st_ino))
    except OSError:  # not Linux: there are no namespaces, the host and its start must do
        host = "".join(letter for letter in socket.gethostname() if letter.isalnum())
        return Place(f"{host}{int(psutil.boot_time())}", "0")


def started(pid: int) -> int | None:
    """When a process of this place began, in ticks since the start of the machine.

    None when there is no such process, or only its remains that its parent has not collected.
    """
    try:
        if _BOOT.exists():
            facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if facts[0] in "ZX" else int(facts[_STARTED])
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time() * 100)
    except (OSError, psutil.Error):
        return None


def lives(pid: int, start: int) -> bool:
    """Whether the process of this place that had this number and began then is still there."""
    return started(pid) == start


def own_pid() -> int:
    """The number of this process."""
    return os.getpid()


def own_start() -> int:
    """When this process began."""
    return _start_of(os.getpid())


@lru_cache(maxsize=1)
def _start_of(pid: int) -> int:
    return started(pid) or 0
