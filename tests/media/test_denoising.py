"""Noise goes, edges stay, nothing leaves a ghost."""

import numpy as np
import pytest

from safelight.media import denoising
from safelight.media.denoising import settle, smooth_edges_kept


def psnr(first, second) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def noisy(image, sigma: float, seed: int):
    draw = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + draw), 0, 255).astype(np.uint8)


def test_a_noisy_photograph_gains_3_db(photo):
    image = noisy(photo, 15, 1)
    assert psnr(smooth_edges_kept(image, 0.5), photo) > psnr(image, photo) + 3


def test_a_clean_photograph_keeps_its_edges(photo):
    rows = photo.astype(np.int16)
    edges = np.abs(np.diff(rows, axis=1)).max(axis=2) > 80
    after = np.abs(np.diff(smooth_edges_kept(photo, 0.3).astype(np.int16), axis=1)).max(axis=2)
    assert np.median(after[edges]) > 60


def test_level_0_is_the_picture_itself(photo):
    assert smooth_edges_kept(photo, 0) is photo


@pytest.mark.parametrize("rows", [16, 100, 511])
def test_bands_leave_no_seam(photo, rows, monkeypatch):
    whole = smooth_edges_kept(photo, 0.4)
    monkeypatch.setattr(denoising, "BAND_ROWS", rows)
    assert np.array_equal(smooth_edges_kept(photo, 0.4), whole)


def test_too_small_a_border_would_show(photo, monkeypatch):
    whole = smooth_edges_kept(photo, 0.4)
    monkeypatch.setattr(denoising, "BAND_ROWS", 100)
    monkeypatch.setattr(denoising, "REACH", 1)
    assert not np.array_equal(smooth_edges_kept(photo, 0.4), whole)


def test_a_still_video_gains_over_time(photo):
    clean = photo[:96, :96]
    frames = [noisy(clean, 10, seed) for seed in range(8)]
    settled = list(settle(iter(frames), 0.5))
    assert len(settled) == len(frames)
    assert psnr(settled[-1], clean) > psnr(frames[-1], clean) + 3


def test_a_cut_leaves_no_ghost(photo):
    before, after = photo[:96, :96], photo[200:296, 200:296]
    frames = [before] * 4 + [after]
    last = list(settle(iter(frames), 0.3))[-1]
    moved = np.abs(before.astype(int) - after).max(axis=2) > 60
    assert np.abs(last.astype(int) - after)[moved].mean() < 3
