"""A camera over a still picture: what it sees, and that it never looks beyond the edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.media.camera import FULL_PAN, FULL_ZOOM, seen

CAMERAS = ("zoom_in", "zoom_out", "pan_left", "pan_right", "parallax")


@given(
    st.sampled_from(CAMERAS),
    st.floats(0, 1),
    st.floats(0, 1),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
)
def test_nothing_beyond_the_edge_is_seen(camera, motion: float, moment: float, size):
    shown = seen(np.full((*size, 3), 255, np.uint8), camera, motion, moment)
    assert shown.shape == (*size, 3)
    assert shown.min() == 255  # beyond would be black


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_without_motion_the_picture_is_seen(photo: np.ndarray, camera, moment: float):
    assert np.array_equal(seen(photo, camera, 0.0, moment), photo)


def test_a_zoom_begins_or_ends_at_the_whole_picture(photo: np.ndarray):
    assert np.array_equal(seen(photo, "zoom_in", 1.0, 0.0), photo)
    assert np.array_equal(seen(photo, "zoom_out", 1.0, 1.0), photo)
    assert np.array_equal(seen(photo, "zoom_in", 1.0, 1.0), seen(photo, "zoom_out", 1.0, 0.0))


def column(width: int, at: int) -> np.ndarray:
    picture = np.zeros((40, width, 3), np.uint8)
    picture[:, at - 3 : at + 3] = 255
    return picture


def middle(shown: np.ndarray, rows: slice = slice(None)) -> float:
    across = shown[rows].mean(axis=(0, 2))
    return float((across * (np.arange(len(across)) + 0.5)).sum() / across.sum())


def test_a_zoom_enlarges_by_what_it_says():
    picture = column(200, 150)
    moved = middle(seen(picture, "zoom_in", 1.0, 1.0)) - 100
    assert moved == pytest.approx(50 * (1 + FULL_ZOOM), abs=0.5)


@pytest.mark.parametrize(("camera", "way"), [("pan_right", -1), ("pan_left", 1)])
def test_a_pan_passes_over_the_part_that_it_says(camera, way: int):
    picture = column(200, 100)
    places = [middle(seen(picture, camera, 1.0, moment)) for moment in (0.0, 1.0)]
    scale = 1 - FULL_PAN
    assert places[1] - places[0] == pytest.approx(way * 200 * FULL_PAN / scale, abs=0.5)


def test_parallax_moves_what_is_low_more_than_what_is_high():
    picture = column(200, 100)
    ends = [seen(picture, "parallax", 1.0, moment) for moment in (0.0, 1.0)]
    high, low = (
        middle(ends[1], rows) - middle(ends[0], rows) for rows in (slice(0, 5), slice(35, 40))
    )
    assert low < -3 < 3 < high


def test_motion_is_even(photo: np.ndarray):
    picture = column(200, 100)
    places = [middle(seen(picture, "pan_left", 0.8, at / 8)) for at in range(9)]
    assert np.diff(places) == pytest.approx(np.full(8, np.diff(places).mean()), abs=0.3)
