"""Follows jobs for all listeners at once, and tells each of them what is new to it.

One round of questions a moment serves every listener: the runs that are listened for, their
progress, and the states of those whose state is another than before. Prefect keeps all of a run's
states and the latest progress, so an event's id, how many states and which progress were told, is
all that a listener needs to go on where its connection broke, also with another gateway.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from anyio.to_thread import run_sync
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict

from safelight.client.runs import NO_PROGRESS, Progress, progress_of_all
from safelight.gateway.jobs import Status, error_of, percent_of, status_of
from safelight.provenance.manifest import Failure
from safelight.reports import as_known

LOG = logging.getLogger(__name__)
ROUND_SECONDS = 0.5
"""Between two rounds of questions."""
HEARTBEAT_SECONDS = 15.0
"""A listener hears something at least this often, or it is gone."""
AT_ONCE = 100
"""Runs of one question."""
_ID = re.compile(r"(\d{1,6})\.(\d{1,17})")


class JobEvent(BaseModel):
    """What a listener is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    job_id: UUID
    """Which job."""
    correlation_id: str
    """Of the request that listens."""
    status: Status
    """How the job stands."""
    state: str
    """The same in Prefect's words."""
    progress: float
    """0 to 100."""
    stage: str
    """Stage and step it has reached."""
    message: str
    """What the state says."""
    error: Failure | None
    """Why it failed."""
    at: datetime | None
    """When it came to this."""


@dataclass(frozen=True, order=True)
class Told:
    """What a listener knows: the id of the last event that it got."""

    states: int = 0
    """How many of the job's states."""
    progress: int = 0
    """Which progress: microseconds since 1970."""

    def __str__(self) -> str:
        """As event id."""
        return f"{self.states}.{self.progress}"

    @classmethod
    def read(cls, event_id: str | None) -> "Told":
        """That of an event id; nothing where it is none of ours."""
        found = _ID.fullmatch(event_id or "")
        return cls(int(found[1]), int(found[2])) if found else cls()


@dataclass
class _Followed:
    """A job that is listened for."""

    listeners: int = 0
    states: list[State[Any]] = field(default_factory=list[State[Any]])
    progress: Progress = NO_PROGRESS
    gone: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether the job has ended, and nothing more will come unless it is retried."""
        return self.gone or (bool(self.states) and self.states[-1].is_final())


@dataclass(frozen=True)
class _Seen:
    """What the server said of a run; new states alone."""

    states: list[State[Any]] | None
    progress: Progress


class Following:
    """Listens for jobs on behalf of everybody."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._followed: dict[UUID, _Followed] = {}
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Ask, round by round, for as long as somebody listens; until it is cancelled."""
        while True:
            await self._wanted.wait()
            try:
                known = {
                    job_id: followed.states[-1].id if followed.states else None
                    for job_id, followed in self._followed.items()
                }
                self._heard(await run_sync(self._asked, known))
            except Exception as error:  # noqa: BLE001  (the edge: listeners wait for better times)
                LOG.warning("jobs are not followed at the moment: %s", as_known(error))
            await asyncio.sleep(ROUND_SECONDS)
            if not self._followed:
                self._wanted.clear()

    async def events(
        self, job_id: UUID, told: Told, correlation_id: str
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events of a job, from what a listener was told last to the job's end.

        Args:
            job_id: of a job that there is.
            told: where to go on.
            correlation_id: of the request that listens.
        """
        followed = self._followed.setdefault(job_id, _Followed())
        followed.listeners += 1
        self._wanted.set()
        try:
            yield b"retry: 2000\n\n"
            while True:
                changed = followed.changed
                for kind, now, event in _news(job_id, followed, told, correlation_id):
                    told = now
                    yield _framed(kind, now, event)
                if followed.over:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            followed.listeners -= 1
            if not followed.listeners:
                self._followed.pop(job_id, None)

    def _asked(self, known: dict[UUID, UUID | None]) -> dict[UUID, _Seen | None]:
        """What the server says of runs; None of those that it does not know."""
        seen: dict[UUID, _Seen | None] = dict.fromkeys(known)
        ids = list(known)
        for some in (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)):
            progress = progress_of_all(self._client, some)
            only = FlowRunFilter(id=FlowRunFilterId(any_=some))
            for run in self._client.read_flow_runs(flow_run_filter=only, limit=len(some)):
                states = None
                if run.state_id != known[run.id]:
                    states = self._client.read_flow_run_states(run.id)
                seen[run.id] = _Seen(states, progress.get(run.id, NO_PROGRESS))
        return seen

    def _heard(self, seen: dict[UUID, _Seen | None]) -> None:
        for job_id, said in seen.items():
            followed = self._followed.get(job_id)
            if followed is None:
                continue
            if said is None:
                followed.gone = True
            elif said.states is None and said.progress == followed.progress:
                continue
            else:
                followed.progress = said.progress
                followed.states = _in_order(followed.states, said.states or ())
            followed.changed.set()
            followed.changed = asyncio.Event()


def _in_order(known: list[State[Any]], read: Sequence[State[Any]]) -> list[State[Any]]:
    """All states, those that were known in their places: ids of events count them."""
    there = {state.id for state in known}
    return [*known, *(state for state in read if state.id not in there)]


def _news(
    job_id: UUID, followed: _Followed, told: Told, correlation_id: str
) -> Iterator[tuple[Literal["progress", "complete"], Told, JobEvent]]:
    """What has happened since a listener was told last."""
    states, progress = followed.states, followed.progress
    stamp = 0 if progress.updated is None else int(progress.updated.timestamp() * 1_000_000)
    for at in range(min(told.states, len(states)), len(states)):
        latest = at == len(states) - 1
        shown = progress if latest else NO_PROGRESS
        event = _event(job_id, states[at], shown, correlation_id)
        ended = latest and states[at].is_final()
        now = Told(at + 1, stamp if latest else told.progress)
        yield "complete" if ended else "progress", now, event
        told = now
    if states and stamp > told.progress and not states[-1].is_final():
        yield (
            "progress",
            Told(told.states, stamp),
            _event(job_id, states[-1], progress, correlation_id, progress.updated),
        )


def _event(
    job_id: UUID,
    state: State[Any],
    progress: Progress,
    correlation_id: str,
    at: datetime | None = None,
) -> JobEvent:
    status = status_of(state)
    return JobEvent(
        job_id=job_id,
        correlation_id=correlation_id,
        status=status,
        state=state.name or status.value,
        progress=percent_of(status, progress),
        stage=progress.text,
        message=state.message or "",
        error=error_of(state),
        at=at or state.timestamp,
    )


def _framed(kind: str, told: Told, event: JobEvent) -> bytes:
    return f"id: {told}\nevent: {kind}\ndata: {event.model_dump_json()}\n\n".encode()
