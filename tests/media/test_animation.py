"""Animated pictures: every frame, for as long as the file says, as often as it says."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.errors import InvalidMediaError
from safelight.media.animation import frames_of, played, timing_of, write_as_video
from safelight.media.images import decode_still
from safelight.media.video.stream import frame_times, probe, read_frames

LASTS = (40, 80, 120, 30, 50)


def moving(count: int = len(LASTS), alpha: bool = False) -> list[np.ndarray]:
    """A square that moves over a slope of greys; few colours, so that GIF holds them all."""
    slope = np.linspace(60, 180, 24).astype(np.uint8)[None, :, None]
    frames = []
    for at in range(count):
        frame = np.repeat(np.repeat(slope, 20, axis=0), 3, axis=2)
        frame[4:12, 2 + 3 * at : 8 + 3 * at] = (220, 40, 30)
        if alpha:
            cover = np.full((20, 24, 1), 255, np.uint8)
            cover[14:, : 4 + 2 * at] = 0
            frame = np.dstack((frame, cover))
        frames.append(frame)
    return frames


def animated(kind: str, frames: list[np.ndarray], **options) -> bytes:
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(frame) for frame in frames]
    options = {"duration": list(LASTS)[: len(frames)], "loop": 2} | options
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    if kind == "GIF":
        options |= {"disposal": 2}
    first.save(buffer, kind, save_all=True, append_images=others, **options)
    return buffer.getvalue()


def seen(pixels: np.ndarray) -> np.ndarray:
    """Colours where any are seen, and the cover."""
    if pixels.shape[2] == 3:
        return pixels
    return np.dstack((pixels[..., :3] * (pixels[..., 3:] > 0), pixels[..., 3:]))


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_every_frame_comes_with_its_time(kind, alpha):
    data = animated(kind, moving(alpha=alpha))
    timing = timing_of(data, 1)
    assert timing.lasts == tuple(Fraction(each, 1000) for each in LASTS)
    assert timing.plays == (3 if kind == "GIF" else 2)  # a GIF says how often again
    assert timing.transparent == alpha
    found = list(frames_of(data))
    assert len(found) == len(LASTS)
    for one, other in zip(found, moving(alpha=alpha), strict=True):
        quantised = 16 if kind == "GIF" and alpha else 0  # by Pillow, when it wrote this
        assert np.abs(seen(one).astype(int) - seen(other)).max() <= quantised


def test_a_still_is_not_animated_and_its_first_frame_is_a_still():
    data = animated("PNG", moving())
    still = decode_still(data)
    assert still.animated
    assert np.array_equal(still.pixels, moving()[0])
    assert not decode_still(animated("WEBP", moving(1))).animated


def test_a_gif_without_a_loop_plays_once_and_zero_is_for_ever():
    assert timing_of(animated("GIF", moving(), loop=None)).plays == 1
    assert timing_of(animated("GIF", moving(), loop=0)).plays == 0


def test_the_picture_for_viewers_without_animation_is_no_frame():
    data = animated("PNG", moving(), default_image=True, duration=list(LASTS)[1:])
    assert len(list(frames_of(data))) == len(LASTS) - 1
    assert np.array_equal(next(frames_of(data)), moving()[1])


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_a_frame_that_is_missing_is_named(kind):
    data = animated(kind, moving())
    with pytest.raises(InvalidMediaError, match=r"frame|animation"):
        timing_of(data[: len(data) * 3 // 4])


def test_more_than_is_taken_is_refused_with_numbers():
    with pytest.raises(InvalidMediaError, match=r"24x20 px.*megapixels in all"):
        timing_of(animated("GIF", moving()), 0.0001)


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_a_video_of_it_has_the_same_pixels_at_the_same_times(kind, tmp_path: Path):
    target = tmp_path / "loop.mkv"
    write_as_video(animated(kind, moving()), target, transparent=False)
    times = frame_times(target)
    begins = [sum(LASTS[:at]) for at in range(len(LASTS))]
    assert [shown * 1000 for shown in times.since_start()] == begins
    assert times.lasts(len(LASTS) - 1) * times.tick * 1000 == LASTS[-1]
    assert probe(target).frames == len(LASTS)
    for one, other in zip(read_frames(target), moving(), strict=True):
        assert np.array_equal(one, other)


def test_frames_without_a_time_play_as_in_browsers(tmp_path: Path):
    data = animated("GIF", moving(), duration=[0] * len(LASTS))
    assert timing_of(data).lasts == (Fraction(0),) * len(LASTS)
    assert played(Fraction(0)) == Fraction(1, 10)
    write_as_video(data, tmp_path / "loop.mkv", transparent=False)
    assert probe(tmp_path / "loop.mkv").fps == 10
