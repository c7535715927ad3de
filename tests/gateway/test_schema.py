"""schemathesis over all that the gateway describes: no 5xx, and no answer that is not described."""

import os
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from safelight.access.keys import Limits, Scope, make_key
from safelight.gateway.app import create_api
from safelight.settings import reload_settings
from tests.gateway.conftest import Gateway
from tests.served import BIN, CHECKOUT

MANY = ("--max-examples", "100", "--exclude-path-regex")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)
WAITING = (
    "/(txt2img|img2img|extra-single-image|images/generations|images/edits"
    "|media-lab/generate|media-lab/enhance)$"
)
"""Paths that answer when a job has ended."""
LONGEST_SECONDS = 5.0
"""Of jobs while many are submitted: pictures of any size and steps would take days."""


WORK = "^/api/(jobs|batches|uploads|hooks)"
OTHERS = "^/(v1|sdapi|api/(media-lab|pipeline|characters|training|generation))(/|$)"
"""Paths as the systems before and clients everywhere have them."""
ONE_KEY = r"/api/keys/\{"
"""What revokes keys: tried by itself, or the test's own would be gone."""


@pytest.fixture(scope="module")
def token(gateway: Gateway) -> Iterator[str]:
    """A key that may do everything as often as it likes: the first that is made asks all for one.

    Without it, those whom nobody knows soon have to wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLUME_ROOT", str(gateway.volume))
        reload_settings()
        limits = Limits(requests_per_minute=1_000_000)
        yield make_key("explorer", Scope.ADMIN, None, limits)[1]
    reload_settings()


def explore(
    gateway: Gateway, token: str, folder: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(BIN / "schemathesis", "run", f"{gateway.address}/api/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--checks", CHECKS, "--continue-on-failure", "--no-color", "--warnings", "off"),
            *options,
        ],
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.gateway.schemathesis_hooks",
            "PYTHONPATH": str(CHECKOUT),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_few_requests_to_each_path_are_answered_as_they_should(
    gateway: Gateway, token: str, tmp_path: Path
):
    told = explore(
        gateway,
        token,
        tmp_path,
        *("--phases", "fuzzing", "--max-examples", "2", "--generation-deterministic"),
        *("--exclude-path-regex", f"{WAITING}|{ONE_KEY}", "--request-timeout", "60"),
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert "passed" in told.stdout


@contextmanager
def none_takes_long(gateway: Gateway, token: str) -> Generator[None]:
    """Somebody who cancels whatever runs or waits for longer than a few seconds."""
    over = threading.Event()
    known = {"Authorization": f"Bearer {token}"}

    def cancel() -> None:
        with httpx.Client(base_url=gateway.address, timeout=60, trust_env=False) as client:
            while not over.wait(1):
                for status in ("RUNNING", "QUEUED"):
                    asked = {"status": status, "limit": 100}
                    jobs = client.get("/api/jobs", params=asked, headers=known).json()["jobs"]
                    for job in jobs:
                        began = datetime.fromisoformat(job["started_at"] or job["created_at"])
                        if (datetime.now(UTC) - began).total_seconds() > LONGEST_SECONDS:
                            client.post(f"/api/jobs/{job['id']}/cancel", json={}, headers=known)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "which",
    [
        (*MANY, f"{WAITING}|{ONE_KEY}", "--include-path-regex", WORK),
        (*MANY, f"{WAITING}|{ONE_KEY}", "--include-path-regex", OTHERS),
        (*MANY, f"{WAITING}|{ONE_KEY}|{WORK}|{OTHERS}"),
        ("--phases", "examples,fuzzing", "--max-examples", "10", "--include-path-regex", WAITING),
    ],
    ids=["jobs and files", "of other systems", "all others", "those that wait"],
)
def test_many_requests_to_each_path_are_answered_as_described(
    gateway: Gateway, token: str, tmp_path: Path, which: tuple[str, ...]
):
    with none_takes_long(gateway, token):
        told = explore(gateway, token, tmp_path, *which, "--seed", "1", "--request-timeout", "300")
    assert told.returncode == 0, told.stdout[-20000:] + told.stderr[-2000:]


def test_keys_that_there_are_not_are_not_revoked(gateway: Gateway, token: str, tmp_path: Path):
    told = explore(
        gateway,
        token,
        tmp_path,
        *("--phases", "fuzzing", "--max-examples", "10", "--include-path-regex", ONE_KEY),
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert gateway.client.get("/info", headers={"Authorization": f"Bearer {token}"}).is_success


def test_every_body_and_answer_is_described():
    described = create_api().openapi()
    examples = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            where = (method, path)
            assert operation["summary"], where
            assert operation["description"], where
            assert {"4XX", "5XX"} <= operation["responses"].keys(), where
            codes = [int(code) for code in operation["responses"] if code.isdecimal()]
            assert any(200 <= code < 300 for code in codes), where
    for schema in described["components"]["schemas"].values():
        examples += len(schema.get("examples", []))
    assert examples >= 10
