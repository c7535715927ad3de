"""The image files, the entry point and the health checks, as far as they work without Docker."""

import fnmatch
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.infra.environments import CHECKOUT, INFRA, REAL, read_from_files, unknown

DOCKER = INFRA / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
ENTRY = DOCKER / "entrypoint.sh"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Word and rest of each instruction; continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def values(path: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == word]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix[1:])
def test_image_is_pinned_unprivileged_and_watched(path: Path):
    (base,) = values(path, "FROM")
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+@sha256:[0-9a-f]{64}", base)
    assert values(path, "USER")[-1].split(":")[0] == "10001"
    assert values(path, "STOPSIGNAL") == ["SIGTERM"]
    (health,) = values(path, "HEALTHCHECK")
    assert "healthy.py" in health
    assert values(path, "ENTRYPOINT")[-1].startswith('["')  # no shell that keeps signals to itself
    assert values(path, "CMD")[-1].startswith('["')


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix[1:])
def test_image_names_real_settings_and_no_address(path: Path):
    names = [
        part.partition("=")[0]
        for rest in values(path, "ENV")
        for part in rest.split()
        if "=" in part
    ]
    assert len(names) > 5
    assert unknown(names) == set()
    assert "://" not in path.read_text()


def test_image_has_the_python_that_is_tested():
    bases = {values(path, "FROM")[0].partition("@")[0] for path in FILES}
    assert bases == {"python:3.11.15-slim-bookworm"}


def test_images_of_others_are_named_by_digest():
    others = {
        line.split()[-1]
        for path in INFRA.rglob("*.yaml")
        for line in path.read_text().splitlines()
        if line.strip().startswith("image:") and "safelight/" not in line
    }
    assert len(others) == 3
    for image in others:
        assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_what_is_copied_passes_the_ignore_file():
    allowed = [
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    for path in FILES:
        for rest in values(path, "COPY"):
            for source in rest.split()[:-1]:
                assert (CHECKOUT / source).exists(), source
                assert source == "." or any(
                    fnmatch.fnmatch(source, one) or source.startswith(f"{one}/") for one in allowed
                ), source
    for needed in ("flows", "presets", "tasks", "safelight", "deployments", "LICENSE", "NOTICE"):
        assert needed in allowed
    assert not {"tests", "data", ".git", "infra/compose", "infra/kubernetes"} & set(allowed)


def enter(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(ENTRY), *command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(read_from_files()))
def test_a_secret_comes_out_of_its_file(name: str, tmp_path: Path):
    assert name in REAL
    secret = tmp_path / "secret"
    secret.write_text("admin:p4ss $HOME `x` 'y'\n")
    done = enter("env", **{f"{name}_FILE": str(secret)})
    assert done.returncode == 0
    assert f"{name}=admin:p4ss $HOME `x` 'y'" in done.stdout.splitlines()
    assert f"{name}_FILE" not in done.stdout


def test_a_missing_secret_stops_the_container(tmp_path: Path):
    done = enter("env", PREFECT_API_AUTH_STRING_FILE=str(tmp_path / "none"))
    assert done.returncode == 78
    assert "PREFECT_API_AUTH_STRING_FILE names" in done.stderr
    assert done.stdout == ""


def test_the_command_replaces_the_shell():
    done = enter("sh", "-c", "echo $$; exit 3")
    assert done.returncode == 3


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_is_what_the_server_says(status: int, code: int):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = ask(server.server_port)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == code


def test_a_server_that_is_gone_is_unhealthy():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert ask(port).returncode == 1


def ask(port: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, DOCKER / "healthy.py", str(port), "/health"],
        env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_settings_of_a_lone_worker_are_real():
    (block,) = re.findall(r"```\n(PREFECT_.+?)```", (INFRA / "README.md").read_text(), re.DOTALL)
    names = [line.partition("=")[0] for line in block.split()]
    assert len(names) == 6
    assert unknown(names, read_from_files()) == set()
