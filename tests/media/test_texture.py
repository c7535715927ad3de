"""Fine texture and grain put back over what a network made."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from safelight.media import texture
from safelight.media.texture import flat_share, kind_of, put_back, with_fine_waves

RAMP = np.stack(
    np.broadcast_arrays(120 + 0.3 * np.arange(96)[None], 105 + 0.2 * np.arange(96)[:, None], 128.0),
    axis=-1,
)
"""Skin or sky: no edge in it."""


def levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def enlarged(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def averaged(values: np.ndarray, factor: int) -> np.ndarray:
    height, width = values.shape[0] // factor, values.shape[1] // factor
    return values.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def grained(deviation: float, shared: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(3)
    noise = drawn.normal(0, deviation, RAMP.shape)
    if shared:
        noise = drawn.normal(0, deviation, RAMP.shape[:2])[..., None] * np.ones(3)
    return levels(RAMP + noise)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("deviation", [1.5, 4.0, 12.0])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_noise_floor_of_flat_places_is_that_of_the_source(
    factor: int, deviation: float, shared: float
):
    source = grained(deviation, shared)
    made = put_back(source, levels(enlarged(RAMP, factor)), 1.0, 5)
    rest = made - enlarged(RAMP, factor)
    floor = (source - RAMP).std()
    assert rest.std() == pytest.approx(floor, rel=0.2)
    assert averaged(rest, factor).std() == pytest.approx(floor, rel=0.2)
    assert abs(rest.mean()) < 0.2


def test_half_the_strength_puts_half_of_it_back():
    source, clean = grained(8.0), levels(enlarged(RAMP, 2))
    half = averaged(put_back(source, clean, 0.5, 0) - enlarged(RAMP, 2), 2)
    assert half.std() == pytest.approx((source - RAMP).std() / 2, rel=0.2)
    assert np.array_equal(put_back(source, clean, 0.0, 0), clean)


def test_edges_keep_what_the_network_gained():
    source = np.full((64, 64, 3), 60, np.uint8)
    source[:, 32] = 130  # half covered, as a lens draws it
    source[:, 33:] = 200
    sharp = np.full((128, 128, 3), 60, np.uint8)
    sharp[:, 65:] = 200
    made = put_back(source, sharp, 1.0, 0)
    gain = np.abs(np.diff(made[..., 0].astype(float), axis=1)).max(axis=1)
    assert gain.min() > 0.9 * 140


def striped(angle: float, width: int, deviation: float) -> np.ndarray:
    """Strands that lie side by side at this angle, less than two px wide."""
    down, across = np.mgrid[:width, :width]
    place = np.rint((across * np.cos(angle) + down * np.sin(angle)) * 0.6).astype(int)
    tones = np.random.default_rng(8).normal(0, deviation, place.max() - place.min() + 1)
    return tones[place - place.min()][..., None] * np.ones(3)


@pytest.mark.parametrize("angle", [0.2, 0.8, 1.3])
@pytest.mark.parametrize("factor", [2, 4])
def test_strands_that_the_network_drew_stay_and_speckle_goes(angle: float, factor: int):
    width = 96 * factor
    for fine, kept in (
        (striped(angle, width, 12), (0.85, 1.1)),
        (np.random.default_rng(9).normal(0, 12, (width, width, 1)) * np.ones(3), (0.0, 0.6)),
    ):
        coarse = averaged(fine, factor)
        made = put_back(levels(120 + coarse), levels(120 + fine), 1.0, 0)
        finer = (fine - enlarged(coarse, factor))[20:-20, 20:-20]
        left = (made[20:-20, 20:-20] * finer).mean() / (finer**2).mean()
        assert kept[0] <= left <= kept[1]


def test_lines_that_the_source_has_not_go():
    source = np.full((64, 64, 3), 90, np.uint8)
    source[:, 32:] = 180
    outlined = enlarged(source, 2).copy()
    outlined[:, 60:64] = 20
    made = put_back(source, outlined, 1.0, 0, lines=True)
    assert made[4:-4].min() > 80


def test_what_does_not_change_with_how_it_is_divided(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    source = photo[60:140, 180:270]
    made = enlarged(source, 3)
    whole = put_back(source, made, 1.0, 9, lines=True)
    monkeypatch.setattr(texture, "BAND_PIXELS", 90 * 9 * 7)
    assert np.array_equal(put_back(source, made, 1.0, 9, lines=True), whole)


def test_the_grain_follows_seed_and_frame():
    source, clean = grained(6.0), levels(enlarged(RAMP, 2))
    first = put_back(source, clean, 1.0, 1)
    assert np.array_equal(put_back(source, clean, 1.0, 1), first)
    assert not np.array_equal(put_back(source, clean, 1.0, 2), first)
    assert not np.array_equal(put_back(source, clean, 1.0, 1, frame=1), first)


@pytest.mark.parametrize("side", [(1, 1), (1, 40), (5, 3)])
def test_the_smallest_pictures(side: tuple[int, int]):
    source = np.random.default_rng(0).integers(0, 256, (*side, 3), np.uint8)
    assert put_back(source, enlarged(source, 4), 1.0, 0).shape == (side[0] * 4, side[1] * 4, 3)


def test_drawings_are_told_from_photographs(photo: np.ndarray):
    assert kind_of([photo])[0] == "photograph"
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=60)
    assert kind_of([np.asarray(Image.open(buffer))])[0] == "photograph"
    page = Image.new("RGB", (200, 160), "white")
    drawn = ImageDraw.Draw(page)
    drawn.ellipse((30, 30, 120, 120), "orange", "black", 4)
    drawn.text((20, 130), "a drawing with a line of text", "black")
    assert kind_of([np.asarray(page)])[0] == "drawing"
    assert flat_share(np.asarray(page)) > 0.5
    # one frame that is black does not make a clip a drawing
    assert kind_of([np.zeros_like(photo), photo, photo])[0] == "photograph"


def test_a_redrawn_face_gets_the_grain_that_was_there():
    source = grained(5.0)
    redrawn = source.copy()
    redrawn[20:70, 20:70] = levels(RAMP[20:70, 20:70] + 6)
    made = with_fine_waves(source, redrawn, 1.0)
    inside = (made - RAMP)[26:64, 26:64]
    assert inside.std() == pytest.approx((source - RAMP).std(), rel=0.2)
    assert inside.mean() == pytest.approx(6, abs=0.6)
    outside = np.ones(source.shape[:2], bool)
    outside[20:70, 20:70] = False
    assert np.array_equal(made[outside], source[outside])
    assert np.array_equal(with_fine_waves(source, redrawn, 0.0), redrawn)
