"""What a running system tells of itself: one id in all logs, counts, spans, and no secret; and what
programs that speak MCP do with it.
"""

import asyncio
import base64
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from safelight.loopback import free_port
from safelight.redacting import HIDDEN
from tests.gateway.conftest import Gateway
from tests.observing.collector import Collector, collecting
from tests.prefect_pool import artifacts_of, eventually
from tests.served import BIN
from tests.test_redacting import SAID

SMALL = {"prompt": "a red house", "model": "untrained", "width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[tuple[int, Collector]]:
    """Port of the worker's metrics, and where its spans go; set before it starts."""
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        port = free_port()
        patch.setenv("SAFELIGHT_METRICS_PORT", str(port))
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield port, collector


def lines(volume: Path, service: str) -> list[dict]:
    files = (volume / "logs" / service).glob("*.log")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def ended(gateway: Gateway, job: str) -> dict:
    return eventually(
        lambda: (
            found
            if (found := gateway.client.get(f"/api/jobs/{job}").json())["status"]
            in ("SUCCEEDED", "FAILED")
            else None
        )
    )


def submit(gateway: Gateway, correlation: str, **parameters: object) -> str:
    answer = gateway.client.post(
        "/api/jobs",
        json={"workflow": "image_generation", "parameters": {**SMALL, **parameters}},
        headers={"X-Correlation-ID": correlation},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.fixture(scope="module")
def drawn(gateway: Gateway) -> str:
    job = submit(gateway, "order-7", seed=5)
    assert ended(gateway, job)["status"] == "SUCCEEDED"
    return job


def test_one_search_finds_all_of_a_request(
    gateway: Gateway, drawn: str, tmp_path_factory: pytest.TempPathFactory
):
    def found(volume: Path, service: str) -> list[dict]:
        return [x for x in lines(volume, service) if x["correlation_id"] == "order-7"]

    assert {x["status"] for x in found(gateway.volume, "gateway")} == {201}
    handed, left = eventually(
        lambda: each if len(each := found(gateway.volume, "worker")) == 2 else None
    )
    assert (handed["flow_run_id"], left["outcome"]) == (drawn, "reported")
    messages = [x["message"] for x in found(gateway.volume, "process")]
    assert messages[0] == "run begins"
    assert "run is over" in messages
    files = tmp_path_factory.getbasetemp().glob("server*/logs/*/*")
    (root,) = {file.resolve().parents[2] for file in files}
    asked = [x["message"] for x in found(root, "server")]
    assert any(message.endswith("/create_flow_run") for message in asked), asked
    assert any(message.endswith("/set_state") for message in asked), asked


def test_a_run_is_counted_and_traced(gateway: Gateway, drawn: str, told: tuple[int, Collector]):
    port, collector = told
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'safelight_stages_total{engine="diffusers",stage="generate",status="done"} 1.0' in text
    assert "safelight_models_loaded{device=" in text
    asked = gateway.client.get("/metrics")
    assert asked.headers["content-type"].startswith("text/plain")
    assert 'safelight_runs{status="SUCCEEDED"}' in asked.text
    assert 'route="/api/jobs",status="201"' in asked.text
    spans = eventually(lambda: s if "run generate" in (s := collector.spans) else None)
    run, still = spans["run generate"][0], spans["stage generate"][0]
    assert still.parent_span_id == run.span_id
    facts = {a.key: a.value.string_value for a in run.attributes}
    assert facts["safelight.flow_run_id"] == drawn
    health = gateway.client.get("/health").json()
    assert (health["store"], health["workers"] >= 1) == ("ok", True)
    assert "torch" in gateway.client.get("/info").json()["versions"]


def test_a_refused_run_says_code_and_remedy_first(gateway: Gateway):
    job = submit(gateway, "order-8", model="nowhere", seed=6)
    assert ended(gateway, job)["error"]["code"]
    told = [x for x in lines(gateway.volume, "process") if x.get("flow_run_id") == job]
    (failure,) = [x for x in told if x["level"] == "ERROR"]
    assert list(failure)[2:5] == ["code", "problem", "remedy"]
    assert failure["correlation_id"] == "order-8"
    assert not any("traceback" in x for x in told)
    assert "Traceback" not in gateway.pool.log()


def test_twenty_secrets_are_nowhere(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory):
    assert len({secret for _, secret in SAID}) >= 20
    said = "; ".join(text.format(secret) for text, secret in SAID)
    home = "/home/eve/pictures"
    refused = submit(gateway, "order-9", prompt=said, model=said[:200], seed=7)
    job = ended(gateway, refused)
    assert job["status"] == "FAILED"
    missing = gateway.client.post(
        "/api/jobs",
        json={"workflow": "enhance", "parameters": {"image": f"{home}/a.png?token=abcdefgh1234"}},
    ).json()
    broken = ended(gateway, missing["id"])
    texts = {
        "job": json.dumps({**job, "parameters": {}}),
        "broken": json.dumps({**broken, "parameters": {}}),
        "worker's terminal": gateway.pool.log(),
        "audit": gateway.client.get(f"/api/jobs/{refused}/audit").text,
        "log": gateway.client.get(f"/api/jobs/{refused}/logs").text,
        "events": gateway.client.get(f"/api/jobs/{refused}/events?log=true").text,
        "files of it": gateway.client.get(f"/api/jobs/{refused}/artifacts").text,
        "metrics": gateway.client.get("/metrics").text,
        "bundle": gateway.client.get("/system/diagnostics").text,
    }
    assert "event: complete" in texts["events"]
    servers = tmp_path_factory.getbasetemp().glob("server*/logs/*/*.log")
    for file in (
        *(gateway.volume / "logs").rglob("*.log"),
        *(gateway.volume / "audit").glob("*.jsonl"),
        *servers,
    ):
        texts[str(file)] = file.read_text()
    services = {Path(name).parent.name for name in texts if name.endswith(".log")}
    assert {"gateway", "worker", "process", "server"} <= services
    with get_client(sync_client=True) as client:
        for run in (refused, missing["id"]):
            only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run)]))
            texts[f"Prefect's log of {run}"] = str(client.read_logs(only))
            states = client.read_flow_run_states(UUID(run))
            texts[f"states of {run}"] = " ".join(state.message or "" for state in states)
            texts[f"page of {run}"] = str([each.model_dump() for each in artifacts_of(run)])
    assert HIDDEN in texts["job"]
    for place, text in texts.items():
        for _, secret in SAID:
            assert secret not in text, (place, secret)
        assert "abcdefgh1234" not in text, place
        assert "/home/eve" not in text, place


