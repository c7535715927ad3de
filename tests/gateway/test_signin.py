"""Sign-in to the gateway: keys, scopes, sessions of browsers."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from safelight.access.keys import Limits, Scope, keys_folder, make_key, revoke_key
from safelight.audit.log import lines, log_folder
from safelight.gateway.app import create_api, guarded
from safelight.gateway.signin import refusals
from safelight.gateway.signin.recognising import CSRF
from safelight.gateway.signin.scopes import PUBLIC, PUBLIC_FOLDERS, READS, WANTED, wanted_scope
from safelight.gateway.signin.sessions import COOKIE, sessions_folder
from safelight.settings import reload_settings
from tests.gallery.conftest import fill
from tests.gateway.conftest import Alone
from tests.prefect_pool import eventually

ORIGIN = {"Origin": "http://127.0.0.1:4300"}
NO_LIMITS = Limits()


@pytest.fixture(scope="module")
def tokens(alone: Alone) -> dict[str, str]:
    """A key of each scope; the gateway wants a sign-in from then on."""
    assert alone.ask("GET", "/info").status_code == 200
    assert alone.ask("GET", "/api/me").json() == {
        "actor": "anonymous",
        "scope": "admin",
        "csrf": None,
    }
    return {scope.value: make_key(scope.value, scope, None, NO_LIMITS)[1] for scope in Scope}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sign_in(alone: Alone, token: str) -> str:
    """The cookie of a new session."""
    answer = alone.ask("POST", "/signin", headers=ORIGIN, data={"key": token})
    assert answer.status_code == 303, answer.text
    return cookie_of(answer)


def cookie_of(answer: httpx.Response) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def csrf(alone: Alone, cookie: str) -> str:
    return alone.ask("GET", "/api/me", headers={"Cookie": cookie}).json()["csrf"]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text


def all_routes(routes: Sequence[object]) -> Iterator[tuple[str, str]]:
    """Method and path of each; those of folders of files too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from all_routes(inner.routes)
        else:
            path = getattr(route, "path", "")
            methods = getattr(route, "methods", None)
            yield from ((method, path) for method in methods or ())
            if methods is None:
                yield "GET", f"{path}/file"


def test_every_route_wants_a_scope():
    """Whoever adds a route need not think of it: reading is for viewers, the rest for more."""
    known = set(all_routes(create_api().routes))
    assert len(known) > 50
    for method, path in known:
        plain = re.sub(r"\{[^}]+\}", "x", path)
        wanted = wanted_scope(method, plain)
        reads = method in READS
        if ("GET" if method == "HEAD" else method, path) in PUBLIC:
            assert wanted is None
        elif (method, path) in WANTED:
            assert wanted is WANTED[method, path]
        elif method == "DELETE":
            assert wanted is Scope.ADMIN
        else:
            assert wanted is (Scope.VIEWER if reads else Scope.OPERATOR), (method, path)
    assert set(WANTED) | PUBLIC <= known
    open_ones = {each for each in known if wanted_scope(*each) is None and each[0] != "HEAD"}
    assert {each for each in open_ones if not each[1].startswith(PUBLIC_FOLDERS)} == PUBLIC


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/nowhere/yet", Scope.VIEWER),
        ("HEAD", "/nowhere/yet", Scope.VIEWER),
        ("POST", "/nowhere/yet", Scope.OPERATOR),
        ("BREW", "/nowhere/yet", Scope.OPERATOR),
        ("DELETE", "/nowhere/yet", Scope.ADMIN),
        ("PATCH", "/api/keys/later", Scope.ADMIN),
        ("GET", "/health/", Scope.VIEWER),
        ("GET", "//health", Scope.VIEWER),
        ("POST", "/health", Scope.OPERATOR),
        ("GET", "/signin/../api/jobs", Scope.VIEWER),
        ("get", "/health", Scope.OPERATOR),
    ],
)
def test_what_nobody_thought_of_is_safe(method: str, path: str, wanted: Scope):
    assert wanted_scope(method, path) is wanted


def test_scopes_are_held_to(alone: Alone, tokens: dict[str, str]):
    refused(alone.ask("GET", "/info"), 401, "AUTH_MISSING")
    assert alone.ask("GET", "/info").headers["www-authenticate"] == "Bearer"
    assert alone.ask("GET", "/health").status_code == 503  # the server is away, and that is all
    for scope, statuses in {
        "viewer": (200, 403, 403, 403),
        "operator": (200, 400, 403, 403),
        "admin": (200, 400, 404, 200),
    }.items():
        with_key = bearer(tokens[scope])
        asked = (
            ("GET", "/info"),
            ("POST", "/api/jobs"),
            ("DELETE", "/api/characters/x"),
            ("GET", "/api/keys"),
        )
        found = [alone.ask(method, path, headers=with_key) for method, path in asked]
        assert tuple(answer.status_code for answer in found) == statuses, scope
        for answer in found:
            if answer.status_code == 403:
                refused(answer, 403, "PERMISSION_DENIED")


