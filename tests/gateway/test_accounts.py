"""A gateway with keys, as it runs: what is refused, what is counted, what is written down."""

import base64
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from safelight.access.keys import Key, Limits, Scope, keys_folder, make_key, revoke_key
from safelight.audit.chain import Line
from safelight.audit.log import lines, log_folder
from safelight.audit.verifying import verify
from safelight.gateway import transitions
from safelight.gateway.signin.recognising import CSRF
from safelight.gateway.signin.sessions import COOKIE
from safelight.gateway.transitions import TRANSITION, Transitions
from safelight.provenance.costs import By, costs_of
from safelight.provenance.usage import Usage, note_usage
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.gateway.conftest import Gateway
from tests.gateway.test_jobs import SMALL
from tests.prefect_pool import eventually

MARK = "s3cr3t"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-aws-secret",
    "AWS_SESSION_TOKEN": f"{MARK}-aws-session",
    "HF_TOKEN": f"{MARK}-hub",
    "OPENAI_API_KEY": f"{MARK}-openai",
    "SAFELIGHT_CIVITAI_TOKEN": f"{MARK}-civitai",
    "SAFELIGHT_COMFY_HEADERS": json.dumps({"Authorization": f"Bearer {MARK}-comfy"}),
    "SAFELIGHT_FAL_KEY": f"id:{MARK}-fal",
    "SAFELIGHT_HF_TOKEN": f"{MARK}-hugging",
    "SAFELIGHT_KLING_ACCESS_KEY": f"{MARK}-kling-access",
    "SAFELIGHT_KLING_SECRET_KEY": f"{MARK}-kling-secret-of-32-bytes-or-more",
    "SAFELIGHT_OIDC_CLIENT_SECRET": f"{MARK}-oidc",
    "SAFELIGHT_RUNWARE_KEY": f"{MARK}-runware",
    "SAFELIGHT_S3_ACCESS_KEY": f"{MARK}-s3-access",
    "SAFELIGHT_S3_SECRET_KEY": f"{MARK}-s3-secret",
    "SAFELIGHT_SYNCLABS_KEY": f"{MARK}-sync",
}
"""Settings of workers and gateway that nobody may read anywhere; the rest comes with requests."""
HOST = "127.0.0.1"
UNKNOWN = "/api/jobs/0193e6a0-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def pool_environment() -> dict[str, str]:
    return SECRETS


