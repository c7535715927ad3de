"""Light, looks and tones on a real photograph."""

import numpy as np
import pytest

from safelight.media.colour import grade_colour, luminance, to_linear, to_srgb
from safelight.media.images import to_float, to_uint8
from safelight.media.tone import log_average, map_tones


def test_every_8_bit_value_survives_the_way_to_linear_light_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(to_uint8(to_srgb(to_linear(to_float(levels)))), levels)


def test_linear_light_has_the_values_of_the_standard():
    values = np.array([0.0, 0.04045, 0.5, 1.0], np.float32)
    assert to_linear(values) == pytest.approx([0, 0.0031308, 0.2140411, 1], abs=1e-6)


@pytest.mark.parametrize("look", ["warm", "cool", "cinematic"])
def test_a_look_of_strength_0_changes_nothing(photo, look):
    values = to_float(photo)
    assert np.array_equal(to_uint8(grade_colour(values, look, 0.0)), photo)
    assert not np.array_equal(to_uint8(grade_colour(values, look, 1.0)), photo)


def test_warm_and_cool_move_red_against_blue_and_keep_luminance(photo):
    values = to_float(photo) * 0.6 + 0.2  # away from the ends, where nothing is cut off
    before = to_linear(values)
    for look, sign in (("warm", 1), ("cool", -1)):
        after = to_linear(grade_colour(values, look, 1.0))
        shift = (after[..., 0] - after[..., 2]).mean() - (before[..., 0] - before[..., 2]).mean()
        assert shift * sign > 0.01
        assert luminance(after).mean() == pytest.approx(luminance(before).mean(), rel=0.02)


def test_cinematic_keeps_black_and_white_and_tones_what_lies_between():
    greys = np.linspace(0, 1, 5, dtype=np.float32).reshape(1, 5, 1).repeat(3, 2)
    toned = grade_colour(greys, "cinematic", 1.0)[0]
    assert toned[0] == pytest.approx([0, 0, 0], abs=1e-6)
    assert toned[-1] == pytest.approx([1, 1, 1], abs=1e-6)
    assert toned[1][2] > toned[1][0]  # shadows are teal
    assert toned[3][0] > toned[3][2]  # lights are orange


def test_tone_mapping_opens_shadows_keeps_white_and_never_inverts(photo):
    values = to_float(photo)
    average = log_average(to_linear(values))
    greys = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 256, 1).repeat(3, 2)
    mapped = map_tones(greys, 1.0, 0.05)
    assert np.all(np.diff(mapped[0, :, 0]) >= -1e-6)
    assert mapped[0, -1] == pytest.approx([1, 1, 1], abs=1e-3)
    assert mapped[0, 40, 0] > greys[0, 40, 0]
    assert np.array_equal(to_uint8(map_tones(values, 0.0, average)), photo)


@pytest.mark.parametrize("key", [0.18])
def test_tone_mapping_is_reinhards_formula_to_a_level(photo: np.ndarray, key: float):
    """Written down again from the paper and IEC 61966-2-1, in double precision."""
    srgb = photo.astype(np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    world = linear @ [0.2126, 0.7152, 0.0722]
    scaled = key / np.exp(np.log(1e-4 + world).mean()) * world  # eq. 1 and 2
    white = key / np.exp(np.log(1e-4 + world).mean())  # that of a world luminance of 1
    display = scaled * (1 + scaled / white**2) / (1 + scaled)  # eq. 4
    toned = np.clip(linear * (display / np.maximum(world, 1e-6))[..., None], 0, 1)
    wanted = np.where(toned <= 0.0031308, toned * 12.92, 1.055 * toned ** (1 / 2.4) - 0.055)
    values = to_float(photo)
    got = to_uint8(map_tones(values, 1.0, log_average(to_linear(values)))).astype(int)
    assert np.abs(got - np.rint(255 * wanted)).max() <= 1
    assert np.abs(got - photo).max() > 20  # it does something
