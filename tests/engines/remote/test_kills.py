"""Processes are killed at random moments of submit, poll and download; the next one goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.engines.remote.connected import environment
from tests.engines.remote.fal_server import Fal
from tests.engines.remote.kling_server import Kling
from tests.engines.remote.providing import Event, Served, clip, provided
from tests.engines.remote.runware_server import Runware
from tests.engines.remote.sync_server import Sync
from tests.served import CHECKOUT

KINDS = {"fal": Fal, "runware": Runware, "kling": Kling, "sync": Sync}


class Processes:
    """Starts them one after the other, from one that has all libraries."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parent = subprocess.Popen(
            [sys.executable, "-m", "tests.engines.remote.trial"],
            cwd=CHECKOUT,
            env={**os.environ, "VOLUME_ROOT": str(root / "volume")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = 0

    def run(self, what: str, name: str, variables: dict[str, str]) -> dict[str, Any] | None:
        """What came of it; None where it was killed."""
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        outcome = self.root / f"{uuid4()}.json"
        folder = self.root / "files"
        folder.mkdir(exist_ok=True)
        wanted = {
            "what": what,
            "name": name,
            "environment": variables,
            "outcome": str(outcome),
            "folder": str(folder),
        }
        self.parent.stdin.write(json.dumps(wanted) + "\n")
        self.parent.stdin.flush()
        self.pid = int(self.parent.stdout.readline())
        ended = int(self.parent.stdout.readline())
        self.pid = 0
        if ended == 0:
            return json.loads(outcome.read_text())
        assert ended == -signal.SIGKILL, ended
        return None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    started = Processes(tmp_path_factory.mktemp("kills"))
    yield started
    assert started.parent.stdin is not None
    assert started.parent.stdout is not None
    started.parent.stdin.close()
    started.parent.wait(30)
    started.parent.stdout.close()


def at_event(processes: Processes, place: int, delay: float) -> tuple[Any, list[Event]]:
    """A listener that kills at or soon after an event, and the events that it has seen."""
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if len(seen) - 1 == place:
            if delay:
                threading.Timer(delay, processes.kill).start()
            else:
                processes.kill()
                time.sleep(0.005)  # it does not see what comes after

    return listen, seen


def tried(processes: Processes, server: Served, what: str, place: int, delay: float) -> str:
    """Kill one try and let another go on; how it ended."""
    variables = environment(server)
    name, before = str(uuid4()), len(server.accepted)
    server.looked.clear()
    listen, seen = at_event(processes, place, delay)
    server.on_event = listen
    first = processes.run(what, name, variables)
    server.on_event = lambda event: None
    last = processes.run(what, name, variables) if first is None else first
    assert last is not None
    sent = len(server.accepted) - before
    where = f"{what}, killed {delay:.4f} s after {seen[place:] and seen[place]}: {last}"
    assert sent <= 1, f"sent twice: {where}"
    if last["code"]:
        # nobody can know: it is said, and not sent again
        assert what == "fal", where
        assert (last["code"], last["charged"]) == ("UNKNOWN_ERROR", True), where
        assert "nobody knows whether" in last["problem"]
        assert processes.run(what, name, variables) == last
        assert len(server.accepted) - before <= 1
        return "unknown"
    assert sent == 1, f"lost: {where}"
    assert len(last["usd"]) == 1, where
    assert last["usd"][0] > 0, where
    return "killed" if first is None else "whole"


def trials(processes: Processes, what: str, count: int, tmp_path: Path, seed: int) -> list[str]:
    with provided(KINDS[what]()) as server:
        if what in ("kling", "sync"):
            server.result = (clip(tmp_path), "video/mp4")
        listen, events = at_event(processes, -1, 0)
        server.on_event = listen
        assert processes.run(what, "whole", environment(server)) is not None
        server.accepted.clear()
        drawn = random.Random(seed)
        return [
            tried(
                processes,
                server,
                what,
                drawn.randrange(len(events)),
                drawn.choice((0.0, drawn.uniform(0, 0.02))),
            )
            for _ in range(count)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("what", KINDS)
def test_a_killed_process_leaves_a_job_that_the_next_one_goes_on_with(
    processes: Processes, what: str, tmp_path: Path
):
    ended = trials(processes, what, 1, tmp_path, seed=11)
    assert len(ended) == 1


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_kills_send_nothing_twice_and_lose_nothing(
    processes: Processes, tmp_path: Path
):
    ended = {what: trials(processes, what, 50, tmp_path, seed=5) for what in KINDS}
    shown = {what: {how: each.count(how) for how in set(each)} for what, each in ended.items()}
    print(json.dumps(shown))  # noqa: T201  (what the report states)
    assert sum(map(len, ended.values())) == 200
    assert sum(each.count("killed") + each.count("unknown") for each in ended.values()) >= 150
    assert all("unknown" not in ended[what] for what in ("runware", "kling", "sync"))
