"""Child processes that never outlive their parent, however that ends.

`start_child` runs a Python module in a process of its own: `python -m safelight.children PARENT FD
MODULE ARGUMENTS`. FD is the reading end of a pipe whose other end the parent holds and never writes
to: once the parent is gone, by SIGKILL too, it reads as closed and the child ends at once. On Linux
the kernel sends the child a SIGKILL besides (PR_SET_PDEATHSIG), so that a child that holds Python's
lock or stands still ends as well.
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from safelight.garbage import collect_seldom

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>; see prctl(2)."""
GRACE_SECONDS = 20.0
"""Time that a process has to end once it was asked to."""
_held: list[tuple["subprocess.Popen[bytes]", int]] = []
"""Children with the writing ends of their pipes, which stay open until they have ended."""


@cache
def _forking() -> ThreadPoolExecutor:
    """The one thread that starts children, which lives as long as this process.

    Linux sends the signal when the *thread* ends that started the child (prctl(2)).
    """
    return ThreadPoolExecutor(1, "children")


def _forget() -> None:
    """A copy of this process by `fork` has neither the thread nor the children."""
    _forking.cache_clear()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


def start_child(
    module: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[bytes] | None = None,
    handles: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Run a Python module as `python -m` does, in a process that ends with this one.

    It leads a session of its own, so a Ctrl-C at the terminal does not reach it: whoever started it
    passes signals on.

    Args:
        module: name of the module.
        arguments: of its command line.
        environment: all of its environment; None for this process's own.
        folder: its working directory; None for this process's own.
        output: file for its standard output and errors; None for this process's own.
        handles: open files that it gets, under the same numbers.
    """
    given = (module, arguments, environment, folder, output, handles)
    return _forking().submit(_start, *given).result()


def _start(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None,
    folder: Path | None,
    output: IO[bytes] | None,
    handles: Sequence[int],
) -> "subprocess.Popen[bytes]":
    theirs, ours = os.pipe()  # neither end is inherited by other children
    for entry in [entry for entry in _held if entry[0].poll() is not None]:
        _held.remove(entry)
        os.close(entry[1])
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "safelight.children"),
                *(str(os.getpid()), str(theirs), module, *arguments),
            ],
            env=safe_path(os.environ if environment is None else environment),
            cwd=folder,
            pass_fds=[theirs, *handles],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    _held.append((process, ours))
    return process


def safe_path(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment, for a Python that imports nothing from its working directory.

    `python -m` puts that first, before the standard library: a file of people's own called
    `psutil.py` beside their pictures would run. PYTHONPATH is searched as ever. Handed on to what
    the child starts.
    """
    return {**environment, "PYTHONSAFEPATH": "1"}


def stop_child(process: "subprocess.Popen[bytes]", grace_seconds: float = GRACE_SECONDS) -> None:
    """Ask a process that we started to end and wait for it; kill it when it does not.

    Ctrl-C meanwhile kills it at once: it is not left behind.
    """
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        process.wait()
        raise


def end_with_parent(parent: int, pipe: int) -> None:
    """Have this process end as soon as its parent is gone.

    Args:
        parent: process id of the parent.
        pipe: descriptor that reads as closed once the parent is gone.
    """
    os.set_inheritable(pipe, False)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel knew what to do then
        _end()
    threading.Thread(target=_watch, args=(pipe,), name="parent", daemon=True).start()


def _watch(pipe: int) -> None:
    with suppress(OSError):
        while os.read(pipe, 1):
            pass
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Entry point: run the module that the command line names, tied to the parent."""
    parent, pipe, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent), int(pipe))
    collect_seldom()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
