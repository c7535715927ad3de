"""A job that is listened for: what is known of it, in the order in which it is told."""

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from prefect.client.schemas.objects import Log, State
from prefect.events import Event
from pydantic import ValidationError

from safelight.client.runs import NO_PROGRESS, Progress
from safelight.client.telling import Told as Telling
from safelight.gateway.events import (
    Heard,
    JobEvent,
    Kind,
    LogEvent,
    PreviewEvent,
    StageEvent,
    Told,
)
from safelight.gateway.jobs import error_of, percent_of, status_of
from safelight.gateway.trail import line_of

GAP_SECONDS = 12.0
"""How long what is missing is waited for; servers write events down every few seconds."""
LAST_SECONDS = 6.0
"""How long the end of a job waits for the last thing that its run told, where it may have died."""
LATEST_SECONDS = 30.0
"""The same where it ended by itself, and said so: a server under load passes it on late."""
KEPT_PREVIEWS = 30
"""Of a job; older ones are left out for those who come back."""
KEPT_TOLD = 5000
"""Of a job, the latest."""
WHOLE = 999
"""The part that comes after all parts of a word."""
ONCE: frozenset[Kind] = frozenset({"stage"})
"""Kinds of which the latest does not say what was before."""


@dataclass(order=True)
class _Entry:
    place: tuple[int, int]
    telling: Telling = field(compare=False)
    at: datetime = field(compare=False)
    known: float = field(compare=False)


def _place(entry: _Entry) -> tuple[int, int]:
    return entry.place


def follows(before: tuple[int, int], place: tuple[int, int]) -> bool:
    """Whether nothing is missing between two words of the tries of a run."""
    next_word = (before[0], before[1] + 1)
    return place == next_word or (place[0] > before[0] and place[1] == 1)


