"""How near pictures are, and curves of numbers."""

import numpy as np
import pytest

from safelight.media.curves import curve, smoothed
from safelight.media.nearness import distances


def blob(at: int, colour: tuple[int, int, int], side: int = 96) -> np.ndarray:
    picture = np.full((side, side, 3), 255, np.uint8)
    size = side // 3
    picture[at : at + size, at : at + size] = colour
    return picture


def test_the_same_picture_is_nearest_and_others_are_farther_the_less_they_share():
    red = blob(20, (200, 30, 30))
    same, moved, blue, away = distances(
        [red, blob(23, (200, 30, 30)), blob(20, (30, 30, 200)), blob(60, (30, 30, 200))], [red]
    )
    assert same == pytest.approx(0, abs=1e-6)
    assert same < moved < blue < away


def test_the_nearest_reference_counts_whatever_its_size():
    red, blue = blob(20, (200, 30, 30)), blob(60, (30, 30, 200))
    alone, both = (distances([blue], known)[0] for known in ([red], [red, blue]))
    assert both < 1e-6 < alone
    large = blob(40, (200, 30, 30), side=192)
    assert distances([large], [red])[0] < 0.25 < distances([large], [blue])[0]


def test_noise_is_far_from_everything():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert distances([noise], [blob(20, (200, 30, 30))])[0] > 0.5


def test_a_curve_falls_where_its_values_fall():
    falling = curve(np.linspace(1, 0.1, 200).tolist(), "loss")
    rising = curve(np.linspace(0.1, 1, 200).tolist(), "loss")
    assert falling.shape == (280, 640, 3)
    orange = [(np.abs(each.astype(int) - (255, 170, 60)).sum(2) < 60) for each in (falling, rising)]
    first, last = (np.nonzero(orange[0])[1].argmin(), np.nonzero(orange[0])[1].argmax())
    heights = np.nonzero(orange[0])[0]
    assert heights[first] < heights[last]
    heights, places = np.nonzero(orange[1])
    assert heights[places.argmin()] > heights[places.argmax()]
    assert curve([0.5], "one").shape == falling.shape
    assert curve([0.0, 0.0], "nothing").shape == falling.shape


def test_the_average_begins_with_the_values_themselves():
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    assert smoothed([1.0])[0] == 1
