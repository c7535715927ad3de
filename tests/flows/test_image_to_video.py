"""Image to video through Prefect, at each level."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.generate import generate
from flows.image_to_video_v1 import image_to_video_v1
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from safelight.client.page import _served
from safelight.errors import InvalidFieldValueError
from safelight.media.video.stream import probe
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("server", "volume")


@pytest.fixture
def picture(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> str:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    path = settings().volume_root / "uploads" / "face.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(photo[60:108, 200:264]).save(path)
    return "uploads/face.png"


@pytest.mark.parametrize(
    ("quality", "given", "frames"),
    [("low", {}, 48), ("standard", {}, 72), ("pro", {"duration": 2.5}, 60)],
)
def test_a_picture_moves_for_as_long_as_the_level_or_the_caller_says(
    picture: str, quality: str, given: dict[str, float], frames: int
):
    slow = {"animate": {"fps": 24}} if quality == "pro" else {}
    result = image_to_video_v1(image=picture, quality=quality, seed=1, overrides=slow, **given)
    manifest = load_manifest(str(result.data["manifest"]))
    info = probe(current_store().fetch(manifest.results[0]))
    assert (info.frames, info.fps, info.width, info.height) == (frames, 24, 64, 48)
    (entry,) = manifest.stages
    assert entry.engine.engine_id == "local_motion"
    assert "nothing in it moves by itself" in " ".join(entry.notes)
    assert _served(entry).startswith("local_motion ")  # as the run's page has it
    assert "not diffusers: DEPENDENCY_MISSING, there is no video model" in _served(entry)


def test_a_duration_outside_the_limits_is_refused(picture: str):
    for seconds in (1.5, 5.5):
        with pytest.raises(InvalidFieldValueError, match="duration"):
            image_to_video_v1.checked({"image": picture, "duration": seconds})


def test_generate_makes_a_video_that_says_how_it_was_made(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    given = {"prompt": "a red heart", "width": 64, "height": 64, "steps": 2, "seed": 1}
    result = generate(makes="video", duration=2.0, **given)
    manifest = load_manifest(str(result.data["manifest"]))
    (kept,) = manifest.results
    assert (kept.media_type, kept.frames) == ("video/mp4", 48)
    (entry,) = manifest.stages
    assert entry.engine.engine_id == "local_motion"
    assert "no video model drew this" in " ".join(entry.notes)
    with pytest.raises(InvalidFieldValueError, match="use_facedetailer is true, and makes is vid"):
        generate(makes="video", use_facedetailer=True, **given)
    with pytest.raises(InvalidFieldValueError, match="the preset draws pictures"):
        photoreal_portrait_v1(prompt="a red heart", overrides={"generate": {"makes": "video"}})
