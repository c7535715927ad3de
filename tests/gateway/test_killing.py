"""A gateway that is killed at any moment loses nothing: the next one goes on where it was."""

import hashlib
import random
import threading
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from safelight.loopback import free_port
from tests.gateway.conftest import deploy_workflows, start_gateway
from tests.gateway.test_jobs import SMALL, events
from tests.gateway.test_uploads import PART, PLACE, TUS, png
from tests.prefect_pool import Pool

PATIENCE = 120.0


class Listening(threading.Thread):
    """One who follows a job through every gateway there is, as browsers do."""

    def __init__(self, address: str, job: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{address}/api/jobs/{job}/events"
        self.heard: list[tuple[str, str, dict]] = []
        self.breaks = 0

    def run(self) -> None:
        while not self.heard or self.heard[-1][1] != "complete":
            headers = {"Last-Event-ID": self.heard[-1][0]} if self.heard else {}
            try:
                with httpx.stream(
                    "GET", self._url, headers=headers, timeout=60, trust_env=False
                ) as answer:
                    for event in events(answer):
                        self.heard.append(event)
            except httpx.HTTPError:
                self.breaks += 1
                time.sleep(0.1)


def patiently(client: httpx.Client, method: str, url: str, **request) -> httpx.Response:
    """Ask as programs do: again where nobody answers, since the same key is the same job."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer = client.request(method, url, **request)
        except httpx.HTTPError:
            assert time.monotonic() < end
            time.sleep(0.1)
            continue
        if answer.status_code != 503:
            return answer
        time.sleep(0.5)


@pytest.mark.timeout(900)
@pytest.mark.soak
@pytest.mark.parametrize("kills", [2, 25])
def test_nothing_is_lost_when_the_gateway_is_killed(
    shared_pool: Pool, prefect_server: str, kills: int
):
    from examples.untrained import build_untrained

    volume = Path(shared_pool.project.environment["VOLUME_ROOT"])
    build_untrained(volume / "models" / "untrained")
    deploy_workflows(shared_pool)
    chance, port = random.Random(kills), free_port()
    address = f"http://127.0.0.1:{port}"
    process = start_gateway(shared_pool, prefect_server, port)
    data, at, jobs = png(9), 0, {}
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        steps = {"steps": 150, "width": 128, "height": 128}
        body = {"workflow": "generate", "parameters": {**SMALL, **steps, "seed": 11}}
        job = client.post("/api/jobs", json=body).json()["id"]
        listener = Listening(address, job)
        listener.start()
        while not listener.heard:  # who comes without an id later is told the latest alone
            assert listener.is_alive()
            time.sleep(0.05)
        length = {**TUS, "Upload-Length": str(len(data))}
        place = client.post(PLACE, headers=length).headers["location"]
        for kill in range(kills):
            key = {"Idempotency-Key": f"kill-{uuid4()}"}
            late = {"workflow": "generate", "parameters": {**SMALL, "seed": 100 + kill}}
            told: list[httpx.Response] = []
            asking = threading.Thread(
                target=lambda late=late, key=key, told=told: told.append(
                    patiently(client, "POST", "/api/jobs", json=late, headers=key)
                )
            )
            asking.start()
            time.sleep(chance.uniform(0.0, 0.4))
            process.kill()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
            process = start_gateway(shared_pool, prefect_server, port)
            asking.join(PATIENCE)
            assert [answer.status_code for answer in told] == [201], [one.text for one in told]
            jobs[key["Idempotency-Key"]] = told[0].json()["id"]
            again = patiently(client, "POST", "/api/jobs", json=late, headers=key).json()["id"]
            assert jobs[key["Idempotency-Key"]] == again
            at = int(patiently(client, "HEAD", place, headers=TUS).headers["upload-offset"])
            part = data[at : at + len(data) // (kills + 1)]
            sent = {**PART, "Upload-Offset": str(at)}
            assert patiently(client, "PATCH", place, headers=sent, content=part).status_code == 204
            at += len(part)
        sent = {**PART, "Upload-Offset": str(at)}
        assert patiently(client, "PATCH", place, headers=sent, content=data[at:]).is_success
        stored = client.get(place).json()
        assert stored["id"] == hashlib.sha256(data).hexdigest()
        listener.join(PATIENCE * 3)
        assert listener.heard[-1][1] == "complete"
        assert listener.heard[-1][2]["status"] == "SUCCEEDED"
        listed = client.get("/api/jobs", params={"limit": 100}).json()["jobs"]
        assert len({one["id"] for one in listed}) == len(set(jobs.values())) + 1
    process.terminate()
    assert process.wait(30) in (0, -15)
    assert process.stdout is not None
    process.stdout.close()
    ids = [each[0] for each in listener.heard]
    assert len(set(ids)) == len(ids)  # nothing came twice,
    words = [tuple(map(int, each.split(".")))[1:3] for each in ids]
    numbers = sorted({number for attempt, number in words if attempt})
    whole = list(range(numbers[0], numbers[-1] + 1)) if numbers else []
    assert numbers == whole  # and nothing is missing
    assert listener.breaks >= 1
