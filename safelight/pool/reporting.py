"""Gives a run a state when its process could not."""

import anyio
import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed

from safelight.pool.messages import Ended
from safelight.pool.process import Died, Outcome

RETRY_SECONDS = 1.0


async def settle(flow_run_id: object, outcome: Outcome, cancelling: bool, restarts: int) -> int:
    """See to it that a run whose process died or failed does not stay Running.

    Waits for a server that does not answer.

    Args:
        flow_run_id: of the run.
        outcome: what became of its process.
        cancelling: it had been asked to stop.
        restarts: how often such a run is started again by itself.

    Returns:
        The process's status, 0 when the run goes on elsewhere or is cancelled.
    """
    async with get_client() as client:
        while True:
            try:
                return await _settle(client, flow_run_id, outcome, cancelling, restarts)
            except ObjectNotFound:  # the run was deleted
                return 0
            except httpx.HTTPError:
                await anyio.sleep(RETRY_SECONDS)


async def _settle(
    client: PrefectClient, flow_run_id: object, outcome: Outcome, cancelling: bool, restarts: int
) -> int:
    flow_run = await client.read_flow_run(flow_run_id)  # pyright: ignore[reportArgumentType]
    state = flow_run.state
    if state is not None and (state.is_final() or state.is_scheduled() or state.is_paused()):
        return 0
    await client.set_flow_run_state(
        flow_run.id, next_state(flow_run, outcome, cancelling, restarts), force=True
    )
    return 0


def next_state(
    flow_run: FlowRun, outcome: Outcome | None, cancelling: bool, restarts: int
) -> State[None]:
    """The state of a run whose process is gone or could not run it.

    Args:
        flow_run: as the server knows it.
        outcome: None when nothing is known but that worker and process are gone.
        cancelling: it had been asked to stop.
        restarts: how often it may be started again.
    """
    asked = cancelling or (flow_run.state is not None and flow_run.state.is_cancelling())
    if asked:
        return Cancelled(message="stopped with its process")
    why = _why(outcome)
    # one that never began is not counted in run_count, and would be tried for ever
    if isinstance(outcome, Ended) and outcome.outcome == "refused" and flow_run.run_count == 0:
        return Failed(message=outcome.problem)
    if flow_run.run_count <= restarts:
        return AwaitingRetry(message=f"{why}; started again, finished stages come from the store")
    return Crashed(message=why)


def _why(outcome: Outcome | None) -> str:
    if outcome is None:
        return "the worker and the process of the run are gone"
    if isinstance(outcome, Died):
        return f"the process of the run ended with {outcome.returncode}"
    return f"the process could not run it: {outcome.problem}"