@dataclass
class Followed:
    """What is known of one job."""

    job_id: UUID
    listeners: int = 0
    readers: int = 0
    """Listeners that are told its log."""
    states: list[State[Any]] = field(default_factory=list[State[Any]])
    told: list[_Entry] = field(default_factory=list[_Entry])
    log: list[Log] = field(default_factory=list[Log])
    """In the order in which it was read."""
    lines: set[UUID] = field(default_factory=set[UUID])
    log_from: datetime | None = None
    """Where reading of the log begins."""
    gone: bool = False
    """Whether the server does not know it any more."""
    known: bool = False
    """Whether the server was asked."""
    dirty: bool = True
    """Whether the server has to be asked again."""
    ended: float = 0.0
    """When its end was heard of."""
    left: float = 0.0
    """When its last listener went away."""
    ready: int = 0
    """How many entries come before the first that is missing."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return bool(self.states) and self.states[-1].is_final()

    @property
    def waits(self) -> bool:
        """Whether it has ended just now, so that what it told last may still come."""
        state = self.states[-1] if self.states else None
        itself = state is not None and (state.is_completed() or state.is_failed())
        return time.monotonic() - self.ended < (LATEST_SECONDS if itself else LAST_SECONDS)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing any more of what its last try told."""
        return not self.waits or not self.told or self.told[-1].telling.last

    @property
    def lacks(self) -> bool:
        """Whether something is missing that the server may have."""
        return not self.known or self.ready < len(self.told) or (self.final and not self.whole)

    @property
    def ask_from(self) -> datetime | None:
        """Since when the server is to be asked what the run told; None from its beginning."""
        return self.told[max(self.ready - 1, 0)].at if self.told else None

    @property
    def over(self) -> bool:
        """Whether the job has ended, and nothing more will come unless it is retried."""
        return self.gone or (self.final and self.whole)

    def wake(self) -> None:
        """Have its listeners look."""
        self.changed.set()
        self.changed = asyncio.Event()

    def hear_state(self, event: Event) -> None:
        """Take a change of state that the server told; ask it where that is not the next one."""
        if not self.known:
            self.dirty = True
            return
        if any(state.id == event.id for state in self.states):
            return
        state = _state_of(event)
        if state is None or not self.states or event.follows != self.states[-1].id:
            self.dirty = True
            return
        self.take_states([*self.states, state])

    def take_states(self, read: Sequence[State[Any]]) -> None:
        """Take all states; those that are known keep their places: ids of events count them."""
        before = self.final
        there = {state.id for state in self.states}
        self.states = [*self.states, *(state for state in read if state.id not in there)]
        if self.final and not before:
            self.ended = time.monotonic()
        self.wake()

    def hear_told(self, telling: Telling, at: datetime) -> None:
        """Take what the run told, in its order, whenever it comes."""
        place = telling.attempt, telling.number
        found = bisect_left(self.told, place, key=_place)
        if found < len(self.told) and self.told[found].place == place:
            return
        self.ready = min(self.ready, found)
        insort(self.told, _Entry(place, telling, at, time.monotonic()))
        self._leave_out()
        self.look()

    def take_log(self, read: Sequence[Log]) -> None:
        """Take lines of the log that are new."""
        new = [line for line in read if line.id not in self.lines]
        if new:
            self.lines.update(line.id for line in new)
            self.log += new
            self.log_from = max(line.timestamp for line in self.log)
            self.wake()

    def _leave_out(self) -> None:
        left = max(len(self.told) - KEPT_TOLD, 0)
        del self.told[:left]
        self.ready = max(self.ready - left, 0)
        shown = [entry for entry in self.told if entry.telling.preview is not None]
        for entry in shown[:-KEPT_PREVIEWS]:
            entry.telling = entry.telling.model_copy(update={"preview": None})

    def look(self) -> None:
        """Find what is missing; what was waited for long enough is not."""
        before, now = self.ready, time.monotonic()
        ready = min(self.ready, len(self.told))
        while ready < len(self.told) and (ready == 0 or self._follows(ready, now)):
            ready += 1
        self.ready = ready
        self.dirty = self.dirty or ready < len(self.told)
        if ready != before or self.final:
            self.wake()

    def _follows(self, at: int, now: float) -> bool:
        before, entry = self.told[at - 1], self.told[at]
        waited = now - entry.known
        if follows(before.place, entry.place):
            again = entry.place[0] > before.place[0]  # a killed try has no last word
            return not again or before.telling.last or waited > LAST_SECONDS
        return waited > GAP_SECONDS

    @property
    def latest(self) -> Telling | None:
        """What the run told last."""
        return self.told[-1].telling if self.told else None


