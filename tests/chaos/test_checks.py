"""The checks of the campaign find what they are there for."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer

from safelight.store.artifact import ArtifactRef
from safelight.store.results import PREFIX
from tests.chaos.checks import artifacts_that_are_not_there, gone_on, stages_that_ran_again
from tests.chaos.faults import BY_HAND

PICTURE = b"picture"
DIGEST = hashlib.sha256(PICTURE).hexdigest()
HAND = "-by-hand"
KEY = f"outputs/{DIGEST[:2]}/{DIGEST}.png"


def record() -> bytes:
    ref = ArtifactRef(uri=f"store:{KEY}", sha256=DIGEST, media_type="image/png", bytes=7)
    metadata = ResultRecordMetadata(serializer=JSONSerializer(), storage_key="grade-1")
    return ResultRecord(result=ref, metadata=metadata).serialize()


@pytest.mark.parametrize(
    ("stored", "found"),
    [(PICTURE, []), (b"p1cture", ["is corrupt"]), (None, ["is lost"])],
)
def test_lost_and_corrupt_artifacts_are_found(stored: bytes | None, found: list[str]):
    contents = {f"{PREFIX}grade-1": record()}
    if stored is not None:
        contents[KEY] = stored
    campaign = SimpleNamespace(report=SimpleNamespace(facts={}))
    said = artifacts_that_are_not_there(campaign, contents)
    assert [line.partition(", named by")[2].rpartition(", ")[2] for line in said] == found


def test_a_stage_that_ran_after_its_record_was_there_is_found(tmp_path: Path):
    executions = tmp_path / "executions"
    entries = [{"key": "grade-1", "at": at, "pid": 1, "run": str(uuid4())} for at in (9.0, 11.0)]
    executions.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    campaign = SimpleNamespace(executions=executions, report=SimpleNamespace(facts={}))
    (said,) = stages_that_ran_again(campaign, {f"{PREFIX}grade-1": 10.0})
    assert "11.0" in said
    assert stages_that_ran_again(campaign, {f"{PREFIX}grade-1": 12.0}) == []
    assert stages_that_ran_again(campaign, {}) == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("Scheduled Pending Running AwaitingRetry Running Completed", False),
        ("Scheduled Cancelled", False),
        ("Running Cancelling Cancelled AwaitingRetry Running Completed", True),
        ("Running Completed Crashed", True),
        ("Running Failed-by-hand", False),
        ("Running Failed-by-hand Completed", True),
        ("Running Completed Failed-by-hand", False),
    ],
)
def test_a_run_that_went_on_after_its_end_is_found(names: str, found: bool):
    kinds = {"AwaitingRetry": StateType.SCHEDULED}
    states = [
        State(
            type=kinds.get(name) or StateType(name.removesuffix(HAND).upper()),
            name=name.removesuffix(HAND),
            message=BY_HAND if name.endswith(HAND) else None,
            timestamp=datetime(2026, 1, 1, minute=minute, tzinfo=UTC),
        )
        for minute, name in enumerate(names.split())
    ]
    assert gone_on(reversed(states)) is found
