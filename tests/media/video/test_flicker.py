"""Flicker that was laid over scenes goes away again, and what moves in them stays."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from safelight.media.video import flicker
from safelight.media.video.flicker import corrections, light_paths, relit

Worked = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
FRAMES, HEIGHT, WIDTH, SIDE = 36, 108, 192, 48


@pytest.fixture(scope="module")
def ground(photo: np.ndarray) -> NDArray[np.uint8]:
    """A photograph with room above for what is made brighter."""
    return (photo[:, :] * 0.8).astype(np.uint8)


def moving(ground: NDArray[np.uint8], frames: int = FRAMES) -> tuple[list[np.ndarray], np.ndarray]:
    """A face that crosses a wall, 2 px a frame, and in each frame where it is."""
    still, thing = ground[300 : 300 + HEIGHT, 20 : 20 + WIDTH], ground[70:118, 200:248]
    shown, where = [], np.zeros((frames, HEIGHT, WIDTH), bool)
    for at in range(frames):
        frame = still.copy()
        left = 2 * at + 10
        frame[30 : 30 + SIDE, left : left + SIDE] = thing
        where[at, 30 : 30 + SIDE, left : left + SIDE] = True
        shown.append(frame)
    return shown, where


def panned(ground: NDArray[np.uint8], frames: int = FRAMES, step: int = 2) -> list[np.ndarray]:
    return [ground[50 : 50 + HEIGHT, step * at :][:, :WIDTH].copy() for at in range(frames)]


def flickering(shown: list[np.ndarray], kind: str, part: float = 0.2) -> list[np.ndarray]:
    """Brightness off by up to a part of it, alike in all channels, in each, or in linear light."""
    drawn = np.random.default_rng(7)
    count = len(shown)
    if kind == "mains":  # a lamp against the shutter: the same again every three frames and a half
        gains = 1 + part * np.sin(2 * np.pi * np.arange(count) / 3.5)[:, None].repeat(3, 1)
    elif kind == "colour":
        gains = 1 + drawn.uniform(-part, part, (count, 3))
    else:
        gains = 1 + drawn.uniform(-part, part, (count, 1)).repeat(3, 1)
    power = 1 / 2.2 if kind == "linear" else 1
    return [
        np.clip(np.rint(frame * gain**power), 0, 255).astype(np.uint8)
        for frame, gain in zip(shown, gains, strict=True)
    ]


def steadied(shown: list[np.ndarray], level: float = 1.0) -> Iterator[np.ndarray]:
    gains = np.concatenate([corrections(path, level) for path in light_paths(shown)])
    assert len(gains) == len(shown)
    for frame, each in zip(shown, gains, strict=True):
        yield relit(frame, each)


def flicker_of(shown: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """How far the mean of each channel is off what it should be, over time, apart from what is
    always the same.
    """
    off = np.array([one.mean((0, 1)) - two.mean((0, 1)) for one, two in zip(shown, truth)])  # noqa: B905
    return float(off.std(axis=0).max())


def decibel(apart: NDArray[np.floating]) -> float:
    return float(10 * np.log10(255**2 / max((apart**2).mean(), 1e-9)))


def psnr(shown, truth, where=None) -> float:
    """Without the part of the difference that is constant: nobody says which level is right."""
    gain = np.mean(np.array(shown, float)) / np.mean(np.array(truth, float))
    apart = np.array(shown).astype(float) - gain * np.array(truth)
    return decibel(apart if where is None else apart[where])


@pytest.fixture(scope="module")
def worked(ground: NDArray[np.uint8]) -> Callable[[str, str], Worked]:
    """A scene as it was, with flicker of a kind, and without it again; each made once."""

    @cache
    def work(scene: str, kind: str) -> Worked:
        truth = moving(ground)[0] if scene == "a face that crosses" else panned(ground)
        before = flickering(truth, kind)
        return truth, before, list(steadied(before))

    return work


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        ("a face that crosses", "random"),
        ("a face that crosses", "colour"),
        ("a face that crosses", "linear"),
        ("a pan", "random"),
        ("a pan", "mains"),
    ],
)
def test_a_flicker_of_a_fifth_goes_down_by_more_than_ten_decibel(worked, scene: str, kind: str):
    truth, before, after = worked(scene, kind)
    fell = 20 * np.log10(flicker_of(before, truth) / flicker_of(after, truth))
    assert fell > 10, f"{fell:.1f} dB"


@pytest.mark.parametrize("kind", ["random", "colour"])
def test_what_stands_still_and_what_moves_come_out_alike(worked, ground, kind: str):
    truth, before, after = worked("a face that crosses", kind)
    _, where = moving(ground)
    for place in (~where, where):
        assert psnr(after, truth, place) > 32
        assert psnr(after, truth, place) > psnr(before, truth, place) + 8


@pytest.mark.parametrize("step", [0, 3, 5])
def test_a_scene_without_flicker_hardly_changes(ground, step: int):
    """A pan by parts of a pixel of what is measured, and a face that crosses a wall."""
    truth = panned(ground, 24, step) if step else moving(ground, 24)[0]
    assert psnr(list(steadied(truth)), truth) > 45


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (2160, 3840), (720, 1280), (400, 300)])
def test_frames_are_looked_at_small(height: int, width: int):
    frame = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = flicker._small(frame)
    assert max(small.shape[:2]) == pytest.approx(96, abs=4)
    assert small.mean() == pytest.approx(frame.mean(), abs=0.5)


def test_a_fade_stays_a_fade(ground):
    still = ground[50 : 50 + HEIGHT, 20 : 20 + WIDTH]
    truth = [np.rint(still * (0.3 + 0.7 * at / 35)).astype(np.uint8) for at in range(36)]
    assert psnr(list(steadied(truth)), truth) > 40


def test_a_lamp_that_is_switched_on_stays_where_it_was(ground):
    still = ground[50 : 50 + HEIGHT, 20 : 20 + WIDTH]
    dark = (still * 0.6).astype(np.uint8)
    truth = [dark] * 20 + [still] * 24
    assert psnr(list(steadied(truth)), truth) > 40


def test_scenes_are_measured_apart(ground):
    one, two = panned(ground, 16), [frame[:, ::-1].copy() for frame in moving(ground, 16)[0]]
    truth = [*one, *two]
    assert [len(path) for path in light_paths(flickering(truth, "random", 0.1))] == [16, 16]
    means = [frame.mean() for frame in steadied(truth)]
    assert all(abs(mean - frame.mean()) < 1 for mean, frame in zip(means, truth, strict=True))


def test_half_a_level_takes_half_of_it(worked):
    truth, before, whole = worked("a pan", "mains")
    half = flicker_of(list(steadied(before, 0.5)), truth)
    assert half == pytest.approx(flicker_of(before, truth) / 2, rel=0.15)
    assert flicker_of(whole, truth) < half / 2


def test_what_moves_moves_as_before(worked, ground):
    _, where = moving(ground)
    _, _, after = worked("a face that crosses", "random")
    for at, (one, two) in enumerate(pairwise(after)):
        right = np.abs(two[where[at + 1]].astype(int) - one[where[at]]).mean()
        late = np.abs(two[where[at]].astype(int) - one[where[at]]).mean()
        assert right < late / 2


@pytest.mark.parametrize("level", [0, 255])
def test_frames_that_show_nothing_stay(level: int):
    shown = [np.full((20, 30, 3), level, np.uint8)] * 5
    assert all((frame == level).all() for frame in steadied(shown))


def test_one_frame_and_tiny_frames_are_taken(ground):
    (only,) = steadied([ground[:8, :8].copy()])
    assert np.array_equal(only, ground[:8, :8])
    assert len(list(steadied([ground[:1, :3].copy()] * 4))) == 4
