"""The automations as files: `prefect automation create` takes them, and they do what they say."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Completed, Failed, Running

from safelight.pool.watching import FLOW_RUN, HEARTBEAT, HEARTBEAT_SECONDS
from tests.prefect_pool import eventually

AUTOMATIONS = Path(__file__).resolve().parents[2] / "deployments" / "automations"


@flow
def watched() -> None:
    return None


def create(client: SyncPrefectClient, text: str, folder: Path) -> list[dict]:
    """Create what a file describes with Prefect's own command; as the server has it."""
    file = folder / "automation.yaml"
    file.write_text(text)
    known = {found["id"] for found in all_of(client)}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(file)],
        env={**os.environ, "PREFECT_API_URL": str(client.api_url)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [found for found in all_of(client) if found["id"] not in known]


def all_of(client: SyncPrefectClient) -> list[dict]:
    return client.request("POST", "/automations/filter", json={}).json()


@pytest.fixture
def clean(api: SyncPrefectClient) -> Iterator[SyncPrefectClient]:
    yield api
    for found in all_of(api):
        api.request("DELETE", "/automations/{id}", path_params={"id": found["id"]})


def beat(client: SyncPrefectClient, run: UUID) -> None:
    """As the worker does."""
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": HEARTBEAT,
        "resource": {
            "prefect.resource.id": f"{FLOW_RUN}{run}",
            "prefect.resource.name": "watched",
        },
    }
    assert client.request("POST", "/events", json=[event]).status_code == 204


def test_silent_runs_are_created_as_the_file_says(clean: SyncPrefectClient, tmp_path: Path):
    (made,) = create(clean, (AUTOMATIONS / "crash-silent-runs.yaml").read_text(), tmp_path)
    trigger = made["trigger"]
    assert made["enabled"]
    assert trigger["posture"] == "Proactive"
    assert trigger["after"] == [HEARTBEAT]
    assert trigger["within"] >= 5 * HEARTBEAT_SECONDS
    assert made["actions"][0]["type"] == "change-flow-run-state"
    assert made["actions"][0]["state"] == "CRASHED"


@pytest.mark.slow
def test_only_a_silent_run_crashes(clean: SyncPrefectClient, tmp_path: Path):
    text = (AUTOMATIONS / "crash-silent-runs.yaml").read_text()
    assert "within: 300" in text
    create(clean, text.replace("within: 300", "within: 10"), tmp_path)
    silent, finished, waiting = (clean.create_flow_run(watched).id for _ in range(3))
    for run in (silent, finished, waiting):
        clean.set_flow_run_state(run, Running(), force=True)
        beat(clean, run)
    clean.set_flow_run_state(finished, Completed(), force=True)
    clean.set_flow_run_state(waiting, AwaitingRetry(), force=True)

    def state(run: UUID) -> StateType | None:
        return clean.read_flow_run(run).state_type

    eventually(lambda: state(silent) is StateType.CRASHED)
    assert state(finished) is StateType.COMPLETED
    assert state(waiting) is StateType.SCHEDULED


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[str]]]:
    """Address of a web hook, and what was sent there."""
    sent: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:
            del format, words

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", sent
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_a_failed_run_sends_its_code_and_remedy(
    clean: SyncPrefectClient, tmp_path: Path, inbox: tuple[str, list[str]]
):
    url, sent = inbox
    block = CustomWebhookNotificationBlock(
        name="hook", url=url, json_data={"text": "{{subject}}: {{body}}"}
    )
    CustomWebhookNotificationBlock.register_type_and_schema()
    block_id = block.save(f"hook-{uuid4().hex[:8]}")
    text = (AUTOMATIONS / "notify.yaml").read_text()
    made = create(clean, text.replace("BLOCK", str(block_id)), tmp_path)
    assert [found["name"] for found in made] == [
        "failed runs",
        "late runs",
        "pools without a worker",
    ]
    run = clean.create_flow_run(watched).id
    message = "[INVALID_FIELD_VALUE] steps is 0, expected 1 to 150. Fix: set steps"
    clean.set_flow_run_state(run, Failed(message=message), force=True)
    eventually(lambda: any(str(run) in text and message in text for text in sent))
    assert "watched Failed" in sent[0]
    for _ in range(2):
        late = clean.create_flow_run(watched).id
        clean.set_flow_run_state(late, State(type=StateType.SCHEDULED, name="Late"), force=True)
        clean.set_flow_run_state(late, Failed(), force=True)
        eventually(lambda run=late: any(str(run) in text and "Failed" in text for text in sent))
    assert sum("no worker for watched" in text for text in sent) == 1


@flow(name="batch")
def some_batch() -> None:
    return None


@pytest.mark.slow
def test_a_round_that_ends_sends_its_page_and_other_runs_send_nothing(
    clean: SyncPrefectClient, tmp_path: Path, inbox: tuple[str, list[str]]
):
    url, sent = inbox
    block = CustomWebhookNotificationBlock(
        name="hook", url=url, json_data={"text": "{{subject}}: {{body}}"}
    )
    CustomWebhookNotificationBlock.register_type_and_schema()
    block_id = str(block.save(f"hook-{uuid4().hex[:8]}"))
    text = (AUTOMATIONS / "round-ended.yaml").read_text().replace("BLOCK", block_id)
    create(clean, text.replace("PAGE", "http://farm:4200"), tmp_path)
    other, ended = clean.create_flow_run(watched).id, clean.create_flow_run(some_batch).id
    clean.set_flow_run_state(other, Completed(), force=True)
    message = "[OUT_OF_MEMORY] 2 of 9 requests did not succeed"
    clean.set_flow_run_state(ended, Failed(message=message), force=True)
    eventually(lambda: any(str(ended) in text for text in sent))
    (said,) = sent
    assert "batch Failed" in said
    assert message in said
    assert f"http://farm:4200/runs/flow-run/{ended}" in said
