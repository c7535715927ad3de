"""Pytest whose workers are forked from one process that has imported what they all need.

    python -m tests.forking 5 -m "not slow" ...

runs pytest with five workers of pytest-xdist and the other arguments. Each worker would import
torch, diffusers and Prefect for itself, which takes a processor 15 seconds; here they share it,
and the memory that it takes.

Execnet starts a worker with a command line that may be chosen. It is this module again, which
hands its streams over a socket to the process that has imported everything; the fork of that one
goes on as the worker, and the one that asked waits until it has ended.
"""

import gc
import importlib
import os
import pkgutil
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType

LOOK_SECONDS = 0.2
"""Between two looks whether the tests have ended."""
MOST_CODE = 4096
"""Bytes of the line of code with which a worker begins."""
SHARED = (
    "safelight.gateway.app",
    "safelight.cli.main",
    "prefect.server.api.server",
    "diffusers.pipelines.auto_pipeline",
    "diffusers.loaders.single_file",
    "torch._dynamo",
    "peft",
    "scipy.signal",
    "skimage.metrics",
    "skimage.data",
    "cv2",
    "networkx",
    "moto.server",
    "openai",
    "playwright.sync_api",
)
"""Modules that are imported once; with them comes most of what there is."""
PACKAGES = ("flows", "tasks", "training", "safelight")
"""Packages of which all modules are."""


def main() -> int:
    """Run pytest and fork its workers; in each of these, be the worker."""
    if sys.argv[1] == "join":
        return _join(sys.argv[2], sys.argv[-1])
    count, *arguments = sys.argv[1:]
    _import()
    folder = Path(tempfile.mkdtemp(prefix="safelight-forks-"))
    address = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        worker = shlex.join([sys.executable, "-IS", __file__, "join", address])
        command = [sys.executable, "-m", "pytest", "--tx", f"{count}*popen//python={worker}"]
        tests = os.posix_spawn(sys.executable, [*command, *arguments], os.environ)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest says what was interrupted, and ends
        answer = _serve(listener, tests)
    if isinstance(answer, str):
        return _work(answer)
    shutil.rmtree(folder)
    return answer


def _join(address: str, code: str) -> int:
    """Let a fork take the streams of this process, and wait until it has ended."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [code.encode()], [0, 1, 2])
        connection.recv(1)  # nothing comes but the end
    return 0


def _import() -> None:
    # Pydantic reads the docstrings of fields by asking all modules there are for their file: with
    # those of transformers there already, that takes longer than all else that is imported
    from presets.base import catalog
    from safelight.garbage import collect_seldom

    collect_seldom()
    for preset in catalog.preset_ids():
        catalog.find_preset(preset)
    for name in SHARED:
        importlib.import_module(name)
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.freeze()  # or a collection would copy what is shared


def _serve(listener: socket.socket, tests: int) -> int | str:
    """How the tests ended; in a fork, the code that it is to run."""
    listener.settimeout(LOOK_SECONDS)
    workers: set[int] = set()
    while True:
        workers -= {worker for worker in workers if os.waitpid(worker, os.WNOHANG)[0]}
        ended, status = os.waitpid(tests, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            connection.setblocking(True)
            code, streams, _, _ = socket.recv_fds(connection, MOST_CODE, 3)
            worker = os.fork()
            if not worker:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                connection.detach()  # it is closed when this process ends
                return code.decode()
            workers.add(worker)
            connection.close()
            for stream in streams:
                os.close(stream)


def _work(code: str) -> int:
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["-c"]
    sys.modules["__main__"] = begun = ModuleType("__main__")
    exec(code, vars(begun))
    return 0


if __name__ == "__main__":
    sys.exit(main())
