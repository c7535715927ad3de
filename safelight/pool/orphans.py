"""Finds runs whose worker and process are both gone, and has them go on."""

import time
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from safelight.params import shown
from safelight.pool.ownership import (
    EXPIRE_SECONDS,
    LEASE_LABEL,
    Owner,
    claim_of,
    is_released,
    released,
)
from safelight.pool.reporting import heed_ends, leave, next_state, restarted, tell

OWNED = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
LOOK_SECONDS = 10.0
"""How often a worker looks for such runs."""
CONFIRM_SECONDS = 3.0
"""A run is taken when it looks the same after this; its next owner may be about to sign it."""
RESTARTS = 3
"""Times a run is started again whose workers died, unless its job variables grant more; each has
done some of its stages."""
PAGE = 200
VARIABLE = "restarts"
"""Of a job."""
LOG = get_logger("safelight.pool")
_GRANTED = TypeAdapter[int](NonNegativeInt)


class Leases:
    """For how long this worker has seen each run of others stand as it stands.

    Only time counts in which it looked and the server answered: a machine that slept or a server
    that was away says nothing of the owners. No two clocks are compared.
    """

    def __init__(self) -> None:
        self._seen: dict[UUID, tuple[object, float]] = {}
        self._looked: float | None = None

    def look(self, runs: Iterable[FlowRun], now: float | None = None) -> None:
        """Note how these runs stand now; `now` is in seconds of any clock."""
        now = time.monotonic() if now is None else now
        passed = 0.0 if self._looked is None else min(now - self._looked, LOOK_SECONDS * 1.5)
        self._looked = now
        seen: dict[UUID, tuple[object, float]] = {}
        for run in runs:
            mark, seconds = self._seen.get(run.id, (None, 0.0))
            stands = _mark(run)
            seen[run.id] = (stands, seconds + passed if mark == stands else 0.0)
        self._seen = seen

    def forget(self) -> None:
        """Begin anew: the server did not answer."""
        self._seen, self._looked = {}, None

    def expired(self, run: FlowRun) -> bool:
        """Whether nobody has given a sign of having this run for too long."""
        return self._seen.get(run.id, (None, 0.0))[1] >= EXPIRE_SECONDS


async def take_over(client: PrefectClient, pool: str, mine: set[UUID], leases: Leases) -> None:
    """Reschedule runs that nobody runs any more.

    Args:
        client: of the Prefect API.
        pool: name of the work pool.
        mine: runs that the worker runs itself or is about to start.
        leases: what it has seen of the runs of others.

    Raises:
        httpx.HTTPError: the server does not answer.
    """
    try:
        others = [run for run in await _owned(client, pool) if run.id not in mine]
        leases.look(others)
        suspects = [run for run in others if is_orphan(run, leases.expired(run))]
        if suspects:
            await anyio.sleep(CONFIRM_SECONDS)
        for run in suspects:
            granted = max(RESTARTS, await granted_restarts(client, run))
            left = granted - await restarted(client, run.id)
            now = await client.read_flow_run(run.id)
            if _mark(now) == _mark(run):
                await _take(client, run, left)
    except httpx.HTTPError:
        leases.forget()
        raise


async def granted_restarts(client: PrefectClient, run: FlowRun) -> int:
    """How often job variables have a run started again: its own, else those of its deployment.

    What is no number of restarts grants none: others' runs are taken over all the same.
    """
    own = (run.job_variables or {}).get(VARIABLE)
    if own is None and run.deployment_id is not None:
        with suppress(ObjectNotFound):
            deployment = await client.read_deployment(run.deployment_id)
            own = deployment.job_variables.get(VARIABLE)
    try:
        return 0 if own is None else _GRANTED.validate_python(own)
    except ValidationError:
        LOG.warning("flow run %s: job variable %s is %s, no number", run.id, VARIABLE, shown(own))
        return 0


async def _take(client: PrefectClient, run: FlowRun, restarts_left: int) -> None:
    # a write the client repeats by itself later would undo what happened meanwhile
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        # first the number: whoever had the run knows by it, whatever happens to us next
        number = claim_of(run).number + 1
        await client.update_flow_run(run.id, infrastructure_pid=released(number))
        following = next_state(run, None, False, restarts_left)
        if following.is_final():
            await leave(run, following)
        await tell(client, run, following)
        await client.set_flow_run_state(run.id, following, force=True)
        await heed_ends(client, run)


async def _owned(client: PrefectClient, pool: str) -> list[FlowRun]:
    found: list[FlowRun] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(OWNED)))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


def is_orphan(run: FlowRun, expired: bool) -> bool:
    """Whether nobody runs this run, or whoever does stands still.

    Where its numbers can be asked, process and worker tell at once that they are gone; what they
    cannot tell, and a machine that stands still, the lease tells.

    Args:
        run: Pending, Running or Cancelling.
        expired: its lease has.
    """
    if run.state is not None and run.state.is_pending():
        return expired  # what is on it may be its owner before
    if is_released(run):
        return True
    owner = Owner.parse(run.infrastructure_pid)
    return expired or (owner is not None and owner.gone is True)


def _mark(run: FlowRun) -> tuple[object, ...]:
    return run.state_id, run.infrastructure_pid, run.labels.get(LEASE_LABEL)
