"""Hears of the runs of a work pool by the server's events, though the connection may break."""

import time
from collections.abc import Callable
from uuid import UUID

from anyio import sleep
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.logging import get_logger

LOG = get_logger("safelight.pool")
CANCELLING = "prefect.flow-run.Cancelling"
TAKEN = "prefect.flow-run.Pending"
DUE_EVENTS = (
    "prefect.flow-run.Scheduled",
    "prefect.flow-run.AwaitingRetry",
    "prefect.flow-run.Resuming",
    "prefect.flow-run.Late",
)
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 10.0
"""Pauses between tries to connect: the first, and the longest that they grow to."""
STEADY_SECONDS = 60.0
"""A connection that held for so long was a good one: after it the pauses begin anew."""


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
    wanted = EventFilter(event=names, any_resource=pool)
    lost, wait = False, FIRST_SECONDS
    while True:
        began: float | None = None
        try:
            async with get_events_subscriber(wanted, reconnect_on_clean_close=True) as events:
                began = time.monotonic()
                if lost:
                    LOG.info("events come from the server again")
                lost = False
                connected()
                async for event in events:
                    heard(event)
        except Exception as error:  # noqa: BLE001  (Prefect raises a bare Exception)
            if not lost:
                LOG.info("no events from the server, polling meanwhile: %s", error)
            lost = True
        if began is not None and time.monotonic() - began > STEADY_SECONDS:
            wait = FIRST_SECONDS
        await sleep(wait)
        wait = min(2 * wait, LONGEST_SECONDS)
