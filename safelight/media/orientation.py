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


def side_data_of(frame: "VideoFrame") -> "dict[str, SideData] | None":
    """What came beside a frame, by FFmpeg's names of its kinds; None where one has no name."""
    from av.sidedata.sidedata import SideDataContainer

    try:
        # frame.side_data would keep what holds the frame: a circle, which stays until collected
        found = SideDataContainer(frame)  # pyright: ignore[reportCallIssue]
    except ValueError:
        return None
    # iterating gives the data itself, though the types say keys
    parts: list[SideData] = list(found)  # pyright: ignore[reportAssignmentType]
    return {part.type.name: part for part in parts}


def orientation_of(frame: "VideoFrame", beside: "dict[str, SideData] | None") -> Orientation:
    """What a frame's display matrix says, to the nearest quarter turn.

    Args:
        frame: as it was decoded.
        beside: its `side_data_of`.

    Source:
        ISO/IEC 14496-12, 6.2.2: (x', y') = (a x + c y, b x + d y), y downwards.
    """
    a, b, c, d = _matrix(frame, beside)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(quarter=True, mirrored=c < 0, upside_down=b < 0)
    return Orientation(mirrored=a < 0, upside_down=d < 0)


def _matrix(
    frame: "VideoFrame", beside: "dict[str, SideData] | None"
) -> tuple[float, float, float, float]:
    if beside is None:  # the frame tells the turn alone
        turn = math.radians(-frame.rotation)
        return math.cos(turn), math.sin(turn), -math.sin(turn), math.cos(turn)
    if "DISPLAYMATRIX" not in beside:
        return 1.0, 0.0, 0.0, 1.0
    data = bytes(beside["DISPLAYMATRIX"])[:20]
    a, b, _, c, d = (float(value) for value in np.frombuffer(data, np.int32))
    return a, b, c, d
