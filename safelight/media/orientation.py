"""How a player turns and mirrors a video's frames before it shows them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from safelight.pixels import Pixels

if TYPE_CHECKING:
    from av import VideoFrame
    from av.sidedata.sidedata import SideData


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture down."""

    quarter: bool = False
    """Whether lines become columns; comes first."""
    mirrored: bool = False
    """Left and right change places."""
    upside_down: bool = False
    """Top and bottom change places."""

    def upright(self, pixels: Pixels) -> Pixels:
        """(H, W, channels) as it is shown: (W, H, channels) after a quarter turn."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.quarter else pixels
        if self.mirrored:
            turned = turned[:, ::-1]
        if self.upside_down:
            turned = turned[::-1]
        return np.ascontiguousarray(turned)


UPRIGHT = Orientation()


def orientation_of(frame: "VideoFrame") -> Orientation:
    """What a frame's display matrix says, to the nearest quarter turn.

    Source:
        ISO/IEC 14496-12, 6.2.2: (x', y') = (a x + c y, b x + d y), y downwards.
    """
    a, b, c, d = _matrix(frame)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(quarter=True, mirrored=c < 0, upside_down=b < 0)
    return Orientation(mirrored=a < 0, upside_down=d < 0)


def _matrix(frame: "VideoFrame") -> tuple[float, float, float, float]:
    from av.sidedata.sidedata import SideDataContainer

    try:
        # frame.side_data would keep what holds the frame: a circle, which stays until collected
        found = SideDataContainer(frame)  # pyright: ignore[reportCallIssue]
    except ValueError:  # among it is a kind that PyAV has no name for: it tells the turn alone
        turn = math.radians(-frame.rotation)
        return math.cos(turn), math.sin(turn), -math.sin(turn), math.cos(turn)
    # iterating gives the data itself, though the types say keys
    parts: list[SideData] = list(found)  # pyright: ignore[reportAssignmentType]
    for part in parts:
        if part.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (float(value) for value in np.frombuffer(bytes(part)[:20], np.int32))
            return a, b, c, d
    return 1.0, 0.0, 0.0, 1.0
