"""What stages that redraw photographs do about fine texture: how much, and laying it over."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from safelight.media.texture import DRAWN_SHARE, kind_of, put_back
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import colours_of

DRAWS_LINES = ("video", "anime")
"""Networks made for drawings: they draw outlines round hair and jaws of photographs."""
LOOKED_INTO, FRAME_STRIDE = 240, 24
"""Every so manyeth of the first frames of a clip is looked into: ten seconds of it."""
FOR_PHOTOGRAPHS = 1.0
"""All of it: grain on skin and sky is then as strong as in the source."""


@dataclass(frozen=True)
class Texture:
    """How the source's texture is laid over what a network made."""

    strength: float
    """0 leaves the network's result as it is."""
    seed: int
    """Draws the grain."""
    model: str = ""
    """The network."""

    def over(self, made: Pixels, source: Pixels, frame: int = 0) -> Pixels:
        """See `put_back`."""
        lines = self.model in DRAWS_LINES
        return put_back(source, made, self.strength, self.seed, frame, lines=lines)


def texture_of(asked: float | None, picture: ArtifactRef) -> float:
    """How much of it to put back: what was asked for, else by what a picture is; a note says so.

    Args:
        asked: 0 to 1; None decides by the part of the picture that is flat.
        picture: a still or an animated picture, or a video.
    """
    if asked is not None:
        return asked
    kind, share = kind_of(islice(_frames(picture), 0, LOOKED_INTO, FRAME_STRIDE))
    strength = FOR_PHOTOGRAPHS if kind == "photograph" else 0.0
    note(
        f"texture {strength:g}, as for a {kind}: {share:.1%} of its 8x8 squares are flat, "
        f"drawings have more than {DRAWN_SHARE:.0%}"
    )
    return strength


def _frames(picture: ArtifactRef) -> Iterator[Pixels]:
    if picture.kind == "video":
        return read_frames(current_store().fetch(picture))
    return colours_of(picture)
