"""Pieces of work that wait for each other where an engine makes many things as fast as one.

Each goes on until it asks for such a thing; then the next one begins. When all have asked or
ended, what is alike is made together, and each goes on with its own. They take turns in one thread
and change places nowhere else, so nothing that they share needs a lock.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from safelight.engines.machine.measure import Absence
from safelight.errors import PipelineError
from safelight.progress import moving, note, watching

Wanted = TypeVar("Wanted")
Made = TypeVar("Made")
R = TypeVar("R")
Receive = Callable[[int, Made, float], object]
"""Takes the place among what was asked for, what was made, and how many seconds it took alone."""
Make = Callable[[Sequence[Wanted], Receive[Made]], None]
_company: ContextVar["_Company[Any] | None"] = ContextVar("company", default=None)
_ALONE = object()


@dataclass(frozen=True)
class _Ask:
    kind: Hashable
    """What is asked for in the same words is made together; None waits only until it may go on."""
    wanted: object
    make: Make[Any, Any]


class _Over(BaseException):
    """One of the members, or who hears of their ends, raised something: all is over."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@dataclass
class _Member:
    work: greenlet
    absence: Absence = field(default_factory=Absence)
    since: float = 0.0
    """When it was set aside."""


def keep_company(works: Sequence[Callable[[], R]], ended: Callable[[int, R], object]) -> None:
    """Run several pieces of work, in turns.

    Args:
        works: each as it would run alone.
        ended: called with place and result of each that ends, in the order of their ends.

    Raises:
        BaseException: what one of them or `ended` raised; those that have begun are given up where
            they are, by `greenlet.GreenletExit`.
    """
    _Company(works, ended).run()


def made_together(kind: Hashable, wanted: Wanted, make: Make[Wanted, Made]) -> Made | None:
    """What `make` makes of `wanted`, together with what others ask for under the same `kind`.

    Returns:
        None without company, or where making it together failed: then it is made alone.
    """
    company = _company.get()
    return None if company is None else company.ask(_Ask(kind, wanted, make))


def wait_for_engines() -> None:
    """Wait until nothing is made for the company any more: one engine works at a time."""
    company = _company.get()
    if company is not None and company.making:
        company.ask(_Ask(None, None, _nothing))


class _Company(Generic[R]):
    def __init__(self, works: Sequence[Callable[[], R]], ended: Callable[[int, R], object]) -> None:
        self.making = False
        self._works = works
        self._ended = ended
        self._outside = copy_context()
        self._members: dict[int, _Member] = {}
        """Those that have begun and not ended."""
        self._waiting: dict[Hashable, list[tuple[int, _Ask]]] = {}

    def run(self) -> None:
        try:
            for place in range(len(self._works)):
                self._begin(place)
            while self._waiting:
                kind = next(iter(self._waiting))
                self._serve(kind, self._waiting.pop(kind))
        except _Over as over:
            raise over.error from over.error.__cause__
        finally:
            for member in self._members.values():
                if not member.work.dead:
                    member.work.throw()

    def ask(self, ask: _Ask) -> Any:  # noqa: ANN401
        """In a member: be set aside until it is made."""
        parent = getcurrent().parent
        assert parent is not None
        made, notes = parent.switch(ask)
        for text in notes:
            note(text)
        return None if made is _ALONE else made

    def _begin(self, place: int) -> None:
        member = _Member(greenlet(self._worked))
        member.work.gr_context = copy_context()
        self._members[place] = member
        self._goes_on(place, self._works[place], member.absence)

    def _worked(self, work: Callable[[], R], absence: Absence) -> R:
        _company.set(self)
        absence.count()
        return work()

    def _goes_on(self, place: int, *given: object) -> None:
        """Let a member work until it asks for something or ends."""
        member = self._members[place]
        try:
            answer = member.work.switch(*given)
            if member.work.dead:
                del self._members[place]
                self._outside.run(self._ended, place, answer)
        except BaseException as error:
            raise _Over(error) from error
        if not member.work.dead:
            assert isinstance(answer, _Ask)
            member.since = time.perf_counter()
            self._waiting.setdefault(answer.kind, []).append((place, answer))

    def _serve(self, kind: Hashable, asks: list[tuple[int, _Ask]]) -> None:
        served: set[int] = set()

        def give(at: int, made: object, seconds: float) -> None:
            place, _ = asks[at]
            served.add(at)
            member = self._members[place]
            member.absence.seconds += time.perf_counter() - member.since - seconds
            self._goes_on(place, (made, tuple(notes)))

        with watching(None) as notes:
            if kind is not None:
                self.making = True
                try:
                    with moving():
                        asks[0][1].make([ask.wanted for _, ask in asks], give)
                except PipelineError as error:  # each tries it alone, and meets what is its own
                    note(f"not made together: {error.code}: {error.problem}")
                finally:
                    self.making = False
            for at in range(len(asks)):
                if at not in served:
                    give(at, _ALONE, 0.0)


def _nothing(wanted: Sequence[object], receive: Receive[object]) -> None:
    del wanted, receive
