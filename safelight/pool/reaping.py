"""Collects what is left of processes that this worker got without having started them.

Who loses its parent goes to the first process of a container, or to a subreaper (prctl(2)). A
worker is that first process where no init stands before it, as in Kubernetes: what a warm process
that was killed had started would stay in the table of processes for ever, until no more fit in.
"""

import ctypes
import gc
import logging
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import popen_fork

import anyio
import psutil

LOG = logging.getLogger("prefect.safelight.pool")  # as Prefect names it: a worker shows it
LOOK_SECONDS = 2.0
"""How often it looks; who started a process has at least this long to ask for its status."""
PR_GET_CHILD_SUBREAPER = 37
"""From <linux/prctl.h>; see prctl(2)."""


class Reaper:
    """Asks for the status of dead children that nobody else will ask for."""

    def __init__(self) -> None:
        self._seen: set[psutil.Process] = set()

    def look(self) -> list[int]:
        """Collect the dead strangers that were there at the last look too; their numbers.

        A child that was started a moment ago may have died before its number is known to whoever
        started it, hence the two looks.
        """
        dead = _dead_children()
        waiting = dead & self._seen
        collected: list[int] = []
        if waiting:
            ours = _started_here()
            collected = [each.pid for each in waiting if each.pid not in ours]
            for pid in collected:
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        self._seen = dead
        return collected


def is_reaper() -> bool:
    """Whether this process gets those that lose their parent."""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    held = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(held), 0, 0, 0)
    return held.value != 0


async def collect_strangers(look_seconds: float = LOOK_SECONDS) -> None:
    """Look from time to time; ends at once where no stranger ever comes."""
    if not is_reaper():
        return
    reaper = Reaper()
    while True:
        await anyio.sleep(look_seconds)
        collected = await anyio.to_thread.run_sync(reaper.look)
        if collected:
            LOG.info("collected what was left of processes %s", ", ".join(map(str, collected)))


def _dead_children() -> set[psutil.Process]:
    """Told apart by number and start."""
    found: set[psutil.Process] = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child)
    return found


def _started_here() -> set[int]:
    """Numbers of processes that something here started and has not yet asked about.

    asyncio and Prefect start theirs with `subprocess` too. Nothing lists these objects, so the
    garbage collector is asked, which knows all of them; that happens only when a stranger died.
    """
    kinds = subprocess.Popen, popen_fork.Popen
    held = (each for each in gc.get_objects() if issubclass(type(each), kinds))
    return {each.pid for each in held if getattr(each, "returncode", None) is None and each.pid}
