"""The warm process: runs one flow run after another, its models stay loaded in between.

A worker starts it as `python -m safelight.pool.child FD`; FD is a socket on which they exchange
`safelight.pool.messages`. Flow runs are executed on the main thread. When the worker goes away the
process stops its run, so that another takes it up, and ends.
"""

import asyncio
import gc
import importlib
import inspect
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Literal
from uuid import UUID

import httpx
import psutil
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import (
    Abort,
    ObjectNotFound,
    Pause,
    SignatureMismatchError,
    TerminationSignal,
)
from prefect.flow_engine import run_flow
from prefect.logging.loggers import flow_run_logger

from safelight.confined.calling import prepare
from safelight.errors import ContractMismatchError
from safelight.garbage import collect_seldom
from safelight.observing.correlating import of_run, process_correlated
from safelight.observing.logs import begin_log, seen, timed
from safelight.observing.stages import take_ended
from safelight.observing.tracing import begin_tracing, name_run, run_span
from safelight.pool.fencing import Fence, awake
from safelight.pool.freshness import ImportedModules
from safelight.pool.holding import memory_held
from safelight.pool.messages import (
    Ended,
    Owned,
    Pulse,
    Ready,
    Run,
    Stale,
    Stop,
    ToProcess,
    lines_of,
)
from safelight.pool.ownership import Claim
from safelight.pool.session import ApiSession
from safelight.private import keep_private
from safelight.progress import StopReason, clear_stop, is_given_up, request_stop, still_seconds
from safelight.reports import as_known
from safelight.run_logs import say_it_once
from safelight.settings import reload_settings, settings
from safelight.store.store import current_store

ORPHAN_SECONDS = 20.0
"""A run that does not stop this long after the worker went away ends with its process."""
DOUBT_SECONDS = 3.0
"""How often a process makes sure of its run when its worker does not."""
PULSE_SECONDS = 2.0
"""How often a process says that it lives."""
IDLE_SECONDS = 0.5
"""Without a command for this long, garbage is collected."""
MODEL = "model:"


class Host:
    """Runs what comes over the socket until the socket closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("w", encoding="utf-8")
        self._runs: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._current: UUID | None = None
        self._stopped: set[tuple[UUID, int]] = set()
        self._lock = threading.Lock()
        self._saying = threading.Lock()
        self._modules = ImportedModules()
        self._fence = Fence(lambda run_id: self._session.ask(run_id))
        self._session = ApiSession(self._fence.guard, self._fence.hear)
        self._versions: dict[UUID, str | None] = {}

    def serve(self) -> None:
        """Load what the settings name, then run flow runs until the worker goes away."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        threading.Thread(target=self._doubt, name="fence", daemon=True).start()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()
        began = time.monotonic()
        prepare()
        preload(settings().pool_preload)
        self._say(Ready(seconds=time.monotonic() - began))
        while (command := self._next()) is not None:
            self._say(self._run(command))
        self._session.close()

    def _next(self) -> Run | None:
        try:
            return self._runs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            gc.collect()
            gc.freeze()  # libraries and models are not looked at again, which takes a while
        return self._runs.get()

    def _listen(self) -> None:
        try:
            for line in lines_of(self._connection):
                self._hear(ToProcess.validate_json(line))
        finally:
            self._end()

    def _hear(self, command: Run | Owned | Stop) -> None:
        if isinstance(command, Run):
            self._runs.put(command)
        elif isinstance(command, Owned):
            self._fence.confirm(command.flow_run_id, command.asked)
        else:
            self._stop(command)

    def _end(self) -> None:
        self._runs.put(None)
        with self._lock:
            orphaned = self._current is not None
            request_stop(StopReason.RESCHEDULE)
        if orphaned:
            time.sleep(ORPHAN_SECONDS)
            os._exit(1)

    def _doubt(self) -> None:
        """Stop a run that became somebody else's while the worker said nothing of it."""
        while True:
            time.sleep(DOUBT_SECONDS)
            with suppress(Abort, httpx.HTTPError):
                self._fence.check()

    def _beat(self) -> None:
        while True:
            stages = take_ended()
            self._say(Pulse(still_seconds=still_seconds(), stages=stages, memory=memory_held()))
            time.sleep(PULSE_SECONDS)

    def _stop(self, command: Stop) -> None:
        with self._lock:
            if command.flow_run_id == self._current:
                request_stop(command.reason)
            else:
                self._stopped.add((command.flow_run_id, command.number))  # it has not begun

    def _begin(self, command: Run) -> bool:
        with self._lock:
            if (command.flow_run_id, command.number) in self._stopped:
                return False
            clear_stop()
            self._current = command.flow_run_id
            return True

    def _run(self, command: Run) -> Stale | Ended:
        if not self._begin(command):
            return self._ended(command, "stopped before it began")
        began = time.time()
        try:
            with run_environment(command):
                self._session.renew()
                flow_run, asked = command.flow_run, command.asked
                if flow_run is None:
                    asked, flow_run = awake(), self._session.ask(command.flow_run_id)
                if flow_run is None:  # it was deleted
                    return self._ended(command, "")
                found = self._outdated(flow_run)
                if found is not None:
                    return Stale(flow_run_id=command.flow_run_id, found=found)
                claim = Claim(command.worker, command.number) if command.worker else None
                lost = self._fence.begin(flow_run, claim, asked)
                if lost is not None:
                    flow_run_logger(flow_run).info("not run: %s", lost)
                    return self._ended(command, "")
                with process_correlated(of_run(flow_run.id, flow_run.labels)):
                    problem = observed(flow_run, self._session)
        except Exception as error:  # noqa: BLE001  (whatever it was, the worker must hear of it)
            if is_server_trouble(error):  # then the run is not at fault
                return self._ended(command, f"{type(error).__name__}: {error}")
            return self._ended(command, str(as_known(error)), "refused")
        finally:
            self._fence.end()
            self._modules.remember(began)
            with self._lock:
                self._current = None
        return self._ended(command, problem)

    def _ended(
        self,
        command: Run,
        problem: str,
        outcome: Literal["unreported", "refused"] = "unreported",
    ) -> Ended:
        return Ended(
            flow_run_id=command.flow_run_id,
            outcome=outcome if problem else "reported",
            problem=problem,
            memory_bytes=psutil.Process().memory_info().rss,
            models_bytes=memory_held().models_bytes,
            stages=take_ended(),
        )

    def _outdated(self, flow_run: FlowRun) -> str | None:
        if flow_run.deployment_id is not None:
            version = self._versions.setdefault(flow_run.deployment_id, flow_run.deployment_version)
            if version != flow_run.deployment_version:
                return f"the deployment's version, {version} to {flow_run.deployment_version}"
        return self._modules.changed()

    def _say(self, message: Ready | Pulse | Stale | Ended) -> None:
        try:
            with self._saying:
                self._replies.write(message.model_dump_json() + "\n")
                self._replies.flush()
        except OSError:  # the worker is gone; the listener ends this process
            return


