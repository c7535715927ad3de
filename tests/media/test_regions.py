"""Redrawn parts lie in the picture without a seam, and nothing else of it changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.media.regions import (
    Box,
    Crop,
    blend_into,
    crop_around,
    drawing_size,
    feathered,
    matched,
    redrawn,
    resized,
)
from safelight.progress import watching

FACE = Box(180, 61, 268, 174)


def blended(picture: np.ndarray, crop: Crop, part: np.ndarray) -> np.ndarray:
    target = picture.copy()
    blend_into(target, crop, part)
    return target


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after).max(axis=2)


def test_the_crop_is_a_square_around_the_box():
    crop = crop_around(FACE, 0.35, 512, 512)
    assert (crop.height, crop.width) == (192, 192)  # 113 * 1.7
    assert crop.rows.start < 61
    assert crop.rows.stop > 174
    assert crop.columns.start + crop.columns.stop == pytest.approx(448, abs=1)


def test_at_the_edge_the_crop_moves_inside_and_is_blended_to_the_very_edge(photo: np.ndarray):
    crop = crop_around(Box(-20, 30, 60, 130), 0.3, *photo.shape[:2])
    assert crop.columns.start == 0
    assert crop.width == crop.height == 160
    assert crop.feather[2] == 0
    assert (feathered(crop)[50:120, 0] == 1).all()


def test_a_picture_smaller_than_the_crop_is_taken_whole():
    crop = crop_around(Box(10, 10, 50, 60), 2.0, 64, 300)
    assert (crop.rows, crop.height) == (slice(0, 64), 64)
    assert crop.width == 250
    assert drawing_size(crop, 512) == (512, 128)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    left=st.floats(-50, 290),
    top=st.floats(-50, 290),
    side=st.floats(1, 200),
    padding=st.floats(0, 2),
)
def test_any_box_gives_a_crop_inside_the_picture(
    height: int, width: int, left: float, top: float, side: float, padding: float
):
    crop = crop_around(Box(left, top, left + side, top + side), padding, height, width)
    assert 0 <= crop.rows.start < crop.rows.stop <= height
    assert 0 <= crop.columns.start < crop.columns.stop <= width
    mask = feathered(crop)
    assert mask.shape == (crop.height, crop.width)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_outside_the_crop_every_pixel_stays(photo: np.ndarray):
    crop = crop_around(FACE, 0.35, *photo.shape[:2])
    other = photo[300:492, 100:292]
    after = blended(photo, crop, other)
    outside = np.ones(photo.shape[:2], bool)
    outside[crop.rows, crop.columns] = False
    assert changed(photo, after)[outside].max() == 0
    assert changed(photo, after)[~outside].max() > 50


def test_the_blend_starts_at_nothing_and_is_whole_over_the_box(photo: np.ndarray):
    crop = crop_around(FACE, 0.35, *photo.shape[:2])
    mask = feathered(crop)
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.01
    assert (mask[61 - crop.rows.start : 174 - crop.rows.start, 96 - 10 : 96 + 10] == 1).all()
    assert np.abs(np.diff(mask, axis=0)).max() < 0.06  # no step that an eye would find


def test_without_a_feather_the_seam_shows(photo: np.ndarray):
    soft = crop_around(FACE, 0.35, *photo.shape[:2])
    hard = Crop(soft.rows, soft.columns, (0, 0, 0, 0))
    other = np.ascontiguousarray(photo[300:492, 100:292])
    edge = soft.rows.start
    jumps = [
        np.abs(np.diff(blended(photo, crop, other)[edge - 1 : edge + 1].astype(int), axis=0)).mean()
        for crop in (soft, hard)
    ]
    before = np.abs(np.diff(photo[edge - 1 : edge + 1].astype(int), axis=0)).mean()
    assert jumps[0] < before + 0.5
    assert jumps[1] > before + 5


def test_the_same_part_blended_in_changes_nothing(photo: np.ndarray):
    crop = crop_around(FACE, 0.35, *photo.shape[:2])
    assert changed(photo, blended(photo, crop, photo[crop.rows, crop.columns])).max() == 0


def test_colours_are_matched(photo: np.ndarray):
    part = photo[40:200, 150:310]
    tinted = np.clip(part * np.array([0.8, 1.0, 0.7]) + 20, 0, 255).astype(np.uint8)
    back = matched(tinted, part)
    assert np.abs(back.mean(axis=(0, 1)) - part.mean(axis=(0, 1))).max() < 1
    assert np.abs(back - part).mean() < 2
    assert np.abs(tinted - part.astype(float)).mean() > 15


def test_a_flat_part_is_not_turned_into_noise():
    rng = np.random.default_rng(0)
    flat = rng.integers(127, 129, (32, 32, 3), dtype=np.uint8)
    busy = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert matched(flat, busy).std() < 2
    assert matched(np.full_like(flat, 9), busy).std() < 5


def test_sizes_are_multiples_of_8_and_resizing_there_and_back_keeps_the_picture(photo: np.ndarray):
    crop = crop_around(Box(10, 10, 90, 60), 0.1, 512, 512)
    width, height = drawing_size(crop, 768)
    assert (width, height) == (768, 768)
    part = photo[crop.rows, crop.columns]
    back = resized(resized(part, width, height), crop.width, crop.height)
    assert changed(part, back).mean() < 1
    assert resized(part, crop.width, crop.height) is part


def test_each_region_is_drawn_at_the_models_size_and_laid_back_in(photo: np.ndarray):
    two = np.hstack([photo, photo[:, ::-1]])
    boxes = [FACE, Box(1023 - 268, 61, 1023 - 180, 174)]
    seen: list[tuple[tuple[int, ...], int]] = []

    def draw(part: np.ndarray, index: int) -> np.ndarray:
        seen.append((part.shape, index))
        return part[:, ::-1]

    before = two.copy()
    after = redrawn(two, boxes, 0.35, 256, draw)
    assert seen == [((256, 256, 3), 0), ((256, 256, 3), 1)]
    assert np.array_equal(two, before)
    off = changed(two, after)
    for box in boxes:
        crop = crop_around(box, 0.35, *two.shape[:2])
        assert off[crop.rows, crop.columns].max() > 30
        off[crop.rows, crop.columns] = 0
    assert off.max() == 0


def test_a_crop_larger_than_the_model_keeps_its_resolution(photo: np.ndarray):
    sizes: list[tuple[int, ...]] = []

    def draw(part: np.ndarray, index: int) -> np.ndarray:
        sizes.append(part.shape)
        return part

    with watching(None) as notes:
        after = redrawn(photo, [FACE], 0.35, 128, draw)  # the crop is 192 px
        assert sizes == [(192, 192, 3)]
        assert notes == []
        redrawn(photo, [FACE], 0.35, 88, draw)
        assert len(sizes) == 1
        assert "region 1 takes 192 px" in notes[0]
    assert np.array_equal(after, photo)


def test_no_region_gives_an_equal_picture(photo: np.ndarray):
    assert np.array_equal(redrawn(photo, [], 0.35, 64, lambda part, index: part), photo)
