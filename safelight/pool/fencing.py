"""Keeps a process from telling the server of a run that has become somebody else's.

A process may believe that a run is its own for as long as its worker heard so a moment ago.
After that, for instance when its machine slept, it asks before each word. Before it gives its run
a new state it asks in any case: the server lets a completed run take the place of one that
somebody ended by hand a second ago. What the server answers to others' questions counts as well:
Prefect reads a run itself just before it begins.
"""

import re
import threading
import time
from collections.abc import Callable
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort
from pydantic import ValidationError

from safelight.pool.ownership import Claim, loss
from safelight.progress import StopReason, is_given_up, request_stop

TRUST_SECONDS = 15.0
"""How long the worker's word holds; others take a run after `ownership.EXPIRE_SECONDS`."""
DECIDE_SECONDS = 0.1
"""How long it holds when the run is to get another state."""
_DECIDING = re.compile(r"/flow_runs/[0-9a-f-]{36}/set_state$")
_READING = re.compile(r"/flow_runs/[0-9a-f-]{36}$")
_ASKED = "safelight.asked"
_TELLING = re.compile(r"/(set_state|create_flow_run|artifacts/?|artifacts/[0-9a-f-]{36}/?)$")


def awake() -> float:
    """Seconds of a clock that goes on while the machine sleeps; the same in all its processes."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW"):
        clock = getattr(time, name, None)
        if clock is not None:
            return time.clock_gettime(clock)
    return time.monotonic()


class Fence:
    """Whether the run of this process is still its own.

    Args:
        ask: reads a run of the server; None when it is gone.
    """

    def __init__(self, ask: Callable[[UUID], FlowRun | None]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._run: tuple[UUID, Claim] | None = None
        self._known = 0.0

    def begin(self, flow_run: FlowRun, claim: Claim | None, asked: float) -> str | None:
        """Watch over a run that was just read.

        Args:
            flow_run: that begins.
            claim: what its worker holds; None for a run that nobody can take.
            asked: `awake()` when it was read.

        Returns:
            Why it must not begin; None when it may.
        """
        with self._lock:
            self._run = None if claim is None else (flow_run.id, claim)
            self._known = asked
        return None if claim is None else loss(flow_run, claim)

    def end(self) -> None:
        """Watch over nothing."""
        with self._lock:
            self._run = None

    def confirm(self, flow_run_id: UUID, asked: float) -> None:
        """The worker heard that the run is ours; `asked` is `awake()` of its question."""
        with self._lock:
            if self._run is not None and self._run[0] == flow_run_id:
                self._known = max(self._known, asked)

    def check(self, trust: float = TRUST_SECONDS) -> None:
        """Find out whether the run is still ours, asking only when nobody said so for a while.

        Args:
            trust: seconds for which what was heard last is believed.

        Raises:
            Abort: it is not; nothing more may be told of it.
            httpx.HTTPError: the server does not answer.
        """
        with self._lock:
            run = self._run
            doubtful = awake() - self._known > trust
        if run is None:
            return
        if not is_given_up() and doubtful:
            asked = awake()
            why = loss(self._ask(run[0]), run[1])
            if why is None:
                self.confirm(run[0], asked)
                return
            with self._lock:
                if self._run == run:
                    request_stop(StopReason.GIVE_UP)
        if is_given_up():
            raise Abort("the run is not ours any more")

    def guard(self, request: httpx.Request) -> None:
        """Before a request that tells of the run: see `check`."""
        path = request.url.path
        request.extensions[_ASKED] = awake()
        if request.method in ("POST", "PATCH") and _TELLING.search(path):
            self.check(DECIDE_SECONDS if _DECIDING.search(path) else TRUST_SECONDS)

    def hear(self, response: httpx.Response) -> None:
        """Learn from an answer that shows the run as ours; what it shows else, `check` finds."""
        request = response.request
        if request.method != "GET" or not _READING.search(request.url.path):
            return
        asked = request.extensions.get(_ASKED)
        if asked is None or not response.is_success:
            return
        try:
            flow_run = FlowRun.model_validate_json(response.read())
        except ValidationError:  # whoever asked finds the same
            return
        with self._lock:
            run = self._run
        if run is not None and run[0] == flow_run.id and loss(flow_run, run[1]) is None:
            self.confirm(flow_run.id, asked)