@dataclass
class Accounts:
    """The gateway, and who may ask it."""

    gateway: Gateway
    keys: dict[str, Key] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    answers: list[bytes] = field(default_factory=list)
    cookie: str = ""
    csrf: str = ""
    other_csrf: str = ""
    ended_cookie: str = ""
    ended_csrf: str = ""
    job: str = ""
    file: str = ""

    def make(self, name: str, scope: Scope, days: float | None = None, **limits: Any) -> str:
        self.keys[name], self.tokens[name] = make_key(name, scope, days, Limits(**limits))
        return self.tokens[name]

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self.gateway.client.request(method, path, **request)
        self.answers.append(answer.content)
        return answer

    def sign_in(self, name: str) -> tuple[str, str]:
        answer = self.ask("POST", "/signin", json={"key": self.tokens[name]})
        assert answer.status_code == 200
        self.gateway.client.cookies.clear()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return cookie, self.ask("GET", "/api/me", headers={"Cookie": cookie}).json()["csrf"]

    def submit(self, name: str, key: str | None = None, **parameters: Any) -> httpx.Response:
        headers = {**self.bearer(name), **({"Idempotency-Key": key} if key else {})}
        body = {"workflow": "generate", "parameters": {**SMALL, **parameters}}
        return self.ask("POST", "/api/jobs", headers=headers, json=body)

    def end(self, job: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            found = self.ask("GET", f"/api/jobs/{job}", headers=self.bearer("viewer")).json()
            return found if found["status"] in ("SUCCEEDED", "FAILED", "CANCELLED") else None

        return eventually(over)


@pytest.fixture(scope="module")
def accounts(gateway: Gateway) -> Iterator[Accounts]:
    made = Accounts(gateway)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLUME_ROOT", str(gateway.volume))
        reload_settings()
        current_store.cache_clear()
        assert made.ask("GET", "/info").status_code == 200  # nobody has a key yet
        for scope in Scope:
            made.make(scope.value, scope)
        made.make("late", Scope.ADMIN, days=1)
        late = made.keys["late"].model_copy(update={"expires": datetime.now(UTC)})
        (keys_folder() / f"{late.id}.json").write_text(late.model_dump_json())
        made.make("gone", Scope.ADMIN)
        made.ended_cookie, made.ended_csrf = made.sign_in("gone")
        revoke_key(made.keys["gone"].id)
        made.cookie, made.csrf = made.sign_in("operator")
        _, made.other_csrf = made.sign_in("operator")
        job = made.submit("operator", seed=3)
        assert job.status_code == 201, job.text
        made.job = job.json()["id"]
        assert made.end(made.job)["status"] == "SUCCEEDED"
        listed = made.ask("GET", f"/api/jobs/{made.job}/artifacts", headers=made.bearer("viewer"))
        made.file = listed.json()["artifacts"][0]["url"]
        yield made
    reload_settings()
    current_store.cache_clear()


@dataclass(frozen=True)
class Wrong:
    """A request that must be refused."""

    name: str
    method: str
    path: str | Callable[[Accounts], str]
    headers: Callable[[Accounts], list[tuple[str, str]]]
    status: int
    code: str
    body: bytes = b""


def plain(*headers: tuple[str, str]) -> Callable[[Accounts], list[tuple[str, str]]]:
    return lambda accounts: list(headers)


def key(name: str, *headers: tuple[str, str]) -> Callable[[Accounts], list[tuple[str, str]]]:
    return lambda accounts: [("Authorization", f"Bearer {accounts.tokens[name]}"), *headers]


def auth(made: Callable[[str], str]) -> Callable[[Accounts], list[tuple[str, str]]]:
    """A header Authorization made of the admin's key."""
    return lambda accounts: [("Authorization", made(accounts.tokens["admin"]))]


def browser(
    *headers: tuple[str, str], csrf: Callable[[Accounts], list[str]] = lambda accounts: []
) -> Callable[[Accounts], list[tuple[str, str]]]:
    return lambda accounts: [
        ("Cookie", accounts.cookie),
        *((CSRF, each) for each in csrf(accounts)),
        *headers,
    ]


def cookie(made: Callable[[Accounts], str]) -> Callable[[Accounts], list[tuple[str, str]]]:
    return lambda accounts: [("Cookie", made(accounts))]


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


JSON = ("Content-Type", "application/json")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
MISSING, INVALID, DENIED = (401, "AUTH_MISSING"), (401, "AUTH_INVALID"), (403, "PERMISSION_DENIED")
JOB = b'{"workflow": "generate", "parameters": {}}'


def hook(url: str) -> bytes:
    """A body that asks for a web hook."""
    return json.dumps({"url": url}).encode()


WRONG = [
    Wrong("no key, a page", "GET", "/info", plain(), *MISSING),
    Wrong("no key, the list", "GET", "/api/jobs", plain(), *MISSING),
    Wrong("no key, a job", "POST", "/api/jobs", plain(JSON), *MISSING, JOB),
    Wrong("no key, a deletion", "DELETE", "/api/characters/x", plain(), *MISSING),
    Wrong("no key, the description", "GET", "/api/openapi.json", plain(), *MISSING),
    Wrong("no key, nothing there", "GET", "/nowhere", plain(), *MISSING),
    Wrong("no key, OpenAI", "POST", "/v1/images/generations", plain(JSON), *MISSING, b"{}"),
    Wrong("no key, web UI", "GET", "/sdapi/v1/progress", plain(), *MISSING),
    Wrong("no key, a file", "GET", lambda a: a.file, plain(), *MISSING),
    Wrong("no key, live", "GET", lambda a: f"/api/jobs/{a.job}/events", plain(), *MISSING),
    Wrong(
        "key in the address", "GET", lambda a: f"/info?key={a.tokens['admin']}", plain(), *MISSING
    ),
    Wrong(
        "key in a header of others",
        "GET",
        "/info",
        lambda a: [("X-Api-Key", a.tokens["admin"])],
        *MISSING,
    ),
    Wrong("expired", "GET", "/info", key("late"), *INVALID),
    Wrong("revoked", "GET", "/info", key("gone"), *INVALID),
    Wrong(
        "of nobody", "GET", "/info", auth(lambda t: f"Bearer slk_{'0' * 12}_{'A' * 43}"), *INVALID
    ),
    Wrong(
        "another's id", "GET", "/info", auth(lambda t: f"Bearer slk_{'f' * 12}{t[16:]}"), *INVALID
    ),
    Wrong("one letter off", "GET", "/info", auth(lambda t: f"Bearer {t[:-1]}!"), *INVALID),
    Wrong("cut off", "GET", "/info", auth(lambda t: f"Bearer {t[:30]}"), *INVALID),
    Wrong("too much", "GET", "/info", auth(lambda t: f"Bearer {t}{t}"), *INVALID),
    Wrong("empty", "GET", "/info", auth(lambda t: "Bearer"), *INVALID),
    Wrong("no scheme", "GET", "/info", auth(lambda t: t), *INVALID),
    Wrong("another scheme", "GET", "/info", auth(lambda t: f"Digest {t}"), *INVALID),
    Wrong("as a name", "GET", "/info", auth(lambda t: basic(f"{t}:")), *INVALID),
    Wrong("a wrong password", "GET", "/info", auth(lambda t: basic("x:wrong")), *INVALID),
    Wrong("no base64", "GET", "/info", auth(lambda t: f"Basic {t}:"), *INVALID),
    Wrong("very long", "GET", "/info", auth(lambda t: f"Bearer {'A' * 5000}"), *INVALID),
    Wrong("a path", "GET", "/info", auth(lambda t: f"Bearer slk_../../../x_{'A' * 43}"), *INVALID),
    Wrong(
        "two keys",
        "GET",
        "/info",
        lambda a: 2 * [("Authorization", f"Bearer {a.tokens['admin']}")],
        *INVALID,
    ),
    Wrong(
        "a bad key and a good session",
        "GET",
        "/info",
        lambda a: [("Authorization", "Bearer x"), ("Cookie", a.cookie)],
        *INVALID,
    ),
    Wrong("viewer submits", "POST", "/api/jobs", key("viewer", JSON), *DENIED, JOB),
    Wrong("viewer cancels", "POST", f"{UNKNOWN}/cancel", key("viewer"), *DENIED),
    Wrong("viewer retries", "POST", f"{UNKNOWN}/retry", key("viewer"), *DENIED),
    Wrong(
        "viewer uploads",
        "POST",
        "/api/uploads",
        key("viewer", ("Content-Type", "image/png")),
        *DENIED,
    ),
    Wrong("viewer draws", "POST", "/sdapi/v1/txt2img", key("viewer", JSON), *DENIED, b"{}"),
    Wrong("viewer trains", "POST", "/api/training", key("viewer", JSON), *DENIED, b"{}"),
    Wrong("viewer changes", "PATCH", "/api/characters/x", key("viewer", JSON), *DENIED, b"{}"),
    Wrong("viewer deletes", "DELETE", "/api/characters/x", key("viewer"), *DENIED),
    Wrong("operator deletes", "DELETE", "/api/characters/x", key("operator"), *DENIED),
    Wrong("operator reads keys", "GET", "/api/keys", key("operator"), *DENIED),
    Wrong(
        "operator makes an admin",
        "POST",
        "/api/keys",
        key("operator", JSON),
        *DENIED,
        b'{"name": "x", "scope": "admin"}',
    ),
    Wrong("operator revokes", "DELETE", f"/api/keys/{'0' * 12}", key("operator"), *DENIED),
    Wrong("operator reads the audit", "GET", "/api/audit", key("operator"), *DENIED),
    Wrong("keys by another path", "GET", "/api/keys/", key("operator"), *DENIED),
    Wrong(
        "another method in a header",
        "POST",
        "/api/characters/x",
        key("viewer", ("X-HTTP-Method-Override", "GET")),
        *DENIED,
    ),
    Wrong("a method of nobody", "BREW", "/api/jobs", key("viewer"), *DENIED),
    Wrong(
        "a foreign page", "GET", "/info", key("admin", ("Origin", "http://evil.example")), *DENIED
    ),
    Wrong("a page of nothing", "GET", "/info", key("admin", ("Origin", "null")), *DENIED),
    Wrong("another port", "GET", "/info", key("admin", ("Origin", "http://127.0.0.1:1")), *DENIED),
    Wrong("a foreign name", "GET", "/info", key("admin", ("Host", "evil.example")), *DENIED),
    Wrong(
        "a name before an address", "GET", "/info", key("admin", ("Host", "x@127.0.0.1")), *DENIED
    ),
    Wrong(
        "a page with a session",
        "POST",
        f"{UNKNOWN}/cancel",
        browser(("Origin", "http://e.x")),
        *DENIED,
    ),
    Wrong(
        "a form of elsewhere",
        "POST",
        "/signin",
        plain(FORM, ("Origin", "http://e.x")),
        *DENIED,
        b"key=x",
    ),
    Wrong("a form of nowhere", "POST", "/signin", plain(FORM), *DENIED, b"key=x"),
    Wrong("a wrong key in JSON", "POST", "/signin", plain(JSON), *INVALID, b'{"key": "x"}'),
    Wrong("a forged session", "GET", "/info", cookie(lambda a: f"{COOKIE}={'A' * 43}"), *INVALID),
    Wrong("no session", "GET", "/info", cookie(lambda a: f"{COOKIE}="), *INVALID),
    Wrong(
        "a path for a session", "GET", "/info", cookie(lambda a: f"{COOKIE}=../../keys/x"), *INVALID
    ),
    Wrong("two sessions", "GET", "/info", cookie(lambda a: f"{a.cookie}; {a.cookie}"), *INVALID),
    Wrong("a session of a revoked key", "GET", "/info", cookie(lambda a: a.ended_cookie), *INVALID),
    Wrong(
        "the hash of a session",
        "GET",
        "/info",
        cookie(
            lambda a: f"{COOKIE}={hashlib.sha256(a.cookie.partition('=')[2].encode()).hexdigest()}"
        ),
        *INVALID,
    ),
    Wrong("no token", "POST", "/api/jobs", browser(JSON), *DENIED, JOB),
    Wrong(
        "a wrong token", "POST", "/api/jobs", browser(JSON, csrf=lambda a: ["0" * 64]), *DENIED, JOB
    ),
    Wrong(
        "another's token",
        "POST",
        "/api/jobs",
        browser(JSON, csrf=lambda a: [a.other_csrf]),
        *DENIED,
        JOB,
    ),
    Wrong(
        "a replayed token",
        "POST",
        "/api/jobs",
        browser(JSON, csrf=lambda a: [a.ended_csrf]),
        *DENIED,
        JOB,
    ),
    Wrong(
        "two tokens",
        "POST",
        "/api/jobs",
        browser(JSON, csrf=lambda a: [a.csrf, a.csrf]),
        *DENIED,
        JOB,
    ),
    Wrong(
        "sign-out by another", "POST", "/signout", browser(csrf=lambda a: [a.other_csrf]), *DENIED
    ),
    Wrong("dots", "GET", "/api/jobs/../../etc/passwd", key("viewer"), 404, "CONTRACT_MISMATCH"),
    Wrong(
        "written dots", "GET", "/api/jobs/%2e%2e%2fkeys", key("viewer"), 404, "CONTRACT_MISMATCH"
    ),
    Wrong("two slashes", "GET", "//api/keys", key("viewer"), 404, "CONTRACT_MISMATCH"),
    Wrong("capitals", "GET", "/API/KEYS", key("viewer"), 404, "CONTRACT_MISMATCH"),
    Wrong("a NUL", "GET", "/api/jobs/%00", key("viewer"), 400, "INVALID_FIELD_VALUE"),
    Wrong("backslashes", "GET", "/api/jobs/..%5c..%5cx", key("viewer"), 400, "INVALID_FIELD_VALUE"),
    Wrong(
        "another's file",
        "GET",
        lambda a: f"/api/jobs/{a.job}/artifacts/{'0' * 64}",
        key("viewer"),
        404,
        "FILE_NOT_FOUND",
    ),
    Wrong(
        "a bomb of ranges",
        "GET",
        lambda a: a.file,
        key("viewer", ("Range", "bytes=" + ",".join(["0-"] * 1000))),
        400,
        "INVALID_FIELD_VALUE",
    ),
    Wrong(
        "a range of digits",
        "GET",
        lambda a: a.file,
        key("viewer", ("Range", f"bytes={'9' * 4000}-")),
        400,
        "INVALID_FIELD_VALUE",
    ),
    Wrong(
        "a range of words",
        "GET",
        lambda a: a.file,
        key("viewer", ("Range", "lines=1-2")),
        400,
        "INVALID_FIELD_VALUE",
    ),
    Wrong(
        "a text",
        "POST",
        "/api/jobs",
        key("operator", ("Content-Type", "text/plain")),
        415,
        "CONTRACT_MISMATCH",
        JOB,
    ),
    Wrong(
        "a file of 100 GB",
        "POST",
        "/api/uploads",
        key("operator", ("Content-Type", "image/png"), ("Content-Length", "100000000000")),
        413,
        "INVALID_FIELD_VALUE",
    ),
    *(
        Wrong(
            f"a web hook to {name}", "POST", "/api/hooks", key("operator", JSON), *told, hook(url)
        )
        for name, url, told in (
            ("this machine", "http://127.0.0.1:4200/api/admin/settings", DENIED),
            ("its name", "http://localhost:4200/", DENIED),
            ("its number", "http://2130706433/", DENIED),
            ("its address in IPv6", "http://[::ffff:7f00:1]/", DENIED),
            ("a machine of the network", "http://192.168.1.1/", DENIED),
            ("the keys of a cloud", "http://169.254.169.254/latest/meta-data/", DENIED),
            ("no address", "http://0.0.0.0/", DENIED),
            ("a file", "file:///etc/passwd", (400, "INVALID_FIELD_VALUE")),
            ("another behind a name", "http://a.b@127.0.0.1/", (400, "INVALID_FIELD_VALUE")),
        )
    ),
    Wrong(
        "a picture of an address",
        "POST",
        "/sdapi/v1/img2img",
        key("operator", JSON),
        400,
        "INVALID_FIELD_VALUE",
        b'{"prompt": "x", "init_images": ["http://169.254.169.254/latest/meta-data/"]}',
    ),
    Wrong(
        "a link that climbs",
        "GET",
        "/page/peek?link=store:outputs/../access/keys/x.json",
        key("viewer"),
        *DENIED,
    ),
    Wrong("a link of a path", "GET", "/page/whole?link=/etc/passwd", key("viewer"), *DENIED),
    Wrong(
        "a picture of no model",
        "GET",
        "/page/models/checkpoint/../../../etc/passwd/preview",
        key("viewer"),
        404,
        "FILE_NOT_FOUND",
    ),
    Wrong(
        "a range of sixteen and one",
        "GET",
        lambda a: a.file,
        key("viewer", ("Range", "bytes=" + ",".join(f"{at}-{at}" for at in range(17)))),
        400,
        "INVALID_FIELD_VALUE",
    ),
    Wrong(
        "a range beyond the end",
        "GET",
        lambda a: a.file,
        key("viewer", ("Range", "bytes=99999999-")),
        416,
        "INVALID_FIELD_VALUE",
    ),
    Wrong(
        "a list within lists",
        "POST",
        "/api/jobs",
        key("operator", JSON),
        400,
        "INVALID_FIELD_VALUE",
        b"[" * 100_000,
    ),
    Wrong(
        "a sign-in that nobody began",
        "GET",
        "/signin/oidc/callback?code=x&state=y",
        plain(),
        404,
        "CONTRACT_MISMATCH",
    ),
    Wrong(
        "an address of others",
        "GET",
        "/info",
        plain(
            ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "::1"), ("Forwarded", "for=127.0.0.1")
        ),
        *MISSING,
    ),
]


