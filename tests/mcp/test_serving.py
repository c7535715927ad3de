"""Who may speak with the MCP server over HTTP."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from safelight.access.keys import Limits, Scope, make_key
from safelight.errors import AuthMissingError
from safelight.mcp.serving import behind_keys, serve_http
from safelight.settings import reload_settings


async def _answer(scope, receive, send):
    await PlainTextResponse("here")(scope, receive, send)


def asked(app, key: str | None) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(app)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.post("/mcp", json={}, headers=headers)).status_code

    return asyncio.run(ask())


def test_without_any_key_one_is_made(volume: Path):
    app, made = behind_keys(_answer)
    assert made is not None
    assert [asked(app, key) for key in (None, "another", made)] == [401, 401, 200]


def test_the_only_key_is_that_of_the_settings(volume: Path, monkeypatch: pytest.MonkeyPatch):
    _, key = make_key("a person", Scope.ADMIN, None, Limits())
    monkeypatch.setenv("SAFELIGHT_MCP_KEY", "a-key-of-the-settings")
    reload_settings()
    app, made = behind_keys(_answer)
    assert made is None
    assert [asked(app, each) for each in (key, "a-key-of-the-settings")] == [401, 200]


def test_keys_of_the_gateway_open_it_to_who_may_submit(volume: Path):
    keys = [make_key(scope.value, scope, None, Limits())[1] for scope in Scope]
    app, made = behind_keys(_answer)
    assert made is None
    assert [asked(app, key) for key in (None, "slk_x", *keys)] == [401, 401, 403, 200, 200]


def test_others_reach_it_only_with_a_key(volume: Path):
    with pytest.raises(AuthMissingError, match="there is no key"):
        serve_http("0.0.0.0", 1)
