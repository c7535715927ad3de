"""Jobs by the gateway: submitted, followed to their end, listed, downloaded, stopped, run again."""

import base64
import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from tests.documents import blocks
from tests.gateway.conftest import Gateway
from tests.prefect_pool import eventually
from tests.served import CHECKOUT

SMALL = {"prompt": "a red house", "model": "untrained", "width": 64, "height": 64, "steps": 2}


def events(answer: httpx.Response) -> Iterator[tuple[str, str, dict]]:
    """Id, kind and data of each event."""
    seen: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line and "data" in seen:
            yield seen["id"], seen["event"], json.loads(seen["data"])
            seen = {}
        name, colon, value = line.partition(": ")
        if colon and name:
            seen[name] = value


def follow(gateway: Gateway, job: str, last: str | None = None) -> list[tuple[str, str, dict]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with gateway.client.stream("GET", f"/api/jobs/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(events(answer))


def submit(gateway: Gateway, workflow: str = "image_generation", **parameters: object) -> dict:
    answer = gateway.client.post(
        "/api/jobs", json={"workflow": workflow, "parameters": {**SMALL, **parameters}}
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/jobs/{answer.json()['id']}"
    return answer.json()


@pytest.fixture(scope="module")
def done(gateway: Gateway) -> tuple[dict, list[tuple[str, str, dict]]]:
    """A job that succeeded, and what was heard of it."""
    job = submit(gateway, seed=3)
    heard = follow(gateway, job["id"])
    assert heard[-1][2]["status"] == "SUCCEEDED", heard[-1]
    return job, heard


def test_a_job_is_followed_to_its_end(gateway: Gateway, done):
    job, heard = done
    assert (job["status"], job["workflow"], job["workflow_type"]) == (
        "QUEUED",
        "generate",
        "generate",
    )
    kinds = [kind for _, kind, _ in heard]
    assert set(kinds[:-1]) <= {"progress", "stage", "preview"}
    assert kinds[-1] == "complete"
    assert [data for _, _, data in heard if data.get("status") == "RUNNING"]
    assert heard[-1][2]["progress"] == 100
    now = gateway.client.get(f"/api/jobs/{job['id']}").json()
    assert (now["status"], now["progress"], now["error"]) == ("SUCCEEDED", 100, None)
    assert now["parameters"] == {**SMALL, "seed": 3}


def test_a_listener_goes_on_where_its_connection_broke(gateway: Gateway, done):
    job, heard = done
    for at in range(len(heard) - 1):
        again = follow(gateway, job["id"], last=heard[at][0])
        assert [each[:2] for each in again] == [each[:2] for each in heard[at + 1 :]]
    known = {"Last-Event-ID": heard[-1][0]}
    over = gateway.client.get(f"/api/jobs/{job['id']}/events", headers=known)
    assert (over.status_code, over.content) == (204, b"")
    for hostile in ("", "x", "9" * 400, "-1.0", "1.0;2"):
        assert follow(gateway, job["id"], last=hostile)[-1][1] == "complete"


def test_what_is_downloaded_is_what_is_stored(gateway: Gateway, done):
    job, _ = done
    listed = gateway.client.get(f"/api/jobs/{job['id']}/artifacts").json()
    assert listed["total_artifacts"] == 1
    (made,) = listed["artifacts"]
    assert (made["role"], made["stage"], made["media_type"]) == ("result", "generate", "image/png")
    stored = (gateway.volume / made["uri"].removeprefix("store:")).read_bytes()
    got = gateway.client.get(made["url"])
    assert got.status_code == 200
    assert got.content == stored
    assert hashlib.sha256(got.content).hexdigest() == made["id"]
    assert got.headers["etag"] == f'"{made["id"]}"'
    assert got.headers["content-type"] == "image/png"

    head = gateway.client.head(made["url"])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(stored)))
    same = gateway.client.get(made["url"], headers={"If-None-Match": f'"x", W/"{made["id"]}"'})
    assert (same.status_code, same.content) == (304, b"")
    part = gateway.client.get(made["url"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, stored[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(stored)}"
    tail = gateway.client.get(made["url"], headers={"Range": "bytes=-7"})
    assert (tail.status_code, tail.content) == (206, stored[-7:])
    changed = {"Range": "bytes=0-3", "If-Range": '"other"'}
    assert gateway.client.get(made["url"], headers=changed).content == stored


def test_a_thumbnail_is_made_once_and_kept(gateway: Gateway, done):
    job, _ = done
    (made,) = gateway.client.get(f"/api/jobs/{job['id']}/artifacts").json()["artifacts"]
    first = gateway.client.get(f"{made['url']}/thumbnail", params={"side": "128"})
    assert first.headers["content-type"] == "image/webp"
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    with Image.open(io.BytesIO(first.content)) as opened:
        assert opened.size == (64, 64)  # smaller files stay as small as they are
    (kept,) = (gateway.volume / "cache" / "thumbnails").rglob("*.webp")
    before = kept.stat().st_mtime_ns
    again = gateway.client.get(f"{made['url']}/thumbnail", params={"side": "128"})
    assert again.content == first.content
    assert kept.stat().st_mtime_ns == before
    known = {"If-None-Match": first.headers["etag"]}
    same = gateway.client.get(f"{made['url']}/thumbnail", params={"side": "128"}, headers=known)
    assert (same.status_code, same.content) == (304, b"")
    for wrong, status in (({"side": "4000"}, 400), ({"side": "0"}, 400)):
        assert gateway.client.get(f"{made['url']}/thumbnail", params=wrong).status_code == status
    other = made["url"].replace(made["id"], "0" * 64)
    assert gateway.client.get(f"{other}/thumbnail").status_code == 404


def test_ranges_that_are_none_are_refused(gateway: Gateway, done):
    job, _ = done
    url = gateway.client.get(f"/api/jobs/{job['id']}/artifacts").json()["artifacts"][0]["url"]
    beyond = gateway.client.get(url, headers={"Range": "bytes=99999999-"})
    assert (beyond.status_code, beyond.json()["error_code"]) == (416, "INVALID_FIELD_VALUE")
    size = len(gateway.client.get(url).content)
    assert beyond.headers["content-range"] == f"bytes */{size}"
    end = gateway.client.get(url, headers={"Range": f"bytes={size - 2}-{size + 99}"})
    assert (end.status_code, len(end.content)) == (206, 2)
    many = "bytes=" + ",".join(["0-"] * 5000)
    for wrong in ("bytes=", "bytes=a-b", "lines=1-2", "bytes=5", many, "bytes=" + "9" * 5000 + "-"):
        answer = gateway.client.get(url, headers={"Range": wrong})
        assert answer.status_code == 400, wrong[:80]
        assert answer.json()["error_code"] == "INVALID_FIELD_VALUE"
    backwards = gateway.client.get(url, headers={"Range": "bytes=9-3"})
    assert (backwards.status_code, backwards.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")


def test_only_what_the_job_made_is_given_out(gateway: Gateway, done):
    job, _ = done
    other = submit(gateway, seed=4)
    assert follow(gateway, other["id"])[-1][2]["status"] == "SUCCEEDED"
    theirs = gateway.client.get(f"/api/jobs/{other['id']}/artifacts").json()["artifacts"][0]["id"]
    for wanted in (theirs, "0" * 64):
        answer = gateway.client.get(f"/api/jobs/{job['id']}/artifacts/{wanted}")
        assert (answer.status_code, answer.json()["error_code"]) == (404, "FILE_NOT_FOUND")
    for hostile in ("..%2f..%2f..%2fetc%2fpasswd", "A" * 64, "%00", "x" * 3000):
        answer = gateway.client.get(f"/api/jobs/{job['id']}/artifacts/{hostile}")
        assert answer.status_code in (400, 404), hostile[:80]
        assert answer.json()["ok"] is False


def test_a_manifest_that_was_changed_leads_to_no_other_file(gateway: Gateway, done):
    job, _ = done
    secret = gateway.volume / "cache" / "secret.png"
    secret.write_bytes(b"not for you")
    sha256 = hashlib.sha256(secret.read_bytes()).hexdigest()
    kept = gateway.volume / "outputs" / "manifests" / f"{job['id']}.json"
    before = kept.read_text()
    manifest = json.loads(before)
    for uri in ("store:cache/secret.png", f"store:outputs/../cache/{sha256}.png", "/etc/passwd"):
        manifest["results"] = [
            {"uri": uri, "sha256": sha256, "media_type": "image/png", "bytes": 11}
        ]
        kept.write_text(json.dumps(manifest))
        answer = gateway.client.get(f"/api/jobs/{job['id']}/artifacts/{sha256}")
        assert answer.status_code in (400, 403), uri
        assert b"not for you" not in answer.content
    kept.write_text(before)


def test_jobs_are_listed_newest_first_and_by_pages(gateway: Gateway, done):
    made = [submit(gateway, prompt=f"a house {uuid4()}", seed=at)["id"] for at in range(3)]
    seen, cursor = [], None
    while True:
        asked = {"limit": 2, "text": "HOUSE"} | ({"cursor": cursor} if cursor else {})
        page = gateway.client.get("/api/jobs", params=asked).json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == page["total"]
    assert [job for job in seen if job in made] == made[::-1]
    assert done[0]["id"] in seen[3:]

    def ids(**asked: str) -> list[str]:
        answer = gateway.client.get("/api/jobs", params=asked)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    assert done[0]["id"] in ids(status="SUCCEEDED", workflow_type="generate")
    assert done[0]["id"] not in ids(status="FAILED")
    assert done[0]["id"] not in ids(workflow_type="preset")
    for wrong in ({"status": "DONE"}, {"workflow_type": "sing"}, {"cursor": "x"}, {"limit": "0"}):
        answer = gateway.client.get("/api/jobs", params=wrong)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_FIELD_VALUE")


def test_the_same_key_is_the_same_job(gateway: Gateway):
    body = {"workflow": "generate", "parameters": {**SMALL, "seed": 8}}
    key = {"Idempotency-Key": f"order-{uuid4()}"}
    first, second = (gateway.client.post("/api/jobs", json=body, headers=key) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    body["parameters"]["seed"] = 9
    other = gateway.client.post("/api/jobs", json=body, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "INVALID_FIELD_VALUE")
    assert first.json()["id"] in other.json()["message"]


def watched(gateway: Gateway, job: str) -> dict[str, dict]:
    """A job's events until there was one of each kind of a job that runs."""
    found: dict[str, dict] = {}
    url = f"/api/jobs/{job}/events"
    with gateway.client.stream("GET", url, params={"log": "true"}) as answer:
        for _, kind, data in events(answer):
            if kind != "progress" or data["step"]:
                found[kind] = data
            if found.keys() >= {"progress", "stage", "preview", "log"} or kind == "complete":
                return found
    return found


def test_a_running_job_is_watched_and_cancelled_once(gateway: Gateway):
    job = submit(gateway, seed=5, steps=150, width=256, height=256, num_images=4)["id"]
    seen = watched(gateway, job)
    assert seen.keys() == {"progress", "stage", "preview", "log"}
    assert seen["progress"]["stage"].startswith("generate: ")
    assert 0 < seen["progress"]["step"] < seen["progress"]["steps"]
    assert seen["progress"]["eta_seconds"] > 0
    assert (seen["stage"]["stage_type"], seen["stage"]["status"]) == ("generate", "began")
    shown = base64.b64decode(seen["preview"]["picture"].removeprefix("data:image/webp;base64,"))
    assert len(shown) <= 8192
    with Image.open(io.BytesIO(shown)) as opened:
        assert opened.width == opened.height
    assert seen["log"]["line"]["message"]
    stopped = gateway.client.post(f"/api/jobs/{job}/cancel", json={"reason": "wrong colour"})
    assert (stopped.status_code, stopped.json()["status"]) == (200, "CANCELLED")
    heard = follow(gateway, job)
    assert heard[-1][1] == "complete"
    assert heard[-1][2]["state"] == "Cancelled"
    for what in ("cancel", "retry"):
        again = gateway.client.post(f"/api/jobs/{job}/{what}")
        assert (again.status_code, again.json()["state"]) == (409, "CANCELLED")
    audit = gateway.client.get(f"/api/jobs/{job}/audit").json()
    types = [event["event_type"] for event in audit["events"]]
    assert types[0] == "QUEUED"
    assert "RUNNING" in types
    assert types[-1] == "CANCELLED"
    assert "wrong colour" in str([event["details"]["message"] for event in audit["events"]])


def test_a_failed_job_is_retried(gateway: Gateway):
    parameters = {"image": "uploads/later.png", "quality_preset": "low"}
    body = {"workflow": "enhance", "parameters": parameters}
    job = gateway.client.post("/api/jobs", json=body).json()["id"]
    failed = follow(gateway, job)[-1][2]
    assert (failed["status"], failed["error"]["code"]) == ("FAILED", "FILE_NOT_FOUND")
    shown = gateway.client.get(f"/api/jobs/{job}").json()
    assert shown["error"] == failed["error"]

    def errors() -> list[str]:
        log = gateway.client.get(f"/api/jobs/{job}/logs", params={"level": "ERROR"}).json()
        return [line["message"] for line in log["lines"]]

    assert "FILE_NOT_FOUND" in eventually(errors)[0]

    (gateway.volume / "uploads").mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), "teal").save(gateway.volume / "uploads" / "later.png")
    again = gateway.client.post(f"/api/jobs/{job}/retry", json={"reason": "it is there now"})
    assert (again.status_code, again.json()["status"]) == (200, "QUEUED")
    assert eventually(
        lambda: gateway.client.get(f"/api/jobs/{job}").json()["status"] in ("SUCCEEDED", "FAILED")
    )
    assert gateway.client.get(f"/api/jobs/{job}").json()["status"] == "SUCCEEDED"
    refused = gateway.client.post(f"/api/jobs/{job}/retry")
    assert (refused.status_code, refused.json()["state"]) == (409, "SUCCEEDED")


def test_the_log_is_read_by_pages(gateway: Gateway, done):
    url = f"/api/jobs/{done[0]['id']}/logs"
    whole = eventually(
        lambda: (
            found
            if (found := gateway.client.get(url, params={"level": "DEBUG"}).json())["lines"]
            else None
        )
    )
    lines, after = [], 0
    while True:
        asked = {"level": "DEBUG", "limit": 1, "after": after}
        page = gateway.client.get(url, params=asked).json()
        lines += page["lines"]
        after = page["next_after"]
        if not page["more"]:
            break
    assert lines[: len(whole["lines"])] == whole["lines"]


def test_the_commands_of_the_gateway_guide(gateway: Gateway, tmp_path: Path):
    text = "\n".join(blocks("docs/gateway.md", "sh"))
    assert "http://127.0.0.1:4300" in text
    script = text.replace("http://127.0.0.1:4300", gateway.address)
    (tmp_path / "examples").mkdir()
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as photo:
        photo.resize((64, 64)).save(tmp_path / "examples" / "astronaut.png")
    done = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script.replace("http://127.0.0.1:4300", gateway.address),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event: complete" in done.stdout
    assert '"status":"SUCCEEDED"' in done.stdout
    with Image.open(tmp_path / "result.png") as made:
        assert made.width > 64


def test_a_program_for_the_web_ui_gets_its_pictures(gateway: Gateway):
    asked = {
        "prompt": "a red house",
        "seed": 5,
        "steps": 2,
        "width": 64,
        "height": 64,
        "batch_size": 2,
        "sampler_name": "DPM++ 2M",
        "scheduler": "Automatic",
        "override_settings": {"sd_model_checkpoint": "untrained.safetensors [0123456789]"},
    }
    answer = gateway.client.post("/sdapi/v1/txt2img", json=asked)
    assert answer.status_code == 200, answer.text
    pictures = [base64.b64decode(each) for each in answer.json()["images"]]
    info = json.loads(answer.json()["info"])
    assert info["all_seeds"] == [5, 6]
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in info["infotexts"][0]
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as opened:
            assert opened.size == (64, 64)
    said = gateway.client.post("/sdapi/v1/png-info", json={"image": answer.json()["images"][1]})
    assert said.json()["info"] == info["infotexts"][1]
    assert said.json()["parameters"]["Seed"] == "6"
    over = {**asked, "init_images": [f"data:image/png;base64,{answer.json()['images'][0]}"]}
    over |= {"batch_size": 1, "denoising_strength": 0.5, "width": 128}
    drawn = gateway.client.post("/sdapi/v1/img2img", json=over)
    assert drawn.status_code == 200, drawn.text
    with Image.open(io.BytesIO(base64.b64decode(drawn.json()["images"][0]))) as opened:
        assert opened.size == (128, 64)
    assert drawn.json()["parameters"].keys() >= {"denoising_strength", "prompt"}
    assert "init_images" not in drawn.json()["parameters"]
    models = gateway.client.get("/sdapi/v1/sd-models").json()
    assert "untrained" in [model["model_name"] for model in models]
    assert gateway.client.get("/sdapi/v1/progress").json()["progress"] == 0


def test_a_program_for_openai_gets_its_pictures(gateway: Gateway):
    asked = {"model": "untrained", "prompt": "a red house", "n": 2, "size": "64x72", "seed": 3}
    answer = gateway.client.post("/v1/images/generations", json={**asked, "quality": "auto"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "64x72"
    pictures = [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]
    with Image.open(io.BytesIO(pictures[1])) as opened:
        assert opened.size == (64, 72)
    asked["response_format"] = "url"
    again = gateway.client.post("/v1/images/generations", json=asked).json()["data"]
    assert [httpx.get(each["url"], timeout=60).content for each in again] == pictures
    assert "untrained" in [m["id"] for m in gateway.client.get("/v1/models").json()["data"]]


def test_a_batch_is_submitted_listed_and_read(gateway: Gateway):
    small = {name: value for name, value in SMALL.items() if name != "prompt"}
    wanted = {
        "flow": "generate",
        "grid": {"prompt": ["a red house", "a blue house"], "seed": [1]},
        "parameters": small,
        "where": "here",
        "key": f"k{uuid4().hex}",
    }
    key = {"Idempotency-Key": str(uuid4())}
    made = [gateway.client.post("/api/batches", json=wanted, headers=key) for _ in range(2)]
    assert [each.status_code for each in made] == [201, 201]
    assert made[0].json()["id"] == made[1].json()["id"]
    place = made[0].headers["location"]
    batch = made[0].json()["id"]
    assert place == f"/api/batches/{batch}"
    assert follow(gateway, batch)[-1][2]["status"] == "SUCCEEDED"
    shown = gateway.client.get(place).json()
    assert (shown["counts"]["succeeded"], shown["failures"]) == (2, [])
    listed = gateway.client.get("/api/batches").json()
    assert listed["jobs"][0]["id"] == batch, "the newest comes first; other tests have theirs"
    by_type = gateway.client.get("/api/jobs", params={"workflow_type": "batch"}).json()
    assert by_type["total"] == listed["total"] == len(listed["jobs"])
    rows = gateway.client.get(f"{place}/table").json()["rows"]
    assert [row["state"] for row in rows] == ["succeeded"] * 2
    assert gateway.client.get(rows[0]["results"][0]).headers["content-type"] == "image/png"
    table = gateway.client.get(f"{place}/table", params={"form": "csv"})
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.strip().splitlines()) == 3
    assert gateway.client.get(f"{place}/zip").status_code == 200
    assert gateway.client.post(f"{place}/cancel").status_code == 409
    other = submit(gateway, seed=61)["id"]
    for path in ("", "/table"):
        assert gateway.client.get(f"/api/batches/{other}{path}").status_code == 404
