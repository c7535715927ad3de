"""Sign-in by a provider: a real one on loopback, which signs with a real key."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwk, jwt

from safelight.audit.log import lines, log_folder
from safelight.gateway.signin import oidc
from safelight.gateway.signin.recognising import CSRF
from safelight.gateway.signin.sessions import person_id
from safelight.provenance.usage import Usage, note_usage
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.gateway.conftest import Alone

SECRET = "the-secret-of-the-client"


class Provider:
    """A small OpenID Connect provider: discovery, authorization code with PKCE, RS256."""

    def __init__(self) -> None:
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "one"}, private=True)
        self.groups: object = ["studio"]
        self.changes: dict[str, object] = {}
        """Claims that differ from what they should be."""
        self.signs_with = self.key
        self.algorithm = "RS256"
        self.issuer_said: str | None = None
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def authorize(self, address: str) -> str:
        """What a browser does there once somebody has said yes: where it is sent back to."""
        asked = {name: value[0] for name, value in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer_said or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        self.tokens += 1
        asked = self.codes.pop(form["code"], None)
        who = base64.b64encode(f"gate:{SECRET}".encode()).decode()
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or authorization != f"Basic {who}" or challenge != asked["code_challenge"]:
            return None
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "gate",
            "sub": "u-17",
            "email": "ann@studio.example",
            "groups": self.groups,
            "nonce": asked["nonce"],
            "iat": now,
            "exp": now + 300,
            **self.changes,
        }
        signed = jwt.encode(
            {"alg": self.algorithm, "kid": "one"},
            claims,
            self.signs_with,
            algorithms=["RS256", "HS256"],
        )
        return {"access_token": "a", "token_type": "Bearer", "expires_in": 300, "id_token": signed}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/.well-known/openid-configuration":
                    self._send(200, provider.discovery())
                else:
                    self._send(200, {"keys": [provider.key.as_dict(private=False)]})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: value[0] for name, value in parse_qs(body).items()}
                made = provider.token(form, self.headers.get("Authorization", ""))
                self._send(200 if made else 400, made or {"error": "invalid_grant"})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def provider(alone: Alone) -> Iterator[Provider]:
    made = Provider()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_OIDC_ISSUER", made.issuer)
        patch.setenv("SAFELIGHT_OIDC_CLIENT_ID", "gate")
        patch.setenv("SAFELIGHT_OIDC_CLIENT_SECRET", SECRET)
        patch.setenv("SAFELIGHT_OIDC_VIEWERS", "guests")
        patch.setenv("SAFELIGHT_OIDC_OPERATORS", "studio, second")
        patch.setenv("SAFELIGHT_OIDC_ADMINS", "root")
        reload_settings()
        yield made
    reload_settings()
    made.close()


@pytest.fixture(autouse=True)
def plain(provider: Provider) -> Iterator[None]:
    yield
    provider.groups, provider.changes = ["studio"], {}
    provider.signs_with, provider.algorithm = provider.key, "RS256"


def leave(alone: Alone, back: str = "/api/me") -> tuple[str, str]:
    """Where a browser is sent, and its cookie."""
    answer = alone.ask("GET", f"/signin/oidc?next={back}")
    assert answer.status_code == 302, answer.text
    said = answer.headers["set-cookie"]
    assert "httponly" in said.lower()
    return answer.headers["location"], said.partition(";")[0]


def come(alone: Alone, address: str, cookie: str) -> httpx.Response:
    path = address.removeprefix("http://127.0.0.1:4300")
    return alone.ask("GET", path, headers={"Cookie": cookie} if cookie else {})


def session_of(answer: httpx.Response) -> str:
    cookies = answer.headers.get_list("set-cookie")
    return next(each for each in cookies if each.startswith("safelight_session=")).partition(";")[0]


def test_somebody_signs_in_and_keeps_the_session(alone: Alone, provider: Provider):
    assert alone.ask("GET", "/api/me").status_code == 401  # a provider is a sign-in
    assert 'href="/signin/oidc?next=/"' in alone.ask("GET", "/signin").text
    away, cookie = leave(alone)
    assert away.startswith(f"{provider.issuer}/authorize?")
    answer = come(alone, provider.authorize(away), cookie)
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/me"), answer.text
    me = alone.ask("GET", "/api/me", headers={"Cookie": session_of(answer)}).json()
    assert (me["actor"], me["scope"]) == ("oidc:ann@studio.example (u-17)", "operator")
    assert me["csrf"]
    last = list(lines(log_folder()))[-1]
    assert (last.event_type, last.actor) == ("session.begun", me["actor"])


@pytest.mark.parametrize(
    ("groups", "scope"),
    [
        (["guests"], "viewer"),
        (["second"], "operator"),
        (["guests", "root"], "admin"),
        ("root", "admin"),
        (["others"], None),
        ([], None),
        ("studio,root", None),
    ],
)
def test_groups_say_what_somebody_may_do(
    alone: Alone, provider: Provider, groups: object, scope: str | None
):
    provider.groups = groups
    away, cookie = leave(alone)
    answer = come(alone, provider.authorize(away), cookie)
    if scope is None:
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")
        return
    me = alone.ask("GET", "/api/me", headers={"Cookie": session_of(answer)}).json()
    assert me["scope"] == scope


def refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (401, "AUTH_INVALID"), answer.text
    assert "safelight_session" not in answer.headers.get("set-cookie", "")
    last = list(lines(log_folder()))[-1]
    assert (last.event_type, last.details["code"]) == ("request.refused", "AUTH_INVALID")


def test_a_browser_that_did_not_leave_from_here_is_refused(alone: Alone, provider: Provider):
    away, cookie = leave(alone)
    there = provider.authorize(away)
    refused(come(alone, there, ""))
    refused(come(alone, there, f"{oidc.COOKIE}={'A' * 43}"))
    refused(come(alone, there, f"{oidc.COOKIE}=../../keys/x"))
    _, other = leave(alone)
    refused(come(alone, there, other))  # of another try: another state
    assert come(alone, there, cookie).status_code == 303
    refused(come(alone, there, cookie))  # once


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "http://evil.example"},
        {"exp": 1},
        {"iat": 2**33},
        {"sub": ""},
    ],
    ids=str,
)
def test_a_word_that_is_not_good_is_refused(
    alone: Alone, provider: Provider, changes: dict[str, object]
):
    provider.changes = changes
    away, cookie = leave(alone)
    refused(come(alone, provider.authorize(away), cookie))


def test_a_word_of_another_signer_is_refused(alone: Alone, provider: Provider):
    provider.signs_with = jwk.RSAKey.generate_key(2048, {"kid": "one"}, private=True)
    away, cookie = leave(alone)
    refused(come(alone, provider.authorize(away), cookie))
    provider.signs_with = jwk.OctKey.import_key(SECRET)
    provider.algorithm = "HS256"  # as if the secret were a key
    away, cookie = leave(alone)
    refused(come(alone, provider.authorize(away), cookie))


def test_what_the_provider_refuses_is_refused(alone: Alone, provider: Provider):
    away, cookie = leave(alone)
    there = provider.authorize(away)
    provider.codes.clear()
    refused(come(alone, there, cookie))
    away, cookie = leave(alone)
    state = parse_qs(urlsplit(away).query)["state"][0]
    refused(come(alone, f"/signin/oidc/callback?error=access_denied&state={state}", cookie))


def test_a_provider_of_another_name_or_that_is_away_is_told(alone: Alone, provider: Provider):
    oidc._client.cache_clear()
    provider.issuer_said = "http://evil.example"
    try:
        answer = alone.ask("GET", "/signin/oidc")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "CONTRACT_MISMATCH")
    finally:
        provider.issuer_said = None
        oidc._client.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_OIDC_ISSUER", "http://127.0.0.1:9")
        reload_settings()
        answer = alone.ask("GET", "/signin/oidc")
        assert (answer.status_code, answer.json()["error_code"]) == (503, "ENGINE_OFFLINE")
    reload_settings()


def test_people_have_shares_of_a_day_as_keys_have(
    alone: Alone, provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    away, cookie = leave(alone)
    session = {"Cookie": session_of(come(alone, provider.authorize(away), cookie))}
    me = alone.ask("GET", "/api/me", headers=session).json()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    note_usage(current_store(), person_id(me["actor"]), today, "run-1", Usage(9.0, 0.5))
    body = {"workflow": "generate", "parameters": {"prompt": "a red house"}}
    for setting, value, status, code in (
        ("GPU_SECONDS_PER_DAY", "9", 429, "RATE_LIMIT_EXCEEDED"),
        ("USD_PER_DAY", "0.5", 402, "INSUFFICIENT_FUNDS"),
        ("GPU_SECONDS_PER_DAY", "9.1", 503, "ENGINE_OFFLINE"),  # allowed, and the server is away
        ("RUNS_PER_DAY", "5", 503, "ENGINE_OFFLINE"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(f"SAFELIGHT_OIDC_{setting}", value)
            reload_settings()
            sent = {**session, CSRF: me["csrf"]}
            answer = alone.ask("POST", "/api/jobs", headers=sent, json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
        if status != 503:
            assert int(answer.headers["retry-after"]) <= 86400
            assert me["actor"] in answer.json()["message"]
    reload_settings()
    with monkeypatch.context() as patch:
        patch.setenv("SAFELIGHT_OIDC_REQUESTS_PER_MINUTE", "2")
        reload_settings()
        seen = [alone.ask("GET", "/info", headers=session).status_code for _ in range(4)]
    reload_settings()
    assert seen[-1] == 429


def test_the_secret_is_kept_nowhere(alone: Alone, provider: Provider):
    for path in alone.volume.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
