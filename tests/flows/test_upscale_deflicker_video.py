"""The video upscaler through Prefect, at each level."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from flows.upscale_deflicker_video_v1 import upscale_deflicker_video_v1
from safelight.errors import InvalidFieldValueError
from safelight.media.video.stream import probe, read_frames
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from tests.media.clips import write_video

pytestmark = pytest.mark.usefixtures("server", "volume")


@pytest.fixture
def clip(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> str:
    """Four small frames of a photograph that flickers."""
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    path = settings().volume_root / "uploads" / "clip.mp4"
    path.parent.mkdir(parents=True)
    still = photo[60:108, 180:244]
    shown = [np.rint(still * gain).astype(np.uint8) for gain in (0.9, 0.75, 0.95, 0.8)]
    write_video(path, shown, Fraction(30))
    return "uploads/clip.mp4"


@pytest.mark.parametrize(
    ("quality", "steps", "factor", "frames"),
    [
        ("low", ["deflicker", "upscale"], 2, 4),
        ("standard", ["deflicker", "denoise", "upscale"], 2, 4),
        ("pro", ["deflicker", "denoise", "interpolate", "upscale"], 4, 8),
    ],
)
def test_each_level_does_what_it_says(clip, quality: str, steps, factor: int, frames: int):
    result = upscale_deflicker_video_v1(video=clip, quality=quality)
    manifest = load_manifest(str(result.data["manifest"]))
    assert [entry.stage_type for entry in manifest.stages] == steps
    path = current_store().fetch(manifest.results[0])
    info = probe(path)
    assert (info.width, info.height, info.frames) == (64 * factor, 48 * factor, frames)
    assert info.fps == 30 * frames // 4
    means = [frame.mean() for frame in read_frames(path)]
    assert np.std(means) < 0.3 * np.std([0.9, 0.75, 0.95, 0.8]) * np.mean(means)


def test_a_rate_that_cannot_be_raised_is_refused_before_any_work(clip: str):
    with pytest.raises(InvalidFieldValueError, match="target_fps 24 is not above source_fps 30"):
        upscale_deflicker_video_v1(
            video=clip, quality="pro", overrides={"interpolate": {"target_fps": 24}}
        )
    outputs = settings().volume_root / "outputs"
    assert not list(outputs.rglob("*.mp4")) if outputs.exists() else True
