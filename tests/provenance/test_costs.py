"""What runs cost, added up from manifests; what the runs of a key used in a day."""

import json
from datetime import date
from typing import Any

import pytest
from typer.testing import CliRunner

from safelight.cli.commands import app
from safelight.provenance.charges import Charge
from safelight.provenance.costs import By, costs_of
from safelight.provenance.identity import EngineIdentity
from safelight.provenance.manifest import Manifest, StageEntry, keep_manifest
from safelight.provenance.usage import BY_KEY, Usage, key_in, note_usage, usage_of

KEY = "0123456789ab"


def stage(name: str, device: str = "cuda", seconds: float = 1.0, **facts: Any) -> StageEntry:
    return StageEntry(
        name=f"the {name}",
        stage_type=name,
        status=facts.pop("status", "done"),
        parameters={},
        engine=EngineIdentity(engine_id="e", version="1", device_class=device),
        seconds=seconds,
        **facts,
    )


def paid(usd: float) -> tuple[Charge, ...]:
    return (Charge(engine_id="fal", task="t", model="m", estimated_usd=usd),)


@pytest.fixture
def runs(store, manifest) -> list[Manifest]:
    """Three runs of two days, one of which is a part of another."""
    made = [
        manifest(
            stage("generate", seconds=4.0),
            stage("upscale", seconds=2.0, status="cached"),
            stage("detail", "mps", 0.5),
            run=1,
            flow="portrait_v1",
            parameters={"character": "ann"},
            ended="2026-01-01T23:30:00-02:00",
            asked_by=KEY,
        ),
        manifest(
            stage("generate", "cpu", 3.0),
            stage("lipsync", "remote", 60.0, charges=paid(0.25)),
            run=2,
            flow="talking",
            ended="2026-01-03T00:00:00+00:00",
            schedule="5c0f",
            asked_by=KEY,
            cost_usd=0.25,
        ),
        manifest(
            stage("lipsync", "remote", 60.0, charges=paid(0.25)),
            run=3,
            flow="lipsync",
            ended="2026-01-03T00:00:00+00:00",
            part_of="0a1b2c3d-0000-4000-8000-000000000002",
            asked_by=KEY,
            cost_usd=0.25,
        ),
    ]
    for one in made:
        keep_manifest(store, one)
    return made


def told(by: By, **days: date) -> dict[str, tuple[int, float, float, float]]:
    return {
        one.name: (one.runs, one.gpu_seconds, one.cpu_seconds, one.usd)
        for one in costs_of(by, **days).costs
    }


def test_each_way_to_add_them_up(runs: list[Manifest]):
    portrait, talking = (1, 4.5, 0.0, 0.0), (1, 0.0, 3.0, 0.25)
    assert told(By.PRESET) == {"talking": talking, "portrait_v1": portrait}
    assert list(told(By.PRESET)) == ["talking", "portrait_v1"]  # the dearest first
    assert told(By.CHARACTER) == {"ann": portrait, "": talking}
    assert told(By.SCHEDULE) == {"5c0f": talking, "": portrait}
    assert told(By.KEY) == {KEY: (2, 4.5, 3.0, 0.25)}
    assert told(By.DAY) == {"2026-01-02": portrait, "2026-01-03": talking}
    assert told(By.STAGE) == {
        "lipsync": (1, 0.0, 0.0, 0.25),
        "generate": (2, 4.0, 3.0, 0.0),
        "detail": (1, 0.5, 0.0, 0.0),
        "upscale": (1, 0.0, 0.0, 0.0),
    }
    assert costs_of(By.STAGE).total == costs_of(By.DAY).total


def test_days_are_left_out_and_what_cannot_be_read_is_told(store, runs: list[Manifest]):
    assert list(told(By.DAY, since=date(2026, 1, 3))) == ["2026-01-03"]
    assert list(told(By.DAY, until=date(2026, 1, 2))) == ["2026-01-02"]
    store.write_record("outputs/manifests/later.json", b'{"schema_version": 2}')
    assert costs_of(By.DAY).unread == 1
    said = CliRunner().invoke(app, ["costs", "--by", "day", "--since", "2026-01-03"])
    assert said.exit_code == 0, said.output
    assert "2026-01-03\t1\t0.0\t3.0\t0.2500" in said.output
    assert "1 manifests cannot be read" in said.output
    facts = json.loads(CliRunner().invoke(app, ["costs", "--by", "key", "--json"]).output)
    assert facts["total"]["usd"] == 0.25


def test_what_a_key_used_in_a_day_is_found_without_manifests(store, manifest, runs: list[Manifest]):
    assert usage_of(store, KEY, "2026-01-02") == Usage(4.5, 0.0)
    assert usage_of(store, KEY, "2026-01-03") == Usage(0.0, 0.25)  # the part counts once
    assert usage_of(store, KEY, "2026-01-01") == usage_of(store, "other", "2026-01-02")
    keep_manifest(store, runs[0])  # the same once more
    assert usage_of(store, KEY, "2026-01-02").gpu_seconds == 4.5
    again = runs[0].model_copy(update={"stages": (stage("generate", seconds=1.5),)})
    keep_manifest(store, again)  # taken up again: it worked for longer
    assert usage_of(store, KEY, "2026-01-02").gpu_seconds == 6.0
    store.write_record(f"{BY_KEY}{KEY}/2026-01-02/of-others.json", b"")
    assert usage_of(store, KEY, "2026-01-02").gpu_seconds == 6.0


def test_runs_of_long_names_count_too(store):
    note_usage(store, KEY, "2026-01-02", "a" * 200, Usage(1.0, 0.0))
    note_usage(store, KEY, "2026-01-02", "a" * 199 + "b", Usage(1.0, 0.0))
    assert usage_of(store, KEY, "2026-01-02").gpu_seconds == 2.0


def test_the_key_of_a_run_is_read_from_its_tags():
    assert key_in(["batch:x", f"key:{KEY}", "key:second"]) == KEY
    for tags in ([], ["key:"], ["key:../../x"], [f"key:{'a' * 99}"], ["monkey:1"]):
        assert key_in(tags) == ""
