"""A ComfyUI that this process starts, starts again when it dies, and takes along when it ends."""

import atexit
import logging
import os
import subprocess
import threading
import time
from contextlib import closing, suppress
from functools import lru_cache
from typing import cast

from safelight.children import start_child, stop_child
from safelight.engines.comfy.launching import (
    checkout,
    command,
    environment,
    log_of,
    swept,
    word_of,
)
from safelight.engines.comfy.records import forget, remember
from safelight.engines.comfy.server import Server
from safelight.engines.comfy.starting import LOOK_SECONDS, local_server, wait_until_it_answers
from safelight.engines.machine.loaded import before_loading
from safelight.errors import PipelineError
from safelight.loopback import free_port

LOG = logging.getLogger(__name__)
MOST_DEATHS = 5
"""Within the time below; then it is left dead until somebody needs it."""
DEATHS_SECONDS = 300.0
END_SECONDS = 10.0
FREE_SECONDS = 3.0
"""How long memory that is given back is waited for."""


class Managed:
    """One ComfyUI of one process, on a port of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._deaths: list[float] = []
        self._closing = False
        self._used = False
        self._name = ""

    @property
    def url(self) -> str:
        """Where it answers once it is started."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def require(self) -> str:
        """Start it unless it runs, and wait until it answers; its address.

        Raises:
            DependencyMissingError: there is no checkout, or no Python for it.
            EngineOfflineError: it does not start.
            StopRequestedError: the run was asked to stop.
        """
        with self._lock:
            if self.pid is None:
                self._start()
        self._used = True
        wait_until_it_answers(self.url, lambda: self.pid is not None, self._name)
        return self.url

    def free(self) -> None:
        """Have it give back the memory of its models, where it has used any since."""
        if not self._used or self.pid is None:
            return
        self._used = False
        with (
            suppress(PipelineError),  # it works on, or is away: whoever loads sees what there is
            closing(local_server(self.url)) as server,
        ):
            held = _held(server)
            server.answer("POST", "/free", {"unload_models": True, "free_memory": True})
            ends = time.monotonic() + FREE_SECONDS
            while held and _held(server) >= held and time.monotonic() < ends:
                time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closing = True
            process, self._process = self._process, None
        if process is not None:
            stop_child(process, END_SECONDS)
            forget(process.pid)

    def _start(self) -> None:
        self._closing = False
        self._name = self._name or word_of(os.environ)
        self._port = self._port or free_port()
        words = command(self._port, self._name)
        swept(self._name)
        with log_of(self._name).open("ab") as log:
            self._process = start_child(
                "safelight.engines.comfy.becoming",
                (str(checkout()), *words),
                environment=environment(),
                output=log,
            )
        remember(self._process.pid, self.url, self._name)
        LOG.info("ComfyUI started as process %d at %s", self._process.pid, self.url)
        threading.Thread(
            target=self._watch, args=(self._process,), name="comfyui", daemon=True
        ).start()

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Start it again when it dies by itself."""
        code = process.wait()
        forget(process.pid)
        with self._lock:
            if self._closing or self._process is not process:
                return
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < DEATHS_SECONDS] + [now]
            if len(self._deaths) > MOST_DEATHS:
                LOG.error("ComfyUI ended with %d again and again: it is left so", code)
                return
            LOG.warning("ComfyUI ended with %d: started again", code)
            with suppress(PipelineError, OSError):  # whoever needs it meets the same, and says so
                self._start()


def _held(server: Server) -> int:
    """Bytes of the device that its models hold; 0 where it does not tell."""
    devices = server.answer("GET", "/system_stats").get("devices")
    first = cast("list[object]", devices)[0] if isinstance(devices, list) and devices else None
    told = cast("dict[str, object]", first) if isinstance(first, dict) else {}
    held = told.get("torch_vram_total")
    return held if isinstance(held, int) and told.get("type") != "cpu" else 0


@lru_cache(maxsize=1)
def managed() -> Managed:
    """The one of this process."""
    held = Managed()
    before_loading(held.free)
    atexit.register(held.close)
    return held
