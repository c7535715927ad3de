"""Whether the batch that a run was made for is still wanted.

A batch asks its runs to stop when it is cancelled or deleted. Nobody does while no worker has it,
so the workers that have its runs look for themselves.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.states import Cancelling

from safelight.naming import BATCH_LABEL
from safelight.pool.fencing import awake

LOG = get_logger("safelight.pool")
KNOWN_SECONDS = 10.0
"""How long an answer about a batch is believed, but for the start of a run."""
MOST = 1000
"""Batches that are remembered."""


class Belonging:
    """What a worker knows about the batches of the runs that it sees.

    Args:
        read: reads a run of the server.
    """

    def __init__(self, read: Callable[[UUID], Awaitable[FlowRun]]) -> None:
        self._read = read
        self._known: dict[UUID, tuple[float, str | None]] = {}

    async def unwanted(self, flow_run: FlowRun, since: float | None = None) -> str | None:
        """Why nobody wants a run any more; None when somebody does, or it belongs to no batch.

        Args:
            flow_run: the run.
            since: by `awake`; that somebody wants it is not believed from before.

        Raises:
            httpx.HTTPError: the server does not answer.
        """
        batch = batch_of(flow_run)
        if batch is None:
            return None
        asked, why = self._known.get(batch, (-KNOWN_SECONDS, None))
        known = awake() - asked < KNOWN_SECONDS
        if not known or (why is None and since is not None and asked < since):
            asked = awake()
            try:
                why = over(await self._read(batch))
            except ObjectNotFound:
                why = "its batch was deleted"
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[batch] = asked, why
        return why

    async def those_wanted(
        self, client: PrefectClient, due: Iterable[WorkerFlowRunResponse], since: float
    ) -> list[WorkerFlowRunResponse]:
        """Runs that wait and may start; those that nobody wants are cancelled.

        Args:
            client: of the Prefect API.
            due: the runs that wait.
            since: see `unwanted`.

        Raises:
            httpx.HTTPError: the server does not answer.
        """
        wanted: list[WorkerFlowRunResponse] = []
        for entry in due:
            why = await self.unwanted(entry.flow_run, since)
            if why is None:
                wanted.append(entry)
                continue
            LOG.info("flow run %s is not started: %s", entry.flow_run.id, why)
            with suppress(ObjectNotFound):
                await client.set_flow_run_state(entry.flow_run.id, Cancelling(message=why))
        return wanted


def batch_of(flow_run: FlowRun) -> UUID | None:
    """The flow run of the batch that a run was made for; None when it was made for none."""
    try:
        return UUID(str(flow_run.labels.get(BATCH_LABEL)))
    except ValueError:
        return None


def over(batch: FlowRun) -> str | None:
    """Why the runs of a batch need not run; None while they must.

    Those of a batch that failed or crashed go on: it finds what they made when it is run again.
    """
    state = batch.state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return "its batch was cancelled"
    return "its batch is over" if state is not None and state.is_completed() else None
