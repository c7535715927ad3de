"""Who may ask the gateway, and with what; how it says no."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from safelight import errors
from safelight.gateway.guard import JSON_BYTES
from safelight.gateway.problems import STATUSES, answer_to, status_of
from tests.gateway.conftest import Alone
from tests.served import BIN

CANCEL = "/api/jobs/0193e6a0-0000-7000-8000-000000000000/cancel"
HOSTILE_HOSTS = (
    "evil.example",
    "evil.example:4300",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "192.168.0.4:4300",
    "0.0.0.0:4300",
    "127.0.0.1@evil.example",
    "[::1",
    "",
    "x" * 2000,
)
FOREIGN_ORIGINS = (
    "http://evil.example",
    "https://127.0.0.1:4300",
    "http://127.0.0.1:4301",
    "http://localhost:4300",
    "http://127.0.0.1:4300.evil.example",
    "null",
    "file://",
    "",
)


@pytest.mark.parametrize("host", HOSTILE_HOSTS, ids=range(len(HOSTILE_HOSTS)))
@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("POST", "/api/jobs")])
def test_another_name_is_refused(alone: Alone, host: str, method: str, path: str):
    answer = alone.ask(method, path, headers={"Host": host})
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize("base", ["http://localhost:4300", "http://127.0.0.1", "http://[::1]:80"])
def test_its_own_names_and_pages_are_not(alone: Alone, base: str):
    answer = alone.ask("GET", "/info", base=base, headers={"Origin": base})
    assert answer.status_code == 200
    assert answer.json()["name"] == "safelight"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("POST", CANCEL)])
def test_a_foreign_page_is_refused(alone: Alone, origin: str, method: str, path: str):
    answer = alone.ask(method, path, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_other_machines_are_refused(alone: Alone):
    assert alone.ask("GET", "/info", peer=("192.168.0.7", 40000)).status_code == 403
    assert alone.ask("GET", "/info", peer=("::1", 40000)).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "a" * 999])
def test_a_body_that_needs_no_preflight_is_refused(alone: Alone, kind: str):
    for path in ("/api/jobs", CANCEL):
        answer = alone.ask("POST", path, headers={"Content-Type": kind}, content=b"{}")
        assert (answer.status_code, answer.json()["error_code"]) == (415, "CONTRACT_MISMATCH")
    assert alone.ask("POST", "/api/uploads", content=b"x").status_code == 415


def test_long_bodies_are_refused(alone: Alone):
    json_body = {"Content-Type": "application/json"}
    long = b'"' + b"x" * JSON_BYTES + b'"'

    async def in_parts() -> Iterator[bytes]:
        for at in range(0, len(long), 2**16):
            yield long[at : at + 2**16]

    told = alone.ask("POST", "/api/jobs", headers=json_body, content=long)
    untold = alone.ask("POST", "/api/jobs", headers=json_body, content=in_parts())
    for answer in (told, untold):
        assert (answer.status_code, answer.json()["error_code"]) == (413, "INVALID_FIELD_VALUE")
    lied = {**json_body, "Content-Length": "9" * 30}
    assert alone.ask("POST", "/api/jobs", headers=lied, content=b"{}").status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"workflow": 3}',
        b'{"workflow": "generate", "parameters": []}',
        b'{"workflow": "generate", "flow": "x"}',
        b'{"workflow": "no\\ud800such"}',
        b'{"workflow": "generate", "parameters": {"prompt": NaN}}',
    ],
    ids=range(11),
)
def test_a_body_that_is_none_is_refused(alone: Alone, body: bytes):
    headers = {"Content-Type": "application/json"}
    answer = alone.ask("POST", "/api/jobs", headers=headers, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["remediation"]


def test_unknown_paths_and_methods_are_told(alone: Alone):
    for method, path, status in (
        ("GET", "/docs", 404),
        ("GET", "/api/jobs/../../etc/passwd", 404),
        ("GET", "/api/jobs/not-an-id", 400),
        ("GET", "/api/jobs/%2e%2e%2fsecret", 404),
        ("GET", "/api/jobs/x' OR 1=1 --", 400),
        ("DELETE", "/api/jobs", 405),
        ("PUT", "/info", 405),
        ("GET", "/api/presets/portrait_v9", 404),
        ("GET", "/api/models?model_type=sorcery", 400),
        ("GET", "/api/presets?category=sorcery", 400),
    ):
        answer = alone.ask(method, path)
        assert answer.status_code == status, path
        body = answer.json()
        assert body.keys() == {"ok", "error_code", "message", "remediation", "correlation_id"}
        assert body["correlation_id"] == answer.headers["x-correlation-id"]


def test_the_caller_finds_its_request_again(alone: Alone):
    given = alone.ask("GET", "/nothing", headers={"X-Correlation-ID": "order:17.a"})
    assert given.json()["correlation_id"] == given.headers["x-correlation-id"] == "order:17.a"
    for hostile in ("a b", "<script>", "x" * 500, "é".encode("latin-1")):
        made = alone.ask("GET", "/nothing", headers={"X-Correlation-ID": hostile})
        assert made.headers["x-correlation-id"] not in (hostile, "")
        assert len(made.headers["x-correlation-id"]) == 36


def test_a_server_that_is_away_is_said_to_be(alone: Alone):
    for path in ("/health", "/api/jobs", CANCEL.removesuffix("/cancel")):
        answer = alone.ask("GET", path)
        assert (answer.status_code, answer.json()["error_code"]) == (503, "ENGINE_OFFLINE")
        assert answer.headers["retry-after"] == "2"


def test_every_code_has_a_status():
    codes = {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.PipelineError)
    }
    assert STATUSES.keys() == codes
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.PipelineError):
            error = value("found 1, expected 2", "correct it")
            answer = answer_to(error, "id")
            assert answer.status_code == status_of(error) == STATUSES[value.code]
            assert json.loads(answer.body)["remediation"] == ["correct it"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.4", "example.org"])
def test_it_listens_for_nobody_else(host: str):
    from safelight.gateway.serving import NoSignInError, serve

    with pytest.raises(NoSignInError, match="no sign-in"):
        serve(host, 0)


@pytest.mark.slow
def test_the_command_says_what_is_missing(tmp_path):
    done = subprocess.run(
        [BIN / "safelight", "gateway", "--port", "1"],
        env={"VOLUME_ROOT": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(("DEPENDENCY_MISSING", "INVALID_FIELD_VALUE"))
