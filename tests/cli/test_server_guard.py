"""The embedded server answers no foreign page, and stores nothing that it cannot read again."""

from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

from safelight.cli.server_guard import ServerGuard, _unkept
from tests.prefect_pool import credentials

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def plain(prefect_server: str) -> httpx.Client:
    """Asks as it is told to."""
    with httpx.Client(base_url=prefect_server, timeout=60, headers=credentials()) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:4200", "Origin": "http://evil.example:4200"},
        {"Host": "127.0.0.1.evil.example"},
    ],
    ids=str,
)
def test_what_a_foreign_page_sends_is_refused(plain: httpx.Client, headers: dict[str, str]):
    name = f"guard-{uuid4().hex[:8]}"
    answer = plain.post("/flows/", json={"name": name}, headers=headers)
    assert answer.status_code == 403
    assert "[PERMISSION_DENIED]" in answer.json()["detail"]
    assert plain.get(f"/flows/name/{name}").status_code == 404
    assert plain.options("/flows/", headers=headers).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_that_needs_no_preflight_is_refused(plain: httpx.Client, kind: str | None):
    headers = {"Content-Type": kind} if kind else {}
    answer = plain.post("/flows/", content=b'{"name": "guard-plain"}', headers=headers)
    assert answer.status_code == 415
    assert plain.get("/flows/name/guard-plain").status_code == 404


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_its_own_pages_may_ask_by_any_name_of_loopback(plain: httpx.Client, name: str):
    port = plain.base_url.port
    headers = {"Origin": f"http://{name}:{port}"}
    assert plain.post("/flows/filter", json={}, headers=headers).status_code == 200
    headers["Host"] = f"localhost:{port}"
    assert plain.post("/flows/filter", json={}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "prompt", [r"I like \ud83d", r"\udE00 I like", r"a\u0000b"], ids=["high", "low", "nul"]
)
def test_a_prompt_that_cannot_be_kept_is_refused_and_the_queue_goes_on(
    api: SyncPrefectClient, plain: httpx.Client, prompt: str
):
    name = f"guard-{uuid4().hex[:8]}"
    api.create_work_pool(WorkPoolCreate(name=name, type="process"))
    deployment = api.create_deployment(
        api.create_flow_from_name(name), name=name, entrypoint="none.none", work_pool_name=name
    )
    body = '{"parameters": {"prompts": ["whole", "%s"]}}' % prompt  # noqa: UP031  (braces)
    path = f"/deployments/{deployment}/create_flow_run"
    answer = plain.post(path, content=body.encode(), headers=JSON)
    assert answer.status_code == 422
    assert "parameters.prompts[1]" in answer.json()["detail"]
    wanted = {"deployments": {"id": {"any_": [str(deployment)]}}}
    assert plain.post("/flow_runs/filter", json=wanted).json() == []
    whole = body.replace(prompt, r"I like \ud83d\ude00 and \\ud83d and \\u0000")
    assert plain.post(path, content=whole.encode(), headers=JSON).status_code == 201
    assert len(plain.post("/flow_runs/filter", json=wanted).json()) == 1


def test_half_a_character_in_a_name_is_found():
    assert "a name in" in (_unkept(rb'{"\ud800": 1}', nul=True) or "")
    assert _unkept(rb'{"a": "\u0000"}', nul=False) is None
    assert _unkept(b"[" * 100_000 + rb"\ud800", nul=True) is None  # refused by Prefect's own reader


@pytest.mark.anyio
async def test_a_body_that_never_ends_is_refused():
    async def endless():
        for _ in range(65):
            yield bytes(2**20)

    async def app(*_: object) -> None:
        raise AssertionError("it was passed on")

    guard = ServerGuard(app, frozenset(), frozenset())
    transport = httpx.ASGITransport(guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/api/flows/", content=endless(), headers=JSON)
    assert answer.status_code == 413
