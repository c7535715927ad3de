"""Listeners and submits at once: is an event lost, how large is the gateway, how long do they take.

`python -m tests.benchmarks.listening --listeners 500 --rate 50 --seconds 60` starts a server and a
gateway of its own. Runs are set to RUNNING and tell a word a second each; every listener has to
hear every word, counted by its id. Half of the creations go to Prefect's own API in the same
minute, so that both meet the same machine.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events import Event, Resource
from prefect.events.clients import get_events_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from safelight.cli.server import embedded_server, free_port
from safelight.client.contracts import contract, entrypoint
from safelight.client.telling import EVENT, resource_of
from safelight.settings import reload_settings
from tests.prefect_pool import credentials

SMALL = {"prompt": "a red house", "width": 64, "height": 64, "steps": 2}
JOBS = 50
"""Runs that are listened for."""
BEGIN_SECONDS = 120.0
"""How long listeners may take to be there."""
END_SECONDS = 60.0
"""How long listeners wait for the end."""


@dataclass
class Measured:
    """What came out."""

    heard: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Job and event id to how often it was heard."""
    begun: int = 0
    """Listeners that heard how their job stands: all that is told from then on is theirs."""
    ended: int = 0
    """Listeners that heard the end."""
    submits: list[float] = field(default_factory=list[float])
    """Seconds of each, by the gateway."""
    creates: list[float] = field(default_factory=list[float])
    """Seconds of each, by Prefect's own API."""
    refused: Counter[int] = field(default_factory=Counter[int])
    """Answers that were no success."""
    largest: int = 0
    """Bytes of the gateway."""
    worked: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds of a processor that gateway and server took: whose the time is, on any machine."""


async def listen(address: str, job: UUID, measured: Measured) -> None:
    """Hear one job to its end, over a bare connection; goes on where it breaks."""
    parts = urlsplit(address)
    last = ""
    begins = True
    while True:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        known = f"Last-Event-ID: {last}\r\n" if last else ""
        writer.write(
            f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: {parts.netloc}\r\n{known}\r\n".encode()
        )
        kind = ""
        while line := await reader.readline():
            if line.startswith(b"id: "):
                last = line[4:].strip().decode()
            elif line.startswith(b"event: "):
                kind = line[7:].strip().decode()
                measured.begun += begins
                begins = False
                measured.heard[str(job), f"{kind} {last}"] += 1
                if kind == "complete":
                    measured.ended += 1
                    writer.close()
                    return
        writer.close()


async def tell(jobs: Sequence[UUID], seconds: int) -> int:
    """Have every run tell a word a second; how many each told."""
    async with get_events_client() as client:
        for number in range(1, seconds + 1):
            began = time.monotonic()
            for job in jobs:
                payload = {
                    "try": 1,
                    "number": number,
                    "percent": 100 * number / (seconds + 1),
                    "stage": "generate",
                    "step": number,
                    "steps": seconds,
                    "preview": "data:image/webp;base64," + "A" * 4000,
                    "last": number == seconds,
                }
                event = Event(event=EVENT, resource=Resource(resource_of(job)), payload=payload)
                await client.emit(event)
            await asyncio.sleep(max(1 - (time.monotonic() - began), 0))
    return seconds


async def submit(address: str, direct: str, rate: int, seconds: int, measured: Measured) -> None:
    """Create runs, by turns through the gateway and directly, at a steady rate."""
    limits = httpx.Limits(max_connections=400)
    async with (
        httpx.AsyncClient(base_url=address, timeout=120, limits=limits, trust_env=False) as ours,
        httpx.AsyncClient(
            timeout=120, limits=limits, trust_env=False, headers=credentials()
        ) as theirs,
        asyncio.TaskGroup() as tasks,
    ):

        async def by_gateway(number: int) -> None:
            body = {"workflow": "generate", "parameters": {**SMALL, "seed": number}}
            await _timed(ours.post("/api/jobs", json=body), measured.submits, measured)

        async def by_prefect(number: int) -> None:
            body = {"parameters": {**SMALL, "seed": number}, "idempotency_key": str(number)}
            await _timed(theirs.post(direct, json=body), measured.creates, measured)

        begin = time.monotonic()
        for number in range(rate * seconds):
            await asyncio.sleep(max(begin + number / rate - time.monotonic(), 0))
            tasks.create_task(by_gateway(number) if number % 2 else by_prefect(number))


async def _timed(asked: Awaitable[httpx.Response], times: list[float], measured: Measured) -> None:
    """Note how long an answer took; one that never came counts as 0 among those refused."""
    began = time.monotonic()
    try:
        answer = await asked
    except httpx.TransportError:
        measured.refused[0] += 1
    else:
        if not answer.is_success:
            measured.refused[answer.status_code] += 1
    times.append(time.monotonic() - began)


async def weigh(process: int, measured: Measured) -> None:
    """Note the largest that the gateway becomes."""
    watched = psutil.Process(process)
    while True:
        measured.largest = max(measured.largest, watched.memory_info().rss)
        await asyncio.sleep(0.5)


@contextmanager
def worked(gateway: int, measured: Measured) -> Generator[None]:
    """Note what gateway and server take of the processors inside."""
    ours = psutil.Process(gateway)
    others = [one for one in psutil.Process().children(recursive=True) if one.pid != gateway]

    def taken() -> tuple[float, float]:
        return _seconds(ours), sum(_seconds(one) for one in others if one.is_running())

    before = taken()
    yield
    for name, begin, end in zip(("gateway", "server"), before, taken(), strict=True):
        measured.worked[name] = round(end - begin, 1)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def measure(
    client: SyncPrefectClient, gateway: "subprocess.Popen[str]", address: str, wanted: Any
) -> Measured:
    """All of it at once."""
    deployment = deploy(client)
    jobs = [
        client.create_flow_run_from_deployment(deployment, parameters=SMALL).id for _ in range(JOBS)
    ]
    for job in jobs:
        client.set_flow_run_state(job, Running(), force=True)
    measured = Measured()
    direct = f"{client.api_url}deployments/{deployment}/create_flow_run"
    weighing = asyncio.create_task(weigh(gateway.pid, measured))
    listeners = [
        asyncio.create_task(listen(address, jobs[at % JOBS], measured))
        for at in range(wanted.listeners)
    ]
    end = time.monotonic() + BEGIN_SECONDS
    while measured.begun < wanted.listeners and time.monotonic() < end:
        await asyncio.sleep(0.1)
    with worked(gateway.pid, measured):
        await asyncio.gather(
            tell(jobs, wanted.seconds),
            submit(address, direct, wanted.rate, wanted.seconds, measured),
        )
    for job in jobs:
        client.set_flow_run_state(job, Completed(), force=True)
    await asyncio.wait(listeners, timeout=END_SECONDS)
    weighing.cancel()
    return measured


def deploy(client: SyncPrefectClient) -> UUID:
    """Put `generate` on a pool that nobody works on."""
    client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
    found = contract("generate").flow
    return client.create_deployment(
        client.create_flow_from_name("generate"),
        name="generate",
        entrypoint=entrypoint("generate"),
        work_pool_name="nobody",
        parameter_openapi_schema=found.parameters.model_dump(exclude_none=True),
    )


def report(measured: Measured, wanted: Any) -> dict[str, Any]:
    """The figures."""
    each = wanted.listeners / JOBS
    words = [count for (_, id_), count in measured.heard.items() if not id_.startswith("complete")]
    told = sum(words)
    # of each word the progress and the preview, and of each job the states that went before
    expected = JOBS * each * wanted.seconds * 2
    submits, creates = sorted(measured.submits), sorted(measured.creates)
    return {
        "listeners": wanted.listeners,
        "begun": measured.begun,
        "ended": measured.ended,
        "events expected": int(expected),
        "events heard": told,
        "heard by some alone": sum(count < each for count in words),
        "heard twice": sum(count > each for count in words),
        "refused": dict(measured.refused),
        "submits": len(submits),
        "submit median s": round(median(submits), 4),
        "submit p99 s": round(submits[int(0.99 * len(submits))], 4),
        "create median s": round(median(creates), 4),
        "create p99 s": round(creates[int(0.99 * len(creates))], 4),
        "p99 ratio": round(
            submits[int(0.99 * len(submits))] / creates[int(0.99 * len(creates))], 2
        ),
        "gateway MB": round(measured.largest / 1e6),
        "processor s": measured.worked,
    }


def run(wanted: Any) -> dict[str, Any]:
    """Start a server and a gateway, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOLUME_ROOT"] = folder
        reload_settings()
        port = free_port()
        with embedded_server(free_port(), ui=False) as url:
            environment = {**os.environ, "PREFECT_API_URL": url}
            command = [Path(sys.executable).parent / "safelight", "gateway", "--port", str(port)]
            gateway = subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            try:
                if gateway.stdout is not None:
                    gateway.stdout.readline()
                password = PREFECT_API_AUTH_STRING.value()
                with (
                    temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}),
                    get_client(sync_client=True) as client,
                ):
                    address = f"http://127.0.0.1:{port}"
                    return report(asyncio.run(measure(client, gateway, address, wanted)), wanted)
            finally:
                gateway.terminate()
                gateway.wait(60)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    sys.stdout.write(json.dumps(run(parser.parse_args()), indent=2) + "\n")


if __name__ == "__main__":
    main()
