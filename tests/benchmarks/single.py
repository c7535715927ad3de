"""What one short run costs on a warm pool above the work of its stage, and costs the server.

One run after the other on one warm process: `generate` with the shipped model, 64 px. The time
above the stage is that from a run's creation to its end, both by the server's clock, without the
seconds that the manifest says the stage took. The server's CPU is that of its process, without what
an idle one takes. The server is the embedded one with SQLite, or with PostgreSQL where
`PREFECT_API_DATABASE_CONNECTION_URL` names an empty database.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from tests.benchmarks.pool import worker_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

RUNS, FIRST = 100, 5
PATIENCE, PAUSE, IDLE = 120.0, 0.7, 20.0
BAR_SECONDS, BAR_SERVER_CPU = 0.25, 0.15


def main() -> int:
    """Measure and print one JSON line; 1 when a bar was missed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=RUNS)
    runs = asked.parse_args().runs
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"VOLUME_ROOT": root, "PREFECT_LOGGING_LEVEL": "ERROR"}
        from safelight.cli.server import QUIET, free_port, running_server

        os.environ |= QUIET
        with running_server(free_port(), ui=False) as server:
            os.environ["PREFECT_API_URL"] = server.url
            from prefect.settings import PREFECT_API_URL, temporary_settings

            with temporary_settings({PREFECT_API_URL: server.url}):
                measured = _measure(psutil.Process(server.process.pid), runs)
            measured["requests"] = _requests(Path(root), measured.pop("ids"))
    print(json.dumps({"benchmark": "single", **measured}))  # noqa: T201
    met = measured["seconds_above_stage"] <= BAR_SECONDS
    return 0 if met and measured["server_cpu_seconds"] <= BAR_SERVER_CPU else 1


def _measure(server: psutil.Process, runs: int) -> dict[str, Any]:
    from prefect.client.orchestration import get_client

    from safelight.store.results import register_results

    register_results()
    with (
        worker_of("safelight-gpu", {"SAFELIGHT_POOL_DEVICES": "cpu:1"}) as (pool, worker),
        get_client(sync_client=True) as client,
    ):
        deployment = client.create_deployment(
            client.create_flow_from_name("generate"),
            name=pool,
            entrypoint="flows.generate.generate",
            work_pool_name=pool,
        )
        for seed in range(FIRST):
            _one(client, deployment, seed)
        idle = _cpu(server, lambda: time.sleep(IDLE)) / IDLE
        above: list[float] = []
        ids: list[str] = []

        def all_of_them() -> None:
            for seed in range(FIRST, FIRST + runs):
                found, seconds = _one(client, deployment, seed)
                ids.append(str(found))
                above.append(seconds)

        family = [worker, *worker.children(recursive=True)]
        before = sum(sum(process.cpu_times()[:2]) for process in family)
        began = time.monotonic()
        spent = _cpu(server, all_of_them)
        ours = sum(sum(process.cpu_times()[:2]) for process in family) - before
        spent -= idle * (time.monotonic() - began)
    return {
        "seconds_above_stage": round(statistics.median(above), 3),
        "worst_seconds": round(max(above), 3),
        "server_cpu_seconds": round(spent / runs, 3),
        "worker_cpu_seconds": round(ours / runs, 3),
        "server_cpu_idle_a_second": round(idle, 4),
        "ids": ids,
    }


def _cpu(process: psutil.Process, work: Callable[[], object]) -> float:
    before = sum(process.cpu_times()[:2])
    work()
    return sum(process.cpu_times()[:2]) - before


def _one(client: "SyncPrefectClient", deployment: UUID, seed: int) -> tuple[UUID, float]:
    """One run, and its seconds above those of its stage."""
    from safelight.provenance.manifest import load_manifest

    parameters = {"prompt": "a red heart", "seed": seed, "width": 64, "height": 64, "steps": 8}
    run = client.create_flow_run_from_deployment(deployment, parameters=parameters).id
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(PAUSE)  # nothing is asked of the server meanwhile, as with a user who waits
        found = client.read_flow_run(run)
        if found.state is not None and found.state.is_final() and found.created is not None:
            if not found.state.is_completed():
                raise RuntimeError(f"{found.state.name} {found.state.message}")
            whole = (found.state.timestamp - found.created).total_seconds()
            manifest = load_manifest(str(run))
            return run, whole - sum(stage.seconds for stage in manifest.stages)
    raise TimeoutError(f"no end after {PATIENCE} s")


def _requests(root: Path, ids: list[str]) -> dict[str, float]:
    """Requests a run that the server's log names, by what they asked for."""
    counted: Counter[str] = Counter()
    for log in (root / "logs" / "server").glob("*.log"):
        for line in log.read_text().splitlines():
            said = json.loads(line)
            if said.get("correlation_id") in ids:
                counted[" ".join(_plain(part) for part in said["message"].split())] += 1
    return {name: round(count / len(ids), 2) for name, count in counted.most_common()}


def _plain(text: str) -> str:
    return "/".join("ID" if len(part) == 36 else part for part in text.split("/"))


if __name__ == "__main__":
    sys.exit(main())
