"""From the creation of a run to the code of its first stage: warm pool against process pool.

One server, one flow, in turn on a pool of type `safelight-gpu` and on Prefect's own process pool,
whose worker asks the server each second. The first run of each does not count.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

WARM_RUNS, COLD_RUNS = 21, 3
PATIENCE, PAUSE = 120.0, 1.0
BAR_RATIO, BAR_SECONDS = 20.0, 0.3


def main() -> int:
    """Measure and print one JSON line; 1 when a bar was missed."""
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"VOLUME_ROOT": root, "PREFECT_LOGGING_LEVEL": "ERROR"}
        from safelight.cli.server import QUIET, embedded_server, free_port

        os.environ |= QUIET
        with embedded_server(free_port(), ui=False) as url:
            os.environ["PREFECT_API_URL"] = url
            from prefect.settings import PREFECT_API_URL, temporary_settings

            with temporary_settings({PREFECT_API_URL: url}):
                measured = _measure(Path(root))
    print(json.dumps({"benchmark": "pool", **measured}))  # noqa: T201
    met = measured["ratio"] >= BAR_RATIO and measured["warm_seconds"] <= BAR_SECONDS
    return 0 if met else 1


def _measure(root: Path) -> dict[str, float]:
    from examples.untrained import build_untrained

    model = build_untrained(root / "models" / "tiny")
    with worker_of("process", {"PREFECT_WORKER_QUERY_SECONDS": "1"}) as (pool, _):
        cold = _times(root, pool, model, COLD_RUNS)
    with worker_of("safelight-gpu", {"SAFELIGHT_POOL_DEVICES": "cpu:1"}) as (pool, worker):
        warm = _times(root, pool, model, WARM_RUNS)
        family = [worker, *worker.children(recursive=True)]
        idle = sum(process.memory_info().rss for process in family)
    return {
        "warm_seconds": round(statistics.median(warm), 3),
        "warm_worst_seconds": round(max(warm), 3),
        "process_seconds": round(statistics.median(cold), 2),
        "ratio": round(statistics.median(cold) / statistics.median(warm), 1),
        "idle_pool_mebibytes": round(idle / 2**20),
    }


@contextmanager
def worker_of(kind: str, environment: dict[str, str]) -> Generator[tuple[str, psutil.Process]]:
    """A worker of a pool of this type, as long as the block runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=kind, type=kind))
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", kind],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield kind, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _times(root: Path, pool: str, model: Path, count: int) -> list[float]:
    """Seconds from asking for a run to the first line of its first stage, one run at a time."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow_from_name("measured"),
            name=pool,
            entrypoint="tests.benchmarks.pool_flow.measured",
            work_pool_name=pool,
        )
        begins = [root / f"{pool}-{number}" for number in range(count + 1)]
        return [_seconds(client, deployment, began, model) for began in begins][1:]


def _seconds(client: "SyncPrefectClient", deployment: UUID, began: Path, model: Path) -> float:
    asked = time.time()
    run = client.create_flow_run_from_deployment(
        deployment, parameters={"began": str(began), "folder": str(model)}
    ).id
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(PAUSE)  # nothing is asked of the server meanwhile, as with a user who waits
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            if not state.is_completed():
                raise RuntimeError(f"{state.name} {state.message}")
            return float(began.read_text()) - asked
    raise TimeoutError(f"no end after {PATIENCE} s")


if __name__ == "__main__":
    sys.exit(main())
