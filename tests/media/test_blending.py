"""Arithmetic of blending: what comes back exactly, what lies between, what is transparent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.media.blending import layered, mask_of, weighted_mean

SHARES = st.lists(st.floats(0, 1e6), min_size=2, max_size=5).filter(lambda each: sum(each) > 1e-3)


def pictures(count: int, seed: int, channels: int = 3) -> list[np.ndarray]:
    drawn = np.random.default_rng(seed)
    return [drawn.integers(0, 256, (5, 7, channels), np.uint8) for _ in range(count)]


@given(SHARES, st.integers(0, 99))
def test_the_mean_is_the_formula_to_a_level(shares: list[float], seed: int):
    shown = pictures(len(shares), seed)
    made = weighted_mean(shown, shares)
    exact = sum(s * each.astype(float) for s, each in zip(shares, shown, strict=True)) / sum(shares)
    assert np.abs(made - exact).max() <= 0.51


@given(st.integers(2, 5), st.data(), st.floats(1e-3, 1e6), st.sampled_from((3, 4)))
def test_a_picture_that_alone_counts_comes_back_exactly(count, data, weight, channels):
    alone = data.draw(st.integers(0, count - 1))
    shown = pictures(count, count, channels)
    if channels == 4:  # the colour of what cannot be seen does not count
        for each in shown:
            each[..., 3] = np.maximum(each[..., 3], 1)
    made = weighted_mean(shown, [weight if at == alone else 0.0 for at in range(count)])
    assert np.array_equal(made, shown[alone])


@given(SHARES, st.integers(0, 99))
def test_all_weights_times_a_number_are_the_same_weights(shares: list[float], seed: int):
    shown = pictures(len(shares), seed)
    apart = weighted_mean(shown, shares).astype(int) - weighted_mean(shown, [4 * s for s in shares])
    assert np.abs(apart).max() <= 1


def test_what_is_transparent_leaves_no_fringe():
    clear = np.zeros((2, 2, 4), np.uint8)  # black, and nothing to see
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    made = weighted_mean([clear, red], [1, 1])
    assert (made[..., :3] == (200, 0, 0)).all()
    assert (np.abs(made[..., 3].astype(int) - 128) <= 1).all()


def test_masks_show_the_picture_that_lies_above():
    low, middle, high = (np.full((1, 3, 3), level, np.uint8) for level in (10, 100, 200))
    first, second = np.array([[0, 1, 1]], np.float32), np.array([[0, 0, 1]], np.float32)
    made = weighted_mean([low, middle, high], layered([first, second], [1, 1, 1]))
    assert made[0, :, 0].tolist() == [10, 100, 200]
    alone = weighted_mean([low, middle, high], layered([first, second], [0, 1, 0]))
    assert alone[0, :, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_a_grey_mask_is_a_share(level: int):
    mask = mask_of(np.full((2, 2, 3), level, np.uint8))
    assert np.allclose(mask, level / 255, atol=1e-6)
    made = weighted_mean(
        [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)], layered([mask], [1, 1])
    )
    assert (made == level).all()


def test_what_is_transparent_in_a_mask_is_black():
    mask = np.full((1, 2, 4), 255, np.uint8)
    mask[0, 1, 3] = 0
    assert mask_of(mask)[0].tolist() == [1, 0]
