"""Product clips through Prefect, at each level."""

from pathlib import Path
from uuid import uuid4

import av
import numpy as np
import pytest
from PIL import Image

from flows.running.recorded import run_inline
from flows.ugc_clip_builder_v1 import NO_LIPS, ugc_clip_builder_v1
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.media.video.stream import probe
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from tests.sounds import write_tone

pytestmark = pytest.mark.usefixtures("server", "volume")
SLOW = {"overrides": {"animate": {"fps": 24, "duration": 2}}}


@pytest.fixture
def given(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> dict[str, str]:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True)
    Image.fromarray(photo[60:108, 200:264]).save(folder / "product.png")
    write_tone(folder / "jingle.wav", 4)
    return {"product_image": "uploads/product.png", "prompt": "a mug on a table, steam rises"}


@pytest.mark.parametrize(
    ("quality", "overrides", "parts", "size", "frames"),
    [
        ("low", {}, ["clip"], (64, 48), 48),
        ("standard", {}, ["clip", "grade"], (64, 48), 72),
        pytest.param(
            *("pro", {"clip": SLOW}, ["clip", "grade", "upscale"], (128, 96), 48),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_clip_is_made_of_the_other_presets(
    given: dict[str, str], quality: str, overrides, parts: list[str], size, frames: int
):
    result = ugc_clip_builder_v1(
        **given, audio="uploads/jingle.wav", quality=quality, seed=4, overrides=overrides
    )
    assert [part["part"] for part in result.data["parts"]] == parts
    manifest = load_manifest(str(result.data["manifest"]))
    path = current_store().fetch(manifest.results[0])
    info = probe(path)
    assert (info.width, info.height, info.frames) == (*size, frames)
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 1
    assert manifest.stages[0].name == "clip.animate"
    assert manifest.stages[0].engine.engine_id == "local_motion"
    assert manifest.stages[-1].name == "dub"
    assert any("cut there" in text for text in manifest.stages[-1].notes)
    assert result.data.get("left_out") == ([NO_LIPS] if quality == "pro" else None)
    seeds = {e.parameters["seed"] for e in manifest.stages if e.stage_type in ("animate", "grade")}
    assert seeds == {4}


def test_without_sound_the_clip_is_silent(given: dict[str, str]):
    result = ugc_clip_builder_v1(**given, quality="low", seed=4)
    with av.open(str(current_store().fetch(result.results[0]))) as container:
        assert not container.streams.audio
    assert "left_out" not in result.data


def test_what_is_missing_or_wrong_is_refused_before_the_first_part(given: dict[str, str]):
    with pytest.raises(MissingFileError, match=r"none\.wav"):
        ugc_clip_builder_v1(**given, audio="uploads/none.wav", quality="low")
    with pytest.raises(InvalidFieldValueError, match="expected audio"):
        ugc_clip_builder_v1(**given, audio="uploads/product.png", quality="low")


def test_a_part_that_fails_fails_the_clip_with_its_code_and_keeps_what_was_made(
    given: dict[str, str],
):
    bad = {"grade": {"overrides": {"grade": {"grain": 7}}}}
    state = ugc_clip_builder_v1(**given, quality="standard", overrides=bad, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("[INVALID_FIELD_VALUE]")
    left = load_manifest(str(state.state_details.flow_run_id))
    assert [entry.name for entry in left.stages] == ["clip.animate"]
    assert left.artifacts


def test_parts_run_inside_a_shard_too(given: dict[str, str]):
    def run(**more: object):
        called = {**given, "quality": "standard", "seed": 4, **more}
        return run_inline(ugc_clip_builder_v1, called, str(uuid4()), lambda *_: None)

    made = run(overrides={"clip": {"quality": "low"}})
    assert made.success
    assert [entry.name for entry in made.stages] == ["clip.animate", "grade.grade"]
    assert probe(current_store().fetch(made.results[0])).frames == 48
    failed = run(overrides={"clip": {"quality": "low", "overrides": {"animate": {"fps": 7}}}})
    assert failed.error is not None
    assert failed.error.code == "INVALID_FIELD_VALUE"
    assert "fps" in failed.error.problem
