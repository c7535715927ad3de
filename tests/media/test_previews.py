import base64
import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.previews import (
    LONGEST,
    STRIP_GAP,
    picture_preview,
    poster_strip,
    video_preview,
)
from tests.media.clips import write_video


def shown(uri: str) -> np.ndarray:
    kind, data = uri.removeprefix("data:").split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.get_format_mimetype() == kind
    return np.array(image.convert("RGB"))


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (700, 900, 3), dtype=np.uint8)


@pytest.mark.parametrize("media_type", ["image/webp", "image/jpeg"])
def test_a_photograph_is_recognisable_and_small(photo, media_type):
    uri = picture_preview(photo, media_type)
    assert len(uri) <= LONGEST
    assert uri == picture_preview(photo, media_type)
    preview = shown(uri)
    side = preview.shape[0]
    assert side >= 256
    wanted = np.array(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS))
    assert np.abs(preview.astype(int) - wanted).mean() < 6


@pytest.mark.parametrize("media_type", ["image/webp", "image/jpeg"])
def test_noise_fits_too(noise, media_type):
    uri = picture_preview(noise, media_type)
    assert len(uri) <= LONGEST
    assert min(shown(uri).shape[:2]) >= 64


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1)])
def test_any_shape_has_a_preview(height, width):
    preview = shown(picture_preview(np.full((height, width, 3), 90, np.uint8)))
    assert abs(int(preview[0, 0, 0]) - 90) <= 2
    assert max(preview.shape[:2]) == min(max(height, width), 512)


def test_a_limit_nothing_fits_into_is_refused(noise):
    with pytest.raises(ValueError, match="100 are allowed"):
        picture_preview(noise, longest=100)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """60 frames; frame n is grey 2 n + 60."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.mp4"
    frames = (np.full((48, 64, 3), 60 + 2 * n, np.uint8) for n in range(60))
    write_video(path, frames, Fraction(30))
    return path


@pytest.mark.parametrize(("shots", "frames"), [(1, [30]), (3, [10, 30, 50]), (4, [7, 22, 37, 52])])
def test_shots_are_taken_at_equal_distances(ramp, shots, frames):
    strip = poster_strip(ramp, shots)
    assert strip.shape == (48, 64 * shots + STRIP_GAP * (shots - 1), 3)
    centres = [strip[24, 32 + (64 + STRIP_GAP) * shot, 0] for shot in range(shots)]
    assert np.abs(np.array(centres, int) - (60 + 2 * np.array(frames))).max() <= 3


def test_a_video_preview_is_its_middle_frame(ramp):
    uri = video_preview(ramp)
    assert len(uri) <= LONGEST
    assert abs(int(shown(uri)[24, 32, 0]) - 120) <= 4
    assert uri == video_preview(ramp)


def test_one_frame_is_enough(tmp_path):
    write_video(tmp_path / "one.mp4", [np.full((32, 32, 3), 90, np.uint8)], Fraction(24))
    assert abs(int(poster_strip(tmp_path / "one.mp4")[16, 16, 0]) - 90) <= 3


def test_what_is_no_video_is_refused(tmp_path, ramp):
    with pytest.raises(MissingFileError):
        video_preview(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(InvalidMediaError, match=r"text\.mp4 cannot be decoded"):
        video_preview(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="0 shots"):
        poster_strip(ramp, 0)
