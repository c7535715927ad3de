"""Writes every transition of a job into the audit log, from the events that Prefect keeps.

One question every few seconds, for all jobs. The server keeps events for days, so what happened
while no gateway ran is written when one runs again. Of several gateways on a volume one asks.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from filelock import FileLock, Timeout
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.events import EventPage
from prefect.events import ReceivedEvent
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventOrder,
)
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from safelight.audit.log import Entry, lines, log_folder, record_all, rights
from safelight.client.log_copies import copy_log
from safelight.errors import PipelineError
from safelight.private import make_folder

LOG = logging.getLogger(__name__)
TRANSITION = "job.state"
EVERY_SECONDS = 4.0
COPY_SECONDS = 60.0
"""Between copies of what the log has grown by, where the store is a bucket."""
LATE = timedelta(seconds=60)
"""Events may come this much later than others that happened after them."""
PAGE = 50
"""Fewer than a server gives at once."""
RUN = "prefect.flow-run."
FOLLOWED = "followed.json"


class _Followed(BaseModel):
    """How far the events of a server are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    until: datetime


class Transitions:
    """Follows the events of one server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._until: datetime | None = None
        self._seen: dict[str, datetime] = {}
        """Events that are written, by their ids."""
        self._copied = -COPY_SECONDS
        """When what had grown was copied, on the clock of this process."""

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                await run_sync(self.write)
            except PipelineError as error:  # the server is away, or the disk is full: later
                LOG.debug("transitions are not written: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    def write(self) -> int:
        """Write what has happened since the last time; how many lines, 0 where another does it.

        Raises:
            PipelineError: the server does not answer, or the log cannot be written.
        """
        folder = log_folder()
        make_folder(folder)
        try:
            with FileLock(folder / ".follower", timeout=0, mode=rights()):
                count = self._write(folder)
                self._copy()
                return count
        except Timeout:
            return 0

    def _copy(self) -> None:
        now = time.monotonic()
        if now - self._copied >= COPY_SECONDS:
            copy_log()
            self._copied = now

    def _write(self, folder: Path) -> int:
        known = _read(folder, str(self._client.api_url))
        if self._until is None or known is None or known.until != self._until:
            self._until = datetime.now(UTC) if known is None else known.until
            self._seen = _written_since(folder, self._until - LATE)
        late = self._until - LATE
        there = self._ask(late, 1).total
        count = 0
        if there > len(self._seen):
            count = self._write_since(self._until)
            if there > len(self._seen):  # some came later than others that happened after them
                count += self._write_since(late)
        self._seen = {event: at for event, at in self._seen.items() if at >= self._until - LATE}
        kept = _Followed(server=str(self._client.api_url), until=self._until)
        if known != kept:
            half = folder / f"{FOLLOWED}.new"
            half.write_text(kept.model_dump_json())
            half.replace(folder / FOLLOWED)
        return count

    def _write_since(self, since: datetime) -> int:
        """Write events from a moment on that are not written yet; how many lines."""
        count = 0
        while True:
            found = self._ask(since, PAGE).events
            new = [event for event in found if str(event.id) not in self._seen]
            told = [entry for event in new if (entry := _entry(event)) is not None]
            if told:
                record_all(told)
            count += len(told)
            self._seen |= {str(event.id): event.occurred for event in new}
            before = since
            if found:
                since = found[-1].occurred
                self._until = max(self._until or since, since)
            if len(found) < PAGE or since == before:
                return count

    def _ask(self, since: datetime, limit: int) -> EventPage:
        return self._client.read_events(
            EventFilter(
                event=EventNameFilter(prefix=[RUN]),
                occurred=EventOccurredFilter.model_validate({"since": since}),
                order=EventOrder.ASC,
            ),
            limit=limit,
        )


def _entry(event: ReceivedEvent) -> Entry | None:
    """The line of an event; None where it is no transition of a job."""
    about: dict[str, Any] = dict(event.resource.root)
    state = about.get("prefect.state-type")
    related = {each.role: dict(each.root) for each in event.related}
    if state is None or "deployment" not in related:
        return None
    details: dict[str, JsonValue] = {
        "state": event.event.removeprefix(RUN),
        "type": str(state),
        "message": str(about.get("prefect.state-message") or ""),
        "flow": str(related.get("flow", {}).get("prefect.resource.name", "")),
        "occurred": event.occurred.isoformat(),
        "event": str(event.id),
    }
    return Entry(TRANSITION, event.resource.id.removeprefix(RUN), details, "prefect")


def _read(folder: Path, server: str) -> _Followed | None:
    try:
        found = _Followed.model_validate_json((folder / FOLLOWED).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found if found.server == server else None


def _written_since(folder: Path, since: datetime) -> dict[str, datetime]:
    """Events whose lines are there, though nobody could say so any more."""
    found: dict[str, datetime] = {}
    for line in lines(folder, newest=2):
        event, occurred = line.details.get("event"), line.details.get("occurred")
        if line.event_type == TRANSITION and isinstance(event, str) and isinstance(occurred, str):
            at = datetime.fromisoformat(occurred)
            if at >= since:
                found[event] = at
    return found
