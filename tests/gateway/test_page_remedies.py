"""Failures on the page: buttons that do what the remedy says."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import JsonValue

from safelight.errors import InvalidFieldValueError
from safelight.gallery.index import gallery
from safelight.gateway.jobs import Job, Status
from safelight.gateway.page.create_routes import current_of
from safelight.gateway.page.remedies import ways_out, with_remedy
from safelight.gateway.workflows import check, type_of
from safelight.provenance.manifest import Failure
from tests.gallery.conftest import fill


def failed(workflow: str, code: str, remedy: str, **parameters: JsonValue) -> Job:
    now = datetime.now(UTC)
    kind = type_of(workflow)
    assert kind is not None
    return Job(
        id=uuid4(),
        workflow=workflow,
        workflow_type=kind,
        name="x",
        status=Status.FAILED,
        state="Failed",
        message="",
        progress=10.0,
        stage="",
        error=Failure(code=code, problem="it did not work", remedy=remedy),
        parameters=parameters,
        character_id=None,
        created_at=now,
        updated_at=now,
        started_at=now,
        ended_at=now,
    )


def keys(job: Job) -> list[str]:
    ways = ways_out(job)
    assert ways is not None
    return [each.key for each in ways.remedies]


def test_what_needs_less_memory_is_one_press_away():
    job = failed(
        "generate", "OUT_OF_MEMORY", "free memory", prompt="x", width=1000, height=768, num_images=4
    )
    assert keys(job) == ["smaller", "one"]
    assert with_remedy(job, "smaller") == {
        "prompt": "x", "width": 448, "height": 384, "num_images": 4
    }  # fmt: skip
    assert with_remedy(job, "one") == {"prompt": "x", "width": 1000, "height": 768}
    smallest = failed("generate", "OUT_OF_MEMORY", "free memory", prompt="x", width=64, height=64)
    assert keys(smallest) == []


def test_a_preset_is_made_smaller_in_its_step_or_at_a_lower_quality():
    job = failed("photoreal_portrait_v1", "OUT_OF_MEMORY", "free memory", prompt="x")
    assert "smaller" in keys(job)
    assert "lower" in keys(job)
    changed = with_remedy(job, "smaller")
    assert set(changed["overrides"]["generate"]) == {"width", "height"}  # pyright: ignore
    check("photoreal_portrait_v1", changed)
    assert with_remedy(job, "lower")["quality"] == "low"


def test_what_the_remedy_names_is_set_and_consent_never_is():
    job = failed("generate", "CONTRACT_MISMATCH", "set width to 512 and height to 640", prompt="x")
    ways = ways_out(job)
    assert ways is not None
    assert [each.said for each in ways.remedies] == ["Run again with width 512, height 640"]
    assert with_remedy(job, "told")["height"] == 640
    assert not ways.again
    person = failed(
        "photoreal_portrait_v1",
        "CONSENT_MISSING",
        "ask the person, then set consent_given to true, which says: yes",
        prompt="x",
    )
    assert keys(person) == []
    wrong = failed("generate", "INVALID_FIELD_VALUE", "set steps to 500 or less", prompt="x")
    assert keys(wrong) == []  # its own form refuses that


def test_a_model_that_is_not_there_is_left_out():
    job = failed("generate", "DEPENDENCY_MISSING", "put it there", prompt="x", model="nowhere-xl")
    assert keys(job) == ["own_model"]
    assert with_remedy(job, "own_model") == {"prompt": "x"}
    with pytest.raises(InvalidFieldValueError, match="expected one of own_model"):
        with_remedy(job, "smaller")
    ways = ways_out(failed("generate", "ENGINE_OFFLINE", "start it", prompt="x"))
    assert ways is not None
    assert (ways.again, ways.link) == (True, "/system")


def test_a_run_shows_what_it_made_though_the_store_was_looked_into_a_moment_ago(volume: Path):
    gallery().refresh()
    fill(volume, 1)
    (left,) = (volume / "outputs" / "manifests").glob("*.json")
    job = failed("generate", "", "", prompt="picture 0").model_copy(
        update={"id": UUID(left.stem), "status": Status.SUCCEEDED, "error": None}
    )
    gallery().refresh()
    assert [each.result for each in current_of(job).files] == [True]
