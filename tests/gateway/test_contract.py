"""Every call that the gateway has to answer, asked of a running one."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.test_jobs import follow, submit
from tests.served import BIN

TYPES = (
    *("generate", "transform", "inpaint", "enhance", "interpolate", "blend", "train"),
    *("preset", "pipeline", "batch", "workflow"),
)


@pytest.fixture(scope="module", name="job")
def ended_job(gateway: Gateway) -> str:
    made = submit(gateway, seed=77)["id"]
    assert follow(gateway, made)[-1][2]["status"] == "SUCCEEDED"
    return made


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/presets", {"total", "presets"}),
        ("/api/presets?category=post_processing&engine=realesrgan", {"total", "presets"}),
        ("/api/presets/photoreal_portrait_v1", {"id", "levels", "steps", "parameters"}),
        ("/api/operations", {"total", "operations"}),
        ("/api/workflows", {"total", "workflows"}),
        ("/api/engines", {"total", "engines", "spent_today_usd"}),
        ("/api/models", {"total", "models"}),
        ("/api/models?model_type=lora", {"total", "models"}),
        ("/api/characters", {"total", "characters"}),
        ("/api/training", {"total", "jobs", "next_cursor"}),
        ("/api/batches", {"total", "jobs", "next_cursor"}),
        ("/api/hooks", {"total", "hooks"}),
        ("/api/jobs?status=SUCCEEDED&workflow_type=generate", {"total", "jobs", "next_cursor"}),
        ("/api/jobs/JOB", {"id", "status", "progress", "workflow_type", "character_id"}),
        ("/api/jobs/JOB/artifacts", {"job_id", "total_artifacts", "artifacts"}),
        ("/api/jobs/JOB/audit", {"job_id", "total", "events"}),
        ("/api/jobs/JOB/logs", {"job_id", "lines", "next_after", "more"}),
        ("/api/jobs/JOB/audit", {"actions"}),
        ("/api/me", {"actor", "scope", "csrf"}),
        ("/api/keys", {"total", "keys"}),
        ("/api/audit", {"total", "lines"}),
        ("/api/audit/verify", {"intact", "lines", "head", "findings"}),
        ("/api/costs?by=stage", {"by", "total", "costs"}),
        ("/health", {"status"}),
        ("/info", {"name", "version", "prefect", "store", "workflow_types"}),
        ("/api/openapi.json", {"openapi", "paths", "components"}),
    ],
)
def test_what_is_asked_for_is_answered(gateway: Gateway, job: str, path: str, fields: set[str]):
    answer = gateway.client.get(path.replace("JOB", job))
    assert answer.status_code == 200, answer.text
    assert fields <= answer.json().keys()


def test_files_events_and_counts_of_a_job_are_answered(gateway: Gateway, job: str):
    """What is no JSON."""
    (made,) = gateway.client.get(f"/api/jobs/{job}/artifacts").json()["artifacts"]
    for path, kind, begins in (
        (made["url"], "image/png", b"\x89PNG"),
        (f"{made['url']}/thumbnail?side=128", "image/webp", b"RIFF"),
        (f"/api/jobs/{job}/events", "text/event-stream", b"retry: "),
        ("/metrics", "text/plain", b"# HELP"),
    ):
        answer = gateway.client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["content-type"].startswith(kind)
        assert answer.content.startswith(begins), (path, answer.content[:80])
    operations = gateway.client.get("/api/operations").json()["operations"]
    assert {"image_generation", "image_transform", "image_inpaint"} <= {o["id"] for o in operations}


def test_a_job_that_has_ended_well_is_neither_cancelled_nor_run_again(gateway: Gateway, job: str):
    for action in ("cancel", "retry"):
        answer = gateway.client.post(f"/api/jobs/{job}/{action}", json={"reason": "x"})
        assert (answer.status_code, answer.json()["state"]) == (409, "SUCCEEDED")


@pytest.mark.slow
def test_jobs_files_and_the_bundle_on_the_command_line(gateway: Gateway, job: str, tmp_path: Path):
    environment = {
        **os.environ,
        **gateway.pool.project.environment,
        "PREFECT_API_URL": str(gateway.pool.client.api_url),
        "SAFELIGHT_HF_TOKEN": "a-key-of-the-test",
    }

    def said(*words: str, status: int | None = 0) -> str:
        done = subprocess.run(
            [BIN / "safelight", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert status in (None, done.returncode), (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    wanted = ("jobs", "list", "--status", "succeeded", "--type", "generate", "--json")
    listed = json.loads(said(*wanted))
    assert job in {one["id"] for one in listed["jobs"]}
    same = {"status": "SUCCEEDED", "workflow_type": "generate"}
    assert listed["total"] == gateway.client.get("/api/jobs", params=same).json()["total"]
    assert "INVALID_FIELD_VALUE" in said("jobs", "list", "--status", "lost", status=1)
    assert json.loads(said("jobs", "show", job, "--json"))["status"] == "SUCCEEDED"
    for action in ("cancel", "retry"):
        assert "CONTRACT_MISMATCH" in said("jobs", action, job, status=1)
    of_gateway = gateway.client.get(f"/api/jobs/{job}/artifacts").json()
    assert json.loads(said("artifacts", "list", job, "--json")) == of_gateway
    found = json.loads(said("artifacts", "find", "seed:77", "--json"))
    assert of_gateway["artifacts"][0]["id"] in {one["id"] for one in found}

    bundle = tmp_path / "bundle.json"
    said("doctor", "--bundle", str(bundle), status=None)  # it may find something else
    told = json.loads(bundle.read_text())
    on_page = gateway.client.get("/system/diagnostics").json()
    assert told.keys() == on_page.keys()
    assert told["versions"] == on_page["versions"]
    assert told["latest_runs"] == on_page["latest_runs"]
    assert told["settings"]["hf_token"] == "set"
    assert "a-key-of-the-test" not in bundle.read_text()
    assert "://127" not in bundle.read_text()
    assert bundle.stat().st_mode & 0o077 == 0
    assert "INVALID_FIELD_VALUE" in said("doctor", "--bundle", str(bundle), status=1)


def test_filters_of_presets_choose(gateway: Gateway):
    def ids(**asked: str) -> set[str]:
        found = gateway.client.get("/api/presets", params=asked).json()
        assert found["total"] == len(found["presets"])
        return {preset["id"] for preset in found["presets"]}

    assert ids(category="post_processing") < ids()
    assert ids(engine="local_comfy") < ids()
    both = ids(category="post_processing", engine="realesrgan")
    assert both == ids(category="post_processing") & ids(engine="realesrgan")
    for wrong in ({"category": "x"}, {"engine": "x"}):
        assert gateway.client.get("/api/presets", params=wrong).status_code == 400
    assert gateway.client.get("/api/models", params={"model_type": "x"}).status_code == 400
    assert gateway.client.get("/api/workflows/workflow_none").status_code == 404


def test_jobs_of_each_type_are_found(gateway: Gateway, job: str):
    info = gateway.client.get("/info").json()["workflow_types"]
    assert set(info) == set(TYPES)
    for kind in TYPES:
        found = gateway.client.get("/api/jobs", params={"workflow_type": kind}).json()
        assert all(one["workflow_type"] == kind for one in found["jobs"])
        assert (job in [one["id"] for one in found["jobs"]]) == (kind == "generate")


def test_jobs_of_a_character_are_found_by_pages(gateway: Gateway):
    named = {"name": "Kiko", "kind": "thing"}
    character = gateway.client.post("/api/characters", json=named).json()["id"]
    made = []
    for at in range(3):
        body = {
            "workflow": "enhance",
            "parameters": {"image": f"uploads/none-{at}.png"},
            "character_id": ("Kiko", character)[at % 2],
        }
        answer = gateway.client.post("/api/jobs", json=body)
        assert answer.json()["character_id"] == character, answer.text
        made.append(answer.json()["id"])
    seen, cursor = [], None
    while True:
        asked = {"character_id": character, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = gateway.client.get("/api/jobs", params=asked).json()
        assert page["total"] == 3
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    gone = gateway.client.get("/api/jobs", params={"character_id": "nobody"})
    assert (gone.status_code, gone.json()["error_code"]) == (404, "FILE_NOT_FOUND")
    two = {
        "workflow": "generate",
        "parameters": {"prompt": "x", "character": "c" + "0" * 12},
        "character_id": "Kiko",
    }
    refused = gateway.client.post("/api/jobs", json=two)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")
