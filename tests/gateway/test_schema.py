"""schemathesis over all that the gateway describes: no 5xx, and no answer that is not described."""

import os
import subprocess
from pathlib import Path

import pytest

from safelight.gateway.app import create_api
from tests.gateway.conftest import Gateway
from tests.served import BIN, CHECKOUT

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)
WAITING = (
    "/(txt2img|img2img|extra-single-image|images/generations|images/edits"
    "|media-lab/generate|media-lab/enhance)$"
)
"""Paths that answer when a job has ended."""


def explore(gateway: Gateway, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(BIN / "schemathesis", "run", f"{gateway.address}/api/openapi.json"),
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


def test_a_few_requests_to_each_path_are_answered_as_they_should(gateway: Gateway, tmp_path: Path):
    told = explore(
        gateway,
        tmp_path,
        *("--phases", "fuzzing", "--max-examples", "2", "--generation-deterministic"),
        *("--exclude-path-regex", WAITING, "--request-timeout", "60"),
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert "passed" in told.stdout


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_requests_to_each_path_are_answered_as_described(gateway: Gateway, tmp_path: Path):
    told = explore(gateway, *("--max-examples", "100", "--seed", "1", "--request-timeout", "300"))
    assert told.returncode == 0, told.stdout[-20000:] + told.stderr[-2000:]


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
