"""Keeps a server and its workers together: what ends, what is told to end, and in which order."""

import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from safelight.children import stop_child
from safelight.cli.printing import CONSOLE
from safelight.cli.server import Server
from safelight.errors import EngineOfflineError

CHECK_SECONDS = 0.2
WORKER_SECONDS = 60.0
"""Time for a worker to stop its runs at their next step and to end."""
DRAIN, STOP, KILL = 1, 2, 3
"""What the first, the second and any further signal ask of the workers."""

Worker = subprocess.Popen[bytes]


class StopSignals:
    """Counts SIGTERM, Ctrl-C and SIGHUP instead of being interrupted by them."""

    def __init__(self) -> None:
        self.asked = 0
        """How often this process was told to stop."""

    def count(self, number: int, frame: FrameType | None) -> None:
        """Handle one."""
        del number, frame
        self.asked = min(self.asked + 1, KILL)


@contextmanager
def counted_signals() -> Generator[StopSignals]:
    """Count them for as long as the block runs; once told to stop, further ones change nothing."""
    signals = StopSignals()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it runs under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signals.count) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            # Python gives up its own handlers while it ends, and a late signal would kill it
            signal.signal(number, signal.SIG_IGN if signals.asked else handler)


def supervise(server: Server, workers: Mapping[str, Worker], signals: StopSignals) -> None:
    """Wait until the workers have been told to end and have ended.

    Each signal is passed on: the first has them finish their runs, the second stop these at the
    next step, a third kills them. A server that is silent is waited for.

    Args:
        server: ours; it must go on until the workers have ended, for they tell it of their runs.
        workers: by the names of their pools.
        signals: what has been asked so far.

    Raises:
        EngineOfflineError: the server or a worker ended without being told to.
    """
    told = 0
    while any(worker.poll() is None for worker in workers.values()):
        while told < signals.asked:
            told += 1
            _tell(workers, told)
        if server.process.poll() is not None:
            tail = server.log.read_text(errors="replace")[-500:]
            raise EngineOfflineError(
                f"the Prefect server ended with {server.process.returncode}: {tail}",
                f"read {server.log}, then start safelight up again",
            )
        ended = {name: worker.returncode for name, worker in workers.items() if worker.poll()}
        if not told and any(worker.poll() is not None for worker in workers.values()):
            listed = ", ".join(f"that of pool {name} with {code}" for name, code in ended.items())
            raise EngineOfflineError(f"a worker ended: {listed}", "read its output above")
        time.sleep(CHECK_SECONDS)


def _tell(workers: Mapping[str, Worker], what: int) -> None:
    CONSOLE.print(
        {
            DRAIN: "stopping: no new runs, those that go on are finished (again: stop them too)",
            STOP: "stopping running flow runs at their next step (again: kill)",
            KILL: "killing the workers",
        }[what]
    )
    for worker in workers.values():
        if worker.poll() is None:
            (worker.kill if what == KILL else worker.terminate)()


def stop_workers(workers: Mapping[str, Worker]) -> None:
    """Have workers stop their runs at the next step, and wait for all of them."""
    for _ in range(STOP):
        living = [worker for worker in workers.values() if worker.poll() is None]
        for worker in living:
            worker.terminate()
        if living:
            time.sleep(CHECK_SECONDS)  # two signals at once would count as one
    end = time.monotonic() + WORKER_SECONDS
    for worker in workers.values():
        with suppress(subprocess.TimeoutExpired):
            worker.wait(max(end - time.monotonic(), 0.0))
        stop_child(worker, 0.0)
