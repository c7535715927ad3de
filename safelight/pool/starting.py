"""Keeps a worker from starting a run that was ended or deleted since it was seen to wait.

The server lets Pending take the place of an end that somebody gave a run by hand, and clients
repeat a request that was not answered seconds later.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort, ObjectNotFound

from safelight.pool.fencing import DECIDE_SECONDS, awake

_STATE = re.compile(r"/flow_runs/([0-9a-f-]{36})/set_state$")


class Starting:
    """The runs that a worker has seen waiting and is about to start.

    Args:
        ask: reads a run of the server.
    """

    def __init__(self, ask: Callable[[UUID], Awaitable[FlowRun]]) -> None:
        self._ask = ask
        self._seen: dict[UUID, float] = {}

    def saw(self, run_ids: Iterable[UUID], asked: float) -> None:
        """Note runs that waited; `asked` is `awake()` when the server was asked."""
        self._seen.update(dict.fromkeys(run_ids, asked))

    def asked(self, run_id: UUID) -> float | None:
        """When the server showed a run last; None for one that was not noted."""
        return self._seen.get(run_id)

    def forget(self, run_id: UUID) -> None:
        """It has been started, or will not be."""
        self._seen.pop(run_id, None)

    async def guard(self, request: httpx.Request) -> None:
        """Before each request, repeated ones too.

        Raises:
            Abort: it would start a run that is over or gone.
            httpx.HTTPError: the server does not answer.
        """
        found = _STATE.search(request.url.path) if request.method == "POST" else None
        run_id = UUID(found[1]) if found else None
        if run_id is None or awake() - self._seen.get(run_id, awake()) <= DECIDE_SECONDS:
            return
        if json.loads(request.content)["state"]["type"] != "PENDING":
            return
        asked = awake()
        try:
            flow_run = await self._ask(run_id)
        except ObjectNotFound as error:
            raise Abort("it was deleted") from error
        if flow_run.state is not None and flow_run.state.is_final():
            raise Abort(f"it was ended as {flow_run.state.name}")
        self.saw([run_id], asked)
