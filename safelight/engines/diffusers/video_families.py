"""Families of video models: what their makers trained them on, which no config says."""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Family:
    """One way in which models of a family draw."""

    pipeline: str
    """The class of diffusers that draws so."""
    rate_fps: int
    """Frames a second."""
    group: int
    """A latent frame holds so many: counts are a multiple of it and one."""
    most: int
    """Frames."""
    grid: int
    """Sides are multiples of this, px."""
    area: int
    """Pixels of a frame; larger pictures are scaled down to it."""
    own_size: bool = False
    """Whether it draws in no other size than its own."""
    needs: str = ""
    """A package that its pipeline cleans prompts with, and imports only if it is there."""
    stands_still: bool = False
    """Whether it knows no first picture, and draws over one that stands still instead."""
    negative: bool = True
    """Whether it reads what must not be seen."""


_SVD = Family("StableVideoDiffusionPipeline", 7, 1, 25, 64, 1024 * 576)
_LTX = Family("LTXImageToVideoPipeline", 24, 8, 257, 32, 704 * 512)
_WAN = Family("WanImageToVideoPipeline", 16, 4, 81, 16, 832 * 480, needs="ftfy")
_COG = Family("CogVideoXImageToVideoPipeline", 8, 4, 49, 16, 720 * 480, own_size=True)
_HUNYUAN = Family("HunyuanVideoImageToVideoPipeline", 24, 4, 129, 16, 1280 * 720, negative=False)
_OVER = Family("AnimateDiffVideoToVideoPipeline", 8, 1, 16, 64, 512 * 512, stands_still=True)
_SPARSE = Family("AnimateDiffSparseControlNetPipeline", 8, 1, 16, 64, 512 * 512)
FROM_PICTURE = {
    family.pipeline: family for family in (_SVD, _LTX, _WAN, _COG, _HUNYUAN, _OVER, _SPARSE)
}
"""Pipeline class of a folder to what draws from pictures with it."""
FROM_PICTURE["LTXPipeline"] = _LTX  # the same parts; folders name the one that draws from text
FROM_PICTURE["AnimateDiffPipeline"] = _OVER

_LTX_TEXT = Family("LTXPipeline", 24, 8, 257, 32, 704 * 512)
_DIFF_TEXT = Family("AnimateDiffPipeline", 8, 1, 16, 8, 512 * 512)
FROM_TEXT = {
    "LTXPipeline": _LTX_TEXT,
    "LTXImageToVideoPipeline": _LTX_TEXT,
    "WanPipeline": Family("WanPipeline", 16, 4, 81, 16, 832 * 480),
    "CogVideoXPipeline": Family("CogVideoXPipeline", 8, 4, 49, 16, 720 * 480, own_size=True),
    "HunyuanVideoPipeline": Family(
        "HunyuanVideoPipeline", 24, 4, 129, 16, 1280 * 720, negative=False
    ),
    "AnimateDiffPipeline": _DIFF_TEXT,
    "AnimateDiffVideoToVideoPipeline": _DIFF_TEXT,
}
"""The same for what draws from text."""


def frames_for(family: Family, seconds: float) -> tuple[int, Fraction]:
    """How many frames a model draws for a duration, and at which rate they are shown."""
    count = family.group * math.ceil(seconds * family.rate_fps / family.group) + 1
    if count <= family.most:
        return count, Fraction(family.rate_fps)
    return family.most, Fraction(family.most - 1) / Fraction(seconds).limit_denominator(1000)
