"""Web hooks: signed, sent again, and led nowhere inside."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from safelight.audit.log import lines, log_folder
from safelight.errors import PipelineError
from safelight.gateway.hooks import addresses as places
from safelight.gateway.hooks.addresses import addresses, may_call, place_of
from safelight.gateway.hooks.records import (
    Delivery,
    KeptHook,
    deliveries,
    find_hook,
    keep_hook,
    new_secret,
)
from safelight.gateway.hooks.sending import PAUSES, Sender, send
from safelight.gateway.jobs import Status
from safelight.settings import reload_settings
from tests.gateway.conftest import Alone
from tests.listening import listening

INSIDE = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
    *("2001:0:4136:e378:8000:63bf:80ff:fffe", "fd00:ec2::254", "not-an-address"),
)


@pytest.mark.parametrize("address", INSIDE)
@pytest.mark.usefixtures("volume")
def test_no_address_inside_is_called(address: str):
    assert not may_call("example.com", address)
    with pytest.raises(PipelineError, match="PERMISSION_DENIED"):
        addresses(place_of("https://example.com"), lambda host, port: ["93.184.216.34", address])


@pytest.mark.usefixtures("volume")
def test_addresses_of_the_internet_are_called():
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"):
        assert may_call("example.com", address)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com", "file:///etc/passwd", "http://", "//example.com", "gopher://x/"),
        *("http://user:pass@example.com/", "http://example.com/#x", "http://exa mple.com/"),
        *("http://example.com:99999/", "http://[::1", "http://example.com\\@127.0.0.1/"),
        *("http://ex\u00e4mple.com/", "http://example.com/\r\nHost: x", "javascript:alert(1)"),
    ],
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(PipelineError, match="INVALID_FIELD_VALUE"):
        place_of(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:4200/api", "http://localhost/", "http://2130706433/"),
        *("http://0x7f.1/", "http://0177.0.0.1/", "http://[::ffff:127.0.0.1]/"),
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_hook_that_leads_inside_is_not_made(alone: Alone, url: str):
    answer = alone.ask("POST", "/api/hooks", json={"url": url})
    assert answer.status_code in (400, 403, 503), answer.text
    assert alone.ask("GET", "/api/hooks").json()["total"] == 0


def test_the_operator_allows_hosts_and_networks(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_WEBHOOK_INSIDE", "ci.lan, 10.1.0.0/16,192.168.7.7")
    reload_settings()
    assert may_call("ci.lan", "172.16.0.9")
    assert may_call("x", "10.1.200.3")
    assert may_call("x", "192.168.7.7")
    assert not may_call("x", "10.2.0.1")
    assert not may_call("x", "127.0.0.1")


class Heard:
    """A program that is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        heard = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.requests.append((self.path, dict(self.headers), body))
                status, headers = heard.answers.pop(0) if heard.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.handler = Handler


def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_WEBHOOK_INSIDE", "127.0.0.1")
    reload_settings()


def hook_to(url: str, **more: Any) -> KeptHook:
    made = KeptHook(
        id="0123456789abcdef",
        url=url,
        created_at=datetime.now(UTC) - timedelta(minutes=1),
        secret=new_secret().get_secret_value(),
        **more,
    )
    keep_hook(made)
    return made


FLOW = uuid4()


def ended(tags: list[str] | None = None, kind: StateType = StateType.COMPLETED) -> FlowRun:
    now = datetime.now(UTC)
    state = State(id=uuid4(), type=kind, name=kind.value.title(), timestamp=now)
    return FlowRun.model_validate(
        {
            "id": uuid4(),
            "flow_id": FLOW,
            "deployment_id": uuid4(),
            "name": "a red house",
            "state": state,
            "state_id": state.id,
            "end_time": now,
            "created": now,
            "tags": tags or [],
        }
    )


class Server:
    """What a Prefect server says of runs."""

    def __init__(self, *runs: FlowRun) -> None:
        self.runs = list(runs)

    def read_flow_runs(self, **wanted: Any) -> list[FlowRun]:
        if wanted.get("offset"):
            return []
        after = wanted["flow_run_filter"].end_time.after_
        return [run for run in self.runs if run.end_time and run.end_time >= after]

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        return next(run for run in self.runs if run.id == run_id)

    def read_artifacts(self, **_: Any) -> list[Any]:
        return []


def sender(server: Server) -> Sender:
    flows = SimpleNamespace(name=lambda flow_id: "generate")
    return Sender(server, flows)  # type: ignore[arg-type]


def send_due(by: Sender) -> list[Delivery]:
    due, _ = by._due()
    for each in due:
        tried = by._tried(each)
        by._known[tried.key] = tried  # type: ignore[index]
        from safelight.gateway.hooks.records import keep_delivery

        keep_delivery(tried)
    return due


