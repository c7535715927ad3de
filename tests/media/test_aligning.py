"""Faces cut out upright and laid back in: where they go, and what stays."""

import numpy as np
import pytest

from safelight.media.aligning import POINTS, SIDE, cut_out, lay_back, scale_of, turning_of
from safelight.pixels import Pixels

LANDMARKS = ((199.0, 106.0), (241.0, 104.0), (220.0, 130.0), (205.0, 148.0), (243.0, 147.0))
"""Of the photograph, by hand."""


def turned(degrees: float, scale: float) -> list[tuple[float, float]]:
    """Where the points of an upright face lie in a picture it lies turned and smaller in."""
    way = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(way), -np.sin(way)], [np.sin(way), np.cos(way)]])
    return [tuple(turn @ np.array(each) + (40, 90)) for each in POINTS]


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (25, 0.3), (-170, 2.5)])
def test_the_five_points_go_where_they_belong(degrees: float, scale: float):
    points = turned(degrees, scale)
    turning = turning_of(points)
    found = [turning @ (*point, 1) for point in points]
    np.testing.assert_allclose(found, POINTS, atol=1e-6)
    assert scale_of(turning) == pytest.approx(1 / scale)


def test_a_face_laid_back_unchanged_is_the_picture_again(photo: Pixels):
    turning = turning_of(LANDMARKS)
    face = cut_out(photo, turning)
    assert face.shape == (SIDE, SIDE, 3)
    back = lay_back(photo, face, turning, 1)
    square = np.abs(back.astype(float) - photo)
    assert square.max() <= 12  # two cubic resamplings of a photograph
    assert square.mean() < 0.2
    # the eyes lie on one line now, and 126 px apart
    assert face[230:250, 180:205].mean() < face[330:350, 150:180].mean()


def test_outside_the_face_nothing_changes_and_the_border_is_soft(photo: Pixels):
    turning = turning_of(LANDMARKS)
    made = lay_back(photo, np.full((SIDE, SIDE, 3), 255, np.uint8), turning, 1)
    changed = np.abs(made.astype(int) - photo).max(axis=2)
    side = SIDE / scale_of(turning)
    rows, columns = np.nonzero(changed)
    assert rows.max() - rows.min() <= side * 1.1
    assert columns.max() - columns.min() <= side * 1.1
    assert (made[125, 222] == 255).all()
    border = made[125, columns.min() : columns.min() + 6].astype(int)
    assert np.abs(border - photo[125, columns.min() : columns.min() + 6]).max() < 60


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_weight_says_how_much_of_it_is_seen(photo: Pixels, weight: float):
    turning = turning_of(LANDMARKS)
    made = lay_back(photo, np.full((SIDE, SIDE, 3), 255, np.uint8), turning, weight)
    wanted = photo[125, 222] * (1 - weight) + 255 * weight
    np.testing.assert_allclose(made[125, 222], wanted, atol=0.51)
    if weight == 0:
        assert np.array_equal(made, photo)
