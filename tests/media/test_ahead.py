"""Calls that run at once: order, bounds, errors and context."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import Barrier, Event, Lock

import pytest

from safelight.media.ahead import several_at_once

ASKED: ContextVar[int] = ContextVar("asked")


def test_results_come_in_order_though_the_first_call_ends_last():
    second_ended = Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_ended.wait(60)
        if number == 1:
            second_ended.set()
        return number

    with several_at_once(2) as ahead:
        assert list(ahead.in_order(ahead.begin(work, n) for n in range(9))) == list(range(9))


def test_as_many_calls_as_asked_for_run_at_once():
    together = Barrier(3)
    with several_at_once(3) as ahead:
        assert len(list(ahead.in_order(ahead.begin(together.wait, 60) for _ in range(9)))) == 9


def test_no_more_are_begun_than_asked_for():
    taken, lock, running, most = 0, Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    with several_at_once(4) as ahead:
        begun = 0

        def calls() -> Iterator[Callable[[], None]]:
            nonlocal begun
            for _ in range(40):
                begun += 1
                assert begun - taken <= 4
                yield ahead.begin(work)

        for _ in ahead.in_order(calls()):
            taken += 1
    assert most <= 4


def test_alone_the_caller_does_the_work_itself():
    calls = list[int]()
    with several_at_once(1) as ahead:
        waiting = ahead.begin(calls.append, 1)
        assert calls == [1]
        waiting()
    assert calls == [1]


@pytest.mark.parametrize("most", [1, 3])
def test_a_call_that_fails_ends_the_block_and_those_that_wait_are_not_made(most: int):
    made = list[int]()

    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        made.append(number)
        return number

    found = list[int]()

    def take_all() -> None:
        with several_at_once(most) as ahead:
            found.extend(ahead.in_order(ahead.begin(work, n) for n in range(50)))

    with pytest.raises(ValueError, match="two"):
        take_all()
    assert found == [0, 1]
    assert len(made) <= 2 + most


def test_calls_see_the_context_of_their_beginning():
    with several_at_once(2) as ahead:
        waiting = list[Callable[[], int]]()
        for number in range(4):
            ASKED.set(number)
            waiting.append(ahead.begin(ASKED.get))
        assert [wait() for wait in waiting] == [0, 1, 2, 3]
