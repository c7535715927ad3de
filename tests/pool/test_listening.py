"""What a worker says while it cannot hear the server's events."""

import logging
import socket
from collections.abc import Iterator
from uuid import uuid4

import anyio
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.client import hearing
from safelight.pool import listening


def silent_address() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/api"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged, without its reasons."""
    lines: list[str] = []

    class Listed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().split(":")[0])

    handler = Listed(logging.INFO)
    logger = logging.getLogger(listening.LOG.name)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_a_lost_connection_is_told_once_and_so_is_its_return(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, said: list[str]
):
    pauses: list[float] = []

    async def short_pause(seconds: float) -> None:
        pauses.append(seconds)
        await anyio.sleep(0.01)

    async def hear() -> None:
        connected, away = anyio.Event(), silent_address()
        real = hearing.get_events_subscriber

        def found_at_last(*args: object, **options: object):
            address = away if len(pauses) < 8 else prefect_server
            with temporary_settings({PREFECT_API_URL: address}):
                return real(*args, **options)

        monkeypatch.setattr(hearing, "get_events_subscriber", found_at_last)
        async with anyio.create_task_group() as group:
            group.start_soon(listening.listen, uuid4(), connected.set, lambda event: None)
            with anyio.fail_after(60):
                await connected.wait()
            group.cancel_scope.cancel()

    monkeypatch.setattr(hearing, "sleep", short_pause)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        anyio.run(hear)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert said == [
        "no events from the server, polling meanwhile",
        "events come from the server again",
    ]
