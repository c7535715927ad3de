"""Noise goes, edges stay, nothing leaves a ghost."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from safelight.media import denoising
from safelight.media.denoising import denoised_frames, denoised_picture, noise_deviation


def psnr(first, second) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def noisy(image, sigma: float, seed: int):
    draw = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + draw), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("sigma", "gain"), [(5, 4), (15, 7), (25, 8)])
def test_a_noisy_photograph_gains(photo, sigma, gain):
    image = noisy(photo, sigma, 1)
    assert psnr(denoised_picture(image, 0.5), photo) > psnr(image, photo) + gain


def test_a_light_level_gains_too(photo):
    image = noisy(photo, 15, 1)
    assert psnr(denoised_picture(image, 0.3), photo) > psnr(image, photo) + 3


def test_edges_stay_and_flat_areas_calm_down():
    clean = np.full((128, 128, 3), 60, np.uint8)
    clean[:, 64:] = 180
    after = denoised_picture(noisy(clean, 15, 2), 0.5).astype(int)
    jump = after[:, 64].mean(axis=1) - after[:, 63].mean(axis=1)
    assert np.median(jump) > 110  # of 120
    assert after[:, :60].std() < 2.5  # of 15


def test_a_clean_photograph_hardly_changes(photo):
    assert psnr(denoised_picture(photo, 0.5), photo) > 42


@pytest.mark.parametrize("sigma", [3, 8, 15, 25])
def test_noise_is_measured(photo, sigma):
    own = noise_deviation(photo)
    assert noise_deviation(noisy(photo, sigma, 3)) == pytest.approx(np.hypot(sigma, own), rel=0.15)


def test_a_drawing_has_no_noise_and_stays():
    drawing = np.zeros((64, 64, 3), np.uint8)
    drawing[16:48, 16:48] = 200
    assert noise_deviation(drawing) == 0
    assert denoised_picture(drawing, 1.0) is drawing


def test_level_0_is_the_picture_itself(photo):
    assert denoised_picture(photo, 0) is photo
    frames = [photo[:32, :32]] * 7
    for one, other in zip(denoised_frames(iter(frames), 0), frames, strict=True):
        assert one is other


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 9), (33, 17)])
def test_any_size_works(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert denoised_picture(image, 0.7).shape == image.shape


@pytest.mark.parametrize("pixels", [512 * 16, 512 * 104])
def test_bands_leave_no_seam(photo, pixels, monkeypatch):
    image = noisy(photo, 10, 4)
    whole = denoised_picture(image, 0.5)
    monkeypatch.setattr(denoising, "BAND_PIXELS", pixels)
    off = np.abs(denoised_picture(image, 0.5).astype(int) - whole)
    assert off.max() <= 1  # float32 sums of other lengths
    assert (off > 0).mean() < 1e-4


def test_too_small_a_border_would_show(photo, monkeypatch):
    image = noisy(photo, 10, 4)
    whole = denoised_picture(image, 0.5)
    monkeypatch.setattr(denoising, "BAND_PIXELS", 512 * 104)
    monkeypatch.setattr(denoising, "REACH", 0)
    assert np.abs(denoised_picture(image, 0.5).astype(int) - whole).max() > 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(photo):
    def peak(side: int) -> int:
        image = np.asarray(Image.fromarray(noisy(photo, 10, 5)).resize((side, side)))
        tracemalloc.start()
        denoised_picture(image, 0.5)
        used = tracemalloc.get_traced_memory()[1] - image.nbytes  # the result is as large
        tracemalloc.stop()
        return used

    assert peak(1600) < 1.5 * peak(800)


def test_a_still_video_gains_over_time(photo):
    clean = photo[:128, 150:278]
    frames = [noisy(clean, 15, seed) for seed in range(6)]
    after = list(denoised_frames(iter(frames), 0.5))
    assert len(after) == len(frames)
    alone = psnr(denoised_picture(frames[3], 0.5), clean)
    assert psnr(after[3], clean) > alone + 1
    assert psnr(after[3], clean) > psnr(frames[3], clean) + 9
    assert psnr(after[0], clean) > psnr(frames[0], clean) + 7


def test_what_moves_is_not_smeared(photo):
    clean = [photo[:128, 100 + 6 * at : 228 + 6 * at] for at in range(6)]
    after = list(denoised_frames((noisy(c, 15, s) for s, c in enumerate(clean)), 0.5))
    for one, other in zip(after, clean, strict=True):
        assert psnr(one, other) > 30  # 25 with the noise, 25 where five frames are averaged


def test_a_cut_leaves_no_ghost(photo):
    before, behind = photo[:128, 150:278], photo[300:428, 100:228]
    clean = [before] * 3 + [behind] * 3
    frames = [noisy(c, 10, s) for s, c in enumerate(clean)]
    after = list(denoised_frames(iter(frames), 0.5))
    for at in (2, 3):
        moved = np.abs(before.astype(int) - behind).max(axis=2) > 60
        off = after[at].astype(float) - clean[at]
        towards = np.sign(clean[5 - at].astype(float) - clean[at])
        assert np.abs((off * towards)[moved].mean()) < 1


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9])
def test_as_many_frames_come_out_and_few_are_held(photo, count):
    asked = 0

    def source():
        nonlocal asked
        for at in range(count):
            asked += 1
            yield noisy(photo[:16, :16], 5, at)

    given = 0
    for _ in denoised_frames(source(), 0.5):
        given += 1
        assert asked - given <= denoising.WINDOW
    assert given == count
