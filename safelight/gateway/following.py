"""Follows jobs for all listeners at once, and tells each of them what is new to it.

One subscription to the server's events serves every listener. Events number themselves, so what
is missing shows, and is asked for: the server keeps all states of a run and all that it told. Now
and then it is asked for everything that is listened for, in one question, in case the last event
of a run was the one that was lost. An event's id, how many states and which word of which try were
told, is all that a listener needs to go on where its connection broke, also with another gateway.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Self
from uuid import UUID

from anyio.to_thread import run_sync
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log, State
from prefect.client.schemas.sorting import LogSort
from prefect.events import Event
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventOrder,
    EventResourceFilter,
)

from safelight.client.hearing import hear
from safelight.client.telling import EVENT, RESOURCE, run_of, told_by
from safelight.client.telling import Told as Telling
from safelight.gateway.events import PLAIN, Heard, Kind, Told
from safelight.gateway.followed import Followed, Listener
from safelight.gateway.jobs import Flows, find_run
from safelight.reports import as_known

LOG = logging.getLogger(__name__)
ROUND_SECONDS = 0.1
"""Between two looks at what has to be asked."""
SWEEP_SECONDS = 10.0
"""Between two questions for everything, while events come."""
DEAF_SECONDS = 0.5
"""The same while none come."""
LACK_SECONDS = 1.0
"""The same for jobs of which something is missing."""
LOG_SECONDS = 1.0
"""Between two questions for logs, where anybody reads one."""
LATE_SECONDS = 5.0
"""Lines of a log may come so much later than others that were said after them."""
HEARTBEAT_SECONDS = 15.0
"""A listener hears something at least this often, or it is gone."""
TOGETHER = 20
"""Events that are sent as one at most."""
KEPT_SECONDS = 60.0
MOST_IDLE = 100
"""How long what is known of a job is kept when nobody listens any more, and of how many."""
AT_ONCE = 100
"""Runs of one question."""
EVENTS_PAGE = 50
LOG_PAGE = 200
"""What a server gives at once."""
STATES = "prefect.flow-run."
"""How the names of events of states begin."""
Watcher = Callable[[UUID, Event], None]


@dataclass(frozen=True)
class _Known:
    """What is known of a run that the server is asked for."""

    job_id: UUID
    state_id: UUID | None
    told_until: datetime | None

    @classmethod
    def of(cls, followed: Followed) -> Self:
        state = followed.states[-1].id if followed.states else None
        return cls(followed.job_id, state, followed.ask_from)


@dataclass(frozen=True)
class _Seen:
    """What the server said of a run."""

    states: list[State[Any]]
    told: list[tuple[Telling, datetime]]


class Following:
    """Listens for jobs on behalf of everybody."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._followed: dict[UUID, Followed] = {}
        self._asked_for = asyncio.Event()
        self._hears = False
        self._finding: dict[UUID, asyncio.Future[FlowRun]] = {}
        self.watchers: list[Watcher] = []
        """Called with each change of a run's state that the server tells."""
        self.returned: list[Callable[[], None]] = []
        """Called when events come again, as some may have been missed."""

    async def run(self) -> None:
        """Listen, and ask for what is missing, until it is cancelled."""
        wanted = EventFilter(event=EventNameFilter(prefix=[STATES, EVENT]))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear(wanted, self._connected, self._heard, LOG, self._lost))
            tasks.create_task(self._ask_again())
            tasks.create_task(self._read_logs())

    async def require(self, flows: Flows, job_id: UUID) -> FlowRun | None:
        """Refuse to follow a job that there is not: all who come at once cost one question.

        Returns:
            The run; None where others listen for the job, so that the server was asked.

        Raises:
            UnknownJobError: there is none.
        """
        followed = self._followed.get(job_id)
        if followed is not None and followed.listeners and followed.known and not followed.gone:
            return None
        finding = self._finding.get(job_id)
        if finding is None:
            finding = asyncio.ensure_future(self._find(flows, job_id))
            self._finding[job_id] = finding
            finding.add_done_callback(lambda _: self._finding.pop(job_id, None))
        return await asyncio.shield(finding)

    async def _find(self, flows: Flows, job_id: UUID) -> FlowRun:
        run, _ = await run_sync(find_run, self._client, flows, job_id)
        return run

    async def events(
        self,
        job_id: UUID,
        told: Told,
        correlation_id: str,
        kinds: frozenset[Kind] = PLAIN,
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events of a job, from what a listener was told last to the job's end.

        Args:
            job_id: of a job that there is.
            told: where to go on.
            correlation_id: of the request that listens.
            kinds: of events that are told.
        """
        yield b"retry: 2000\n\n"
        async with aclosing(self._news(job_id, told, correlation_id, kinds)) as news:
            async for together in news:
                yield b"".join(heard.framed for heard in together) or b": still here\n\n"

    async def news(
        self,
        job_id: UUID,
        told: Told,
        correlation_id: str,
        kinds: frozenset[Kind] = PLAIN,
    ) -> AsyncGenerator[Heard | None]:
        """The same as values; None where there is nothing to tell for a while."""
        async with aclosing(self._news(job_id, told, correlation_id, kinds)) as news:
            async for together in news:
                for heard in together or (None,):
                    yield heard

    async def _news(
        self, job_id: UUID, told: Told, correlation_id: str, kinds: frozenset[Kind]
    ) -> AsyncGenerator[list[Heard]]:
        """What is new each time, sent as one: a write costs more than what is written."""
        followed = self._followed.setdefault(job_id, Followed(job_id))
        reads = "log" in kinds
        followed.dirty = followed.dirty or not followed.listeners
        followed.listeners += 1
        followed.readers += reads
        if reads:
            _read_from(followed, told.log)
        listener = Listener(followed, told, correlation_id, kinds)
        self._asked_for.set()
        silent = 0.0
        try:
            while True:
                changed = followed.changed
                news = listener.news()
                while together := [*islice(news, TOGETHER)]:
                    silent = 0.0
                    yield together
                if listener.over:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), 1.0 if followed.final else 5.0)
                except TimeoutError:
                    silent += 1.0 if followed.final else 5.0
                    if silent >= HEARTBEAT_SECONDS:
                        silent = 0.0
                        yield []
        finally:
            followed.listeners -= 1
            followed.readers -= reads
            followed.left = time.monotonic()
            self._forget()

    def _forget(self) -> None:
        """Let go of jobs that nobody listens for; a while after, as a listener may come back."""
        idle = [each for each in self._followed.values() if not each.listeners]
        idle.sort(key=lambda each: each.left)
        old = time.monotonic() - KEPT_SECONDS
        for at, followed in enumerate(idle):
            if followed.left < old or len(idle) - at > MOST_IDLE:
                self._followed.pop(followed.job_id, None)

    def _connected(self) -> None:
        self._hears = True
        for followed in self._followed.values():
            followed.dirty = True
        self._asked_for.set()
        for returned in self.returned:
            returned()

    def _lost(self) -> None:
        self._hears = False

    def _heard(self, event: Event) -> None:
        job_id = run_of(event)
        if job_id is None:
            return
        followed = self._followed.get(job_id)
        if event.event.startswith(STATES):
            for watcher in self.watchers:
                watcher(job_id, event)
            if followed is not None:
                followed.hear_state(event)
        elif followed is not None and (told := told_by(event)) is not None:
            followed.hear_told(*told)
        if followed is not None and followed.dirty:
            self._asked_for.set()

    async def _ask_again(self) -> None:
        """Ask for jobs of which something is missing, and now and then for all."""
        swept = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            every = SWEEP_SECONDS if self._hears else DEAF_SECONDS
            await self._wait(max(swept + every - clock(), 0.0))
            sweep = clock() - swept >= every
            swept = clock() if sweep else swept
            wanted: list[Followed] = []
            self._forget()
            for followed in self._followed.values():
                if not followed.listeners:
                    continue
                followed.look()
                if followed.dirty or followed.lacks or sweep:
                    followed.dirty = False
                    wanted.append(followed)
            if wanted:
                await self._ask(wanted)
            await asyncio.sleep(ROUND_SECONDS)

    async def _wait(self, until_sweep: float) -> None:
        """Until somebody's job has to be asked for."""
        wait: float | None = until_sweep if self._followed else None
        if any(each.lacks for each in self._followed.values() if each.listeners):
            wait = min(until_sweep, LACK_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked_for.wait(), wait)
        self._asked_for.clear()

    async def _ask(self, wanted: Sequence[Followed]) -> None:
        try:
            seen = await run_sync(self._asked, [_Known.of(each) for each in wanted])
        except Exception as error:  # noqa: BLE001  (the edge: listeners wait for better times)
            LOG.warning("jobs are not followed at the moment: %s", as_known(error))
            for followed in wanted:
                followed.dirty = True
            await asyncio.sleep(DEAF_SECONDS)
            self._asked_for.set()
            return
        for followed in wanted:
            said = seen.get(followed.job_id)
            followed.known = True
            followed.gone = said is None
            if said is not None:
                for telling, at in said.told:
                    followed.hear_told(telling, at)
                followed.take_states(said.states)
            followed.wake()

    def _asked(self, wanted: Sequence[_Known]) -> dict[UUID, _Seen]:
        """What the server says of runs, but for those that it does not know."""
        seen: dict[UUID, _Seen] = {}
        for some in (wanted[at : at + AT_ONCE] for at in range(0, len(wanted), AT_ONCE)):
            known = {each.job_id: each for each in some}
            only = FlowRunFilter(id=FlowRunFilterId(any_=list(known)))
            runs = self._client.read_flow_runs(flow_run_filter=only, limit=len(some))
            told = self._told_by(
                [(r.id, known[r.id].told_until) for r in runs if known[r.id].told_until]
            ) | self._told_by([(r.id, r.start_time) for r in runs if not known[r.id].told_until])
            for run in runs:
                new = run.state_id != known[run.id].state_id
                states = self._client.read_flow_run_states(run.id) if new else []
                seen[run.id] = _Seen(states, told.get(run.id, []))
        return seen

    def _told_by(
        self, runs: Sequence[tuple[UUID, datetime | None]]
    ) -> dict[UUID, list[tuple[Telling, datetime]]]:
        """What runs have told since then; nothing of those that have not begun."""
        found: dict[UUID, list[tuple[Telling, datetime]]] = {}
        at = min((since for _, since in runs if since is not None), default=None)
        names = [f"{RESOURCE}{job_id}" for job_id, since in runs if since is not None]
        seen: set[UUID] = set()
        while at is not None:
            page = self._client.read_events(
                EventFilter(
                    event=EventNameFilter(name=[EVENT]),
                    resource=EventResourceFilter(id=names),
                    occurred=EventOccurredFilter.model_validate(
                        {"since": at, "until": datetime.now(UTC) + timedelta(days=1)}
                    ),
                    order=EventOrder.ASC,
                ),
                limit=EVENTS_PAGE,
            ).events
            new = [event for event in page if event.id not in seen]
            for event in new:
                seen.add(event.id)
                job_id, told = run_of(event), told_by(event)
                if job_id is not None and told is not None:
                    found.setdefault(job_id, []).append(told)
            at = new[-1].occurred if new and len(page) == EVENTS_PAGE else None
        return found

    async def _read_logs(self) -> None:
        """Read the logs that anybody wants, all of them at once."""
        while True:
            await asyncio.sleep(LOG_SECONDS)
            wanted = [each for each in self._followed.values() if each.readers]
            if not wanted:
                continue
            late = timedelta(seconds=LATE_SECONDS)
            begin = min((each.log_from for each in wanted if each.log_from), default=None)
            try:
                read = await run_sync(
                    self._lines, [e.job_id for e in wanted], begin and begin - late
                )
            except Exception as error:  # noqa: BLE001  (as above)
                LOG.warning("logs are not followed at the moment: %s", as_known(error))
                continue
            for followed in wanted:
                followed.take_log([line for line in read if line.flow_run_id == followed.job_id])

    def _lines(self, job_ids: Sequence[UUID], begin: datetime | None) -> list[Log]:
        only = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=list(job_ids)),
            timestamp=begin and LogFilterTimestamp.model_validate({"after_": begin}),
        )
        found: list[Log] = []
        while True:
            page = self._client.read_logs(
                only, limit=LOG_PAGE, offset=len(found), sort=LogSort.TIMESTAMP_ASC
            )
            found += page
            if len(page) < LOG_PAGE:
                return found


def _read_from(followed: Followed, known: int) -> None:
    """Have the log be read from where a listener knows it, or from its beginning."""
    if known and followed.log_from is None:
        followed.log_from = datetime.fromtimestamp(known / 1_000_000, UTC)
