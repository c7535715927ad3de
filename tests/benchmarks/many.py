"""A batch of very many requests of a millisecond each: memory, its page, and a start after SIGKILL.

Real server, store, gateway and workers, one of each, and a stage that sleeps for a millisecond and
keeps a picture. When a third is done, the process of the batch and that of the device are killed.
The page and the table are asked for meanwhile and at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import psutil

from tests.benchmarks.simulated_stage import FLOW, STAGE

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "presets", "tasks", "safelight")
MANY = 100_000
PAUSE, LOOK_SECONDS = 0.5, 5.0
PATIENCE = 4 * 3600.0
BARS = {"batch": 400, "server": 600}
"""MiB."""
BAR_PAGE, BAR_AGAIN = 1.0, 10.0
"""Seconds."""


def main() -> int:
    """Measure and print one JSON line; 1 when a bar was missed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--requests", type=int, default=MANY)
    count = asked.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkout = _checkout(root / "checkout")
        os.environ |= {
            "VOLUME_ROOT": str(root / "volume"),
            "SIMULATED_NOTES": str(root / "notes"),
            "PYTHONPATH": str(checkout),
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "SAFELIGHT_POOL_DEVICES": "cpu:1",
        }
        (root / "notes").touch()
        from safelight.cli.server import QUIET, free_port, running_server

        os.environ |= QUIET
        with running_server(free_port(), ui=False) as server:
            os.environ["PREFECT_API_URL"] = server.url
            from prefect.settings import PREFECT_API_URL, temporary_settings

            with temporary_settings({PREFECT_API_URL: server.url}):
                measured = _Measured(root, checkout, psutil.Process(server.process.pid)).run(count)
    print(json.dumps({"benchmark": "many", "requests": count, **measured}))  # noqa: T201
    memory = measured["mebibytes"]
    met = all(memory[name] <= most for name, most in BARS.items())
    met = met and max(measured["page_seconds"].values()) <= BAR_PAGE
    met = met and measured["again_seconds"] <= BAR_AGAIN
    return 0 if met and measured["computed_twice"] <= measured["under_way"] else 1


def _checkout(folder: Path) -> Path:
    """The packages with one more stage and flow."""
    for package in PACKAGES:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, folder / package, ignore=left_out)
    (folder / "tasks" / "simulate.py").write_text(STAGE)
    (folder / "flows" / "simulated.py").write_text(FLOW)
    return folder


