"""Characters and trainings by the gateway."""

import io
import json
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from tests.gateway.conftest import Alone, Gateway
from tests.prefect_pool import children, eventually


def png(seed: int = 0, side: int = 96) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(rough).resize((side, side), Image.Resampling.NEAREST).save(held, "PNG")
    return held.getvalue()


def test_a_character_from_its_making_to_its_end(alone: Alone):
    refused = alone.ask("POST", "/api/characters", json={"name": "Ada"})
    assert refused.json()["error_code"] == "CONSENT_MISSING"
    made = alone.ask("POST", "/api/characters", json={"name": "Zorbo", "kind": "thing"})
    assert made.status_code == 201
    place = made.headers["location"]
    assert place == f"/api/characters/{made.json()['id']}"
    listed = alone.ask("GET", "/api/characters").json()
    assert (listed["total"], listed["characters"][0]["name"]) == (1, "Zorbo")
    changed = alone.ask("PATCH", "/api/characters/Zorbo", json={"style": "flat colours"})
    assert changed.json()["style"] == "flat colours"
    assert alone.ask("PATCH", place, json={"age": 3}).json()["error_code"] == "CONTRACT_MISMATCH"

    binary = {"Content-Type": "application/octet-stream"}
    added = alone.ask("POST", f"{place}/images", content=png(), headers=binary)
    assert added.status_code == 201, added.text
    again = alone.ask("POST", f"{place}/images", content=png(), headers=binary)
    assert again.json()["error_code"] == "INVALID_FIELD_VALUE"
    small = alone.ask("POST", f"{place}/images", content=png(1, 32), headers=binary)
    assert "at least 64 px" in small.json()["message"]
    assert alone.ask("GET", f"{place}/images").json()["total"] == 1
    assert alone.ask("GET", f"{place}/loras").json() == {"total": 0, "versions": []}

    told = alone.ask("DELETE", place, params={"by": "Ada", "reason": "asked"}).json()
    assert (told["by"], told["reason"], told["pictures"]) == ("Ada", "asked", 1)
    gone = alone.ask("GET", place)
    assert gone.status_code == 404
    assert "deleted" in gone.json()["message"]
    assert alone.ask("DELETE", f"{place}/images/{added.json()['sha256']}").status_code == 404


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"trigger": "zorbo", "max_train_steps": 0}, "INVALID_FIELD_VALUE"),
        ({"trigger": "zorbo", "rank": 3}, "CONTRACT_MISMATCH"),
        ({"trigger": "zorbo", "optimizer": "SGD"}, "INVALID_FIELD_VALUE"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused_at_once(
    alone: Alone, parameters: dict, code: str
):
    answer = alone.ask("POST", "/api/training", json=parameters)
    assert answer.json()["error_code"] == code


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_training_is_a_job_that_goes_on_after_a_stop_and_a_kill(gateway: Gateway):
    """On the warm pool: cancelled, killed, and asked again."""
    folder = gateway.volume / "datasets" / "toy"
    folder.mkdir(parents=True)
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(png(seed))
    parameters = {
        "dataset": "datasets/toy",
        "trigger": "toy",
        "model": "untrained",
        "resolution": 32,
        "max_train_steps": 120,
        "save_every": 5,
        "network_dim": 2,
        "sample_every": 0,
        "seed": 3,
    }

    def begin() -> str:
        answer = gateway.client.post("/api/training", json=parameters)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    def stands(place: str) -> str:
        return gateway.client.get(place).json()["status"]

    def checkpoints() -> list[Path]:
        return sorted((gateway.volume / "cache" / "training").rglob("step-*"))

    stopped = begin()
    eventually(lambda: len(checkpoints()) > 1, 120)
    assert gateway.client.post(f"{stopped}/cancel", json={}).status_code == 200
    (worker,) = gateway.pool.workers
    eventually(lambda: gateway.pool.state(UUID(stopped.rpartition("/")[2])).is_cancelled(), 60)
    kept = checkpoints()[-1].name
    assert 5 < int(kept[5:12]) < 120

    killed = begin()
    eventually(lambda: checkpoints()[-1].name > kept, 120)
    (child,) = children(worker)
    child.kill()
    eventually(lambda: stands(killed) == "SUCCEEDED", 180)  # the worker has taken it up again
    run = killed.rpartition("/")[2]
    told = json.loads((gateway.volume / f"outputs/manifests/{run}.json").read_text())
    (learnt,) = [stage for stage in told["stages"] if stage["name"] == "train"]
    assert any("went on from the checkpoint of step" in note for note in learnt["notes"])
    assert checkpoints() == []  # the result has what they held
    assert (
        gateway.volume / "loras" / "toy" / "v1.safetensors"
    ).exists()  # what was stopped is none
    listed = gateway.client.get("/api/training").json()
    assert {job["workflow_type"] for job in listed["jobs"]} == {"train"}
