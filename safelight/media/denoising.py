"""Taking noise out and leaving edges: in space with a sliding DCT, in time by likeness.

One function serves pictures and videos: a picture is a clip of one frame.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from safelight.media.boxes import box_mean
from safelight.media.images import rounded
from safelight.pixels import Floats, Pixels
from safelight.progress import step

BLOCK = 8
"""Side of the squares that are transformed."""
THRESHOLD = 2.7
"""Coefficients below this many deviations are noise: Dabov et al. 2007, section V."""
PICTURE_STRIDE, VIDEO_STRIDE = 2, 4
"""How far apart the squares lie, pixels: every second place is 0.3 dB below all of them and four
times as fast; in a video, time has taken most of the noise before."""
REACH = 16
"""Rows beyond a band that its pixels depend on: a square, and a place that is compared."""
BAND_PIXELS = 1 << 18
"""Pixels worked on at once, so that memory does not grow with the picture."""
WINDOW = 2
"""Frames looked at before and after each."""
PATCH = 3
"""Reach of the square by which a place is compared between frames."""
LIKE, UNLIKE = 1.3, 2.2
"""Mean square difference of a place between frames, over that of noise alone: below the first a
frame is averaged in, above the second it has moved and is left out."""
FLATTEST = 0.1
"""Part of the blocks that noise is measured in."""
DARKEST, BRIGHTEST = 40, 215
"""Mean level of the blocks that noise is measured in; beyond, a part of it is cut off."""
FEWEST = 16
"""Blocks between these levels below which all blocks are taken."""
SAMPLE_PIXELS = 1 << 22
"""About so many pixels are looked at to measure noise."""
MEDIAN_DEVIATION = 0.6745
"""Median of the absolute value of noise of deviation 1."""
OPPONENT: Floats = np.array(
    [[3**-0.5] * 3, [2**-0.5, 0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]], np.float32
)
"""Orthonormal grey and two colour differences: the 3-point DCT of red, green and blue."""


def noise_deviation(image: Pixels) -> float:
    """Standard deviation of a picture's noise, in 8-bit levels.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        0 for a flat drawing or a picture under 8 px a side. Fine texture that covers all of a
        picture cannot be told from noise.

    Source:
        Donoho, Johnstone 1994, Ideal Spatial Adaptation by Wavelet Shrinkage: median of the
        finest diagonal Haar coefficients; here over the flattest blocks only.
    """
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    if not height or not width:
        return 0.0
    strips = np.arange(0, height, BLOCK)[:: -(-height * width // SAMPLE_PIXELS)]
    rows = (strips[:, None] + np.arange(BLOCK)).ravel()
    grey = image[rows, :width].sum(axis=2, dtype=np.float32)
    quads = grey.reshape(len(rows) // 2, 2, width // 2, 2)
    a, b, c, d = quads[:, 0, :, 0], quads[:, 0, :, 1], quads[:, 1, :, 0], quads[:, 1, :, 1]
    diagonal, mean = _by_block((a - b - c + d) / 2), _by_block((a + b + c + d) / 12)
    centre = mean.mean(axis=1)
    inside = (centre > DARKEST) & (centre < BRIGHTEST)
    if inside.sum() < FEWEST:
        inside[:] = True
    activity = mean[inside].var(axis=1)
    flat = activity <= np.quantile(activity, FLATTEST)
    of_three_channels = np.sqrt(3)
    median = np.median(np.abs(diagonal[inside][flat]))
    return float(median / (MEDIAN_DEVIATION * of_three_channels))


Clean = Callable[[Sequence[Pixels], int, float], Pixels]
"""See `cleaned_frame`."""


def denoised_picture(image: Pixels, level: float) -> Pixels:
    """A picture without its noise.

    Args:
        image: (H, W, 3) uint8.
        level: 0 gives the picture itself; 0.5 takes out the noise that is measured, 1 as much as
            if it were twice that.
    """
    deviation = 2 * level * noise_deviation(image)
    return _denoised([image], 0, deviation, PICTURE_STRIDE, tell=True)


def denoised_frames(
    frames: Iterator[Pixels], level: float, clean: "Clean | None" = None
) -> Iterator[Pixels]:
    """The frames of a video without their noise, 2 * WINDOW + 1 of them in memory at a time.

    A place is averaged over the frames in which it looks the same, so what moves and what lies
    behind a cut leaves no ghost; noise that is left there is taken out in space.

    Args:
        frames: (H, W, 3) uint8, all of one size.
        level: as for `denoised_picture`; the noise is the median of that of the frames around.
        clean: called instead of `cleaned_frame`.

    Yields:
        As many frames as come.
    """
    clean = clean or cleaned_frame
    near: list[Pixels] = []
    measured: list[float] = []
    at = 0
    for frame in frames:
        near.append(frame)
        measured.append(noise_deviation(frame))
        if len(near) <= at + WINDOW:
            continue
        yield clean(near, at, 2 * level * float(np.median(measured)))
        if at == WINDOW:
            del near[0], measured[0]
        else:
            at += 1
    while at < len(near):
        yield clean(near, at, 2 * level * float(np.median(measured)))
        if at == WINDOW:
            del near[0], measured[0]
        else:
            at += 1


def cleaned_frame(near: Sequence[Pixels], at: int, deviation: float) -> Pixels:
    """One frame of a video without its noise.

    Args:
        near: it and the frames around it, (H, W, 3) uint8.
        at: which of them it is.
        deviation: of the noise to take out, 8-bit levels.
    """
    return _denoised(near, at, deviation, VIDEO_STRIDE)


def _denoised(
    frames: Sequence[Pixels], at: int, deviation: float, stride: int, *, tell: bool = False
) -> Pixels:
    """One frame, with the help of those around it, band by band."""
    frame = frames[at]
    if deviation <= 0:
        return frame
    height, width = frame.shape[:2]
    rows = max(BAND_PIXELS // width // BLOCK, 2) * BLOCK
    target = np.empty_like(frame)
    for top in range(0, height, rows):
        if tell:
            step(top, height)
        # bands start on whole squares, so that squares lie where they would without bands
        start, stop = max(top - REACH, 0), min(top + rows + REACH, height)
        seen = [other[start:stop].astype(np.float32) for other in frames]
        steady, left = _averaged_in_time(seen, at, deviation)
        clean = _averaged_in_space(steady, left, stride)
        target[top : top + rows] = rounded(clean[top - start : top - start + rows])
    if tell:
        step(height, height)
    return target


def _averaged_in_time(frames: list[Floats], at: int, deviation: float) -> tuple[Floats, Floats]:
    """Mean over the frames that look alike at each place, and the noise that is left, (H, W)."""
    frame = frames[at]
    total, weights = frame.copy(), np.ones(frame.shape[:2], np.float32)
    squares = np.ones_like(weights)
    for other in (*frames[:at], *frames[at + 1 :]):
        apart = box_mean(((frame - other) ** 2).mean(axis=2), PATCH) / np.float32(2 * deviation**2)
        weight = np.clip((UNLIKE - apart) / (UNLIKE - LIKE), 0, 1).astype(np.float32)
        total += weight[..., None] * other
        weights += weight
        squares += weight * weight
    left = np.float32(deviation) * np.sqrt(squares) / weights
    return total / weights[..., None], left


def _averaged_in_space(image: Floats, deviation: Floats, stride: int) -> Floats:
    """Transform squares at many places, drop small coefficients, average what they say.

    Args:
        image: (H, W, 3), 0 to 255.
        deviation: (H, W), of its noise.
        stride: how far apart the squares lie.

    Source:
        Yu, Sapiro 2011, DCT Image Denoising: a Simple and Effective Image Denoising Algorithm,
        doi:10.5201/ipol.2011.ys-dct; squares weighted by how few coefficients they keep, as in
        Dabov et al. 2007, Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering.
    """
    height, width = image.shape[:2]
    margin = ((BLOCK, BLOCK + -height % BLOCK), (BLOCK, BLOCK + -width % BLOCK))
    planes = np.pad(image @ OPPONENT.T, (*margin, (0, 0)), mode="symmetric")
    limits = np.pad(deviation * np.float32(THRESHOLD), margin, mode="symmetric")
    total, weights = np.zeros_like(planes), np.zeros_like(planes)
    rows, columns = planes.shape[0] - BLOCK, planes.shape[1] - BLOCK
    for down, across in product(range(0, BLOCK, stride), repeat=2):
        part = slice(down, down + rows), slice(across, across + columns)
        clean, weight = _shrunk(planes[part], limits[part])
        total[part] += clean
        weights[part] += weight
    inside = slice(BLOCK, BLOCK + height), slice(BLOCK, BLOCK + width)
    clean = (total[inside] / weights[inside]) @ OPPONENT
    return clean.astype(np.float32)


def _shrunk(planes: Floats, limits: Floats) -> tuple[Floats, Floats]:
    """Squares side by side with their small coefficients gone: weighted values, and weights."""
    rows, columns, channels = planes.shape
    high, wide = rows // BLOCK, columns // BLOCK
    blocks = planes.reshape(high, BLOCK, wide, BLOCK, channels).transpose(0, 2, 4, 1, 3)
    limit = limits.reshape(high, BLOCK, wide, BLOCK).mean(axis=(1, 3))[..., None, None]
    found = blocks.reshape(-1, BLOCK * BLOCK) @ _basis().T
    found = found.reshape(high, wide, channels, BLOCK * BLOCK)
    kept = np.abs(found) > limit
    kept[..., 0] = True  # the mean of a square is not noise
    weight = (1 / kept.sum(axis=-1)).astype(np.float32)
    found *= kept * weight[..., None]
    clean = (found.reshape(-1, BLOCK * BLOCK) @ _basis()).reshape(
        high, wide, channels, BLOCK, BLOCK
    )
    values = clean.transpose(0, 3, 1, 4, 2).reshape(planes.shape)
    weights = weight.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return values, weights


@lru_cache(maxsize=1)
def _basis() -> Floats:
    """The orthonormal DCT-II of a square, as one matrix on its pixels row by row."""
    at = np.arange(BLOCK)
    waves = np.cos(np.pi * (2 * at[None] + 1) * at[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    waves[0] /= np.sqrt(2)
    return np.kron(waves, waves).astype(np.float32)


def _by_block(values: Floats) -> Floats:
    """(blocks, values of each) from a plane of half the picture's size."""
    side = BLOCK // 2
    height, width = values.shape[0] // side, values.shape[1] // side
    squares = values.reshape(height, side, width, side).transpose(0, 2, 1, 3)
    return squares.reshape(height * width, side * side)
