"""Control pictures of photographs."""

import numpy as np
import pytest

from safelight.media.edges import canny, scribble, soft_edges

SIDE, RADIUS = 128, 40


def disc(inside: int = 220, outside: int = 30) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    image = np.full((SIDE, SIDE, 3), outside, np.uint8)
    image[np.hypot(rows, columns) <= RADIUS] = inside
    return image


def distance_from_the_rim() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.abs(np.hypot(rows, columns) - RADIUS)


def test_canny_is_one_line_along_the_rim():
    lines = canny(disc())
    assert set(np.unique(lines)) == {0, 255}
    assert (lines == lines[..., :1]).all()
    white = lines[..., 0] > 0
    assert distance_from_the_rim()[white].max() < 2
    assert 0.8 < white.sum() / (2 * np.pi * RADIUS) < 1.2


def test_a_faint_rim_is_an_edge_for_soft_edges_alone():
    faint = disc(inside=128 + 10, outside=128)
    assert canny(faint).max() == 0
    assert soft_edges(faint).max() > 100
    assert 0 < soft_edges(disc(inside=130, outside=129)).max() < 255


def test_soft_edges_fall_off_beside_the_rim():
    soft = soft_edges(disc())[..., 0].astype(float)
    away = distance_from_the_rim()
    assert soft[away < 0.7].mean() > 200
    assert 20 < soft[(away > 1.5) & (away < 2.5)].mean() < 200
    assert soft[away > 6].max() == 0


def test_a_scribble_is_a_thick_line():
    strokes = scribble(disc())[..., 0] > 0
    assert strokes.sum() > 2 * (canny(disc())[..., 0] > 0).sum()
    assert distance_from_the_rim()[strokes].max() < 5
    large = np.kron(disc(), np.ones((8, 8, 1), np.uint8))
    assert (scribble(large)[512, :512, 0] > 0).sum() > strokes[64, :64].sum()


@pytest.mark.parametrize("make", [canny, soft_edges, scribble])
def test_a_plain_picture_has_no_edges_and_grain_makes_no_line(make):
    assert make(np.full((64, 64, 3), 90, np.uint8)).max() == 0
    grain = np.random.default_rng(1).normal(128, 3, (64, 64, 1)).clip(0, 255).astype(np.uint8)
    if make is not soft_edges:
        assert make(np.repeat(grain, 3, axis=2)).max() == 0


def test_a_photograph_has_its_outline_in_all_three(photo: np.ndarray):
    white = [(make(photo)[..., 0] > 127).mean() for make in (canny, soft_edges, scribble)]
    assert all(0.01 < share < 0.35 for share in white), white
    near = np.zeros(photo.shape[:2], bool)
    for row in range(-2, 3):
        for column in range(-2, 3):
            near |= np.roll(canny(photo)[..., 0] > 0, (row, column), (0, 1))
    strokes = scribble(photo)[..., 0] > 0
    assert (strokes & near).sum() / strokes.sum() > 0.6
