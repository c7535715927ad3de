"""Presets of portraits, pictures and looks at each level through Prefect, their results opened."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cinematic_portrait_v1 import cinematic_portrait_v1
from flows.color_grade_film_grain_v1 import color_grade_film_grain_v1
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from presets.base.catalog import find_preset, preset_ids
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.manifest import Manifest, load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tests.media.clips import write_video
from tests.served import CHECKOUT

LEVELS = ("low", "standard", "pro")
SMALL = {"generate": {"width": 64, "height": 64, "steps": 2}}
ELSEWHERE = {
    "identity_lock_portrait_v1": "test_identity.py",
    "image_to_video_v1": "test_image_to_video.py",
    "repair_pipeline_v1": "test_repair_pipeline.py",
    "storyboard_builder_v1": "test_storyboard_builder.py",
    "talking_clip_v1": "test_talking_clip.py",
    "ugc_clip_builder_v1": "test_ugc_clip_builder.py",
    "upscale_deflicker_video_v1": "test_upscale_deflicker_video.py",
    "video_identity_consistency_v1": "test_talking_clip.py",
}
"""Presets whose levels are run in a file of their own."""
HERE = {
    "cinematic_portrait_v1",
    "color_grade_film_grain_v1",
    "photoreal_portrait_v1",
    "upscale_denoise_image_v1",
}


def test_each_preset_is_run_at_each_level_somewhere():
    assert HERE | ELSEWHERE.keys() == set(preset_ids())
    for preset, name in ELSEWHERE.items():
        text = (CHECKOUT / "tests" / "flows" / name).read_text()
        assert f"{preset}(" in text
        assert all(f'"{level}"' in text for level in LEVELS)


@pytest.fixture
def photos(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> dict[str, str]:
    """A small picture and a clip of four frames."""
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[60:92, 200:240]).save(folder / "small.png")
    shown = (photo[200:264, 180:260] for _ in range(4))
    write_video(folder / "clip.mp4", shown, Fraction(24))
    return {"image": "uploads/small.png", "video": "uploads/clip.mp4"}


def _run(flow: Any, **given: Any) -> Manifest:
    manifest = load_manifest(str(flow(**given).data["manifest"]))
    assert manifest.success
    assert len(manifest.results) == 1
    return manifest


def _stages(manifest: Manifest) -> list[str]:
    return [entry.stage_type for entry in manifest.stages]


def _frames(manifest: Manifest) -> np.ndarray:
    return np.stack(list(read_frames(current_store().fetch(manifest.results[0])))).astype(int)


@pytest.mark.slow
@pytest.mark.usefixtures("server", "photos")
def test_photoreal_portraits():
    seen = {}
    for level, more in zip(LEVELS, ([], ["detail"], ["detail", "upscale"]), strict=True):
        made = _run(
            photoreal_portrait_v1, prompt="a red heart", seed=3, quality=level, overrides=SMALL
        )
        assert _stages(made) == ["generate", *more]
        drawn = made.stages[0].parameters
        knobs = find_preset("photoreal_portrait_v1").levels[level].generate
        assert drawn["guidance_scale"] == knobs.guidance_scale
        seen[level] = load_image(made.results[0])
        assert seen[level].std() > 5
    assert [seen[level].shape for level in LEVELS] == [(64, 64, 3), (64, 64, 3), (128, 128, 3)]


@pytest.mark.slow
@pytest.mark.usefixtures("server", "photos")
def test_cinematic_portraits():
    seen = {}
    for level in LEVELS:
        made = _run(
            cinematic_portrait_v1, prompt="a red heart", seed=3, quality=level, overrides=SMALL
        )
        assert _stages(made) == ["generate", "grade"]
        grade = made.stages[1].parameters
        assert grade["grain"] == 0.25
        assert (grade["tone"], grade["colour"]) == {
            "low": (0, "none"),
            "standard": (0.4, "none"),
            "pro": (0.4, "cinematic"),
        }[level]
        seen[level] = load_image(made.results[0]).astype(int)
        (bare,) = made.stages[0].results
        assert np.abs(seen[level] - load_image(bare)).mean() > 0.1  # the grain, at the least
    assert all(picture.shape == (64, 64, 3) for picture in seen.values())
    assert (seen["low"] != seen["standard"]).any()
    assert (seen["standard"] != seen["pro"]).any()


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_pictures_are_cleaned_and_enlarged(photos: dict[str, str], photo: np.ndarray):
    source = photo[60:92, 200:240].astype(float)
    for level, factor in zip(LEVELS, (2, 2, 4), strict=True):
        made = _run(upscale_denoise_image_v1, image=photos["image"], quality=level)
        assert _stages(made) == ["denoise", "upscale"]
        large = load_image(made.results[0]).astype(float)
        assert large.shape == (32 * factor, 40 * factor, 3)
        again = large.reshape(32, factor, 40, factor, 3).mean(axis=(1, 3))
        assert np.abs(again - source).mean() < 8  # the same picture


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_clips_get_a_look(photos: dict[str, str], photo: np.ndarray):
    plain = photo[200:264, 180:260].astype(int)
    grains = []
    for level in LEVELS:
        made = _run(
            color_grade_film_grain_v1, video=photos["video"], style="warm", quality=level, seed=3
        )
        assert _stages(made) == ["grade"]
        path = current_store().fetch(made.results[0])
        assert (probe(path).width, probe(path).height, probe(path).frames) == (80, 64, 4)
        seen = _frames(made)
        reds, blues = seen[..., 0].mean(), seen[..., 2].mean()
        assert reds - blues > plain[..., 0].mean() - plain[..., 2].mean() + 1
        grains.append(np.diff(seen, axis=0).std())  # nothing else moves
    assert grains[0] < grains[1] < grains[2]
    assert grains[2] > 1.5 * grains[0]
