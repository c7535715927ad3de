"""Hears the server's events by its websocket, for ever, though the connection breaks."""

import logging
import time
from collections.abc import Callable

from anyio import sleep
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 10.0
"""Pauses between tries to connect: the first, and the longest that they grow to."""
STEADY_SECONDS = 60.0
"""A connection that held for so long was a good one: after it the pauses begin anew."""


async def hear(
    wanted: EventFilter,
    connected: Callable[[], None],
    heard: Callable[[Event], None],
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    lost: Callable[[], None] = lambda: None,
) -> None:
    """Listen to the server's events for ever.

    Says once that the connection is lost and once that it is back.

    Args:
        wanted: which events.
        connected: called whenever events begin to come; some may have been missed before.
        heard: called for each event.
        log: where it says so.
        lost: called whenever none come any more.
    """
    away, wait = False, FIRST_SECONDS
    while True:
        began: float | None = None
        try:
            async with get_events_subscriber(wanted, reconnect_on_clean_close=True) as events:
                began = time.monotonic()
                if away:
                    log.info("events come from the server again")
                away = False
                connected()
                async for event in events:
                    heard(event)
        except Exception as error:  # noqa: BLE001  (Prefect raises a bare Exception)
            if not away:
                log.info("no events from the server, polling meanwhile: %s", error)
            away = True
        lost()
        if began is not None and time.monotonic() - began > STEADY_SECONDS:
            wait = FIRST_SECONDS
        await sleep(wait)
        wait = min(2 * wait, LONGEST_SECONDS)
