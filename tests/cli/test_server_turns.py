"""The oldest request writes first; none is forgotten, and none keeps all others waiting."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.cli import server_turns
from safelight.cli.server_turns import MOST_AT_ONE_AGE, Turns, arrived, turn


async def settled() -> None:
    """Everything that is ready to run has run."""
    for _ in range(20):
        await asyncio.sleep(0)


@given(
    ages=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    gone=st.sets(st.integers(0, 11), max_size=6),
)
@settings(deadline=None)
def test_the_oldest_goes_first_whoever_gives_up(ages: list[int], gone: set[int]) -> None:
    async def tried() -> tuple[list[int], Turns]:
        turns, order = Turns(), list[int]()
        await turns.acquire(0)

        async def work(number: int) -> None:
            await turns.acquire(ages[number])
            order.append(number)
            await asyncio.sleep(0)
            turns.release()

        tasks = [asyncio.create_task(work(number)) for number in range(len(ages))]
        await settled()
        for number in gone & set(range(len(ages))):
            tasks[number].cancel()
        turns.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(turns.acquire(0), 10)  # free again
        return order, turns

    order, _ = asyncio.run(tried())
    staying = [number for number in range(len(ages)) if number not in gone]
    assert order == sorted(staying, key=lambda number: (ages[number], number))


def test_one_that_gives_up_as_its_turn_comes_hands_it_on() -> None:
    async def tried() -> None:
        turns = Turns()
        await turns.acquire(0)
        first = asyncio.create_task(turns.acquire(1))
        await settled()
        turns.release()  # goes to the first, which has not run since
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await asyncio.wait_for(turns.acquire(2), 10)

    asyncio.run(tried())


def order_of(long: int, short: int) -> list[str]:
    """What goes through where one request has `long` transactions and others come after it."""

    async def tried() -> list[str]:
        order: list[str] = []

        async def ask(name: str, transactions: int) -> None:
            with arrived():
                for _ in range(transactions):
                    async with turn():
                        order.append(name)
                        await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("long", long))
            for number in range(short):
                group.create_task(ask(f"short {number}", 1))
        return order

    return asyncio.run(tried())


def test_several_transactions_wait_about_once() -> None:
    order = order_of(3, 12)
    assert order[:5].count("long") == 3  # one that is handed a turn in between may have it


def test_very_many_transactions_let_others_in_between() -> None:
    order = order_of(5 * MOST_AT_ONE_AGE, 4)
    assert max(order.index(f"short {number}") for number in range(4)) <= MOST_AT_ONE_AGE + 4


def test_a_turn_that_does_not_come_fails_as_a_lock_of_sqlite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_turns, "TURN_SECONDS", 0.01)

    async def tried() -> None:
        async with turn():
            async with turn():
                pass

    with pytest.raises(server_turns.OperationalError, match="database is locked"):
        asyncio.run(tried())
