"""Several pictures of one size laid over each other."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from safelight.media.images import rounded, to_float
from safelight.media.layers import covered
from safelight.pixels import Floats, Pixels


def weighted_mean(pictures: Sequence[Pixels], shares: Sequence[float | Floats]) -> Pixels:
    """The mean of pictures in sRGB levels: sum of share times level over the sum of the shares.

    Colours count by how opaque they are, so that what is transparent leaves no fringe.

    Args:
        pictures: (H, W, 3 or 4) uint8 sRGB, all of one height and width.
        shares: of each picture, 0 or more: one number, or (H, W) of its pixels. At least one is
            above 0 at each pixel. A picture that alone has a share comes back level by level.

    Returns:
        (H, W, 3) uint8, or (H, W, 4) where one of them has transparency.
    """
    transparent = any(picture.shape[2] == 4 for picture in pictures)
    height, width = pictures[0].shape[:2]
    colours = np.zeros((height, width, 3), np.float32)
    opaque = np.zeros((height, width, 1), np.float32)
    everything = np.zeros((height, width, 1), np.float32)
    for picture, share in zip(pictures, shares, strict=True):
        each = np.broadcast_to(np.asarray(share, np.float32), (height, width))[..., None]
        everything += each
        if transparent:
            each = each * to_float(covered(picture)[..., 3:])
        colours += each * picture[..., :3]
        opaque += each
    mean = rounded((colours / np.where(opaque > 0, opaque, 1)).astype(np.float32))
    if not transparent:
        return mean
    return np.dstack((mean, rounded(np.float32(255) * opaque / everything)))


def layered(masks: Sequence[Floats], weights: Sequence[float]) -> list[float | Floats]:
    """The shares of pictures that lie on each other, each but the first where its mask is white.

    Args:
        masks: (H, W), 0 to 1; one for each picture but the first, which is the lowest.
        weights: of each picture. Equal ones leave it to the masks; 0 takes a picture away, also
            where its mask alone would show it.

    Returns:
        (H, W) for each picture; where nothing would be left to see, those of the weights alone.
    """
    seen: list[Floats] = [np.ones_like(masks[0])]
    for mask in masks:
        seen = [below * (1 - mask) for below in seen]
        seen.append(mask)
    shares = [np.float32(weight) * each for weight, each in zip(weights, seen, strict=True)]
    empty = np.sum(shares, axis=0) <= 0
    return [
        np.where(empty, np.float32(weight), share)
        for weight, share in zip(weights, shares, strict=True)
    ]


def mask_of(picture: Pixels) -> Floats:
    """(H, W), 0 to 1: the luma of a picture; what is transparent counts as black.

    Args:
        picture: (H, W, 3 or 4) uint8 sRGB.
    """
    colours = np.ascontiguousarray(picture[..., :3])
    luma = np.asarray(Image.fromarray(colours).convert("L"), np.float32) / np.float32(255)
    return luma * to_float(picture[..., 3]) if picture.shape[2] == 4 else luma
