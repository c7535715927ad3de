"""What the campaign breaks: a Prefect server, workers, and the line to the store."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

import psutil

from safelight.cli.server import QUIET, SERVER, answers, free_port

START_SECONDS = 120.0
CHILD = "safelight.pool.child"
Outage = Literal["refused", "cut", "held"]
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A process table of one's own, in which numbers begin anew; root only."""
METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ")
Answer = tuple[int, bytes]
"""Status and body that a gate gives in the place of the server."""


def can_contain() -> bool:
    """Whether workers can be given a process table of their own here."""
    done = subprocess.run([*CONTAINER, "true"], capture_output=True, check=False)
    return done.returncode == 0


class Server:
    """The server that Safelight embeds, started again on the same port.

    Args:
        folder: fresh; its log and its database lie there.
        environment: added to this process's own.
        database: a file with Prefect's tables, which is copied; None to have them made.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], database: Path | None = None
    ) -> None:
        self._environment = environment
        self._home = folder / "server"
        self._home.mkdir()
        if database is not None:
            shutil.copy(database, self._home / "prefect.db")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.lock = threading.Lock()
        """Held while it is ended, started, or stands still."""
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            **os.environ,
            **QUIET,
            **self._environment,
            "PREFECT_HOME": str(self._home),
            "PREFECT_SERVER_UI_ENABLED": "false",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", SERVER, "server", "start"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                ],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while not answers(self.url):
            assert self.process.poll() is None, f"the server ended, see {self.log}"
            assert time.monotonic() < end, f"the server does not answer, see {self.log}"
            time.sleep(0.1)

    def stand_still(self, seconds: float) -> None:
        """Let it answer nobody for a while, as a machine that swaps does."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(process.pid, signal.SIGCONT)

    def stop(self, number: signal.Signals) -> None:
        """End it; SIGKILL takes its helpers too."""
        process = self.process
        if process is None:
            return
        if number is signal.SIGTERM:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_warm(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it has ended, though nobody has fetched its status
        return CHILD in process.cmdline()
    return False


class Worker:
    """A worker process as Prefect's command starts it."""

    def __init__(
        self,
        name: str,
        pool: str,
        folder: Path,
        environment: Mapping[str, str],
        contained: bool = False,
    ) -> None:
        self.name = name
        self.contained = contained
        self.log = folder / f"worker-{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(CONTAINER if contained else ()),
                    *(sys.executable, "-m", "prefect", "worker", "start"),
                    *("--pool", pool, "--name", name, "--type", "safelight-gpu"),
                ],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Its warm processes."""
        found: list[psutil.Process] = []
        with suppress(psutil.Error):
            found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if _is_warm(child)]

    def kill(self) -> None:
        """End it as a power cut would, with everything in its container."""
        self.process.kill()
        self.process.wait()

    def told(self, number: signal.Signals) -> None:
        """Send it a signal, in its container where it has one."""
        with suppress(psutil.Error):
            main = psutil.Process(self.process.pid)
            if not self.contained:
                main.send_signal(number)
                return
            while self.alive and not main.children():
                time.sleep(0.05)  # `unshare` has only begun
            for inside in main.children():  # `unshare` itself would end, and with it everything
                inside.send_signal(number)

    def sleep(self, seconds: float) -> None:
        """Let it and its processes stand still and go on, as a machine that sleeps and wakes."""
        with suppress(psutil.Error):
            main = psutil.Process(self.process.pid)
            family = [main, *main.children(recursive=True)]
            for process in family:
                with suppress(psutil.Error):
                    process.suspend()
            try:
                time.sleep(seconds)
            finally:
                for process in reversed(family):
                    with suppress(psutil.Error):
                        process.resume()

    def drain(self, seconds: float) -> int | None:
        """End it as an operator does; its exit status, None when it had to be killed."""
        self.told(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


class Gate:
    """A TCP line to a server on loopback that can be shut for a while."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        # bound while the line is shut, or the port would be given to another server meanwhile
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port: int = self._holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._cutting = False
        self._answers: deque[Answer] = deque()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()
        self._holder.close()
        self._flowing.set()
        self._cut()

    def shut(self, how: Outage) -> None:
        """Refuse connections, cut each at once, or let nothing through; those open are hit too."""
        if how == "refused":
            self._unlisten()
            self._cut()
        elif how == "cut":
            self._cutting = True
            self._cut()
        else:
            self._flowing.clear()

    def answer(self, answer: Answer, times: int) -> None:
        """Give the next requests this answer instead of passing them on."""
        self._answers.extend([answer] * times)

    def open(self) -> None:
        """Let everything through again."""
        self._cutting = False
        self._answers.clear()
        self._flowing.set()
        if self._listener is None:
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _unlisten(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                if self._cutting:
                    _close(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:  # it is not there now
                    _close(client)
                    continue
                with self._lock:
                    self._open |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pump, args=(source, sink, source is client), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                if asking and data.startswith(METHODS) and self._answered(source):
                    break
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _close(source)
        _close(sink)

    def _answered(self, client: socket.socket) -> bool:
        """Whether a request got an answer of ours; its connection ends with it."""
        try:
            status, body = self._answers.popleft()
        except IndexError:
            return False
        client.settimeout(0.5)
        with suppress(OSError):  # the rest of the request, or it would be reset before it is read
            while client.recv(1 << 16):
                pass
        head = f"HTTP/1.1 {status} Unwell\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        client.sendall(head.encode() + b"Content-Type: text/plain\r\n\r\n" + body)
        return True

    def _cut(self) -> None:
        with self._lock:
            doomed, self._open = self._open, set()
        for end in doomed:
            _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