def send(accounts: Accounts, wrong: Wrong, correlation: str) -> tuple[int, bytes]:
    """Send a request just as it is written."""
    address = accounts.gateway.address.removeprefix("http://")
    path = wrong.path if isinstance(wrong.path, str) else wrong.path(accounts)
    headers = wrong.headers(accounts)
    names = {name.lower() for name, _ in headers}
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.putrequest(wrong.method, path, skip_host=True, skip_accept_encoding=True)
        if "host" not in names:
            connection.putheader("Host", address)
        connection.putheader("X-Correlation-ID", correlation)
        for name, value in headers:
            connection.putheader(name, value)
        if wrong.body and "content-length" not in names:
            connection.putheader("Content-Length", str(len(wrong.body)))
        connection.endheaders(wrong.body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def line_of(correlation: str) -> Line:
    found = [one for one in lines(log_folder()) if one.details.get("correlation_id") == correlation]
    assert len(found) == 1
    return found[0]


def test_the_table_is_long_enough():
    assert len(WRONG) >= 60
    assert len({wrong.name for wrong in WRONG}) == len(WRONG)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_requests_are_refused_and_written_down(accounts: Accounts, wrong: Wrong):
    correlation = f"wrong-{uuid4()}"
    status, body = send(accounts, wrong, correlation)
    accounts.answers.append(body)
    told = json.loads(body)
    assert (status, told["error_code"]) == (wrong.status, wrong.code), told
    assert told["remediation"]
    line = line_of(correlation)
    assert line.event_type == "request.refused"
    assert (line.details["status"], line.details["code"]) == (wrong.status, wrong.code)
    assert line.details["method"] == wrong.method
    assert line.details["address"] == HOST
    known = [name for name, each in accounts.keys.items() if each.actor == line.actor]
    assert known or line.actor == "anonymous"


def test_what_a_key_does_is_written_down(accounts: Accounts):
    whose = accounts.keys["operator"]
    audit = accounts.ask(
        "GET", f"/api/jobs/{accounts.job}/audit", headers=accounts.bearer("viewer")
    ).json()
    assert [event["event_type"] for event in audit["events"]][-1] == "SUCCEEDED"
    (action,) = audit["actions"]
    assert (action["event_type"], action["actor"]) == ("job.submit", whose.actor)

    def told() -> list[str]:
        found = [one for one in lines(log_folder(), about=accounts.job)]
        return [str(one.details["state"]) for one in found if one.event_type == TRANSITION]

    states = eventually(lambda: found if "Completed" in (found := told()) else None)
    assert states[-1] == "Completed"
    assert {"Pending", "Running"} <= set(states)
    assert len(states) == len(audit["events"]), (states, audit["events"])
    assert Transitions(accounts.gateway.pool.client).write() == 0  # the gateway does it


def test_a_gateway_that_comes_back_writes_what_it_missed_once(
    accounts: Accounts, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a volume of its own, where nobody follows."""
    first = Transitions(accounts.gateway.pool.client)
    first.write()
    monkeypatch.setenv("VOLUME_ROOT", str(accounts.gateway.volume))
    reload_settings()
    job = accounts.submit("operator", seed=4).json()["id"]
    assert accounts.end(job)["status"] == "SUCCEEDED"
    monkeypatch.setenv("VOLUME_ROOT", str(volume))
    reload_settings()
    second = Transitions(accounts.gateway.pool.client)

    def told() -> list[str]:
        second.write()
        found = [one for one in lines(log_folder(), about=job)]
        return [str(one.details["state"]) for one in found]

    states = eventually(lambda: found if "Completed" in (found := told()) else None)
    assert Transitions(accounts.gateway.pool.client).write() == 0
    assert first.write() == 0
    monkeypatch.setattr(transitions, "PAGE", 2)
    kept = [path for path in log_folder().iterdir() if path.name != transitions.FOLLOWED]
    for path in kept:  # as if none of it had been written, though later events were
        path.unlink()
    assert Transitions(accounts.gateway.pool.client).write() >= len(states)
    assert sorted(told()) == sorted(states)
    assert len(states) == len(set(states))
    monkeypatch.setenv("VOLUME_ROOT", str(accounts.gateway.volume))
    reload_settings()


def test_runs_of_a_day_are_counted_by_their_tags(accounts: Accounts):
    accounts.make("one", Scope.OPERATOR, runs_per_day=1)
    first = accounts.submit("one", "order-1", seed=5)
    assert first.status_code == 201
    job = first.json()["id"]
    refused = accounts.submit("one", seed=6)
    assert (refused.status_code, refused.json()["error_code"]) == (429, "RATE_LIMIT_EXCEEDED")
    opens = datetime.now(UTC) + timedelta(seconds=int(refused.headers["retry-after"]))
    assert abs((opens - opens.replace(hour=0, minute=0, second=0)).total_seconds()) < 5
    assert "T00:00:00Z" in refused.json()["remediation"][0]
    again = accounts.submit("one", "order-1", seed=5)
    assert (again.status_code, again.json()["id"]) == (201, job)
    assert accounts.submit("operator", "order-1", seed=7).json()["id"] != job  # another's key
    assert accounts.end(job)["status"] == "SUCCEEDED"
    key_id = accounts.keys["one"].id
    (mine,) = [cost for cost in costs_of(By.KEY).costs if cost.name == key_id]
    assert (mine.runs, mine.gpu_seconds, mine.usd) == (1, 0, 0)
    assert mine.cpu_seconds > 0


def test_seconds_and_money_of_a_day_are_counted_by_what_runs_left(accounts: Accounts):
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for name, limits, code, status in (
        ("seconds", {"gpu_seconds_per_day": 10.0}, "RATE_LIMIT_EXCEEDED", 429),
        ("money", {"usd_per_day": 0.5}, "INSUFFICIENT_FUNDS", 402),
    ):
        accounts.make(name, Scope.OPERATOR, **limits)
        whose = accounts.keys[name].id
        store = current_store()
        note_usage(store, whose, today, "run-1", Usage(9.0, 0.4))
        note_usage(store, whose, today, "run-1", Usage(9.0, 0.4))  # kept twice
        note_usage(store, whose, "2020-01-01", "run-0", Usage(99.0, 9.0))
        assert accounts.submit(name, seed=8).status_code == 201
        note_usage(store, whose, today, "run-2", Usage(1.0, 0.1))
        refused = accounts.submit(name, seed=9)
        assert (refused.status_code, refused.json()["error_code"]) == (status, code)
        assert int(refused.headers["retry-after"]) <= 86400


def test_costs_are_told_by_the_gateway(accounts: Accounts):
    asked = {"headers": accounts.bearer("viewer")}
    by_stage = accounts.ask("GET", "/api/costs?by=stage", **asked).json()
    assert [cost["name"] for cost in by_stage["costs"]] == ["generate"]
    by_day = accounts.ask("GET", "/api/costs?by=day&since=2020-01-01", **asked).json()
    assert by_day["total"] == by_stage["total"]
    none = accounts.ask("GET", "/api/costs?until=2020-01-01", **asked).json()
    assert (none["total"]["runs"], none["costs"]) == (0, [])
    assert accounts.ask("GET", "/api/costs?by=colour", **asked).status_code == 400


def test_an_admin_reads_and_verifies_the_audit(accounts: Accounts):
    admin = {"headers": accounts.bearer("admin")}
    page = accounts.ask("GET", "/api/audit?event_type=key.&limit=2", **admin).json()
    assert len(page["lines"]) == 2
    assert page["total"] >= 5
    verdict = accounts.ask("GET", "/api/audit/verify", **admin).json()
    assert verdict["intact"], verdict["findings"]
    head = verdict["head"]
    assert accounts.ask("GET", f"/api/audit/verify?known={head}", **admin).json()["intact"]
    forged = f"1:{'0' * 64}"
    assert not accounts.ask("GET", f"/api/audit/verify?known={forged}", **admin).json()["intact"]


def test_no_secret_is_anywhere(accounts: Accounts):
    """The last of the file: a run that fails, one that is refused, and all that is left of all."""
    failed = accounts.submit("operator", model="nosuch", seed=1).json()["id"]
    assert accounts.end(failed)["status"] == "FAILED"
    basic_of_secret = basic(f"x:{MARK}-basic")
    for headers in (
        {"Authorization": f"Bearer {MARK}-sent"},
        {"Authorization": basic_of_secret},
        {"Cookie": f"{COOKIE}={MARK}-cookie"},
        {"Cookie": accounts.cookie, CSRF: f"{MARK}-csrf"},
    ):
        assert accounts.ask("POST", "/api/jobs", headers=headers, json={}).status_code in (401, 403)
    assert accounts.ask("GET", f"/info?api_key={MARK}-query").status_code == 401
    secrets = {
        *(value.split("Bearer ")[-1].strip('"}').removeprefix("id:") for value in SECRETS.values()),
        *(f"{MARK}-{each}" for each in ("sent", "basic", "cookie", "csrf", "query")),
        basic_of_secret.removeprefix("Basic "),
        *(token.split("_", 2)[2] for token in accounts.tokens.values()),
        accounts.cookie.partition("=")[2],
        accounts.csrf,
    }
    assert len(secrets) >= 20
    folder, client = accounts.gateway.pool.project.folder, accounts.gateway.pool.client
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert [name for name in texts if name.endswith(("gateway.log", "one.log", ".jsonl"))]
    assert [name for name in texts if "/outputs/manifests/" in name]
    # answers to who may know: the token of a session to its own page
    texts |= {
        f"answer {at}": each for at, each in enumerate(accounts.answers) if b'"csrf"' not in each
    }
    for run in (accounts.job, failed):
        states = client.read_flow_run_states(run)
        # logs travel in bulk: they may come after the state that ends the run
        of_the_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        logs = eventually(lambda of_the_run=of_the_run: client.read_logs(of_the_run))
        shown = accounts.gateway.pool.page(run)
        texts[f"states {run}"] = repr([*states, *shown, client.read_flow_run(run)]).encode()
        texts[f"logs {run}"] = repr(logs).encode()
    found = [
        (name, each) for name, text in texts.items() for each in secrets if each.encode() in text
    ]
    assert found == []
    assert verify(log_folder()).intact
