"""What passes of a Prefect server's answers is asked again, what stays is said with a code."""

import ast
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.client.asking import OTHER, PASSING, RULES, ask, keep_client, patient_client
from safelight.errors import (
    AuthInvalidError,
    ContractMismatchError,
    DependencyMissingError,
    EngineOfflineError,
    InvalidFieldValueError,
    PipelineError,
)
from safelight.progress import StopRequestedError, clear_stop, request_stop
from tests.served import CHECKOUT
from tests.store.answering import Answer, Asked, Service, service

FLOW = b'{"id": "6f1d3b0e-7c55-4b6a-9d3c-2a4f5e6d7c8b", "name": "draw"}'
TOKEN = (
    b'{"token": "t", "client": "6f1d3b0e-7c55-4b6a-9d3c-2a4f5e6d7c8b", '
    b'"expiration": "2999-01-01T00:00:00Z"}'
)
FOUND = Answer(200, FLOW)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A server that answers what the test tells it."""
    monkeypatch.setattr("safelight.client.asking.FIRST_SECONDS", 0.01)
    with service() as known, temporary_settings({PREFECT_API_URL: f"{known.url}/api"}):
        yield known


def flow_id(seconds: float = 60) -> str:
    with patient_client(seconds) as client:
        return str(client.read_flow_by_name("draw").id)


def after(*first: Answer, then: Answer = FOUND):
    left = list(first)

    def answer(asked: Asked) -> Answer:
        if "name/draw" not in asked.path:  # what the client asks by itself
            return Answer(200, TOKEN)
        return left.pop(0) if left else then

    return answer


def questions(told: Service) -> int:
    return len([asked for asked in told.asked if "name/draw" in asked.path])


@pytest.mark.parametrize("status", [*PASSING.statuses, 599])
def test_what_passes_is_asked_again(told: Service, status: int):
    told.answer = after(Answer(status), Answer(status, b"<html>away</html>"))
    assert flow_id() in FLOW.decode()
    assert questions(told) == 3


def test_a_forgotten_token_against_forgery_passes(told: Service):
    told.answer = after(Answer(403, b'{"detail": "Invalid CSRF token or client ID"}'))
    assert flow_id() in FLOW.decode()


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, AuthInvalidError, "PREFECT_API_AUTH_STRING"),
        (403, AuthInvalidError, "told so"),
        (405, DependencyMissingError, "PREFECT_API_URL"),
        (409, InvalidFieldValueError, "told so"),
        (422, InvalidFieldValueError, "told so"),
        (501, DependencyMissingError, "this version"),
        (418, ContractMismatchError, "nobody expects"),
    ],
)
def test_what_stays_is_said_at_once(
    told: Service, status: int, kind: type[PipelineError], says: str
):
    told.answer = after(then=Answer(status, b'{"detail":\n "told so"}'))
    with pytest.raises(kind) as caught:
        flow_id()
    assert says in str(caught.value)
    assert str(status) in str(caught.value)
    assert questions(told) == 1


def test_what_is_not_there_is_the_callers_to_judge(told: Service):
    told.answer = lambda asked: Answer(404, b"{}")
    with patient_client() as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("draw/draw")


def test_patience_ends_with_a_code_and_is_not_begun_anew(told: Service):
    told.answer = after(then=Answer(500))
    with patient_client(0.2) as client:
        with pytest.raises(EngineOfflineError, match="500") as caught:
            client.read_flow_by_name("draw")
        assert "read flow by name" in str(caught.value)
        before = questions(told)
        assert before > 1
        with pytest.raises(EngineOfflineError):
            client.read_flow_by_name("draw")
        assert questions(told) == before + 1
        told.answer = after(Answer(200, FLOW), Answer(500))
        client.read_flow_by_name("draw")
        client.read_flow_by_name("draw")


def test_a_server_that_is_not_there_is_offline():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(EngineOfflineError, match="the Prefect server is away"),
    ):
        flow_id(0.0)


def test_an_address_that_cannot_be_asked_is_said():
    with pytest.raises(InvalidFieldValueError, match="PREFECT_API_URL"):
        ask(lambda: httpx.get("gopher://127.0.0.1/api"))


def test_a_request_to_stop_ends_the_wait(told: Service):
    told.answer = after(then=Answer(503, headers={"Retry-After": "200"}))
    threading.Timer(0.3, request_stop).start()
    began = time.monotonic()
    try:
        with pytest.raises(StopRequestedError):
            flow_id()
    finally:
        clear_stop()
    assert time.monotonic() - began < 30


def test_who_tidies_up_after_a_stop_has_patience(told: Service):
    told.answer = after(Answer(503), Answer(500))
    request_stop()
    try:
        with patient_client(60, stops=False) as client:
            client.read_flow_by_name("draw")
    finally:
        clear_stop()
    assert questions(told) == 3


def test_the_server_says_how_long_to_wait(told: Service, monkeypatch: pytest.MonkeyPatch):
    waited: list[float] = []
    monkeypatch.setattr("safelight.client.asking.pause", waited.append)
    told.answer = after(Answer(429, headers={"Retry-After": "7"}), Answer(503))
    flow_id()
    assert waited == [7.0, 0.02]


def test_each_status_stands_under_one_rule_and_in_the_docs():
    statuses = [status for rule in RULES for status in rule.statuses]
    assert len(statuses) == len(set(statuses))
    written = (CHECKOUT / "docs" / "operating.md").read_text()
    table = written.partition("<!-- made from safelight/client/asking.py -->\n")[2]
    rows = table.partition("<!-- end -->")[0].splitlines()[2:]
    assert rows == [
        f"| {rule.meaning} | {', '.join(str(status) for status in rule.statuses)} | "
        f"{'yes' if rule is PASSING else ''} | `{rule.error.code}` | {rule.remedy} |"
        for rule in (*RULES, OTHER)
    ]


# --- no question goes around it --------------------------------------------------------------

OPENERS = frozenset({"get_client", "SyncPrefectClient", "PrefectClient", "SyncClientContext"})
"""What gives a client that asks once."""
ASKING = frozenset({"ask", "on_page"})
"""Functions that ask a question they are given, and have patience."""
ARTIFACTS = frozenset(
    {
        f"{verb}_{kind}_artifact"
        for verb in ("create", "update")
        for kind in ("link", "markdown", "table", "progress", "image")
    }
)
"""Functions of Prefect that ask the server with a client of their own."""
AROUND = {
    "safelight/client/asking.py": "opens the clients that have patience",
    "safelight/pool/session.py": "the clients of Prefect's own engine; the worker sees to the run",
    "safelight/pool/reporting.py": "waits for the server itself, without end",
    "safelight/cli/server.py": "asks whether a server is there, and waits for it by its process",
    "safelight/cli/server_health.py": "the doctor says at once what is wrong",
}
"""Modules that may open a client, and why."""


def calls_around(source: str) -> list[str]:
    """Names that a module calls to ask the server once, outside of a call of `ask`."""
    tree = ast.parse(source)
    asked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node) in ASKING
        for inner in ast.walk(node)
    }
    return [
        _name(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and _name(node) in OPENERS | ARTIFACTS
        and id(node) not in asked
    ]


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def test_calls_around_are_found():
    assert calls_around("with get_client(sync_client=True) as client: ...") == ["get_client"]
    assert calls_around("prefect.artifacts.create_table_artifact([])") == ["create_table_artifact"]
    assert calls_around("ask(lambda: create_table_artifact([]))") == []
    assert calls_around("with patient_client() as client: client.read_flow_run(x)") == []


@pytest.mark.parametrize("folder", ["flows", "tasks", "safelight", "presets"])
def test_every_question_has_patience(folder: str):
    around = {
        path.relative_to(CHECKOUT).as_posix(): calls_around(path.read_text())
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
    }
    assert {file for file, calls in around.items() if calls} <= AROUND.keys()


def test_the_exceptions_are_still_there():
    assert all(calls_around(Path(CHECKOUT, file).read_text()) for file in AROUND)


@pytest.mark.usefixtures("told")
def test_a_patient_client_has_all_that_a_client_has():
    with patient_client(0) as client:
        assert callable(client.read_flow_runs)
        assert client.read_flow_runs.__doc__ == SyncPrefectClient.read_flow_runs.__doc__
        assert str(client.api_url).startswith("http")


def test_a_process_of_many_runs_keeps_one_client(told: Service):
    told.answer = lambda asked: Answer(200, FLOW if "name/draw" in asked.path else TOKEN)

    def inner(client: SyncPrefectClient) -> object:
        assert client.read_flow_by_name("draw").name == "draw"  # it is open
        return vars(client)["_client"]

    with keep_client():
        with patient_client() as one, patient_client() as other:
            kept = inner(one)
            assert inner(other) is kept
        with patient_client() as again:
            assert inner(again) is kept
        elsewhere = temporary_settings({PREFECT_API_URL: f"{told.url}/other/api"})
        with elsewhere, patient_client() as apart:
            assert inner(apart) is not kept
    with patient_client() as later:
        assert inner(later) is not kept