def test_an_end_is_told_once_and_signed(volume: Path, monkeypatch: pytest.MonkeyPatch):
    inside(monkeypatch)
    heard = Heard()
    with listening(heard.handler) as address:
        hook = hook_to(f"{address}/told?by=us")
        server = Server(ended(), ended(kind=StateType.FAILED))
        first = sender(server)
        assert len(send_due(first)) == 2
        assert send_due(first) == []
        assert send_due(sender(server)) == []  # nor by the next gateway
    path, headers, body = heard.requests[0]
    assert path == "/told?by=us"
    said = json.loads(body)
    assert {json.loads(each[2])["type"] for each in heard.requests} == {
        "job.succeeded",
        "job.failed",
    }
    assert said["data"]["job"]["name"] == "a red house"
    signed = f"{headers['Webhook-Id']}.{headers['Webhook-Timestamp']}.".encode() + body
    digest = hmac.new(hook.key, signed, hashlib.sha256).digest()
    assert headers["Webhook-Signature"] == "v1," + base64.b64encode(digest).decode()
    assert abs(int(headers["Webhook-Timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert all(each.done for each in deliveries())


def test_what_is_not_taken_is_sent_again_after_a_restart_too(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    inside(monkeypatch)
    heard = Heard()
    heard.answers = [(500, {})] * (len(PAUSES) + 1)
    with listening(heard.handler) as address:
        hook_to(address)
        server = Server(ended())
        for number, pause in enumerate(PAUSES, 1):
            by = sender(server)  # each time another gateway
            if number > 1:
                waiting = deliveries()[0]
                early = by._due()[0]
                assert early == []  # not before its time
                past = waiting.model_copy(update={"next_at": datetime.now(UTC)})
                by._known = {past.key: past}
            assert len(send_due(by)) == 1
            (now,) = deliveries()
            assert (now.tries, now.done, now.last) == (number, False, "answered 500")
            left = (now.next_at - datetime.now(UTC)).total_seconds()
            assert pause - 10 < left <= pause
        past = deliveries()[0].model_copy(update={"next_at": datetime.now(UTC)})
        by._known = {past.key: past}
        send_due(by)
    (now,) = deliveries()
    assert (now.done, now.last) == (True, "given up: answered 500")
    assert len({each[1]["Webhook-Id"] for each in heard.requests}) == 1


def test_redirects_lead_nowhere(volume: Path, monkeypatch: pytest.MonkeyPatch):
    inside(monkeypatch)
    heard = Heard()
    with listening(heard.handler) as address:
        heard.answers = [(307, {"Location": f"{address}/elsewhere"})]
        hook_to(f"{address}/here")
        send_due(sender(Server(ended())))
    assert [path for path, _, _ in heard.requests] == ["/here"]
    assert "redirects are not followed" in deliveries()[0].last


def test_the_address_that_was_looked_at_is_called(volume: Path, monkeypatch: pytest.MonkeyPatch):
    """A name that resolves to another address a moment later (DNS rebinding) changes nothing."""
    inside(monkeypatch)
    heard, asked = Heard(), []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    monkeypatch.setattr(places, "_resolved", resolve)
    with listening(heard.handler) as address:
        port = address.rpartition(":")[2]
        hook = hook_to(f"http://hook.example:{port}/")
        delivery = Delivery(
            hook_id=hook.id,
            job_id=uuid4(),
            state_id=uuid4(),
            ended_at=datetime.now(UTC),
            next_at=datetime.now(UTC),
        )
        assert send(hook, delivery, b"{}") == 204
        assert asked == ["hook.example"]
        assert heard.requests[0][1]["Host"] == f"hook.example:{port}"
        with pytest.raises(PipelineError, match="PERMISSION_DENIED"):
            send(hook, delivery, b"{}")
    assert len(heard.requests) == 1


def test_hooks_hear_what_they_ask_for(volume: Path, monkeypatch: pytest.MonkeyPatch):
    inside(monkeypatch)
    heard = Heard()
    with listening(heard.handler) as address:
        hook = hook_to(address, statuses=(Status.FAILED,), named=True)
        named, failed = [f"hook:{hook.id}"], StateType.FAILED
        server = Server(ended(named), ended(kind=failed), ended(named, failed), ended())
        assert [each.job_id for each in send_due(sender(server))] == [server.runs[2].id]


def test_a_hook_from_its_making_to_its_end(alone: Alone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places, "_resolved", lambda host, port: ["93.184.216.34"])
    made = alone.ask("POST", "/api/hooks", json={"url": "https://example.com/x"})
    assert made.status_code == 201, made.text
    place = made.headers["location"]
    assert made.json()["secret"].startswith("whsec_")
    for shown in (alone.ask("GET", place).json(), alone.ask("GET", "/api/hooks").json()):
        assert "secret" not in json.dumps(shown)
    assert alone.ask("GET", f"{place}/deliveries").json() == {"total": 0, "deliveries": []}
    assert find_hook(made.json()["id"]).url == "https://example.com/x"
    assert alone.ask("DELETE", place).status_code == 204
    assert alone.ask("GET", place).status_code == 404
    told = [line.event_type for line in lines(log_folder(), about=made.json()["id"])]
    assert told == ["hook.made", "hook.removed"]
    for wrong in ({"url": "x"}, {}, {"url": "https://example.com", "statuses": []}):
        assert alone.ask("POST", "/api/hooks", json=wrong).status_code == 400
