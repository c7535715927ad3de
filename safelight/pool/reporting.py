"""Gives a run a state when its process could not."""

import signal
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed

from safelight.errors import UnknownError
from safelight.naming import tagged
from safelight.pool.messages import Ended
from safelight.pool.ownership import Claim, loss
from safelight.pool.process import Died, Outcome
from safelight.restarts import AGAIN

RETRY_SECONDS = 1.0
LEAVE_SECONDS = 10.0
"""A store that does not answer for longer costs the manifest of a run whose process is gone."""


async def conclude(
    flow_run_id: UUID, claim: Claim, outcome: Outcome, cancelling: bool, restarts: int
) -> int:
    """See to it that a run whose process died or failed does not stay Running.

    Waits for a server that does not answer.

    Args:
        flow_run_id: of the run.
        claim: what this worker holds of it; a run that is not ours any more is left alone.
        outcome: what became of its process.
        cancelling: it had been asked to stop.
        restarts: how often such a run is started again by itself.

    Returns:
        The process's status, 0 when the run goes on elsewhere or is cancelled.
    """
    async with get_client() as client:
        while True:
            # a write the client repeats by itself later would undo what happened meanwhile
            try:
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                    return await _conclude(
                        client, flow_run_id, claim, outcome, cancelling, restarts
                    )
            except ObjectNotFound:  # the run was deleted
                return 0
            except httpx.HTTPError:
                await anyio.sleep(RETRY_SECONDS)


async def _conclude(
    client: PrefectClient,
    flow_run_id: UUID,
    claim: Claim,
    outcome: Outcome,
    cancelling: bool,
    restarts: int,
) -> int:
    left = restarts - await restarted(client, flow_run_id)
    flow_run = await client.read_flow_run(flow_run_id)  # last: others may see to the run too
    state = flow_run.state
    if loss(flow_run, claim) is not None:
        return 0
    if state is not None and (state.is_scheduled() or state.is_paused()):
        return 0
    following = next_state(flow_run, outcome, cancelling, left)
    if following.is_final():
        await leave(flow_run, following)
        flow_run = await client.read_flow_run(flow_run_id)
        if loss(flow_run, claim) is not None:
            return 0
        following = next_state(flow_run, outcome, cancelling, left)
    await tell(client, flow_run, following)
    await client.set_flow_run_state(flow_run.id, following, force=True)
    await heed_ends(client, flow_run)
    return 0


async def tell(client: PrefectClient, flow_run: FlowRun, following: State[None]) -> None:
    """Put the error of a run that ends into its log and its tags; nothing for other states.

    Args:
        client: of the Prefect API.
        flow_run: as it was read.
        following: the state that it is about to get.
    """
    if following.is_failed() or following.is_crashed():
        flow_run_logger(flow_run).error("%s", following.message)
        tags = tagged(flow_run.tags, following.message)
        await client.update_flow_run(flow_run.id, tags=tags)


async def leave(flow_run: FlowRun, ending: State[None]) -> None:
    """Write the manifest and the page that the run's own process cannot write any more.

    Args:
        flow_run: as it was read.
        ending: the final state that it is about to get.
    """
    from safelight.client.leaving import leave_for  # previews come with it, which few workers need

    with anyio.move_on_after(LEAVE_SECONDS):
        await anyio.to_thread.run_sync(leave_for, flow_run, ending, abandon_on_cancel=True)


async def heed_ends(client: PrefectClient, flow_run: FlowRun) -> None:
    """Put back the end of a run that came between our reading it and our giving it a state.

    Somebody cancelled it or set its end by hand, or its process told of one before it died. Prefect
    has no way to set a state only where the one that was read still stands.

    Args:
        client: of the Prefect API.
        flow_run: as it was read.
    """
    states = await client.read_flow_run_states(flow_run.id)
    known = flow_run.state.timestamp if flow_run.state else None
    since = sorted(
        (state for state in states if known is None or state.timestamp > known),
        key=lambda state: state.timestamp,
    )[:-1]
    ends = [state for state in since if state.is_final()]
    if any(state.is_cancelling() or state.is_cancelled() for state in since):
        end = Cancelled(message="stopped with its process")
    elif ends:
        last = ends[-1]
        end = State(type=last.type, name=last.name, message=last.message, data=last.data)
    else:
        return
    await client.set_flow_run_state(flow_run.id, end, force=True)


async def restarted(client: PrefectClient, flow_run_id: UUID) -> int:
    """How often a run was started again; `run_count` leaves out those that never began."""
    states = await client.read_flow_run_states(flow_run_id)
    return sum((state.message or "").endswith(AGAIN) for state in states)


def next_state(
    flow_run: FlowRun, outcome: Outcome | None, cancelling: bool, restarts_left: int
) -> State[None]:
    """The state of a run whose process is gone or could not run it.

    Args:
        flow_run: as the server knows it.
        outcome: None when nothing is known but that worker and process are gone.
        cancelling: it had been asked to stop.
        restarts_left: how often it may still be started again.
    """
    asked = cancelling or (flow_run.state is not None and flow_run.state.is_cancelling())
    if asked:
        return Cancelled(message="stopped with its process")
    why = _why(outcome)
    if isinstance(outcome, Ended) and outcome.outcome == "refused" and flow_run.run_count == 0:
        return Failed(message=outcome.problem)
    if restarts_left > 0:
        return AwaitingRetry(message=why + AGAIN)
    return Crashed(message=str(UnknownError(why, _remedy(outcome))))


def _why(outcome: Outcome | None) -> str:
    if outcome is None:
        return "the worker and the process of the run are gone"
    if isinstance(outcome, Died):
        if outcome.why:
            return f"the process of the run was ended: {outcome.why}"
        return f"the process of the run ended with {outcome.returncode}"
    return f"the process could not run it: {outcome.problem}"


def _remedy(outcome: Outcome | None) -> str:
    if isinstance(outcome, Died) and outcome.returncode == -signal.SIGKILL and not outcome.why:
        return (
            "look in the system's log whether its memory ran out; if so, use a smaller picture, "
            "tile or model, else read the worker's log, then retry the run"
        )
    return "read the worker's log, then retry the run: finished stages come from the store"