def execute(flow_run: FlowRun, session: ApiSession) -> str:
    """Run a flow run on this thread, as `python -m prefect.engine` does.

    Args:
        flow_run: as the server knows it.
        session: renewed for this run.

    Returns:
        Why the state it ended in could not be reported to the server; empty when it was.

    Raises:
        Exception: the flow cannot be imported, or not be called with these parameters.
    """
    logger = flow_run_logger(flow_run)
    try:
        flow = session.load_flow(flow_run)
        name_run(flow.name)
        result: Any = run_flow(flow, flow_run=flow_run, return_type="state")
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except Abort as error:
        if is_given_up():
            logger.info("stopped: the run is over or another worker has it")
            return ""
        logger.info("the server refused its next state: %s", error)
        return left_behind(session.load_flow_run(flow_run.id), error)
    except Pause:
        return ""
    except TerminationSignal:
        return "the process was told to end"
    except SignatureMismatchError as error:
        raise ContractMismatchError(str(error), "correct the names of the parameters") from error
    except ObjectNotFound:
        if session.ask(flow_run.id) is None:
            logger.info("stopped: the run was deleted")
            return ""
        raise
    reported = not isinstance(result, State) or result.is_final() or result.is_scheduled()
    return "" if reported or result.is_paused() else f"it stopped as {result.name}"


def observed(flow_run: FlowRun, session: ApiSession) -> str:
    """The same, with a line in the log at its begin and its end."""
    facts = {"flow_run_id": str(flow_run.id), "flow_run_name": flow_run.name}
    seen("run begins", **facts)
    with timed("run is over", **facts) as told, run_span(facts):
        problem = execute(flow_run, session)
        if problem:
            told["problem"] = problem
    return problem


def left_behind(flow_run: FlowRun, error: Abort) -> str:
    """Why an aborted run still needs a state; empty when another one has been given to it.

    The server aborts a change of state that it has already made. A client that repeats a request
    whose answer was lost hears that, and the run would be left as Running.
    """
    state = flow_run.state
    if state is None or state.is_final() or state.is_scheduled() or state.is_paused():
        return ""
    return f"the server did not let it begin: {error}"


def is_server_trouble(error: BaseException) -> bool:
    """Whether an error comes from asking the server, also where Prefect made another one of it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.HTTPError):
        cause = cause.__cause__
    return cause is not None


@contextmanager
def run_environment(command: Run) -> Generator[None]:
    """The environment and working directory of one run; the process's own afterwards."""
    environment, folder, path = dict(os.environ), os.getcwd(), list(sys.path)
    own = settings()
    os.environ.update(command.environment)
    try:
        if command.working_dir is not None:
            os.chdir(command.working_dir)
        if reload_settings() != own:
            current_store.cache_clear()  # its store is that of its own settings
        yield
    finally:
        changed = settings() != own
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:] = path
        reload_settings()
        if changed:
            current_store.cache_clear()


def preload(wanted: str) -> None:
    """Import modules and load models before the first run needs them.

    Args:
        wanted: see `Settings.pool_preload`.
    """
    for name in filter(None, map(str.strip, wanted.split(","))):
        if name.startswith(MODEL):
            from safelight.engines import diffusion

            diffusion.preload(name.removeprefix(MODEL))
        else:
            importlib.import_module(name)


def main() -> int:
    """Entry point."""
    collect_seldom()
    keep_private()
    say_it_once()
    begin_log("process")
    begin_tracing("process")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which tells us
    Host(socket.socket(fileno=int(sys.argv[1]))).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
