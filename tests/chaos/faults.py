"""What goes wrong in a campaign, one function a kind of fault."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, get_args
from uuid import UUID

import psutil
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from tests.chaos.machines import Answer, Outage, Worker

if TYPE_CHECKING:
    from tests.chaos.campaign import Campaign

Fault = Literal[
    "process killed",
    "worker killed",
    "container restarted",
    "machine slept",
    "told twice",
    "server restarted",
    "server silent",
    "server unwell",
    "store away",
    "store unwell",
    "cancelled",
    "deleted",
    "ended by hand",
]
WEIGHTS: dict[Fault, int] = {
    "process killed": 26,
    "worker killed": 7,
    "container restarted": 5,
    "machine slept": 5,
    "told twice": 4,
    "server restarted": 6,
    "server silent": 4,
    "server unwell": 9,
    "store away": 13,
    "store unwell": 7,
    "cancelled": 8,
    "deleted": 3,
    "ended by hand": 3,
}
UNWELL: tuple[Answer, ...] = (
    (500, b'{"exception_message": "Internal Server Error"}'),
    (503, b"Service Unavailable"),
    (429, b"Too Many Requests"),
    (502, b"<html>Bad Gateway</html>"),
)
"""Answers of a server, or of what stands before it, that pass."""
S3_UNWELL: tuple[Answer, ...] = tuple(
    (status, f"<Error><Code>{code}</Code><Message>once</Message></Error>".encode())
    for status, code in (
        (400, "RequestTimeout"),
        (400, "IncompleteBody"),
        (400, "Throttling"),
        (500, "InternalError"),
        (503, "SlowDown"),
    )
)
ENDS = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
BY_HAND = "by hand"
"""Message of states that the campaign sets."""
STOP_SECONDS = 60.0
"""For a worker that was told twice."""


def fault(campaign: "Campaign", kind: Fault, draw: random.Random) -> str:
    """Let something go wrong, and say what it was."""
    return _KINDS[kind](campaign, draw)


def _kill_process(campaign: "Campaign", draw: random.Random) -> str:
    while campaign.faulting.is_set():
        found = [child for worker in campaign.alive() for child in worker.children()]
        if found:
            child = draw.choice(found)
            with suppress(psutil.Error):
                child.kill()
                time.sleep(draw.uniform(0.5, 3.0))  # the next one gets somewhere first
                return str(child.pid)
        time.sleep(0.1)
    return "nothing"


def _worker(campaign: "Campaign", draw: random.Random, contained: bool = False) -> Worker | None:
    """One that has begun to work, taken out of the supervision; None when the faults are over."""
    while campaign.faulting.is_set():
        found = [worker for worker in campaign.alive() if worker.children()]
        found = [worker for worker in found if worker.contained or not contained]
        if found:
            worker = draw.choice(found)
            if campaign.claim(worker):
                return worker
        time.sleep(0.1)
    return None


def _kill_worker(campaign: "Campaign", draw: random.Random) -> str:
    worker = _worker(campaign, draw)
    if worker is None:
        return "nothing"
    worker.kill()
    time.sleep(draw.uniform(0.1, 2.0))
    name = draw.choice([worker.name, None])  # services come back by name, containers do not
    return f"{worker.name}, {campaign.start_worker(name, worker.contained).name} started"


def _restart_container(campaign: "Campaign", draw: random.Random) -> str:
    worker = _worker(campaign, draw, contained=campaign.containers)
    if worker is None:
        return "nothing"
    worker.kill()  # with its warm process; in the next one numbers begin anew
    campaign.start_worker(worker.name, worker.contained)
    return worker.name


def _sleep(campaign: "Campaign", draw: random.Random) -> str:
    worker = _worker(campaign, draw)
    if worker is None:
        return "nothing"
    seconds = draw.uniform(*campaign.pace.sleep_seconds)
    worker.sleep(seconds)
    campaign.release(worker)
    return f"{worker.name} for {seconds:.1f} s"


def _tell_twice(campaign: "Campaign", draw: random.Random) -> str:
    worker = _worker(campaign, draw)
    if worker is None:
        return "nothing"
    number = draw.choice([signal.SIGTERM, signal.SIGINT])
    worker.told(number)
    time.sleep(draw.uniform(0.1, 3.0))
    worker.told(number)
    try:
        status = worker.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        campaign.report.violations.append(
            f"worker {worker.name} goes on {STOP_SECONDS:.0f} s after it was told twice"
        )
        worker.kill()
        status = None
    campaign.start_worker(worker.name, worker.contained)
    return f"{worker.name} ended with {status}"


def _restart_server(campaign: "Campaign", draw: random.Random) -> str:
    how = draw.choice([signal.SIGTERM, signal.SIGKILL])
    with campaign.server.lock:
        campaign.server.stop(how)
        time.sleep(draw.uniform(0.0, 1.5))
        campaign.server.start()
    time.sleep(draw.uniform(1.0, 4.0))  # two in a row still leave room for some work between
    return how.name


def _silence_server(campaign: "Campaign", draw: random.Random) -> str:
    seconds = draw.uniform(*campaign.pace.silence_seconds)
    with campaign.server.lock:
        campaign.server.stand_still(seconds)
    return f"for {seconds:.1f} s"


def _unwell_server(campaign: "Campaign", draw: random.Random) -> str:
    answer = draw.choice(UNWELL)
    times = draw.randint(1, 4)
    campaign.line.answer(answer, times)
    return f"{answer[0]}, {times} times"


def _shut_store(campaign: "Campaign", draw: random.Random) -> str:
    how: Outage = draw.choice(get_args(Outage))
    seconds = draw.uniform(*campaign.pace.outage_seconds)
    campaign.gate.shut(how)
    time.sleep(seconds)
    campaign.gate.open()
    return f"{how} for {seconds:.1f} s"


def _unwell_store(campaign: "Campaign", draw: random.Random) -> str:
    answer = draw.choice(S3_UNWELL)
    times = draw.randint(1, 6)
    campaign.gate.answer(answer, times)
    return f"{answer[0]} {answer[1].decode()}, {times} times"


def _run(campaign: "Campaign", draw: random.Random) -> UUID | None:
    """One that is not over and that nobody has touched; None when the faults are over."""
    while campaign.faulting.is_set():
        if (run := campaign.touch(draw)) is not None:
            return run
        time.sleep(0.1)
    return None


def _cancel(campaign: "Campaign", draw: random.Random) -> str:
    run = _run(campaign, draw)
    if run is None:
        return "nothing"
    campaign.asked.add(run)
    with suppress(ObjectNotFound):
        campaign.ask(lambda client: client.set_flow_run_state(run, Cancelling()))
    return str(run)


def _delete(campaign: "Campaign", draw: random.Random) -> str:
    run = _run(campaign, draw)
    if run is None:
        return "nothing"
    campaign.deleted.add(run)
    with suppress(ObjectNotFound):  # asked again after an answer that was lost
        campaign.ask(lambda client: client.delete_flow_run(run))
    return str(run)


def _end_by_hand(campaign: "Campaign", draw: random.Random) -> str:
    run = _run(campaign, draw)
    if run is None:
        return "nothing"
    state = draw.choice(ENDS)
    campaign.by_hand[run] = state
    campaign.ask(
        lambda client: client.set_flow_run_state(
            run, State(type=state, message=BY_HAND), force=True
        )
    )
    return f"{run} {state.value}"


_KINDS: dict[Fault, Callable[["Campaign", random.Random], str]] = {
    "process killed": _kill_process,
    "worker killed": _kill_worker,
    "container restarted": _restart_container,
    "machine slept": _sleep,
    "told twice": _tell_twice,
    "server restarted": _restart_server,
    "server silent": _silence_server,
    "server unwell": _unwell_server,
    "store away": _shut_store,
    "store unwell": _unwell_store,
    "cancelled": _cancel,
    "deleted": _delete,
    "ended by hand": _end_by_hand,
}
