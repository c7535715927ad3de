"""The embedded server asks everybody for a password that its own processes alone know."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import psutil
import pytest
import websockets
from fastapi.routing import APIRoute
from prefect.client.orchestration import get_client
from prefect.server.api.server import API_ROUTERS
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from safelight.cli.edge import guarded
from safelight.cli.printing import CONSOLE
from safelight.cli.server import Server, embedded_server, free_port, prefect_home, running_server
from safelight.cli.server_login import LINK_SECONDS, Logins, basic
from safelight.cli.server_password import choose_password, in_use, joined, kept, password_of
from safelight.cli.serving import login_link, new_login_link, serve
from safelight.errors import AuthInvalidError, DependencyMissingError, InvalidFieldValueError
from safelight.settings import reload_settings
from tests.prefect_database import put_database

OPEN = {"/ready"}
"""What probes of a cluster ask, besides /health, which is in no router."""


@pytest.fixture(scope="module")
def started(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory, database: Path
) -> Iterator[Server]:
    """A server with its UI on a volume of its own, that ends before the one of all tests does."""
    del prefect_server
    root = tmp_path_factory.mktemp("locked")
    put_database(database, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLUME_ROOT", str(root))
        reload_settings()
        with running_server(free_port(), ui=True) as server:
            yield server
    reload_settings()


@pytest.fixture
def stranger(started: Server) -> Iterator[httpx.Client]:
    """Knows the address and nothing else."""
    page = started.url.removesuffix("/api")
    with httpx.Client(base_url=page, timeout=60, follow_redirects=False) as client:
        yield client


def link(started: Server) -> str:
    """A link that opens the UI once."""
    assert started.password is not None
    return login_link(started.url, started.password)


def test_every_route_of_the_api_asks_for_it(started: Server, stranger: httpx.Client):
    routes = [
        (method, route.path)
        for router in API_ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert len(routes) > 150
    unasked = {
        path
        for method, path in routes
        if stranger.request(method, f"/api{path.replace('{', '').replace('}', '')}").status_code
        != 401
    }
    assert unasked == OPEN
    near = basic(f"{started.password}x")
    for wrong in ("", "Basic", basic("x"), near, f"Bearer {started.password}"):
        answer = stranger.get("/api/admin/version", headers={"Authorization": wrong})
        assert answer.status_code == 401, wrong
    right = {"Authorization": basic(started.password or "")}
    assert stranger.get("/api/admin/version", headers=right).status_code == 200


def test_it_is_in_one_file_of_its_owner_and_nowhere_else(started: Server, stranger: httpx.Client):
    password = started.password
    assert password is not None
    secret = password.partition(":")[2].encode()
    home = started.log.parent
    holding = [file for file in home.rglob("*") if file.is_file() and secret in file.read_bytes()]
    (kept_in,) = holding
    assert stat.S_IMODE(kept_in.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept_in.parent.stat().st_mode) == 0o700
    assert password_of(home, started.url) == password
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert started.process.pid in [process.pid for process in ours]
    assert not [process for process in ours if secret.decode() in " ".join(process.cmdline())]
    told = stranger.get("/api/admin/settings", headers={"Authorization": basic(password)})
    assert "auth_string" in told.text
    assert secret.decode() not in told.text


@pytest.mark.slow
def test_children_ask_with_it(started: Server):
    code = (
        "from prefect import get_client\n"
        "with get_client(sync_client=True) as client: print(client.read_work_pools())"
    )
    for known, status in ((dict(os.environ), 0), ({}, 1)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**known, "PREFECT_API_URL": started.url, "PREFECT_HOME": str(started.log.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
    assert "401" in done.stderr


def test_another_command_on_the_volume_finds_it(started: Server, tmp_path: Path):
    nobody = {PREFECT_API_URL: started.url, PREFECT_API_AUTH_STRING: None}

    def asked(home: Path) -> int:
        with temporary_settings(nobody), joined(home), get_client(sync_client=True) as client:
            return client.request("GET", "/admin/version").status_code

    assert asked(started.log.parent) == 200
    with pytest.raises(Exception, match="401"):
        asked(tmp_path)


@pytest.mark.parametrize("words", [["deploy"], ["image", "generate", "a hill"], ["doctor"]])
def test_a_command_without_it_says_so(
    started: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str]
):
    theirs = {PREFECT_API_URL: started.url, PREFECT_API_AUTH_STRING: "me:wrong"}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(theirs):
        patch.setenv("VOLUME_ROOT", str(tmp_path))
        patch.setattr(CONSOLE, "_width", 400)
        reload_settings()
        assert guarded(words) == 1
    reload_settings()
    said = " ".join(capfd.readouterr())
    assert "PREFECT_API_AUTH_STRING" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("cache/reports/*"))


@pytest.mark.parametrize(
    "url",
    ["http://elsewhere.example:PORT/api", "http://127.0.0.1:1/api", "http://192.0.2.7:PORT/api"],
)
def test_no_other_server_is_sent_it(started: Server, url: str):
    port = started.url.removesuffix("/api").rpartition(":")[2]
    assert password_of(started.log.parent, url.replace("PORT", port)) is None
    assert password_of(started.log.parent, f"http://localhost:{port}/api") == started.password


@pytest.mark.soak
def test_two_servers_on_a_volume_at_once_have_one_each(started: Server):
    home = started.log.parent
    with embedded_server(free_port(), ui=False) as url:
        theirs = password_of(home, url)
        assert theirs is not None
        assert theirs != started.password
        assert password_of(home, started.url) == started.password
        assert PREFECT_API_AUTH_STRING.value() == theirs
    assert password_of(home, url) is None
    assert PREFECT_API_AUTH_STRING.value() == os.environ["PREFECT_API_AUTH_STRING"]
    assert PREFECT_API_AUTH_STRING.value() == started.password


def test_the_operators_own_is_used_and_never_written(volume: Path):
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "crew:of the night"}):
        own = choose_password("0.0.0.0")
        assert own == "crew:of the night"
        with kept(volume, "http://127.0.0.1:4200/api", own), in_use(own):
            assert not list(volume.rglob("*"))
            assert PREFECT_API_AUTH_STRING.value() == own
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: ""}):
        assert len(choose_password("127.0.0.1") or "") > 40
    assert choose_password("127.0.0.1") != choose_password("127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "studio.example"])
def test_without_one_nobody_else_is_let_in(
    host: str, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_SERVER_AUTH", "none")
    reload_settings()
    with pytest.raises(InvalidFieldValueError, match="no password") as refused:
        serve(host, free_port())
    assert "PREFECT_SERVER_API_AUTH_STRING" in refused.value.remedy
    assert not list(volume.rglob("*.db"))
    assert [choose_password(inside) for inside in ("127.0.0.1", "::1", "localhost")] == [None] * 3
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "crew:secret"}):
        assert choose_password(host) == "crew:secret"


def test_a_link_opens_the_ui_once(started: Server, stranger: httpx.Client):
    assert stranger.get("/ui-settings").json()["auth"] == "BASIC"
    once = link(started)
    opened = stranger.get(once)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    flags = {part.strip() for part in opened.headers["set-cookie"].split(";")[1:]}
    assert flags == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert stranger.get("/ui-settings").json()["auth"] is None
    assert stranger.get("/api/admin/version").status_code == 200
    made = stranger.post("/api/flows/", json={"name": "by-cookie"})
    assert made.status_code == 201
    assert stranger.get(once).status_code == 303  # who used it may load it again
    stranger.cookies.clear()
    again = stranger.get(once)
    assert again.status_code == 403
    assert "safelight login" in again.text
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://evil.example"},
    ],
    ids=str,
)
def test_the_cookie_is_of_no_use_to_other_pages(
    started: Server, stranger: httpx.Client, headers: dict[str, str]
):
    assert stranger.get(link(started)).status_code == 303
    answer = stranger.get("/api/admin/version", headers=headers)
    assert answer.status_code in (401, 403)
    assert answer.headers.get("access-control-allow-origin") is None
    assert stranger.get("/api/admin/version").status_code == 200


@pytest.mark.parametrize("cookie", ["", "x", "x" * 4000, 'a="', "é", "a=b; ;;="])
def test_what_is_no_cookie_of_ours_opens_nothing(stranger: httpx.Client, cookie: str):
    name = f"safelight-{stranger.base_url.port}"
    for value in (cookie, f"{name}={cookie}"):
        answer = stranger.get("/api/admin/version", headers={"Cookie": value.encode()})
        assert answer.status_code in (400, 401)


def test_a_link_needs_the_password(started: Server, stranger: httpx.Client):
    assert stranger.post("/login/link").status_code == 401
    assert stranger.get("/login?token=guessed").status_code == 403
    with pytest.raises(AuthInvalidError):
        login_link(started.url, "crew:guessed")


def test_a_link_names_the_address_that_the_operator_says(
    started: Server, monkeypatch: pytest.MonkeyPatch
):
    assert link(started).startswith(f"{started.url.removesuffix('/api')}/login?token=")
    monkeypatch.setenv("PREFECT_SERVER_UI_API_URL", "https://studio.example/api")
    assert link(started).startswith("https://studio.example/login?token=")


def test_the_command_prints_a_link_of_the_server_that_runs_here(started: Server, volume: Path):
    page = started.url.removesuffix("/api")
    with temporary_settings({PREFECT_API_AUTH_STRING: None}):
        with pytest.raises(DependencyMissingError, match="no server with a password"):
            new_login_link()
        home = prefect_home(volume)
        with kept(home, started.url, started.password):
            (home / "up.txt").write_text(f"process 1 at {page}")
            assert httpx.get(new_login_link()).status_code == 303
        with temporary_settings({PREFECT_API_URL: started.url, PREFECT_API_AUTH_STRING: "a:b"}):
            with pytest.raises(AuthInvalidError):
                new_login_link()


def test_a_link_ends():
    now = [0.0]
    logins = Logins("crew:secret", clock=lambda: now[0])
    early, late = logins.new_link(), logins.new_link()
    assert logins.use(early) is not None
    assert logins.use(early) is None
    now[0] = LINK_SECONDS
    assert logins.use(late) is None


@pytest.mark.parametrize("path", ["/api/events/out", "/api/logs/out"])
def test_web_sockets_ask_for_it_too(started: Server, stranger: httpx.Client, path: str):
    stranger.get(link(started))
    ((name, value),) = stranger.cookies.items()
    address = f"ws{started.url.removeprefix('http').removesuffix('/api')}{path}"
    own = started.url.removesuffix("/api")

    async def first_answer(headers: dict[str, str], token: str | None) -> str:
        try:
            async with websockets.connect(
                address, subprotocols=["prefect"], additional_headers=headers
            ) as socket:
                await socket.send(json.dumps({"type": "auth", "token": token}))
                return json.loads(await socket.recv())["type"]
        except (websockets.InvalidStatus, websockets.ConnectionClosed):
            return "refused"

    cookie = {"Cookie": f"{name}={value}"}
    for headers, token, expected in (
        ({}, None, "refused"),
        ({}, "wrong", "refused"),
        ({}, started.password, "auth_success"),
        ({**cookie, "Origin": own}, None, "auth_success"),
        ({**cookie, "Origin": "http://127.0.0.1:1"}, None, "refused"),
        ({"Cookie": f"{name}=guessed", "Origin": own}, None, "refused"),
    ):
        assert anyio.run(first_answer, headers, token) == expected, (headers, token)
