"""Many results on one picture: contact sheets, and grids with a parameter along each side."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from safelight.engines.identity import EngineIdentity
from safelight.media.sheets import contact_sheet, grid, together
from safelight.params import Params
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import keep_image, record_of
from tasks.base.stage import stage
from tasks.base.thumbnails import thumbnails

REVISION = "3"
"""Raised when the same sheet would look different."""


Form = Literal["png", "webp"]
"""Of a sheet's file; WebP is the smaller one, at most 16383 px a side."""


class SheetParams(Params):
    """A contact sheet."""

    captions: tuple[str, ...]
    """One for each picture, written below it."""
    columns: int = Field(default=8, ge=1, le=64)
    """Pictures in a row."""
    title: str = ""
    """Written above."""
    cell: int = Field(default=256, ge=16, le=1024)
    """Side of the square that each picture has, px."""
    form: Form = "png"
    """Of the file."""


class GridSheetParams(Params):
    """An X/Y sheet."""

    columns: tuple[str, ...] = Field(min_length=1)
    """Label of each column."""
    rows: tuple[str, ...] = Field(min_length=1)
    """Label of each row."""
    cells: tuple[tuple[int, ...], ...]
    """Row by row, which of the pictures stand there, from 0; none leave the cell empty."""
    title: str = ""
    """Written above."""
    cell: int = Field(default=256, ge=16, le=1024)
    """Side of the square that each picture has, px."""
    form: Form = "png"
    """Of the file."""

    @model_validator(mode="after")
    def _every_cell_is_described(self) -> Self:
        if len(self.cells) != len(self.columns) * len(self.rows):
            raise ValueError(
                f"cells has {len(self.cells)} entries for {len(self.rows)} rows and "
                f"{len(self.columns)} columns"
            )
        return self


def _identity(params: Params, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    del params, engines
    return EngineIdentity(engine_id="sheets", version=REVISION)


@stage(
    reads={"pictures": ("image", "video")},
    makes="image",
    origin="edits",
    identity=_identity,
)
def contact(pictures: list[ArtifactRef], params: SheetParams) -> ArtifactRef:
    """Lay out pictures, or the middle frames of videos, row by row with their captions.

    Args:
        pictures: as many as there are captions.
        params: captions and measures.

    Returns:
        A new picture.
    """
    shown = thumbnails(pictures, params.cell)
    captioned = list(zip(params.captions, shown, strict=True))
    sheet = contact_sheet(captioned, params.columns, params.cell, title=params.title)
    return _kept(sheet, pictures, params)


@stage(
    reads={"pictures": ("image", "video")},
    makes="image",
    origin="edits",
    identity=_identity,
)
def axes(pictures: list[ArtifactRef], params: GridSheetParams) -> ArtifactRef:
    """Lay out pictures by the values of one parameter across and of another down.

    Args:
        pictures: those that the cells name.
        params: labels, and which picture stands where.

    Returns:
        A new picture.
    """
    several = math.isqrt(max(max(map(len, params.cells)), 1) - 1) + 1
    shown = thumbnails(pictures, params.cell // several)
    placed = [together([shown[at] for at in cell], params.cell) for cell in params.cells]
    width = len(params.columns)
    rows = [
        (label, placed[row * width : (row + 1) * width]) for row, label in enumerate(params.rows)
    ]
    sheet = grid(rows, params.columns, params.cell, params.title)
    return _kept(sheet, pictures, params)


def _kept(
    sheet: Pixels, pictures: list[ArtifactRef], params: SheetParams | GridSheetParams
) -> ArtifactRef:
    """Stored with the names of its sources; their histories stay in their own files."""
    record = record_of(params, [])
    sources = tuple(ref.sha256 for ref in pictures)
    record = record.model_copy(update={"sources": sources})
    return keep_image(sheet, record, f"image/{params.form}")
