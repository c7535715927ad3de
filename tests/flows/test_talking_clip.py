"""Clips of people: mouths that move to a sound, faces that stay who they are, at each level."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flows.lipsync import lipsync
from flows.talking_clip_v1 import talking_clip_v1
from flows.ugc_clip_builder_v1 import ugc_clip_builder_v1
from flows.video_identity_consistency_v1 import video_identity_consistency_v1
from safelight.errors import (
    ConsentMissingError,
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
)
from safelight.media.fitting import resized
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tests.media.clips import write_video
from tests.sounds import write_tone
from tests.talking import lips
from tests.tiny_adapters import build_tiny_models

pytestmark = pytest.mark.usefixtures("server", "volume")
FRAMES, FPS = 6, 25
FEW = {"detail": {"steps": 4, "strength": 0.5}}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def given(
    volume: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> dict[str, str]:
    """A clip in which a face moves a little, and a sound as long."""
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(tiny_models))
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True)
    write_video(
        folder / "clip.mp4",
        (resized(photo[:256, 100 + at : 356 + at], 160, 160) for at in range(FRAMES)),
        Fraction(FPS),
    )
    Image.fromarray(photo[0:256, 130:386]).save(folder / "face.png")
    write_tone(folder / "said.wav", FRAMES / FPS)
    return {"video": "uploads/clip.mp4", "audio": "uploads/said.wav"}


def frames_of(ref: ArtifactRef) -> np.ndarray:
    return np.stack(list(read_frames(current_store().fetch(ref)))).astype(int)


def source() -> np.ndarray:
    return np.stack(list(read_frames(settings().volume_root / "uploads" / "clip.mp4"))).astype(int)


def sounds_in(ref: ArtifactRef) -> int:
    with av.open(str(current_store().fetch(ref))) as container:
        return len(container.streams.audio)


def test_without_an_engine_it_is_refused_with_what_to_do(given: dict[str, str]):
    for run in (lipsync, talking_clip_v1):
        with pytest.raises(DependencyMissingError, match="no engine that moves lips") as refused:
            run(**given)
        assert "stage dub" in refused.value.remedy


@pytest.mark.parametrize(
    ("quality", "fidelity"), [("low", "standard"), ("standard", "high"), ("pro", "ultra")]
)
def test_a_mouth_moves_to_a_sound_at_each_level(
    given: dict[str, str], tmp_path: Path, quality: str, fidelity: str
):
    with lips(tmp_path) as engine:
        result = talking_clip_v1(**given, quality=quality)
        assert [(each[0], each[1]) for each in engine.asked] == [(fidelity, ".wav")]
        assert engine.asked[0][2].startswith(f"{result.data['flow_run_id']}/lipsync-")
    (made,) = result.results
    assert sounds_in(made) == 1
    shown, before = frames_of(made), source()
    assert shown.shape == before.shape
    assert shown[:, 85:, :, 0].mean() > 240
    assert np.abs(shown[:, :70] - before[:, :70]).mean() < 6
    (entry,) = load_manifest(str(result.data["manifest"])).stages
    assert entry.engine.engine_id == "toy_lips"


@pytest.mark.slow
def test_the_face_of_a_talking_clip_stays_the_person_s(given: dict[str, str], tmp_path: Path):
    with lips(tmp_path):
        shown = {**given, "identity_reference": "uploads/face.png", "seed": 3}
        with pytest.raises(ConsentMissingError):
            talking_clip_v1(**shown, quality="pro")
        with pytest.raises(InvalidFieldValueError, match="at pro alone"):
            talking_clip_v1(**shown, consent_given=True, quality="low")
        plain = talking_clip_v1(**given, quality="pro")
        result = talking_clip_v1(**shown, consent_given=True, quality="pro", overrides=FEW)
    manifest = load_manifest(str(result.data["manifest"]))
    assert [entry.stage_type for entry in manifest.stages] == ["lipsync", "detail"]
    assert manifest.consent is not None
    assert result.results[0].sha256 != plain.results[0].sha256
    assert sounds_in(result.results[0]) == 1


@pytest.mark.parametrize(
    ("quality", "weight", "frames", "stages"),
    [
        ("low", 0.6, FRAMES, ["detail", "deflicker"]),
        pytest.param(*("standard", 0.75, FRAMES, ["detail", "deflicker"]), marks=pytest.mark.slow),
        pytest.param(
            *("pro", 0.8, 15, ["detail", "deflicker", "interpolate"]), marks=pytest.mark.slow
        ),
    ],
)
def test_the_face_of_each_frame_is_drawn_again_as_the_person_s(
    given: dict[str, str], quality: str, weight: float, frames: int, stages: list[str]
):
    called = {"video": given["video"], "identity_reference": ["uploads/face.png"], "seed": 3}
    with pytest.raises(ConsentMissingError):
        video_identity_consistency_v1(**called)
    result = video_identity_consistency_v1(
        **called, quality=quality, consent_given=True, overrides=FEW
    )
    manifest = load_manifest(str(result.data["manifest"]))
    assert [entry.stage_type for entry in manifest.stages] == stages
    drawn = manifest.stages[0]
    assert drawn.parameters["reference"]["weight"] == weight
    assert drawn.parameters["reference"]["images"] == [manifest.inputs["identity_reference.0"].uri]
    assert f"a face in {FRAMES} of the {FRAMES} frames that were looked at" in drawn.notes
    assert manifest.consent is not None
    assert probe(current_store().fetch(result.results[0])).frames == frames
    (faces,) = drawn.results
    changed = np.abs(frames_of(faces) - source())
    assert changed[:, 55:90, 60:95].mean() > 4  # the face
    assert changed[:, 150:, :20].mean() < 2  # a corner far from it, encoded anew


@pytest.mark.slow
def test_a_clip_of_a_product_speaks_where_an_engine_moves_lips(
    given: dict[str, str], tmp_path: Path, photo: np.ndarray
):
    small = settings().volume_root / "uploads" / "small.png"
    Image.fromarray(resized(photo[20:212, 130:322], 64, 64)).save(small)
    short = {"clip": {"overrides": {"animate": {"fps": 24, "duration": 2}}}, "grade": {}}
    run = {"product_image": "uploads/small.png", "prompt": "a mug", "audio": given["audio"]}
    small = {**short, "upscale": {"quality": "low"}}
    with lips(tmp_path) as engine:
        result = ugc_clip_builder_v1(**run, quality="pro", seed=1, overrides=small)
        assert len(engine.asked) == 1
    assert "left_out" not in result.data
    names = [entry.stage_type for entry in load_manifest(str(result.data["manifest"])).stages]
    assert "lipsync" in names


def test_what_is_no_sound_is_refused(given: dict[str, str], tmp_path: Path):
    with lips(tmp_path), pytest.raises(InvalidMediaError, match="expected audio"):
        talking_clip_v1(video=given["video"], audio="uploads/face.png")
