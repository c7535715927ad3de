"""Pictures continued beyond their border."""

import numpy as np
import pytest

from safelight.media.canvas import on_canvas


@pytest.mark.parametrize(("width", "height"), [(64, 96), (97, 64), (80, 121), (64, 64), (10, 10)])
def test_the_picture_lies_in_the_middle_unchanged(width: int, height: int):
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    made = on_canvas(image, width, height)
    assert made.shape == (max(height, 64), max(width, 64), 3)
    top, left = (made.shape[0] - 64) // 2, (made.shape[1] - 64) // 2
    assert np.array_equal(made[top : top + 64, left : left + 64], image)


def test_a_plain_ground_goes_on_and_strokes_at_the_border_fade():
    image = np.full((64, 64, 3), 250, np.uint8)
    image[:, 30:34] = 20
    made = on_canvas(image, 64, 128)
    assert np.abs(made[0].astype(int) - made[0].mean(axis=0)).max() <= 1
    assert made[31, 32].mean() < made[28, 32].mean() < made[25, 32].mean()
