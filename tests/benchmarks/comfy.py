"""A ComfyUI workflow as a flow on a warm pool over the same posted straight to its server.

In turn, one run each, every seed new. The server is the one that SAFELIGHT_COMFY_URL names, with
its first checkpoint; without it, one that answers as a real one did. Straight: post, listen to the
websocket, take history and picture. Through Safelight: from asking for the run to its last state,
by the server's clock, with its record, picture and manifest in the store. In a shard: the same as
one of many requests of one flow run.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx

from tests.benchmarks.pool import worker_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

RUNS = 11
PATIENCE, PAUSE = 300.0, 0.5
BAR_SECONDS = 0.5


def main() -> int:
    """Measure and print one JSON line; 1 when the bar was missed."""
    with tempfile.TemporaryDirectory() as root, _comfy() as url:
        told = {"VOLUME_ROOT": root, "PREFECT_LOGGING_LEVEL": "ERROR", "SAFELIGHT_COMFY_URL": url}
        os.environ |= told
        from safelight.cli.server import QUIET, embedded_server, free_port

        os.environ |= QUIET
        with embedded_server(free_port(), ui=False) as api:
            os.environ["PREFECT_API_URL"] = api
            from prefect.settings import PREFECT_API_URL, temporary_settings

            with temporary_settings({PREFECT_API_URL: api}):
                measured = _measure(url)
    print(json.dumps({"benchmark": "comfy", **measured}))  # noqa: T201
    return 0 if measured["overhead_seconds"] <= BAR_SECONDS else 1


@contextmanager
def _comfy() -> Generator[str]:
    named = os.environ.get("SAFELIGHT_COMFY_URL")
    if named:
        yield named
        return
    from tests.engines.comfy.comfy_server import Comfy, comfy_up

    with comfy_up(Comfy()) as url:
        yield url


def _measure(url: str) -> dict[str, float]:
    from prefect.client.orchestration import get_client

    from safelight.cli.workflow_deployments import deploy_workflow
    from safelight.store.results import register_results
    from safelight.workflows.files import keep
    from safelight.workflows.finding import find_form
    from safelight.workflows.form import form_text

    graph = graph_of(url)
    keep("bench", json.dumps(graph).encode(), _form(graph, find_form, form_text), replace=True)
    register_results()
    with (
        worker_of("safelight-gpu", {"SAFELIGHT_POOL_DEVICES": "cpu:1"}) as (pool, _),
        get_client(sync_client=True) as client,
        httpx.Client(base_url=url, timeout=PATIENCE) as server,
    ):
        deployment = deploy_workflow(client, "workflow_bench", pool)
        pairs = [
            (straight(server, graph, 2 * at), _through(client, deployment, 2 * at + 1))
            for at in range(RUNS + 1)
        ][1:]
        shard = statistics.median(_in_a_shard(at) - bare for at, (bare, _) in enumerate(pairs, 900))
    bare, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    overhead = statistics.median(mine - theirs for theirs, mine in pairs)
    return {
        "straight_seconds": round(bare, 3),
        "through_seconds": round(ours, 3),
        "overhead_seconds": round(overhead, 3),
        "shard_overhead_seconds": round(shard, 3),
        "worst_seconds": round(max(mine - theirs for theirs, mine in pairs), 3),
    }


def _form(graph: dict[str, Any], find: Any, written: Any) -> bytes:
    from safelight.engines.graphs import read_graph

    return written(find(read_graph(json.dumps(graph), "bench"), {}))


def graph_of(url: str) -> dict[str, Any]:
    """The recorded graph with the server's first checkpoint."""
    from tests.engines.comfy.comfy_server import GRAPH

    told = httpx.get(f"{url}/object_info/CheckpointLoaderSimple", timeout=PATIENCE).json()
    names = told["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    graph = json.loads(json.dumps(GRAPH))
    graph["4"]["inputs"]["ckpt_name"] = names[0]
    return graph


def straight(server: httpx.Client, graph: dict[str, Any], seed: int) -> float:
    """Seconds of one run without Safelight, its picture in hand."""
    from websockets.sync.client import connect

    sent = json.loads(json.dumps(graph))
    sent["3"]["inputs"]["seed"] = seed
    began, client = time.perf_counter(), str(uuid4())
    address = f"ws{str(server.base_url).removeprefix('http').rstrip('/')}/ws?clientId={client}"
    with connect(address, max_size=None) as told:
        prompt = str(uuid4())
        body = {"prompt": sent, "client_id": client, "prompt_id": prompt}
        server.post("/prompt", json=body).raise_for_status()
        while True:
            message = told.recv(timeout=PATIENCE)
            if isinstance(message, bytes):
                continue
            said = json.loads(message)
            if said["type"] == "executing" and said["data"]["node"] is None:
                break
    while not (found := server.get(f"/history/{prompt}").json()):  # it is written a moment later
        time.sleep(0.005)
    (saved,) = found[prompt]["outputs"]["9"]["images"]
    server.get("/view", params=saved).raise_for_status()
    return time.perf_counter() - began


def _in_a_shard(seed: int) -> float:
    from flows.batching.requests import find_target
    from flows.running.recorded import run_inline

    target, began = find_target("workflow_bench"), time.perf_counter()
    manifest = run_inline(target, {"seed": seed}, str(uuid4()), lambda *_: None)
    if not manifest.success:
        raise RuntimeError(str(manifest.error))
    return time.perf_counter() - began


def _through(client: "SyncPrefectClient", deployment: UUID, seed: int) -> float:
    asked = datetime.now(UTC)
    run = client.create_flow_run_from_deployment(deployment, parameters={"seed": seed}).id
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(PAUSE)
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            if not state.is_completed():
                raise RuntimeError(f"{state.name} {state.message}")
            return (state.timestamp - asked).total_seconds()
    raise TimeoutError(f"no end after {PATIENCE} s")


if __name__ == "__main__":
    sys.exit(main())