class _Measured:
    def __init__(self, root: Path, checkout: Path, server: psutil.Process) -> None:
        self._root, self._checkout = root, checkout
        self._notes = root / "notes"
        self._most = Counter[str]()
        self._page = defaultdict[str, float](float)
        self._page_work = defaultdict[str, float](float)
        self._server = server
        self._over = threading.Event()

    def run(self, count: int) -> dict[str, Any]:
        """Run the batch and say what was seen."""
        from prefect.client.orchestration import get_client

        from safelight.store.results import register_results

        register_results()
        file = self._root / "volume" / "uploads" / "many.csv"
        file.parent.mkdir(parents=True)
        with file.open("w") as rows:
            rows.write("prompt,number\n")
            rows.writelines(f"a picture of colour {n} of many,{n}\n" for n in range(count))
        with ExitStack() as opened:
            client = opened.enter_context(get_client(sync_client=True))
            devices = opened.enter_context(self._worker(client, "safelight-gpu"))
            batches = opened.enter_context(self._worker(client, "safelight-batch"))
            for flow, pool in (
                ("simulated", "safelight-gpu"),
                ("shard", "safelight-gpu"),
                ("batch", "safelight-batch"),
            ):
                batch = client.create_deployment(
                    client.create_flow_from_name(flow),
                    name=flow,
                    entrypoint=f"flows.{flow}.{flow}",
                    work_pool_name=pool,
                )
            gateway, url = opened.enter_context(self._gateway())
            self._gateway_process = gateway
            web = opened.enter_context(httpx.Client(base_url=url, timeout=60, trust_env=False))
            parameters = {"flow": "simulated", "file": str(file), "sheets": False, "parallel": 2}
            began = time.monotonic()
            run = client.create_flow_run_from_deployment(batch, parameters=parameters).id
            roles = {
                "server": [self._server],
                "gateway": [gateway],
                "batch": batches,
                "device": devices,
            }
            watching = threading.Thread(target=self._watch, args=(roles, web, run))
            watching.start()
            try:
                killed = self._kill(client, run, count // 3, batches, devices)
                state = self._end(client, run)
            finally:
                self._over.set()
                watching.join()
            seconds = time.monotonic() - began
            self._look(web, run, count)
            table = web.get(f"/api/batches/{run}").json()
        numbers = Counter(self._notes.read_text().split())
        return {
            "state": state,
            "seconds": round(seconds),
            "counts": table["counts"],
            "mebibytes": {name: round(most / 2**20) for name, most in self._most.items()},
            "page_seconds": {name: round(most, 3) for name, most in self._page.items()},
            "page_cpu_seconds": {name: round(most, 2) for name, most in self._page_work.items()},
            **killed,
            "computed_twice": sum(times - 1 for times in numbers.values()),
            "computed": len(numbers),
        }

    @contextmanager
    def _worker(self, client: "SyncPrefectClient", kind: str) -> Generator[list[psutil.Process]]:
        from prefect.client.schemas.actions import WorkPoolCreate

        client.create_work_pool(WorkPoolCreate(name=kind, type=kind))
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", kind]
        with self._process(command) as process:
            yield [psutil.Process(process.pid)]

    @contextmanager
    def _gateway(self) -> Generator[tuple[psutil.Process, str]]:
        from safelight.cli.server import free_port

        port = free_port()
        command = [sys.executable, "-m", "safelight.gateway.serving", "127.0.0.1", str(port)]
        with self._process(command) as process:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 120
            while time.monotonic() < end:
                with suppress(httpx.TransportError):
                    if httpx.get(f"{url}/api/batches", trust_env=False).status_code < 500:
                        break
                time.sleep(PAUSE)
            yield psutil.Process(process.pid), url

    @contextmanager
    def _process(self, command: list[str]) -> "Generator[subprocess.Popen[bytes]]":
        with (self._root / "processes.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self._checkout, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def _watch(self, roles: dict[str, list[psutil.Process]], web: httpx.Client, run: UUID) -> None:
        looked = 0.0
        while not self._over.wait(PAUSE):
            for name, (process,) in roles.items():
                several = [process] if name in ("server", "gateway") else _below(process)
                for each in several:
                    with suppress(psutil.Error):
                        self._most[name] = max(self._most[name], each.memory_info().rss)
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                self._ask(web, "under_way", f"/batches/{run}")

    def _look(self, web: httpx.Client, run: UUID, count: int) -> None:
        """The page and table of a batch that has ended, in the first, middle and last place."""
        for place in (0, count // 2, max(count - 500, 0)):
            self._ask(web, "page", f"/batches/{run}?page={place // 500 + 1}")
            self._ask(web, "table", f"/api/batches/{run}/table?first={place}&limit=500")
        self._ask(web, "batch", f"/api/batches/{run}")

    def _ask(self, web: httpx.Client, name: str, path: str) -> None:
        began, before = time.monotonic(), _worked(self._gateway_process)
        answer = web.get(path)
        if answer.is_success:
            self._page[name] = max(self._page[name], time.monotonic() - began)
            worked = _worked(self._gateway_process) - before
            self._page_work[name] = max(self._page_work[name], worked)
        elif name != "under_way":
            answer.raise_for_status()

    def _kill(
        self,
        client: "SyncPrefectClient",
        run: UUID,
        after: int,
        batches: list[psutil.Process],
        devices: list[psutil.Process],
    ) -> dict[str, float]:
        """Kill the processes of batch and device once so many are done, and see both go on."""
        while self._done() < after:
            self._refuse_end(client, run)
            time.sleep(PAUSE)
        shards = set(_shards(client))
        before = self._done()
        killed = time.monotonic()
        for process in [*_below(batches[0]), *_below(devices[0])]:
            with suppress(psutil.Error):
                process.kill()
        there = self._done()
        while self._done() == there:
            self._refuse_end(client, run)
            time.sleep(0.05)
        first = time.monotonic() - killed
        while not set(_shards(client)) - shards:
            self._refuse_end(client, run)
            time.sleep(0.1)
        shard = time.monotonic() - killed
        return {
            "killed_at": before,
            "again_seconds": round(first, 2),
            "next_shard_seconds": round(shard, 2),
            "under_way": 64,
        }

    def _done(self) -> int:
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[str]:
        with self._notes.open() as notes:
            yield from notes

    def _refuse_end(self, client: "SyncPrefectClient", run: UUID) -> None:
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            raise RuntimeError(f"the batch ended too early: {state.name} {state.message}")

    def _end(self, client: "SyncPrefectClient", run: UUID) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            state = client.read_flow_run(run).state
            if state is not None and state.is_final():
                return f"{state.name} {state.message or ''}"[:500]
            time.sleep(PAUSE)
        raise TimeoutError(f"no end after {PATIENCE} s")


def _worked(process: psutil.Process) -> float:
    """Seconds of CPU so far: they tell more than the clock where other work is on the machine."""
    times = process.cpu_times()
    return times.user + times.system


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _shards(client: "SyncPrefectClient") -> list[UUID]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    named = FlowFilter(name=FlowFilterName(any_=["shard"]))
    newest = FlowRunSort.EXPECTED_START_TIME_DESC
    return [run.id for run in client.read_flow_runs(flow_filter=named, limit=50, sort=newest)]


if __name__ == "__main__":
    sys.exit(main())
