"""Holes filled with what was drawn: no rim of the old, no step to what stands around."""

import numpy as np
import pytest

from safelight.media.filling import feathered, laid_in

SIDE = 96
DOWN, ACROSS = np.mgrid[:SIDE, :SIDE]
DISC = (DOWN - 48) ** 2 + (ACROSS - 48) ** 2 < 24**2


def ground(seed: int = 1) -> np.ndarray:
    """Calm, lighter to the right, with grain of two levels."""
    noise = np.random.default_rng(seed).normal(0, 2, (SIDE, SIDE, 3))
    slope = np.repeat(np.linspace(90, 130, SIDE)[None, :, None], SIDE, axis=0)
    return np.clip(slope + noise, 0, 255).astype(np.uint8)


def with_disc(picture: np.ndarray) -> np.ndarray:
    made = picture.copy()
    made[DISC] = (220, 30, 30)
    return made


@pytest.mark.parametrize("blur", [0, 4, 16])
def test_nothing_of_a_thing_that_was_cut_out_stays_at_its_rim(blur: int):
    before, drawn = with_disc(ground()), ground(seed=2)
    made = laid_in(before, drawn, DISC, blur)
    assert np.array_equal(made[~DISC], before[~DISC])
    red = made[DISC].astype(int) - drawn[DISC]
    assert np.abs(red).max() <= 4
    plain = before + feathered(DISC, 4)[..., None] * (drawn.astype(float) - before)
    assert np.abs(plain[DISC] - drawn[DISC]).max() > 50  # as a feather alone would leave it


@pytest.mark.parametrize("shift", [(6, 6, 6), (-8, 0, 5)])
def test_colours_that_the_model_moved_come_back_to_those_around(shift: tuple[int, int, int]):
    """An autoencoder gives even what it leaves alone a tint of its own."""
    before = with_disc(ground())
    drawn = np.clip(ground(seed=2).astype(int) + shift, 0, 255).astype(np.uint8)
    made = laid_in(before, drawn, DISC, 4).astype(float)
    rim = DISC & ~((DOWN - 48) ** 2 + (ACROSS - 48) ** 2 < 22**2)
    step = made[rim].mean(axis=0) - ground()[rim].mean(axis=0)
    assert np.abs(step).max() < 2
    raw = drawn[rim].mean(axis=0) - ground()[rim].mean(axis=0)
    assert np.abs(raw).max() > 4


def test_a_texture_that_goes_on_is_feathered():
    before, drawn = ground(), ground(seed=2)
    made = laid_in(before, drawn, DISC, 8).astype(int)
    edge = DISC & (feathered(DISC, 8) < 0.1)
    deep = feathered(DISC, 8) > 0.99
    near = np.abs(made - before).mean(axis=2)
    assert near[edge].mean() < 1
    assert np.abs(made - drawn).mean(axis=2)[deep].mean() < 1
    assert near[deep].mean() > 1.5


def test_a_picture_that_is_all_hole_is_what_was_drawn():
    before, drawn = with_disc(ground()), ground(seed=2)
    made = laid_in(before, drawn, np.ones((SIDE, SIDE), bool), 4)
    assert np.array_equal(made, drawn)
    assert np.array_equal(laid_in(before, drawn, np.zeros((SIDE, SIDE), bool), 4), before)
