"""The storyboard stage: the shots of a scene on one sheet, each with its caption."""

from typing import Annotated

from pydantic import Field

from safelight.engines.interface import ComputeRequest
from safelight.errors import InvalidFieldValueError
from safelight.media.sheets import caption_lines, contact_sheet
from safelight.params import Params
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import keep_image, record_of
from tasks.base.stage import stage
from tasks.base.thumbnails import thumbnails

REVISION = "1"
"""Raised when the same sheet would look different."""
MOST_LINES = 8
"""Of a caption; what is longer ends in an ellipsis, and a note says so."""


class StoryboardParams(Params):
    """How the shots are laid out."""

    columns: int = Field(default=3, ge=1, le=16)
    """Shots in a row."""
    captions: tuple[Annotated[str, Field(max_length=2000)], ...] = Field(default=(), max_length=64)
    """One for each shot, in any script, written below it; none numbers them from 1."""
    cell: int = Field(default=512, ge=64, le=1024)
    """Longest side that a shot has on the sheet, px; smaller ones keep their size."""


@stage(
    reads={"pictures": ("image", "video")},
    makes="image",
    origin="edits",
    needs=lambda *_: (ComputeRequest(REVISION),),
)
def storyboard(pictures: list[ArtifactRef], params: StoryboardParams) -> ArtifactRef:
    """Lay out shots row by row with their captions; of a video its middle frame.

    Args:
        pictures: the shots, in order.
        params: columns, captions and the size of a shot.

    Returns:
        A new picture.

    Raises:
        InvalidFieldValueError: there are captions, but not one for each shot.
        InvalidMediaError: a picture or video cannot be decoded.
    """
    captions = params.captions or tuple(str(number + 1) for number in range(len(pictures)))
    if len(captions) != len(pictures):
        raise InvalidFieldValueError(
            f"storyboard: {len(captions)} captions for {len(pictures)} pictures",
            "give captions one text for each picture, or none",
        )
    needed = [caption_lines(text, params.cell) for text in captions]
    for number, lines in enumerate(needed, 1):
        if lines > MOST_LINES:
            note(f"caption {number} takes {lines} lines: cut after {MOST_LINES}")
    shots = list(zip(captions, thumbnails(pictures, params.cell), strict=True))
    sheet = contact_sheet(shots, params.columns, params.cell, min(max(needed), MOST_LINES))
    return keep_image(sheet, record_of(params, pictures))
