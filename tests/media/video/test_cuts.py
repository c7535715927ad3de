"""Cuts and what only looks like one, made of photographs and the shipped clip."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from safelight.media.video.cuts import is_cut
from safelight.media.video.stream import read_frames

CLIP = Path(__file__).parents[3] / "examples" / "box.mp4"
WIDTH, HEIGHT = 320, 180
Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    from skimage import data

    found = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.camera()]
    return [np.asarray(Image.fromarray(each).convert("RGB")) for each in found]


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    return [fitted(frame) for frame in read_frames(CLIP)]


def fitted(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def window(photo: np.ndarray, left: float, top: float, size: float) -> np.ndarray:
    """A part of a photograph; all in parts of its width and height."""
    height, width = photo.shape[:2]
    wide = int(size * min(width, height * 16 / 9))
    high = wide * 9 // 16
    x, y = int(left * (width - wide)), int(top * (height - high))
    return fitted(photo[y : y + high, x : x + wide])


def dimmed(picture: np.ndarray, part: float) -> np.ndarray:
    return (picture * part).round().astype(np.uint8)


def in_colours_of(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    own, foreign = picture.astype(float), other.astype(float)
    even = (own - own.mean((0, 1))) / own.std((0, 1))
    return (even * foreign.std((0, 1)) + foreign.mean((0, 1))).clip(0, 255).astype(np.uint8)


def noisy(picture: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return (picture + rng.normal(0, level, picture.shape)).clip(0, 255).astype(np.uint8)


def cuts(photos: list[np.ndarray], clip: list[np.ndarray]) -> list[Pair]:
    rng = np.random.default_rng(3)
    made: list[Pair] = []
    for index in range(60):
        one, two = (photos[i] for i in rng.choice(len(photos), 2, replace=False))
        first, second = (window(each, *rng.uniform(0, 1, 2), 0.7) for each in (one, two))
        if index % 5 == 4:
            first = clip[int(rng.integers(72))]
        if index % 5 in (1, 4):
            part = rng.uniform(0.1, 0.3)
            first, second = dimmed(first, part), dimmed(second, part)
        if index % 5 == 2:
            second = in_colours_of(second, first)
        if index % 5 == 3:  # shot and counter-shot in one room
            first, second = window(one, 0, 0, 0.5), window(one, 1, 1, 0.5)
        made.append((first, second))
    return made


def others(photos: list[np.ndarray], clip: list[np.ndarray]) -> list[Pair]:
    rng = np.random.default_rng(4)
    made: list[Pair] = []
    for index in range(60):
        photo = photos[int(rng.integers(len(photos)))]
        still = window(photo, 0.5, 0.5, 0.7)
        at = int(rng.integers(68))
        part = rng.uniform(0.1, 0.3)
        glare = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([90, 160])[:, None, None]))
        # up to a tenth of the picture; what moves farther between two frames is not followed
        pan = window(photo, 0.5, 0.47, 0.7), window(photo, 0.5, 0.53, 0.7)
        kinds: list[Pair] = [
            (clip[at], clip[at + 1]),
            (clip[at], clip[at + 4]),
            pan,
            (noisy(dimmed(pan[0], part), 1.5, rng), noisy(dimmed(pan[1], part), 1.5, rng)),
            (window(photo, 0.5, 0.5, 0.7), window(photo, 0.5, 0.5, 0.66)),
            (still, (still * 1.5 + 60).clip(0, 255).astype(np.uint8)),
            (still, (still + 150 * np.exp(-glare / 60)[..., None]).clip(0, 255).astype(np.uint8)),
            (dimmed(still, 0.8), dimmed(still, 0.4)),
            (np.zeros_like(still), dimmed(still, 0.08)),
            (still, noisy(still, 15, rng)),
            (still, np.asarray(Image.fromarray(still).filter(ImageFilter.GaussianBlur(2)))),
            (still, (still * 0.85 + 0.15 * clip[at]).round().astype(np.uint8)),
        ]
        made.append(kinds[index % len(kinds)])
    return made


@pytest.mark.slow
def test_cuts_are_told_from_what_only_looks_like_them(
    photos: list[np.ndarray], clip: list[np.ndarray]
) -> None:
    missed = [i for i, pair in enumerate(cuts(photos, clip)) if not is_cut(*pair)]
    wrong = [i for i, pair in enumerate(others(photos, clip)) if is_cut(*pair)]
    caught = 60 - len(missed)

    assert caught / 60 >= 0.97, missed
    assert caught / (caught + len(wrong)) >= 0.97, wrong


def test_a_white_flash_is_no_cut(photos: list[np.ndarray]) -> None:
    still = window(photos[0], 0.5, 0.5, 0.7)

    assert not is_cut(still, np.full_like(still, 255))
    assert not is_cut(np.full_like(still, 255), still)


def test_a_bright_scene_after_a_black_frame_is_a_cut(photos: list[np.ndarray]) -> None:
    still = window(photos[0], 0.5, 0.5, 0.7)

    assert is_cut(np.zeros_like(still), still)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 7), (15, 200), (200, 1), (97, 33)])
def test_frames_of_any_size_are_compared(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 255, (*size, 3), np.uint8)

    assert not is_cut(frame, frame)
    is_cut(frame, 255 - frame)