def test_programs_for_other_systems_send_it_as_a_password(alone: Alone, tokens: dict[str, str]):
    for name, secret, status in (("any", tokens["viewer"], 200), (tokens["viewer"], "x", 401)):
        text = base64.b64encode(f"{name}:{secret}".encode()).decode()
        answer = alone.ask("GET", "/info", headers={"Authorization": f"Basic {text}"})
        assert answer.status_code == status


def test_a_key_that_is_taken_back_is_refused_at_once(alone: Alone, tokens: dict[str, str]):
    key, token = make_key("gone", Scope.ADMIN, None, NO_LIMITS)
    cookie = sign_in(alone, token)
    assert alone.ask("GET", "/info", headers=bearer(token)).status_code == 200
    assert alone.ask("GET", "/info", headers={"Cookie": cookie}).status_code == 200
    revoke_key(key.id)
    refused(alone.ask("GET", "/info", headers=bearer(token)), 401, "AUTH_INVALID")
    refused(alone.ask("GET", "/info", headers={"Cookie": cookie}), 401, "AUTH_INVALID")


def test_keys_are_made_and_taken_back_by_admins(alone: Alone, tokens: dict[str, str]):
    admin = bearer(tokens["admin"])
    made = alone.ask("POST", "/api/keys", headers=admin, json={"name": "page", "scope": "viewer"})
    assert made.status_code == 201
    facts = made.json()
    assert alone.ask("GET", "/info", headers=bearer(facts["key"])).status_code == 200
    listed = alone.ask("GET", "/api/keys", headers=admin)
    assert facts["id"] in [key["id"] for key in listed.json()["keys"]]
    assert facts["key"] not in listed.text
    assert "digest" not in listed.text
    gone = alone.ask("DELETE", f"/api/keys/{facts['id']}", headers=admin)
    assert gone.json()["state"] == "revoked"
    refused(alone.ask("GET", "/info", headers=bearer(facts["key"])), 401, "AUTH_INVALID")
    (made_line, _) = [
        line
        for line in lines(log_folder(), about=facts["id"])
        if line.event_type in ("key.made", "key.revoked")
    ]
    assert made_line.actor.endswith(" admin")


