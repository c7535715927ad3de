"""Flows on a real Prefect server: what they leave, what they reuse, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prefect import flow
from prefect.futures import as_completed
from prefect.settings import PREFECT_API_URL, PREFECT_TASKS_REFRESH_CACHE, temporary_settings

from flows.pipeline import pipeline
from flows.pipelines.described import StageSpec
from flows.running.recorded import recorded_flow, run_inline
from safelight.engines.identity import EngineIdentity
from safelight.errors import InvalidFieldValueError, StoreUnavailableError
from safelight.params import Params
from safelight.progress import clear_stop, request_stop, step
from safelight.provenance.manifest import Manifest, RunResult, load_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tasks.base.keeping import keep_image, load_image, record_of
from tasks.base.recorder import recorder
from tasks.base.stage import stage
from tasks.denoise import DenoiseParams, denoise
from tasks.grade import GradeParams, grade
from tests.flows.conftest import PHOTO
from tests.prefect_pool import artifacts_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SMALL = [
    StageSpec(stage_type="denoise", name="clean", parameters={"level": 0.2}),
    StageSpec(stage_type="grade", name="look", parameters={"colour": "warm", "grain": 0.3}),
]
pytestmark = pytest.mark.usefixtures("server", "uploaded")


def statuses(result: RunResult) -> dict[str, object]:
    return {name: facts["status"] for name, facts in result.metadata.items()}


def manifest_of(state) -> Manifest:
    return load_manifest(str(state.state_details.flow_run_id))


def run_small(seed: int = 1, **look: object) -> RunResult:
    stages = [SMALL[0], SMALL[1].but(parameters={**SMALL[1].parameters, **look})]
    return pipeline(stages=stages, call_input={"image": PHOTO}, seed=seed)


def test_a_run_inside_another_leaves_its_manifest_however_it_ends():
    look = {"stages": [SMALL[1].model_dump()], "call_input": {"image": PHOTO}}

    def told(run_id: str, **parameters: object) -> Manifest:
        manifest = run_inline(pipeline, parameters, run_id, lambda stage, done, total: None)
        kept = load_manifest(manifest.key)
        assert (kept.success, kept.results, kept.error, kept.parameters) == (
            (manifest.success, manifest.results, manifest.error, manifest.parameters)
        )
        return manifest

    done = told("inside-1", **look)
    assert done.success
    assert done.parameters["seed"] == told("inside-1", **look).parameters["seed"]
    assert told("inside-1", **look).stages[0].status == "cached"
    failed = told("inside-2", **{**look, "call_input": {"image": "/etc/passwd"}})
    assert failed.error.code == "PERMISSION_DENIED"
    refused = told("inside-3", **look, seed="many")
    assert refused.error.code == "INVALID_FIELD_VALUE"


def test_a_run_says_what_it_did_and_where_everything_lies():
    result = run_small()
    assert result.success
    assert statuses(result) == {"clean": "done", "look": "done"}
    assert [ref.kind for ref in result.artifacts] == ["image", "image"]
    for ref in result.artifacts:
        assert load_image(ref).shape == (128, 128, 3)
    manifest = load_manifest(str(result.data["manifest"]))
    assert manifest.seeds == {"look": 1}
    assert manifest.inputs["image"].sha256 == manifest.stages[0].sources[0]
    assert all(entry.peak_bytes > 0 for entry in manifest.stages)


def test_many_branches_run_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    under_way: list[int] = []

    def noted(futures: list[object]) -> object:
        under_way.append(len(futures))
        return as_completed(futures)

    monkeypatch.setattr("flows.pipelines.run.MOST_AT_ONCE", 2)
    monkeypatch.setattr("flows.pipelines.run.as_completed", noted)
    stages = [
        {
            "stage_type": "grade",
            "name": f"s{n}",
            "parameters": {"grain": n / 10},
            "reads": ["image"],
        }
        for n in range(1, 6)
    ]
    result = pipeline(stages=stages, call_input={"image": PHOTO}, seed=1)
    assert len({ref.sha256 for ref in result.artifacts}) == 5
    assert max(under_way) == 2


def test_a_run_that_changes_only_its_last_stage_does_only_that():
    run_small()
    assert statuses(run_small()) == {"clean": "cached", "look": "cached"}
    assert statuses(run_small(grain=0.4)) == {"clean": "cached", "look": "done"}
    assert statuses(run_small(seed=2)) == {"clean": "cached", "look": "done"}


def test_a_run_made_again_has_the_same_bytes():
    first = run_small()
    with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
        again = run_small()
    assert statuses(again) == {"clean": "done", "look": "done"}
    assert [ref.sha256 for ref in again.artifacts] == [ref.sha256 for ref in first.artifacts]


def test_a_cached_result_whose_file_is_gone_is_made_again():
    first = run_small()
    current_store().backend.delete(first.artifacts[1].uri.removeprefix("store:"))
    assert statuses(run_small()) == {"clean": "cached", "look": "done"}


def test_a_seed_that_was_left_out_is_drawn_once_and_recorded():
    first = pipeline(stages=SMALL, call_input={"image": PHOTO})
    second = pipeline(stages=SMALL, call_input={"image": PHOTO})
    seeds = [load_manifest(str(r.data["manifest"])).parameters["seed"] for r in (first, second)]
    assert all(isinstance(seed, int) for seed in seeds)
    assert seeds[0] != seeds[1]


def test_branches_run_side_by_side_and_all_ends_are_there():
    stages = [
        SMALL[0],
        SMALL[1].but(name="warm", reads=("clean",)),
        SMALL[1].but(name="cool", reads=("clean",), parameters={"colour": "cool"}),
    ]
    result = pipeline(stages=stages, call_input={"image": PHOTO}, seed=1)
    assert statuses(result) == {"clean": "done", "warm": "done", "cool": "done"}
    assert len({ref.sha256 for ref in result.artifacts}) == 3
    manifest = load_manifest(str(result.data["manifest"]))
    ends = {entry.name: entry.results for entry in manifest.stages}
    assert result.results == (*ends["warm"], *ends["cool"])  # as they were written down
    assert manifest.results == result.results
    keys = [artifact.key for artifact in artifacts_of(result.data["flow_run_id"])]
    for ref in result.results:
        assert keys.count(f"file-{ref.sha256[:12]}") == 1


def test_a_stage_in_a_flow_of_somebody_else_finds_what_a_run_made():
    @flow
    def theirs() -> ArtifactRef:
        params = GradeParams.model_validate({**SMALL[1].parameters, "seed": 1})
        return grade(denoise(ingest(PHOTO, ("image",)), DenoiseParams(level=0.2)), params)

    made = theirs()
    assert statuses(run_small()) == {"clean": "cached", "look": "cached"}
    assert run_small().artifacts[1].sha256 == made.sha256


class FaultyParams(Params):
    """How a stage of the tests misbehaves."""

    marker: str
    """A file whose lines count the attempts."""
    fault: str = "none"
    """none, transient, input or stop; transient and stop only once."""


@stage(
    reads={"picture": ("image",)},
    makes="image",
    origin="enhances",
    identity=lambda params, engines: EngineIdentity(engine_id="test", version="1"),
)
def faulty(picture: ArtifactRef, params: FaultyParams) -> ArtifactRef:
    """Invert a picture, or fail in one way."""
    marker = Path(params.marker)
    attempts = marker.read_text().count("\n") if marker.exists() else 0
    marker.write_text("attempt\n" * (attempts + 1))
    if params.fault == "transient" and attempts == 0:
        raise StoreUnavailableError("the store hung up", "run again")
    if params.fault == "input":
        raise InvalidFieldValueError("found 3, expected 4", "set it to 4")
    if params.fault == "stop" and attempts == 0:
        request_stop()
    step(1, 1)
    inverted = (255 - load_image(picture)).astype(np.uint8)
    return keep_image(inverted, record_of(params, [picture]))


@recorded_flow
def two_stages(image: str, marker: str, fault: str) -> ArtifactRef:
    """Run one good stage, then one that may fail."""
    recorder().expected_stages = 2
    first = faulty(ingest(image, ("image",)), FaultyParams(marker=marker + ".first"))
    return faulty(first, FaultyParams(marker=marker, fault=fault))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty, "retry_delay_seconds", [0, 0])


@pytest.mark.usefixtures("no_waiting")
def test_transient_failures_are_tried_again(tmp_path: Path):
    state = two_stages(PHOTO, str(tmp_path / "m"), "transient", return_state=True)
    assert state.is_completed()
    assert (tmp_path / "m").read_text().count("\n") == 2


@pytest.mark.usefixtures("no_waiting")
def test_bad_input_is_not_tried_again_and_finished_work_is_listed(tmp_path: Path):
    state = two_stages(PHOTO, str(tmp_path / "m"), "input", return_state=True)
    assert state.is_failed()
    assert "[INVALID_FIELD_VALUE] found 3, expected 4. Fix: set it to 4." in (state.message or "")
    assert (tmp_path / "m").read_text().count("\n") == 1
    manifest = manifest_of(state)
    assert not manifest.success
    assert manifest.error is not None
    assert manifest.error.code == "INVALID_FIELD_VALUE"
    assert [entry.status for entry in manifest.stages] == ["done", "failed"]
    assert len(manifest.artifacts) == 1


def test_a_run_asked_to_stop_ends_cancelled_and_keeps_what_is_finished(tmp_path: Path):
    request = (PHOTO, str(tmp_path / "m"), "stop")
    try:
        state = two_stages(*request, return_state=True)
        unbegun = two_stages(*request, return_state=True)
    finally:
        clear_stop()
    assert unbegun.is_cancelled()
    assert state.is_cancelled()
    manifest = manifest_of(state)
    assert [entry.status for entry in manifest.stages] == ["done", "cancelled"]
    resumed = two_stages(*request, return_state=True)
    assert [entry.status for entry in manifest_of(resumed).stages] == ["cached", "done"]


def test_the_run_shows_its_result_and_manifest_in_the_ui():
    result = run_small(grain=0.7)
    artifacts = artifacts_of(result.data["flow_run_id"])
    by_key = {artifact.key: artifact for artifact in artifacts if artifact.key}
    assert "](data:image/webp;base64," in str(by_key["result"].data)
    table = json.loads(str(by_key["manifest"].data))
    assert [row["stage"] for row in table] == ["clean", "look"]
    assert any(key.startswith("file-") for key in by_key)


REFUSED = {
    "missing image": ({}, "MISSING_REQUIRED_FIELD", "image"),
    "unknown stage": (
        {"stages": [{"stage_type": "sharpen", "name": "a"}]},
        "CONTRACT_MISMATCH",
        "sharpen",
    ),
    "unknown parameter": ({"foo": 1}, "CONTRACT_MISMATCH", "foo"),
    "outside": ({"call_input": {"image": "/etc/passwd"}}, "PERMISSION_DENIED", "/etc/passwd"),
    "dots": ({"call_input": {"image": f"{EXAMPLES}/../LICENSE"}}, "PERMISSION_DENIED", "LICENSE"),
    "gone": ({"call_input": {"image": f"{EXAMPLES}/no.png"}}, "FILE_NOT_FOUND", "no.png"),
    "no picture": ({"call_input": {"image": f"{EXAMPLES}/NOTICE"}}, "INVALID_FIELD_VALUE", "PNG"),
    "a video": ({"call_input": {"image": f"{EXAMPLES}/box.mp4"}}, "INVALID_FIELD_VALUE", "PNG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_calls_are_refused_before_anything_runs(case: str):
    changes, code, word = REFUSED[case]
    flow_input = {"stages": SMALL, **changes}
    try:
        state = pipeline(**flow_input, return_state=True)
    except TypeError as error:  # a parameter that is not there cannot even be bound in Python
        pytest.fail(str(error)) if word not in str(error) else None
        state = None
    if state is not None:
        assert state.is_failed()
        assert (state.message or "").startswith(f"[{code}] ")
        assert word in (state.message or "")
        assert "Fix: " in (state.message or "")


@pytest.mark.slow
def test_killed_in_its_third_stage_a_run_goes_on_there(volume: Path):
    stages = [
        *SMALL,
        StageSpec(stage_type="upscale", name="large", parameters={"model": "video", "tile": 64}),
    ]
    small = volume / "uploads" / "small.png"
    from PIL import Image

    Image.open(EXAMPLES / "astronaut.png").crop((120, 0, 376, 256)).save(small)
    program = (
        "from flows.pipeline import pipeline\n"
        "from flows.pipelines.described import StageSpec\n"
        f"stages = [StageSpec.model_validate(s) for s in {[s.model_dump() for s in stages]!r}]\n"
        f"pipeline(stages=stages, call_input={{'image': {str(small)!r}}}, seed=1)\n"
    )
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    records = volume / "cache" / "results"
    while process.poll() is None:  # the pytest timeout bounds this
        names = [path.name.split("-")[0] for path in records.glob("*")]
        if {"denoise", "grade"} <= set(names):
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = pipeline(stages=stages, call_input={"image": str(small)}, seed=1)
    assert statuses(result) == {"clean": "cached", "look": "cached", "large": "done"}
    assert not list((volume / "outputs").rglob(".part-*"))