def environment(gateway: Gateway) -> dict[str, str]:
    return {
        **os.environ,
        **gateway.pool.project.environment,
        "PREFECT_API_URL": str(gateway.pool.client.api_url),
        "SAFELIGHT_MCP_KEY": "a-key-of-the-test",
    }


async def call(client: Client, tool: str, **arguments: object) -> dict:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content


async def make_a_picture(client: Client) -> None:
    """All that a program does: choose, submit, wait, look, search, remix, cancel."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == {
        *("list_presets", "list_workflows", "describe", "submit", "wait", "look"),
        *("search", "search_gallery", "remix", "cancel"),
    }
    presets = (await call(client, "list_presets"))["result"]
    assert "photoreal_portrait_v1" in {card["id"] for card in presets}
    workflows = (await call(client, "list_workflows"))["result"]
    assert "image_generation" in {card["id"] for card in workflows}
    described = await call(client, "describe", workflow="image_generation")
    assert "prompt" in described["parameters"]["properties"]
    assert described["cost"]["may_cost"] is False

    told: list[tuple[float, float | None, str | None]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    parameters = {**SMALL, "prompt": "a blue boat", "seed": 11}
    job = await call(client, "submit", workflow="image_generation", parameters=parameters)
    waited = await client.call_tool(
        "wait", {"job_id": job["job_id"]}, progress_callback=on_progress
    )
    ended = waited.structured_content
    assert ended is not None
    assert ended["status"] == "SUCCEEDED", ended
    assert [result["media_type"] for result in ended["results"]] == ["image/png"]
    assert all(total == 100 for _, total, _ in told)
    (shown,) = (await client.call_tool("look", {"job_id": job["job_id"], "side": 64})).content
    assert (shown.type, shown.mime_type) == ("image", "image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(shown.data))) as picture:
        assert max(picture.size) == 64
    found = (await call(client, "search", text="blue boat"))["result"]
    assert job["job_id"] in {each["job_id"] for each in found}
    pictures = (await call(client, "search_gallery", words="blue boat seed:11"))["result"]
    assert [(each["job_id"], each["width"]) for each in pictures] == [(job["job_id"], 64)]
    wrong = await client.call_tool("search_gallery", {"words": "colour:red"})
    assert wrong.is_error
    assert "INVALID_FIELD_VALUE" in wrong.content[0].text
    again = await call(client, "remix", job_id=job["job_id"], changes={"seed": 12})
    assert again["job_id"] != job["job_id"]
    refused = await client.call_tool("cancel", {"job_id": job["job_id"]})
    assert refused.is_error
    assert "CONTRACT_MISMATCH" in refused.content[0].text
    wrong = await client.call_tool("submit", {"workflow": "nothing", "parameters": {}})
    assert wrong.is_error
    assert "there is no workflow" in wrong.content[0].text
    await client.call_tool("cancel", {"job_id": again["job_id"]})


def test_a_program_makes_a_picture_by_standard_input_and_output(gateway: Gateway):
    async def run() -> None:
        parameters = StdioServerParameters(
            command=str(BIN / "safelight"), args=["mcp"], env=environment(gateway)
        )
        async with Client(stdio_client(parameters)) as client:
            await make_a_picture(client)

    asyncio.run(run())


def test_a_program_looks_by_http_with_a_key(gateway: Gateway, drawn: str):
    port = free_port()
    process = subprocess.Popen(
        [BIN / "safelight", "mcp", "--http", "--port", str(port)],
        env=environment(gateway),
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}/mcp"

    async def run() -> None:
        key = {"Authorization": "Bearer a-key-of-the-test"}
        async with (
            httpx2.AsyncClient(headers=key, trust_env=False) as http,
            Client(streamable_http_client(address, http_client=http)) as client,
        ):
            found = (await call(client, "search", status="SUCCEEDED"))["result"]
            assert drawn in {job["job_id"] for job in found}
            answer = await client.call_tool("look", {"job_id": drawn})
            assert answer.content[0].type == "image"

    try:
        assert process.stderr is not None
        eventually(lambda: "MCP:" in process.stderr.readline())
        for wrong in ({}, {"Authorization": "Bearer other"}):
            refused = eventually(lambda wrong=wrong: _asked(address, wrong))
            assert refused.status_code == 401, refused.text
        foreign = {"Authorization": "Bearer a-key-of-the-test", "Host": "evil.example"}
        assert httpx.post(address, headers=foreign, json={}, trust_env=False).status_code in (
            403,
            421,
        )
        asyncio.run(run())
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def _asked(address: str, headers: dict[str, str]) -> httpx.Response | None:
    try:
        return httpx.post(address, headers=headers, json={}, trust_env=False)
    except httpx.ConnectError:
        return None
