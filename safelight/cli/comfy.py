"""`safelight comfy`: a ComfyUI of a checkout, started by hand; those that workers start, too."""

import os
import signal
import subprocess
import time
from contextlib import closing
from typing import Annotated

import typer

from safelight.cli.launching import reporting
from safelight.cli.printing import show_line
from safelight.engines.comfy.launching import checkout, command, environment, folder, log_of, swept
from safelight.engines.comfy.records import STANDING, Running, forget, remember, running, standing
from safelight.engines.comfy.starting import last_lines, local_server, wait_until_it_answers
from safelight.errors import MissingFileError, PipelineError
from safelight.loopback import free_port

LOOK_SECONDS = 0.25
END_SECONDS = 15.0
TAIL_BYTES = 256 * 1024

_left: list["subprocess.Popen[bytes]"] = []
"""Processes that outlive the command: what Python no longer knows, it warns of."""

comfy = typer.Typer(
    no_args_is_help=True,
    help="The ComfyUI of SAFELIGHT_COMFY_DIR. Workers start one by themselves; one that is started "
    "here outlives them, and they use it instead.",
)


@comfy.command(help="Start it in the background, and wait until it answers.")
@reporting
def start(
    port: Annotated[int | None, typer.Option(help="It listens on, on 127.0.0.1; any.")] = None,
) -> None:
    """Start it."""
    there = standing()
    if there is not None:
        show_line(f"It runs already: process {there.pid} at {there.url}")
        return
    at = free_port() if port is None else port
    words = command(at, STANDING)
    swept(STANDING)
    with log_of(STANDING).open("ab") as log:
        process = subprocess.Popen(
            words,
            cwd=checkout(),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _left.append(process)
    url = f"http://127.0.0.1:{at}"
    try:
        wait_until_it_answers(url, lambda: process.poll() is None, STANDING)
    except BaseException:
        process.kill()
        process.wait()
        raise
    remember(process.pid, url, STANDING)
    show_line(f"ComfyUI runs: process {process.pid} at {url}")


@comfy.command(help="End the one that was started by hand.")
@reporting
def stop() -> None:
    """End it."""
    there = standing()
    if there is None:
        show_line("None was started by hand.")
        return
    os.kill(there.pid, signal.SIGTERM)
    ends = time.monotonic() + END_SECONDS
    while standing() is not None and time.monotonic() < ends:
        time.sleep(LOOK_SECONDS)
    if standing() is not None:
        os.kill(there.pid, signal.SIGKILL)
    forget(there.pid)
    for each in _left:
        each.poll()
    show_line(f"process {there.pid} has ended")


@comfy.command(help="All that run on this machine: who started them, version, queue, memory.")
@reporting
def status() -> None:
    """What runs."""
    found = running()
    for each in found:
        show_line(_told(each))
    if not found:
        show_line("None runs that was started here.")


@comfy.command(help="The end of the logs of those that were started here.")
@reporting
def logs(
    name: Annotated[str | None, typer.Option(help="Of one log, as status says; all.")] = None,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="Of each.")] = 40,
) -> None:
    """Their logs."""
    found = sorted(path for path in folder().glob("*.log") if name in (None, path.stem))
    if not found:
        raise MissingFileError(
            f"there is no log{f' of {name[:80]!r}' if name else ''} in {folder()}",
            "start it: safelight comfy start",
        )
    for path in found:
        show_line(f"{path}:")
        for line in last_lines(path.read_bytes()[-TAIL_BYTES:], lines):
            show_line(f"  {line}")


def _told(each: Running) -> str:
    by = "by hand" if each.name == STANDING else f"by a worker, on {each.name}"
    head = f"process {each.pid} at {each.url}, started {by}"
    try:
        with closing(local_server(each.url)) as server:
            facts = server.facts()
            queue = server.answer("GET", "/queue")
    except PipelineError as error:
        return f"{head}: {error.problem}"
    waits, runs = (queue.get(name) for name in ("queue_pending", "queue_running"))
    counts = [len(items) if isinstance(items, list) else 0 for items in (runs, waits)]
    return f"{head}: {facts.shown} on {facts.device}, {counts[0]} running, {counts[1]} waiting"
