"""Tiled work equals untiled work, pixel by pixel, for an engine that looks REACH px around."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.media.tiles import map_tiles_into, tiles

REACH = 3


def smear(image: np.ndarray, scale: int = 2) -> np.ndarray:
    """A mean over (2 * REACH + 1)² px that treats the edge as zero, as networks do, enlarged."""
    side = 2 * REACH + 1
    padded = np.pad(image.astype(np.int64), ((REACH, REACH), (REACH, REACH), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    mean = (windows.sum(axis=(3, 4)) // side**2).astype(np.uint8)
    return mean.repeat(scale, axis=0).repeat(scale, axis=1)


def assert_pixels_close(found: np.ndarray, expected: np.ndarray, worst: int) -> None:
    assert found.shape == expected.shape
    off = np.abs(found.astype(int) - expected.astype(int))
    place = np.unravel_index(off.argmax(), off.shape)
    assert off.max() <= worst, f"off by {off.max()} levels at {place}"


def mapped(image: np.ndarray, tile: int, overlap: int, scale: int, fn: Callable) -> np.ndarray:
    height, width, channels = image.shape
    target = np.empty((height * scale, width * scale, channels), np.uint8)
    map_tiles_into(target, image, tile, overlap, scale, fn)
    return target


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@pytest.mark.parametrize("tile", [40, 64, 512])
def test_enough_overlap_leaves_no_seam(photo: np.ndarray, tile: int):
    picture = photo[:129, :193]  # one pixel is left over at 64
    tiled = mapped(picture, tile, REACH, 2, smear)
    assert_pixels_close(tiled, smear(picture), worst=0)


def test_too_little_overlap_shows(photo: np.ndarray):
    picture = photo[:129, :193]
    tiled = mapped(picture, 64, REACH - 1, 2, smear)
    with pytest.raises(AssertionError, match="off by"):
        assert_pixels_close(tiled, smear(picture), worst=0)


def test_windows_begin_on_the_grid_and_reach_no_less():
    for at in range(1, 60):
        for plain, part in zip(tiles(200, 130, at, 7), tiles(200, 130, at, 7, 12), strict=True):
            assert part.core == plain.core
            for window, shorter in zip(part.window, plain.window, strict=True):
                assert window.start % 12 == 0
                assert 0 <= shorter.start - window.start < 12
                assert window.stop == shorter.stop
    assert tiles(200, 130, 40, 7, 1) == tiles(200, 130, 40, 7)


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    tile=st.integers(1, 60),
    scale=st.integers(1, 4),
    overlap=st.integers(REACH, 8),
)
def test_any_size_is_seamless(height: int, width: int, tile: int, scale: int, overlap: int):
    tile = max(tile, 8) if height * width > 200 else tile
    picture = noise(height, width)
    tiled = mapped(picture, tile, overlap, scale, lambda window: smear(window, scale))
    assert_pixels_close(tiled, smear(picture, scale), worst=0)


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    tile=st.integers(16, 500),
    overlap=st.integers(0, 40),
)
def test_cores_cover_each_pixel_once_and_windows_stay_small(
    height: int, width: int, tile: int, overlap: int
):
    covered = np.zeros((height, width), int)
    for part in tiles(height, width, tile, overlap):
        covered[part.core] += 1
        window = np.arange(height * width).reshape(height, width)[part.window]
        assert max(window.shape) <= tile + 2 * overlap
        inside = window[part.core_in_window]
        assert (inside == np.arange(height * width).reshape(height, width)[part.core]).all()
        assert min(inside.shape) * 2 >= min(tile, height, width) - 1  # no slivers
    assert (covered == 1).all()


def test_writes_into_an_array_that_is_there_and_reports_each_tile():
    picture, seen = noise(20, 30), []
    target = np.zeros((60, 90, 3), np.uint8)
    map_tiles_into(
        target,
        picture,
        16,
        REACH,
        3,
        lambda window: smear(window, 3),
        lambda done, total: seen.append((done, total)),
    )
    assert_pixels_close(target, smear(picture, 3), worst=0)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("bad", [(0, 5, 8, 0), (5, 5, 0, 0), (5, 5, 8, -1)])
def test_refuses_what_cannot_be_divided(bad: tuple[int, int, int, int]):
    with pytest.raises(ValueError, match="at least"):
        tiles(*bad)
