"""Hears of the runs of a work pool by the server's events."""

from collections.abc import Callable
from uuid import UUID

from prefect.events import Event
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.logging import get_logger

from safelight.client.hearing import hear

LOG = get_logger("safelight.pool")
CANCELLING = "prefect.flow-run.Cancelling"
TAKEN = "prefect.flow-run.Pending"
DUE_EVENTS = (
    "prefect.flow-run.Scheduled",
    "prefect.flow-run.AwaitingRetry",
    "prefect.flow-run.Resuming",
    "prefect.flow-run.Late",
)


async def listen(
    pool_id: UUID, connected: Callable[[], None], heard: Callable[[Event], None]
) -> None:
    """Listen to the events of a pool's runs for ever.

    Says once that the connection is lost and once that it is back.

    Args:
        pool_id: of the work pool.
        connected: called whenever events begin to come; some may have been missed before.
        heard: called for each event.
    """
    pool = EventAnyResourceFilter(id=[f"prefect.work-pool.{pool_id}"])
    names = EventNameFilter(name=[*DUE_EVENTS, TAKEN, CANCELLING])
    await hear(EventFilter(event=names, any_resource=pool), connected, heard, LOG)
