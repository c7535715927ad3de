"""Calls in a thread of their own keep their order, their context, and what goes wrong."""

import threading
from contextvars import ContextVar

import pytest

from safelight.media.behind import Behind

WHO: ContextVar[str] = ContextVar("who")


def test_calls_are_made_in_order_in_another_thread():
    made: list[tuple[int, int]] = []
    with Behind(3) as behind:
        for index in range(50):
            behind.call(lambda index: made.append((index, threading.get_ident())), index)
    assert [index for index, _ in made] == list(range(50))
    assert {thread for _, thread in made} != {threading.get_ident()}
    assert len({thread for _, thread in made}) == 1


def test_no_more_than_so_many_wait():
    go, begun = threading.Semaphore(0), 0
    finished = threading.Event()

    def produce() -> None:
        nonlocal begun
        with Behind(3) as behind:
            for _ in range(5):
                behind.call(go.acquire)
                begun += 1
        finished.set()

    producer = threading.Thread(target=produce)
    producer.start()
    producer.join(0.2)
    assert begun <= 3  # the fourth waits for the first
    for _ in range(5):
        go.release()
    producer.join()
    assert finished.is_set()
    assert begun == 5


def test_the_context_is_that_of_the_call():
    heard: list[str] = []
    with Behind(2) as behind:
        for name in ("one", "two"):
            token = WHO.set(name)
            behind.call(lambda: heard.append(WHO.get()))
            WHO.reset(token)
    assert heard == ["one", "two"]


def test_after_a_failure_nothing_more_is_called():
    made: list[int] = []
    hold = threading.Event()

    def call(index: int) -> None:
        hold.wait()
        if index == 1:
            raise ValueError("the second")
        made.append(index)

    def calls() -> None:
        with Behind(8) as behind:
            for index in range(4):
                behind.call(call, index)
            hold.set()

    with pytest.raises(ValueError, match="the second"):
        calls()
    assert made == [0]


def test_where_the_block_fails_what_waits_is_dropped_and_the_failure_kept():
    made: list[int] = []
    hold, begun = threading.Event(), threading.Event()

    def call(index: int) -> None:
        begun.set()
        hold.wait()
        made.append(index)

    def calls() -> None:
        with Behind(8) as behind:
            for index in range(4):
                behind.call(call, index)
            begun.wait()
            threading.Timer(0.05, hold.set).start()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        calls()
    assert made == [0]
