"""A pipeline is refused for all that is wrong with it, each at its place, before anything loads."""

import copy
import itertools
import json
import sys
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from flows.pipeline import pipeline
from flows.pipelines.checking import pipeline_problems
from flows.pipelines.described import Pipeline
from flows.pipelines.plan import plan_pipeline
from safelight.cli.pipeline_files import line_of
from safelight.errors import PipelineError
from safelight.params import refusals
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from tests.flows.pipelines.random_pipelines import Described, running, wild
from tests.media.clips import write_video

MEDIA = ("image", "mask", "video", "audio")
ENGINES = {"torch", "diffusers", "ncnn", "spandrel", "transformers"}
WEIGHTS = (".safetensors", ".bin", ".param", ".pth", ".ckpt", ".pkl", ".png", ".mp4")


class Opened:
    """Names of files with weights or pixels that were opened while it listened."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.listens = False
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listens and event == "open" and str(arguments[0]).endswith(WEIGHTS):
            self.names.append(str(arguments[0]))


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    heard = Opened()
    yield heard
    heard.listens = False


def refused(described: Described) -> set[str]:
    """Codes of a run's refusals, whatever media its call brings; none where one would run."""
    if described.keys() - {"stages", "parameters", "seed"} or described.get("seed") is not None:
        return {"CONTRACT_MISMATCH", "INVALID_FIELD_VALUE"}
    try:
        whole = Pipeline.model_validate(described)
    except ValidationError as error:
        return {one.code for _, one in refusals(error, "pipeline")}
    found: set[str] = set()
    for count in range(len(MEDIA) + 1):
        for names in itertools.combinations(MEDIA, count):
            try:
                plan_pipeline(whole, dict.fromkeys(names, "store:any"))
            except PipelineError as error:
                found.add(error.code)
            else:
                return set()
    return found


@examples(max_examples=60, deadline=None)
@given(wild())
def test_some_random_pipelines_are_refused_with_their_places_or_would_run(
    opened: Opened, described: Described
):
    _refused_or_would_run(opened, described)


@pytest.mark.slow
@examples(max_examples=1000, deadline=None)
@given(wild())
def test_a_thousand_random_pipelines_are_refused_with_their_places_or_would_run(
    opened: Opened, described: Described
):
    _refused_or_would_run(opened, described)


def _refused_or_would_run(opened: Opened, described: Described) -> None:
    there = ENGINES & set(sys.modules)
    opened.names.clear()
    opened.listens = True
    told = pipeline_problems(copy.deepcopy(described), {})
    opened.listens = False
    assert not opened.names
    assert ENGINES & set(sys.modules) == there
    codes = refused(described)
    assert bool(told) == bool(codes)
    data = json.dumps(described, indent=1)
    for one in told:
        assert one.path
        assert one.code in {"CONTRACT_MISMATCH", "INVALID_FIELD_VALUE", "MISSING_REQUIRED_FIELD"}
        assert one.problem
        assert one.remedy
        line = line_of(data.encode(), one.path)
        assert line is not None
        if one.path[-1] in ("stagess", "version", "nmae", "grian"):
            assert f'"{one.path[-1]}"' in data.splitlines()[line - 1]


def _unknown_type(stages: list[Described], at: int) -> tuple[str | int, ...]:
    stages[at]["stage_type"] = "sharpen"
    return ("stages", at, "stage_type")


def _unknown_field(stages: list[Described], at: int) -> tuple[str | int, ...]:
    stages[at]["parameters"]["grian"] = 1
    return ("stages", at, "parameters", "grian")


def _extra(stages: list[Described], at: int) -> tuple[str | int, ...]:
    stages[at]["nmae"] = "x"
    return ("stages", at, "nmae")


def _nobody(stages: list[Described], at: int) -> tuple[str | int, ...]:
    stages[at]["reads"] = [*stages[at]["reads"][:-1], "nobody"] if stages[at]["reads"] else []
    if not stages[at]["reads"]:
        return _unknown_field(stages, at)
    return ("stages", at, "reads", len(stages[at]["reads"]) - 1)


def _same_name(stages: list[Described], at: int) -> tuple[str | int, ...]:
    stages.append(copy.deepcopy(stages[at]))
    return ("stages", len(stages) - 1, "name")


