"""Grain on real photographs and in numbers."""

import numpy as np
import pytest

from safelight.media.images import to_float, to_uint8
from safelight.media.noise import FULL_GRAIN, Film, add_grain, grain_field


def correlation(field: np.ndarray, distance: int) -> float:
    return float(np.corrcoef(field[:, :-distance, 0].ravel(), field[:, distance:, 0].ravel())[0, 1])


def test_grain_is_drawn_from_seed_and_frame_alone():
    size = (64, 48)
    first, again = (grain_field(64, 1, 0, size) for _ in range(2))
    assert np.array_equal(first, again)
    for seed, frame in ((2, 0), (1, 1)):
        other = grain_field(64, seed, frame, size)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_a_row_gets_the_same_grain_in_any_division(photo: np.ndarray, rows: int):
    values, size = to_float(photo[:100]), (100, 512)
    whole = add_grain(values, 0.8, 3, 2, size)
    bands = [
        add_grain(values[top : top + rows], 0.8, 3, 2, size, top) for top in range(0, 100, rows)
    ]
    assert np.array_equal(np.concatenate(bands), whole)


def test_grain_is_correlated_and_grows_with_the_picture():
    small = grain_field(64, 3, 0, (512, 512))
    large = grain_field(64, 3, 0, (3000, 6000))
    assert 0.4 < correlation(small, 1) < 0.8
    assert correlation(small, 4) < 0.1
    assert correlation(large, 4) > 0.4
    for field in (small, large):
        assert field.std() == pytest.approx(1, abs=0.1)


def test_channels_share_most_of_the_grain():
    red, green = grain_field(200, 5, 0, (200, 200))[..., :2].reshape(-1, 2).T
    assert np.corrcoef(red, green)[0, 1] == pytest.approx(0.98, abs=0.01)


def test_a_larger_scan_made_smaller_has_the_grain_of_a_smaller_scan():
    def seen(size: tuple[int, int], film: Film) -> np.ndarray:
        return grain_field(256, 4, 0, size, film=film)[..., 1]

    heights: dict[Film, int] = {"35mm": 2000, "16mm": 800, "8mm": 400}
    for film, height in heights.items():
        small = seen((height, 256), film)
        large = seen((2 * height, 512), film)
        halved = large.reshape(128, 2, 256, 2).mean(axis=(1, 3))
        assert halved.std() == pytest.approx(small.std(), rel=0.1)
        for distance in (1, 2, 4):
            expected = correlation(small[..., None], distance)
            assert correlation(halved[..., None], distance) == pytest.approx(expected, abs=0.08)


def test_grain_does_not_speckle_saturated_colours():
    for colour in ((0.85, 0.3, 0.15), (0.1, 0.4, 0.7), (0.5, 0.5, 0.5)):
        flat = np.full((96, 96, 3), colour, np.float32)
        grain = add_grain(flat, 1.0, 7, 0, (1600, 96)) - flat
        luminance = grain @ np.array([0.299, 0.587, 0.114], np.float32)
        chroma = grain - luminance[..., None]
        assert chroma.std() < 0.3 * luminance.std()


@pytest.mark.parametrize("level", [0, 1, 4, 20, 128, 235, 251, 254, 255])
def test_grain_keeps_the_mean_of_every_level(level: int):
    flat = np.full((128, 128, 3), level, np.uint8)
    grained = to_uint8(add_grain(to_float(flat), 1.0, 7, 0, (128, 128)))
    assert np.abs(grained.mean(axis=(0, 1)) - level).max() < 0.1


def test_grain_is_strongest_in_the_mid_tones_and_spares_black_and_white():
    deviations = []
    for level in (0, 40, 128, 220, 255):
        flat = np.full((96, 96, 3), level / 255, np.float32)
        deviations.append(float(add_grain(flat, 1.0, 7, 0, (1600, 96)).std()))
    assert deviations[0] == deviations[-1] == 0
    assert deviations[2] == pytest.approx(FULL_GRAIN, rel=0.1)
    assert deviations[1] < deviations[2] > deviations[3] > 0


def test_grain_keeps_the_mean_of_a_photograph(photo: np.ndarray):
    for strength in (0.2, 0.5, 1.0):
        grained = to_uint8(add_grain(to_float(photo), strength, 5, 0, photo.shape[:2]))
        assert np.abs(grained.mean(axis=(0, 1)) - photo.mean(axis=(0, 1))).max() < 0.5
    assert np.array_equal(to_uint8(add_grain(to_float(photo), 0, 5, 0, photo.shape[:2])), photo)
