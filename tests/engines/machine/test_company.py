"""Pieces of work that take turns where an engine makes alike things together."""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import pytest
from greenlet import GreenletExit

from safelight.engines.machine.company import Receive, keep_company, made_together, wait_for_engines
from safelight.engines.machine.measure import absent_seconds, measured
from safelight.errors import InvalidMediaError
from safelight.progress import note, watching

_own: ContextVar[str] = ContextVar("own")


class Maker:
    """Doubles numbers, and remembers which it was given at once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, wanted: Sequence[int], receive: Receive[int]) -> None:
        self.batches.append(list(wanted))
        for place, number in enumerate(wanted):
            receive(place, 2 * number, 0.0)


def test_what_is_alike_is_made_together_and_each_gets_its_own():
    make, ends = Maker(), list[tuple[int, object]]()

    def work(number: int) -> tuple[str, int | None, int | None]:
        _own.set(str(number))
        first = made_together("even" if number % 2 == 0 else "odd", number, make)
        second = made_together("again", number + 10, make) if number == 3 else None
        return _own.get(), first, second

    keep_company([lambda n=n: work(n) for n in range(6)], lambda *end: ends.append(end))
    assert make.batches == [[0, 2, 4], [1, 3, 5], [13]]
    assert sorted(ends) == [(n, (str(n), 2 * n, 26 if n == 3 else None)) for n in range(6)]


def test_alone_nothing_is_made_together():
    assert made_together("kind", 1, Maker()) is None
    wait_for_engines()


def test_one_that_asks_for_nothing_ends_at_its_turn():
    order: list[int] = []
    make = Maker()
    works: list[Callable[[], object]] = [
        lambda: made_together("kind", 0, make),
        lambda: "nothing",
        lambda: made_together("kind", 2, make),
    ]
    keep_company(works, lambda place, _: order.append(place))
    assert order == [1, 0, 2]


def test_where_making_together_fails_each_goes_on_alone_and_says_so():
    def fails_after_one(wanted: Sequence[int], receive: Receive[int]) -> None:
        receive(0, wanted[0], 0.0)
        raise InvalidMediaError("the third is broken", "mend it")

    def work(number: int) -> tuple[int | None, list[str]]:
        with watching(None) as notes:
            return made_together("kind", number, fails_after_one), notes

    ends: dict[int, tuple[int | None, list[str]]] = {}
    keep_company([lambda n=n: work(n) for n in range(3)], ends.__setitem__)
    assert ends[0] == (0, [])
    for place in (1, 2):
        made, (said,) = ends[place]
        assert made is None
        assert InvalidMediaError.code in said
        assert "the third is broken" in said


def test_what_is_noted_while_it_is_made_is_noted_for_each():
    def make(wanted: Sequence[int], receive: Receive[int]) -> None:
        note("fewer at a time")
        for place, number in enumerate(wanted):
            receive(place, number, 0.0)

    said: list[list[str]] = []

    def work() -> None:
        with watching(None) as notes:
            made_together("kind", 1, make)
            said.append(notes)

    keep_company([work, work], lambda *_: None)
    assert said == [["fewer at a time"]] * 2


@pytest.mark.parametrize("error", [InvalidMediaError("lost", "find it"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after", "hearing"])
def test_what_one_raises_ends_all(error: BaseException, when: str):
    given_up: list[int] = []
    make = Maker()

    def work(number: int) -> int | None:
        try:
            if number == 1 and when == "before":
                raise error
            made = made_together("kind", number, make)
            if number == 1 and when == "after":
                raise error
        except GreenletExit:
            given_up.append(number)
            raise
        return made

    def heard(place: int, _: object) -> None:
        if place == 1 and when == "hearing":
            raise error

    with pytest.raises(type(error)) as raised:
        keep_company([lambda n=n: work(n) for n in range(4)], heard)
    assert raised.value is error
    assert given_up == ([0] if when == "before" else [2, 3])


def test_an_engine_is_waited_for_while_it_makes_things():
    order: list[str] = []

    def make(wanted: Sequence[int], receive: Receive[int]) -> None:
        for place, number in enumerate(wanted):
            receive(place, number, 0.0)
        order.append("made")

    def work(number: int) -> None:
        made_together("kind", number, make)
        order.append(f"has {number}")
        wait_for_engines()
        order.append(f"next stage {number}")

    keep_company([lambda n=n: work(n) for n in range(2)], lambda *_: None)
    assert order == ["has 0", "has 1", "made", "next stage 0", "next stage 1"]


def test_seconds_are_those_of_each_alone():
    def make(wanted: Sequence[int], receive: Receive[int]) -> None:
        time.sleep(0.4)
        for place, number in enumerate(wanted):
            receive(place, number, 0.1)

    found: list[tuple[float, float]] = []

    def work(number: int) -> None:
        with measured() as cost:
            made_together("kind", number, make)
            time.sleep(0.05)
        found.append((cost.seconds, absent_seconds()))

    keep_company([lambda n=n: work(n) for n in range(4)], lambda *_: None)
    for seconds, absent in found:  # sleeping is never shorter than asked for
        assert 0.15 <= seconds
        assert absent >= 0.3 - 0.001
    assert absent_seconds() == 0.0


def test_a_bug_of_the_maker_ends_all():
    def breaks(wanted: Sequence[int], receive: Receive[int]) -> None:
        del wanted, receive
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        keep_company([lambda: made_together("kind", 1, breaks)], lambda *_: None)
