"""Every writing route of the embedded server answers, with other writers beside it."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.prefect_pool import credentials

BUSY_SECONDS = 55.0
"""Under SQLite's busy timeout of 60 s: a request that waits for its own lock takes that long."""
SLOWEST_BESIDE_50 = 2.0
"""Seconds, on a quiet machine."""
MADE = ("POST", "PATCH", "PUT", "DELETE")
UNCALLED = {
    "/admin/database/clear": "empties the database of the other tests",
    "/admin/database/drop": "drops the database of the other tests",
    "/admin/database/create": "makes the database anew under the other tests",
}


def example(schema: dict[str, Any], parts: dict[str, Any], name: str, known: dict[str, Any]) -> Any:
    """A small value of this JSON schema: ids of what exists, switches on, what is needed."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rsplit("/", 1)[1]]
    if name in known:
        return known[name]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example(schema[choice][0], parts, name, known)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("format") == "uuid":
        return str(uuid4())
    if schema.get("format") == "date-time":
        return "2030-01-01T00:00:00Z"
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        needed = schema.get("required", [])
        return {
            field: example(inner, parts, field, known)
            for field, inner in schema.get("properties", {}).items()
            if field in needed or field in known or "boolean" in str(inner)
        }
    simple = {"array": [], "boolean": True, "integer": 1, "number": 1, "string": "made"}
    return simple.get(str(kind), "made")


def things(api: httpx.Client) -> dict[str, dict[str, Any]]:
    """One of each kind that routes name, by the first part of their path."""

    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = api.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    tag = uuid4().hex[:8]
    flow = post("/flows/", name=f"flow-{tag}")
    pool = post("/work_pools/", name=f"pool-{tag}", type="process")
    queue = post(f"/work_pools/{pool['name']}/queues", name=f"queue-{tag}")
    run = post("/flow_runs/", flow_id=flow["id"], state={"type": "SCHEDULED"})
    block = post("/block_types/", name=f"block {tag}", slug=f"block-{tag}")
    schema = post("/block_schemas/", block_type_id=block["id"], fields={}, capabilities=[])
    return {
        "block_types": block,
        "block_schemas": schema,
        "block_documents": post(
            "/block_documents/",
            name=f"document-{tag}",
            data={},
            block_schema_id=schema["id"],
            block_type_id=block["id"],
        ),
        "flows": flow,
        "work_pools": pool,
        "work_queues": queue,
        "flow_runs": run,
        "task_runs": post(
            "/task_runs/", flow_run_id=run["id"], task_key=tag, dynamic_key="0", name="task"
        ),
        "deployments": post(
            "/deployments/",
            name=f"deployment-{tag}",
            flow_id=flow["id"],
            work_pool_name=pool["name"],
        ),
        "variables": post("/variables/", name=f"variable_{tag}", value=1),
        "artifacts": post("/artifacts/", key=f"artifact-{tag}", type="markdown", data="x"),
        "concurrency_limits": post("/concurrency_limits/", tag=tag, concurrency_limit=2),
        "v2": post("/v2/concurrency_limits/", name=tag, limit=2),
    }


def call(
    api: httpx.Client,
    made: dict[str, dict[str, Any]],
    path: str,
    method: str,
    operation: dict[str, Any],
    parts: dict[str, Any],
) -> str | None:
    """What is wrong with the answer, if anything."""
    kind = path.split("/")[1]
    known = {f"{name.removesuffix('s')}_id": thing["id"] for name, thing in made.items()}
    known |= {"work_pool_name": made["work_pools"]["name"], "is_paused": True}
    known["enabled"] = False  # an automation that reacts to every event reacts to its own, for ever
    known["limit"] = 1  # of what a route changes in bulk: one transaction each, in turn
    address = path
    for parameter in operation.get("parameters", []):
        if parameter["in"] != "path":
            continue
        name = parameter["name"]
        own = made.get(kind, {})
        queue = kind == "work_pools" and name == "name"
        value = (
            known["work_pool_name"] if name == "work_pool_name" else own.get(name, own.get("id"))
        )
        if queue and "/queues/" in path:
            value = made["work_queues"]["name"]
            address = address.replace("{work_pool_name}", known["work_pool_name"])
        value = known.get(name, value) if name != "id" else value
        address = address.replace("{" + name + "}", str(value or uuid4()))
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    body = None if content is None else example(content["schema"], parts, "", known)
    try:
        answer = api.request(method, address, json=body)
    except httpx.TimeoutException:
        return f"{method} {path}: stood still"
    return f"{method} {path}: {answer.status_code}" if answer.status_code >= 500 else None


def asking(url: str) -> httpx.Client:
    """Connections are not kept: the server closes those that rest, perhaps while one is used."""
    limits = httpx.Limits(max_keepalive_connections=0)
    known = credentials()
    return httpx.Client(base_url=url, timeout=BUSY_SECONDS, limits=limits, headers=known)


@contextmanager
def writing(api: httpx.Client, flow: str, writers: int) -> Generator[list[int]]:
    """So many threads that create runs; the list gets the answers of a server in trouble."""
    over, refused = threading.Event(), list[int]()

    def write() -> None:
        while not over.is_set():
            answer = api.post("/flow_runs/", json={"flow_id": flow})
            if answer.status_code >= 500:  # 409: a route has deleted the flow
                refused.append(answer.status_code)

    beside = [threading.Thread(target=write) for _ in range(writers)]
    for thread in beside:
        thread.start()
    try:
        yield refused
    finally:
        over.set()
        for thread in beside:
            thread.join()


def every_route(url: str, writers: int) -> dict[str, float]:
    """Each route is called once; how many seconds its answer took."""
    with asking(url) as api:
        described = api.get("/openapi.json").json()
        parts = described["components"]["schemas"]
        made = things(api)
        flow = things(api)["flows"]["id"]  # stays when the other is deleted
        routes = [
            (path.removeprefix("/api"), method.upper(), operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
            if method.upper() in MADE and path.removeprefix("/api") not in UNCALLED
        ]
        routes.sort(key=lambda route: "delete" in f"{route[0]} {route[1]}".lower())
        assert len(routes) > 100
        wrong: list[str | None] = []
        seconds: dict[str, float] = {}
        with writing(api, flow, writers) as refused:
            for path, method, how in routes:
                asked = time.monotonic()
                wrong.append(call(api, made, path, method, how, parts))
                seconds[f"{method} {path}"] = time.monotonic() - asked
    assert not [said for said in wrong if said]
    assert not refused
    return seconds


@pytest.mark.slow
def test_every_writing_route_answers(prefect_server: str):
    every_route(prefect_server, writers=2)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_every_writing_route_answers_beside_50_writers(prefect_server: str):
    seconds = every_route(prefect_server, writers=50)
    slow = {route: took for route, took in seconds.items() if took > SLOWEST_BESIDE_50}
    assert not slow, f"{len(slow)} of {len(seconds)} routes"


def of_queue(made: dict[str, dict[str, Any]], by_name: bool) -> tuple[str, str]:
    """Where a queue is read, and where it is changed: there, or by its id."""
    queue = made["work_queues"]
    path = f"/work_pools/{made['work_pools']['name']}/queues/{queue['name']}"
    return path, path if by_name else f"/work_queues/{queue['id']}"


@pytest.mark.parametrize("by_name", [True, False])
def test_a_queue_is_paused_at_once(prefect_server: str, by_name: bool):
    with asking(prefect_server) as api:
        made = things(api)
        path, address = of_queue(made, by_name)
        assert api.patch(address, json={"is_paused": True}).status_code == 204
        assert api.get(path).json()["is_paused"]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_queue_is_paused_beside_more_writers_than_connections(prefect_server: str, by_name: bool):
    with asking(prefect_server) as api:
        made = things(api)
        _, address = of_queue(made, by_name)
        with writing(api, made["flows"]["id"], 30) as refused:
            for paused in (True, False, True):
                assert api.patch(address, json={"is_paused": paused}).status_code == 204
    assert not refused