def test_a_browser_signs_in_changes_something_and_signs_out(alone: Alone, tokens: dict[str, str]):
    page = alone.ask("GET", "/signin?next=/api/jobs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    form = {"key": tokens["operator"], "next": "/api/me"}
    answer = alone.ask("POST", "/signin", headers=ORIGIN, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/me")
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=lax" in said
    assert "secure" not in said  # of loopback, where nobody listens
    cookie = {"Cookie": cookie_of(answer)}
    me = alone.ask("GET", "/api/me", headers=cookie).json()
    assert me["scope"] == "operator"
    assert "operator" in alone.ask("GET", "/signin", headers=cookie).text
    wanted = {"workflow": "nosuch", "parameters": {}}
    for given in ({}, {CSRF: ""}, {CSRF: "0" * 64}, {CSRF: me["csrf"][:-1]}):
        answer = alone.ask("POST", "/api/jobs", headers={**cookie, **given}, json=wanted)
        refused(answer, 403, "PERMISSION_DENIED")
    answer = alone.ask("POST", "/api/jobs", headers={**cookie, CSRF: me["csrf"]}, json=wanted)
    refused(answer, 400, "CONTRACT_MISMATCH")  # it got as far as the routes
    page = alone.ask("GET", "/gallery", headers={**cookie, "Accept": "text/html"})
    assert f'<meta name="csrf" content="{me["csrf"]}">' in page.text
    for bad in ({}, {"csrf": "0" * 64}):
        answer = alone.ask("POST", "/signout", headers={**cookie, **ORIGIN}, data={"x": "", **bad})
        refused(answer, 403, "PERMISSION_DENIED")
    out = alone.ask("POST", "/signout", headers={**cookie, **ORIGIN}, data={"csrf": me["csrf"]})
    assert (out.status_code, out.headers["location"]) == (303, "/signin")
    refused(alone.ask("GET", "/api/me", headers=cookie), 401, "AUTH_INVALID")
    kinds = [line.event_type for line in lines(log_folder()) if "operator" in line.actor]
    assert {"session.begun", "session.ended"} <= set(kinds)


def test_a_wrong_key_is_told_on_the_page(alone: Alone, tokens: dict[str, str]):
    answer = alone.ask("POST", "/signin", headers=ORIGIN, data={"key": "<b>", "next": '"><script>'})
    assert answer.status_code == 401
    assert "none of this gateway" in answer.text
    assert "<script" not in answer.text
    last = list(lines(log_folder()))[-1]
    assert (last.event_type, last.details["code"]) == ("request.refused", "AUTH_INVALID")
    refused(alone.ask("POST", "/signin", json={"key": "x"}), 401, "AUTH_INVALID")
    told = alone.ask("POST", "/signin", json={"key": tokens["viewer"]})
    assert told.json()["scope"] == "viewer"


@pytest.mark.parametrize(
    "away",
    ["//evil.example", "https://evil.example", "/\\evil", "/%5cevil", "/%2fevil", "x", "/a\nb"],
)
def test_nobody_is_led_away(alone: Alone, tokens: dict[str, str], away: str):
    form = {"key": tokens["viewer"], "next": away}
    answer = alone.ask("POST", "/signin", headers=ORIGIN, data=form)
    assert answer.headers["location"] == "/"


def test_forms_of_other_pages_are_refused(alone: Alone, tokens: dict[str, str]):
    form = {"key": tokens["viewer"]}
    for headers in ({}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused(alone.ask("POST", "/signin", headers=headers, data=form), 403, "PERMISSION_DENIED")
    assert alone.ask("POST", "/api/jobs", headers=ORIGIN, data=form).status_code == 415


def test_sessions_are_kept_hashed_and_outlive_the_gateway(alone: Alone, tokens: dict[str, str]):
    cookie = sign_in(alone, tokens["viewer"])
    secret = cookie.partition("=")[2]
    for path in alone.volume.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    before, alone._app = alone._app, guarded(alone.api)  # as after a start
    try:
        assert alone.ask("GET", "/info", headers={"Cookie": cookie}).status_code == 200
    finally:
        alone._app = before


def test_sessions_end(alone: Alone, tokens: dict[str, str]):
    cookie = sign_in(alone, tokens["viewer"])
    newest = max(sessions_folder().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    fields = json.loads(newest.read_bytes())
    fields["expires"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    newest.write_text(json.dumps(fields))
    answer = alone.ask("GET", "/info", headers={"Cookie": cookie})
    refused(answer, 401, "AUTH_INVALID")
    assert "has expired" in answer.json()["message"]


@pytest.mark.parametrize(
    "value", ["", "x", "../../keys/x", "A" * 43, "A" * 5000, '"quoted"', "a=b", "\xff"]
)
def test_forged_sessions_are_refused(alone: Alone, tokens: dict[str, str], value: str):
    cookie = f"{COOKIE}={value}".encode("latin-1")
    refused(alone.ask("GET", "/info", headers={"Cookie": cookie}), 401, "AUTH_INVALID")
    assert alone.ask("GET", "/signin", headers={"Cookie": cookie}).status_code == 200


def test_browsers_are_led_to_the_sign_in(alone: Alone, tokens: dict[str, str]):
    html = {"Accept": "text/html,*/*"}
    answer = alone.ask("GET", "/gallery", headers=html)
    assert (answer.status_code, answer.headers["location"]) == (303, "/signin?next=/gallery")
    refused(alone.ask("GET", "/api/jobs", headers=html), 401, "AUTH_MISSING")


def test_other_names_and_machines_may_ask_with_a_key(
    alone: Alone, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    key = bearer(tokens["viewer"])
    peer = ("192.168.0.7", 40000)
    for host, status in (
        ("192.168.0.4:4300", 200),
        ("[fd00::1]:4300", 200),
        ("studio.example", 403),
        ("192.168.0.4@studio.example", 403),
    ):
        headers = {**key, "Host": host}
        assert alone.ask("GET", "/info", headers=headers, peer=peer).status_code == status, host
    monkeypatch.setenv("SAFELIGHT_GATEWAY_URL", "https://studio.example")
    reload_settings()
    headers = {"Host": "studio.example", "Origin": "https://studio.example"}
    try:
        answer = alone.ask("GET", "/info", headers={**key, **headers}, peer=peer)
        assert answer.status_code == 200
        answer = alone.ask("POST", "/signin", headers=headers, data={"key": tokens["viewer"]})
        assert "secure" in answer.headers["set-cookie"].lower()
        headers["Origin"] = "http://evil.example"
        refused(alone.ask("GET", "/info", headers={**key, **headers}), 403, "PERMISSION_DENIED")
    finally:
        monkeypatch.undo()
        reload_settings()


def test_who_asks_too_often_waits(alone: Alone, tokens: dict[str, str]):
    _, token = make_key("hasty", Scope.VIEWER, None, Limits(requests_per_minute=3))
    for _ in range(3):
        assert alone.ask("GET", "/info", headers=bearer(token)).status_code == 200
    answer = alone.ask("GET", "/info", headers=bearer(token))
    refused(answer, 429, "RATE_LIMIT_EXCEEDED")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert alone.ask("GET", "/info", headers=bearer(tokens["viewer"])).status_code == 200


@pytest.fixture
def without_keys(alone: Alone) -> Iterator[Alone]:
    """The gateway with the records of its keys gone."""
    there = keys_folder()
    aside = there.with_name("aside")
    there.rename(aside)
    yield alone
    aside.rename(there)


def test_a_gateway_that_others_reach_never_opens(
    without_keys: Alone, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    assert without_keys.ask("GET", "/info").status_code == 200  # loopback, and no key
    peer = ("192.168.0.7", 40000)
    refused(without_keys.ask("GET", "/info", peer=peer), 403, "PERMISSION_DENIED")
    before, without_keys._app = without_keys._app, guarded(without_keys.api, signed_in=True)
    try:
        refused(without_keys.ask("GET", "/info"), 401, "AUTH_MISSING")
        refused(without_keys.ask("GET", "/info", peer=peer), 401, "AUTH_MISSING")
    finally:
        without_keys._app = before
    monkeypatch.setenv("SAFELIGHT_GATEWAY_SIGN_IN", "always")
    reload_settings()
    try:
        refused(without_keys.ask("GET", "/info"), 401, "AUTH_MISSING")
    finally:
        monkeypatch.undo()
        reload_settings()


def test_a_flood_of_refusals_fills_no_disk(
    alone: Alone, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(refusals, "REFUSED_PER_MINUTE", 20)
    peer = ("10.9.8.7", 1)
    for _ in range(refusals.REFUSED_PER_MINUTE + 30):
        answer = alone.ask("GET", "/info", peer=peer)
        if answer.status_code == 429:
            break
    refused(answer, 429, "RATE_LIMIT_EXCEEDED")
    assert int(answer.headers["retry-after"]) <= 60
    mine = [line for line in lines(log_folder()) if line.details.get("address") == "10.9.8.7"]
    assert len(mine) <= 2 * refusals.REFUSED_PER_MINUTE + 2  # a new minute may have begun
    assert mine[-1].event_type == "requests.flooded"
    assert alone.ask("GET", "/info", headers=bearer(tokens["viewer"]), peer=peer).status_code == 200
    before = len(list(lines(log_folder())))
    for _ in range(3):
        assert (
            alone.ask("GET", "/no", headers=bearer(tokens["viewer"]), peer=peer).status_code == 404
        )
    assert len(list(lines(log_folder()))) == before


def _in_the_gallery(alone: Alone, file: str, token: str) -> bool:
    """Whether it is there; a gallery that has just been filled is not filled again for a moment."""
    alone.ask("GET", "/gallery", headers=bearer(token))
    return alone.ask("GET", f"{file}/drawer", headers=bearer(token)).status_code == 200


def test_a_file_that_is_deleted_leaves_a_line_of_who_did_it(alone: Alone, tokens: dict[str, str]):
    fill(alone.volume, 1)
    (path,) = (alone.volume / "outputs").glob("??/*.png")
    size = path.stat().st_size
    asked = f"/gallery/{path.stem}"
    assert alone.ask("DELETE", asked, headers=bearer(tokens["operator"])).status_code == 403
    assert path.exists()
    eventually(lambda: _in_the_gallery(alone, asked, tokens["admin"]))
    assert alone.ask("DELETE", asked, headers=bearer(tokens["admin"])).status_code == 200
    assert not path.exists()
    (line,) = [one for one in lines(log_folder()) if one.event_type == "artifact.deleted"]
    assert (line.subject, line.details["bytes"]) == (path.stem, size)
    me = alone.ask("GET", "/api/me", headers=bearer(tokens["admin"])).json()
    assert line.actor == me["actor"]
    assert line.details["job"]