@dataclass
class Listener:
    """One who is told of a job, in order: each state once, and all that its tries tell."""

    followed: Followed
    told: Told
    correlation_id: str
    kinds: frozenset[Kind]
    latest_from: tuple[int, int] | None = None
    """Before it, one who comes for the first time is told stages alone."""
    read: int = 0

    def news(self) -> Iterator[Heard]:
        """What has happened since the listener was told last."""
        followed = self.followed
        if not followed.known and not followed.gone:
            return
        if self.latest_from is None:
            first = not (self.told.states or self.told.number)
            self.latest_from = _latest(followed.told) if first else (0, 0)
        final = followed.final
        count = len(followed.states) - (1 if final else 0)
        yield from self._states(count)
        yield from self._told()
        if "log" in self.kinds:
            yield from self._log()
        if final and self.whole:
            yield from self._states(len(followed.states))

    @property
    def whole(self) -> bool:
        """Whether nothing more comes before the end of the job."""
        followed = self.followed
        heard_of_none = bool(self.told.number) and not followed.told
        if heard_of_none and followed.waits:
            followed.dirty = True  # the server has not written down yet what it told before
            return False
        return followed.whole

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.followed.over and (self.followed.gone or self.whole)

    def _states(self, count: int) -> Iterator[Heard]:
        states = self.followed.states
        for at in range(min(self.told.states, len(states)), count):
            self.told = Told(at + 1, *self.told.place, self.told.log)
            last = at == len(states) - 1
            ended = last and states[at].is_final()
            shown = self._progress() if last else NO_PROGRESS
            yield Heard("complete" if ended else "progress", self.told, self._stands(at, shown))

    def _progress(self) -> Progress:
        latest = self.followed.latest
        return (
            NO_PROGRESS if latest is None else Progress(latest.percent, latest.text, updated=None)
        )

    def _told(self) -> Iterator[Heard]:
        followed, place = self.followed, self.told.place[:2]
        begin = bisect_left(followed.told, place, key=_place)
        if self._misses(begin, place):
            followed.dirty = True
            return
        for entry in followed.told[begin : followed.ready]:
            known = self.told.part if entry.place == place else 0
            kinds = self.kinds & ONCE if entry.place < (self.latest_from or place) else self.kinds
            for part, (kind, event) in enumerate(self._parts(entry), 1):
                if part > known and kind in kinds:
                    self.told = Told(self.told.states, *entry.place, part, self.told.log)
                    yield Heard(kind, self.told, event)
            self.told = Told(self.told.states, *entry.place, WHOLE, self.told.log)

    def _misses(self, begin: int, place: tuple[int, int]) -> bool:
        """Whether what follows the last word that the listener knows is not there yet."""
        told = self.followed.told
        if place == (0, 0) or begin >= len(told) or told[begin].place == place:
            return False
        new = time.monotonic() - told[begin].known < GAP_SECONDS
        return new and not follows(place, told[begin].place)

    def _parts(self, entry: _Entry) -> Iterator[tuple[Kind, JobEvent | StageEvent | PreviewEvent]]:
        telling = entry.telling
        job_id, whose = self.followed.job_id, self.correlation_id
        for stage in telling.stages:
            yield (
                "stage",
                StageEvent(job_id=job_id, correlation_id=whose, at=entry.at, **stage.model_dump()),
            )
        running = next((s for s in reversed(self.followed.states) if s.is_running()), None)
        if telling.stage and running is not None:
            progress = Progress(telling.percent, telling.text, None)
            yield "progress", self._stands_as(running, progress, entry.at, telling)
        if telling.preview is not None:
            shown = telling.preview
            yield (
                "preview",
                PreviewEvent(job_id=job_id, correlation_id=whose, at=entry.at, picture=shown),
            )

    def _log(self) -> Iterator[Heard]:
        lines = self.followed.log
        while self.read < len(lines):
            line = lines[self.read]
            self.read += 1
            stamp = int(line.timestamp.timestamp() * 1_000_000)
            self.told = Told(self.told.states, *self.told.place, max(stamp, self.told.log))
            event = LogEvent(
                job_id=self.followed.job_id,
                correlation_id=self.correlation_id,
                at=line.timestamp,
                id=line.id,
                line=line_of(line),
            )
            yield Heard("log", self.told, event)

    def _stands(self, at: int, progress: Progress) -> JobEvent:
        state = self.followed.states[at]
        return self._stands_as(state, progress, state.timestamp, None)

    def _stands_as(
        self, state: State[Any], progress: Progress, at: datetime | None, telling: Telling | None
    ) -> JobEvent:
        status = status_of(state)
        return JobEvent(
            job_id=self.followed.job_id,
            correlation_id=self.correlation_id,
            status=status,
            state=state.name or status.value,
            progress=percent_of(status, progress),
            stage=progress.text,
            step=None if telling is None else telling.step,
            steps=None if telling is None else telling.steps,
            eta_seconds=None if telling is None else telling.eta_seconds,
            message=state.message or "",
            error=error_of(state),
            at=at,
        )


def _latest(told: Sequence[_Entry]) -> tuple[int, int]:
    return told[-1].place if told else (0, 0)


def _state_of(event: Event) -> State[Any] | None:
    """The state that a run came to; None where the event does not say it."""
    said: object = event.payload.get("validated_state")
    if not isinstance(said, dict):
        return None
    told = cast("dict[str, object]", said)
    names = ("type", "name", "message")
    try:
        return State[Any].model_validate(
            {
                "id": event.id,
                "timestamp": event.occurred,
                **{name: told[name] for name in names if name in told},
            }
        )
    except ValidationError:
        return None
