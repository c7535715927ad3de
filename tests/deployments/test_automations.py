"""The automations as files: `prefect automation create` takes them, and they do what they say."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from PIL import Image
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Completed, Failed, Running

from flows.batch import batch
from flows.watch import watch
from safelight.pool.watching import FLOW_RUN, HEARTBEAT, HEARTBEAT_SECONDS
from safelight.provenance.batches import load_report
from safelight.settings import reload_settings
from safelight.store.store import current_store
from tests.prefect_pool import eventually
from tests.store.servers import S3Server

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


@pytest.mark.slow
def test_silent_runs_are_created_as_the_file_says(clean: SyncPrefectClient, tmp_path: Path):
    (made,) = create(clean, (AUTOMATIONS / "crash-silent-runs.yaml").read_text(), tmp_path)
    trigger = made["trigger"]
    assert made["enabled"]
    assert trigger["posture"] == "Proactive"
    assert trigger["after"] == [HEARTBEAT]
    assert trigger["within"] >= 5 * HEARTBEAT_SECONDS
    assert made["actions"][0]["type"] == "change-flow-run-state"
    assert made["actions"][0]["state"] == "CRASHED"


@pytest.mark.soak
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


def hook(client: SyncPrefectClient, folder: Path, url: str) -> None:
    """Have the messages of rounds that end sent to a web hook."""
    block = CustomWebhookNotificationBlock(
        name="hook", url=url, json_data={"text": "{{subject}}: {{body}}"}
    )
    CustomWebhookNotificationBlock.register_type_and_schema()
    block_id = str(block.save(f"hook-{uuid4().hex[:8]}"))
    text = (AUTOMATIONS / "round-ended.yaml").read_text().replace("BLOCK", block_id)
    create(client, text.replace("PAGE", "http://farm:4200"), folder)


@pytest.mark.slow
def test_a_batch_that_ends_sends_its_page_and_other_runs_send_nothing(
    clean: SyncPrefectClient, tmp_path: Path, inbox: tuple[str, list[str]]
):
    url, sent = inbox
    hook(clean, tmp_path, url)
    other, ended = clean.create_flow_run(watched).id, clean.create_flow_run(some_batch).id
    clean.set_flow_run_state(other, Completed(), force=True)
    message = "[OUT_OF_MEMORY] it was too large"
    clean.set_flow_run_state(ended, Failed(message=message), force=True)
    eventually(lambda: any(str(ended) in text for text in sent))
    (said,) = sent
    assert "batch Failed" in said
    assert message in said
    assert f"http://farm:4200/runs/flow-run/{ended}" in said
    assert "refused" not in said  # it has no counts


def drop(folder: Path, name: str, shade: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (shade, 20, 90)).save(path)
    return path


@pytest.fixture
def bucket(volume: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A volume whose store is a bucket, with links that open."""
    for name, value in moto.settings(f"notices/{uuid4()}").items():
        monkeypatch.setenv(name, value)
    reload_settings()
    current_store.cache_clear()
    yield volume
    current_store.cache_clear()


@pytest.mark.soak
@pytest.mark.slow
def test_a_batch_sends_counts_and_three_pictures(
    clean: SyncPrefectClient, bucket: Path, tmp_path: Path, inbox: tuple[str, list[str]]
):
    url, sent = inbox
    hook(clean, tmp_path, url)
    look = {"stage_type": "grade", "name": "look", "parameters": {"colour": "warm"}}
    requests = [
        {"call_input": {"image": str(drop(bucket / "uploads", f"{at}.png", at))}, "stages": [look]}
        for at in range(5)
    ]
    requests.append({"call_input": {"image": str(bucket / "none.png")}, "stages": [look]})
    result = batch(flow="pipeline", requests=requests, where="here", allow_failures=True)
    run = result.data["flow_run_id"]
    eventually(lambda: any(str(run) in text for text in sent))
    (said,) = (json.loads(text)["text"] for text in sent)
    assert "5 done, 0 failed, 1 refused, 0 unfinished" in said
    assert f"http://farm:4200/runs/flow-run/{run}" in said
    links = [line.strip() for line in said.splitlines() if line.strip().startswith("http://127")]
    assert opened(links) == [load_report(run).outcomes[at].results[0].sha256 for at in (0, 2, 4)]


@pytest.mark.slow
@pytest.mark.soak
def test_a_round_of_a_watched_folder_sends_counts_and_pictures_and_an_idle_one_nothing(
    clean: SyncPrefectClient, bucket: Path, tmp_path: Path, inbox: tuple[str, list[str]]
):
    url, sent = inbox
    hook(clean, tmp_path, url)
    folder = bucket / "uploads" / "in"
    for at in range(4):
        drop(folder, f"{at}.png", 40 + at)
    (folder / "bad.png").write_bytes(b"bad")
    called = {
        "folder": "uploads/in",
        "flow": "enhance",
        "to": "exports/large",
        "parameters": {"quality_preset": "low"},
        "settle_seconds": 0.2,
        "where": "here",
    }
    watch(**called)
    eventually(lambda: sent)
    watch(**called)  # nothing is new
    drop(folder, "new.png", 90)
    watch(**called)
    eventually(lambda: len(sent) > 1)
    first, second = (json.loads(text)["text"] for text in sent)
    assert "uploads/in to " in first
    assert "4 done, 0 failed, 1 refused" in first
    assert "1 done, 0 failed, 0 refused" in second
    links = [line.strip() for line in first.splitlines() if line.strip().startswith("http://127")]
    entries = current_store().backend.list("outputs/watches/")
    assert len(entries) == 6 + 1  # the contents, and what is known of the files
    assert len(set(opened(links))) == 3


def opened(links: list[str]) -> list[str]:
    """The sha256 of what each link leads to."""
    answers = [httpx.get(link) for link in links]
    assert [answer.status_code for answer in answers] == [200] * len(links)
    return [hashlib.sha256(answer.content).hexdigest() for answer in answers]
