"""Says of a run's states which of them had it go on in another process, and which began it anew."""

from collections.abc import Sequence
from datetime import datetime

from prefect.client.schemas.objects import State

AGAIN = "; started again, finished stages come from the store"
"""End of the message of every state that starts a run again whose process died."""
ELSEWHERE = "; goes on in another process"
"""End of the message of every state that hands a run on."""


def goes_on(state: State) -> bool:
    """Whether this state has a run go on that was interrupted; else somebody asked for it."""
    return (state.message or "").endswith((AGAIN, ELSEWHERE))


def asked_for_at(states: Sequence[State]) -> datetime | None:
    """When a run was last asked for: made, or retried by somebody; None without any state.

    Args:
        states: all that the run had.
    """
    begun = [state for state in states if state.is_scheduled() and not goes_on(state)]
    times = [state.timestamp for state in begun or states]
    return max(times) if begun else min(times, default=None)