FAULTS = (_unknown_type, _unknown_field, _extra, _nobody, _same_name)


@examples(max_examples=60, deadline=None)
@given(running(), st.data())
def test_all_that_is_wrong_is_told_at_once_and_nothing_else(
    described: Described, data: st.DataObject
):
    stages: list[Described] = described["stages"]
    places = data.draw(
        st.lists(st.integers(0, len(stages) - 1), min_size=1, max_size=4, unique=True)
    )
    wanted = set()
    for at in places:
        fault = data.draw(st.sampled_from(FAULTS))
        if fault is _same_name and places != [at]:
            fault = _unknown_field  # it would be wrong a second time where it is told again
        wanted.add(fault(stages, at))
    described["parameters"] = {"version": 3}
    told = {one.path for one in pipeline_problems(described, {})}
    # where a stage is unknown nobody can say which fields it has
    shared = {("parameters", "version")}
    assert told - shared == wanted
    assert ("parameters", "version") in told or any("stage_type" in path for path in wanted)


WRONG = {
    "stages": [
        {"stage_type": "generate", "name": "draw", "parameters": {"prompt": "a", "steps": 500}},
        {"stage_type": "sharpen", "name": "edges"},
        {"stage_type": "grade", "name": "look", "parameters": {"grain": 9, "glow": 1}},
        {"stage_type": "deflicker", "name": "draw"},
        {"stage_type": "blend", "name": "both", "reads": ["draw", "nobody"]},
        {"stage_type": "grade", "name": "a", "reads": ["b"]},
        {"stage_type": "grade", "name": "b", "reads": ["a"]},
        {"stage_type": "interpolate", "nmae": "fast", "parameters": {"target_fps": 61}},
    ],
    "version": 2,
}


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_lines_of_both_forms(form: str):
    text = json.dumps(WRONG, indent=1) if form == "json" else yaml.safe_dump(WRONG, sort_keys=False)
    told = {one.path: line_of(text.encode(), one.path) for one in pipeline_problems(WRONG, {})}
    lines = text.splitlines()
    wanted = {
        ("stages", 0, "parameters", "steps"): "steps",
        ("stages", 1, "stage_type"): "sharpen",
        ("stages", 2, "parameters", "grain"): "grain",
        ("stages", 2, "parameters", "glow"): "glow",
        ("stages", 3, "name"): "draw",
        ("stages", 4, "reads", 1): "nobody",
        ("stages", 7, "nmae"): "nmae",
        ("stages", 7, "parameters", "target_fps"): "target_fps",
        ("version",): "version",
    }
    for path, word in wanted.items():
        line = told.pop(path)
        assert line is not None
        assert word in lines[line - 1]
    missing = ("stages", 7, "name")
    (circle,) = told.keys() - {missing}
    assert circle in {("stages", 5, "reads"), ("stages", 6, "reads")}
    assert missing in told


@pytest.fixture
def media(
    volume: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> dict[str, str]:
    """A picture, a mask, a video and a sound, the first three of 64x64 px."""
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[60:124, 180:244]).save(folder / "image.png")
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    shown = (photo[60:124, 180 + at : 244 + at] for at in range(4))
    write_video(folder / "video.mp4", shown, Fraction(25))
    with wave.open(str(folder / "audio.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))
    names = ("image.png", "mask.png", "video.mp4", "audio.wav")
    return {name.partition(".")[0]: f"uploads/{name}" for name in names}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from examples.untrained import build_untrained

    return build_untrained(tmp_path_factory.mktemp("models") / "tiny").parent


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("server")
@examples(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(running())
def test_random_pipelines_that_are_not_refused_run_to_the_end(
    media: dict[str, str], described: Described
):
    assert pipeline_problems(described, {}) == []
    read = {name for spec in described["stages"] for name in spec["reads"]}
    call = {name: place for name, place in media.items() if name in read}
    result = pipeline(**described, call_input=call, seed=7)
    manifest = load_manifest(str(result.data["manifest"]))
    assert result.success
    assert {entry.name for entry in manifest.stages} == {
        spec["name"] for spec in described["stages"]
    }
    ends = {spec["name"] for spec in described["stages"]} - read
    assert len(manifest.results) == len(ends)
    for ref in manifest.results:
        assert current_store().fetch(ref).stat().st_size > 0
