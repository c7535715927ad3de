"""The animate stage: local motion where no video model is, and video models of six families."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from safelight.engines.diffusers.video_families import FROM_PICTURE, FROM_TEXT, frames_for
from safelight.errors import DependencyMissingError, InvalidMediaError, MissingRequiredFieldError
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.embed import read_record
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.animate import AnimateParams, animate
from tasks.base.calling import Call, calling
from tasks.base.ingest import ingest

FAST = {"duration": 2.0, "steps": 1, "seed": 3}


@pytest.fixture
def picture(volume: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> ArtifactRef:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    path = volume / "uploads" / "face.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[60:124, 190:254]).save(path)
    return ingest(str(path), ("image",))


@pytest.fixture
def models(video_models: Callable[[str], str], request: pytest.FixtureRequest) -> str:
    """The family of the one tiny video model that there is."""
    return video_models(str(request.param))


def frames_of(ref: ArtifactRef) -> list[np.ndarray]:
    return list(read_frames(current_store().fetch(ref)))


def test_without_a_model_the_picture_itself_is_moved_and_all_say_so(picture: ArtifactRef):
    params = AnimateParams(duration=2.0, motion=1.0, camera="pan_right", prompt="it rains")
    call = Call(animate.declared, [picture, params])
    with calling(call):
        made = animate.fn(picture, params)
    info = probe(current_store().fetch(made))
    assert (info.frames, info.fps, info.width, info.height) == (48, 24, 64, 64)
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert (record.stage, record.engine_id, record.sources) == (
        "animate",
        "local_motion",
        (picture.sha256,),
    )
    notes = " ".join(made.metadata["notes"])
    assert "no video model drew this" in notes
    assert "nothing in it moves by itself" in notes
    assert "the prompt took no part" in notes
    assert [(each.engine_id, each.code) for each in call.passed_over] == [
        ("diffusers", "DEPENDENCY_MISSING")
    ]
    shown = frames_of(made)
    assert np.abs(shown[0].astype(int) - shown[-1]).mean() > 10
    steps = [np.abs(two.astype(int) - one).mean() for one, two in pairwise(shown)]
    assert max(steps) < 3 * np.median(steps)  # it moves evenly


def test_the_first_frame_is_the_picture(picture: ArtifactRef, photo: np.ndarray):
    made = animate.fn(picture, AnimateParams(duration=2.0, camera="zoom_in"))
    assert np.abs(frames_of(made)[0].astype(int) - photo[60:124, 190:254]).mean() < 3


@pytest.mark.parametrize(("duration", "fps", "frames"), [(2.0, 25, 50), (2.5, 24, 60)])
def test_it_is_as_long_as_asked_for(picture: ArtifactRef, duration: float, fps: int, frames: int):
    made = animate.fn(picture, AnimateParams(duration=duration, fps=fps, motion=0.0))  # pyright: ignore
    assert (made.frames, made.fps) == (frames, fps)


KINDS = [
    "ltx",
    "cogvideox",
    "wan",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("svd", "hunyuan", "animatediff", "sparsectrl")
    ),
]


@pytest.mark.parametrize("models", KINDS, indirect=True)
def test_video_models_draw_by_the_class_that_their_folder_names(picture: ArtifactRef, models: str):
    params = AnimateParams.model_validate({**FAST, "prompt": "it rains"})
    made = animate.fn(picture, params)
    size = (64, 48) if models == "cogvideox" else (64, 64)
    assert (made.width, made.height, made.frames, made.fps) == (*size, 48, 24)
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.engine_id == "diffusers"
    assert len(record.weights) == 2  # the model, and the interpolator's
    notes = " ".join(made.metadata["notes"])
    assert ("the prompt took no part" in notes) == (models == "svd")
    assert ("its longer side cut" in notes) == (models == "cogvideox")
    assert ("picture standing still" in notes) == (models == "animatediff")
    assert "no video model" not in notes
    shown = frames_of(made)
    assert any(not np.array_equal(shown[0], frame) for frame in shown)


@pytest.mark.parametrize("models", ["ltx"], indirect=True)
def test_a_seed_draws_the_same_video_and_another_another(picture: ArtifactRef, models: str):
    made = [
        animate.fn(picture, AnimateParams.model_validate({**FAST, "seed": seed})).sha256
        for seed in (3, 3, 4)
    ]
    assert made[0] == made[1] != made[2]
    with pytest.raises(MissingRequiredFieldError, match="no seed"):
        animate.fn(picture, AnimateParams(duration=2.0))


def test_a_model_that_is_not_there_is_no_local_motion(picture: ArtifactRef):
    with pytest.raises(DependencyMissingError, match="'wonder'"):
        animate.fn(picture, AnimateParams(model="wonder", seed=1))


def test_a_folder_of_another_kind_or_broken_is_told(
    picture: ArtifactRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "other" / "video" / "odd"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tmp_path / "other"))
    settings.cache_clear()
    (folder / "model_index.json").write_text('{"_class_name": "MochiPipeline"}')
    with pytest.raises(DependencyMissingError, match="MochiPipeline"):
        animate.fn(picture, AnimateParams(model="odd", seed=1))
    (folder / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    monkeypatch.setattr("safelight.engines.diffusers.videos.find_spec", lambda _: None)
    with pytest.raises(DependencyMissingError, match="needs the package ftfy"):
        animate.fn(picture, AnimateParams(model="odd", seed=1))
    (folder / "model_index.json").write_text('{"_class_name": "LTXPipeline"}')
    with pytest.raises(InvalidMediaError, match="odd"):
        animate.fn(picture, AnimateParams(model="odd", seed=1))


@pytest.mark.parametrize(
    "family",
    sorted({*FROM_PICTURE.values(), *FROM_TEXT.values()}, key=lambda family: family.pipeline),
    ids=lambda family: family.pipeline,
)
@pytest.mark.parametrize("seconds", [2.0, 3.3, 5.0])
def test_counts_are_what_a_model_can_draw_and_long_enough(family, seconds: float):
    count, rate = frames_for(family, seconds)
    assert (count - 1) % family.group == 0
    assert count <= family.most
    assert (count - 1) / rate >= seconds - 1e-3


@pytest.mark.parametrize(
    "given", [{"duration": 1.9}, {"duration": 5.1}, {"fps": 23}, {"motion": 1.1}, {"camera": "up"}]
)
def test_values_outside_their_limits_are_refused(given: dict[str, object]):
    with pytest.raises(ValidationError):
        AnimateParams.model_validate(given)
