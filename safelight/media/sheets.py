"""Contact sheets and grids: many pictures on one, with captions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from safelight.media.lettering import Lettering
from safelight.pixels import Pixels

PAPER, INK = (24, 24, 24), "#e8e8e8"
CAPTION_LINES = 2
"""A longer caption ends in an ellipsis."""
SMALLEST_TEXT = 12
"""Height of letters in pixels, however small the cells."""


def contact_sheet(
    pictures: Sequence[tuple[str, Pixels]],
    columns: int,
    cell: int = 256,
    lines: int = CAPTION_LINES,
    title: str = "",
) -> Pixels:
    """Lay out pictures row by row, each with its caption below; a row is as high as it must be.

    Args:
        pictures: caption, and (H, W, 3) uint8 sRGB of any size; larger ones are scaled down into
            their cell, smaller ones keep their size.
        columns: cells per row; fewer pictures make a narrower sheet.
        cell: side of the square a picture has, in pixels.
        lines: of each caption; a longer one ends in an ellipsis.
        title: written above.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        ValueError: no picture, no column, or a cell under 16 px.
    """
    if not pictures or columns < 1 or cell < 16:
        raise ValueError(
            f"{len(pictures)} pictures, {columns} columns, cells of {cell} px; "
            "expected at least 1, 1 and 16"
        )
    columns = min(columns, len(pictures))
    style = _Style.for_cell(cell)
    caption = style.height(lines) if any(text for text, _ in pictures) else 0
    fitted = [(text, _fitted(pixels, cell)) for text, pixels in pictures]
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    heights = [max(image.height for _, image in row) + caption + style.gap for row in rows]
    step = cell + style.gap
    bottom = style.height(1) + style.gap if title else 0
    measures = (columns * step + style.gap, bottom + sum(heights) + style.gap)
    sheet = Image.new("RGB", measures, PAPER)
    style.write(sheet, title, style.gap, style.gap, sheet.width - 2 * style.gap, 1)
    for row, height in zip(rows, heights, strict=True):
        bottom += height
        for place, (text, image) in enumerate(row):
            left, under = style.gap + place * step, bottom - caption
            sheet.paste(image, (left + (cell - image.width) // 2, under - image.height))
            style.write(sheet, text, left, under, cell, lines)
    return np.array(sheet)


def caption_lines(text: str, cell: int) -> int:
    """How many lines a caption takes below a picture in a cell of so many pixels."""
    return len(_Style.for_cell(cell).wrapped(text, cell, len(text)))


def grid(
    rows: Sequence[tuple[str, Sequence[Pixels]]],
    columns: Sequence[str],
    cell: int = 256,
    title: str = "",
) -> Pixels:
    """An X/Y sheet: one row a value of one parameter, one column a value of another.

    Args:
        rows: label of the row, and one (H, W, 3) uint8 sRGB picture for each column.
        columns: label of each column.
        cell: side of the square a picture has, in pixels.
        title: written above, for instance the value of a third parameter.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        ValueError: no row or column, a row of another length, or a cell under 16 px.
    """
    lengths = sorted({len(pictures) for _, pictures in rows})
    if not columns or lengths != [len(columns)] or cell < 16:
        raise ValueError(
            f"rows of {lengths} pictures for {len(columns)} columns, cells of {cell} px; "
            "expected one picture for each column, and 16 px or more"
        )
    style = _Style.for_cell(cell)
    margin = cell // 2 + style.gap if any(label for label, _ in rows) else style.gap
    title_height = style.height(1) + style.gap if title else 0
    header = style.height(CAPTION_LINES) if any(columns) else 0
    start = title_height + header + style.gap
    step = cell + style.gap
    sheet = Image.new("RGB", (margin + len(columns) * step, start + len(rows) * step), PAPER)
    style.write(sheet, title, style.gap, style.gap, sheet.width - 2 * style.gap, 1)
    for place, label in enumerate(columns):
        style.write(sheet, label, margin + place * step, title_height, cell, CAPTION_LINES)
    for line, (label, pictures) in enumerate(rows):
        top = start + line * step
        middle = top + (cell - style.height(CAPTION_LINES)) // 2
        style.write(sheet, label, style.gap, middle, margin - 2 * style.gap, CAPTION_LINES)
        for place, pixels in enumerate(pictures):
            image = _fitted(pixels, cell)
            across, down = (cell - image.width) // 2, (cell - image.height) // 2
            sheet.paste(image, (margin + place * step + across, top + down))
    return np.array(sheet)


def together(pictures: Sequence[Pixels], cell: int) -> Pixels:
    """Several pictures in the cell of one, in rows of as many as there are rows.

    Args:
        pictures: (H, W, 3) uint8 sRGB each; none leave it empty.
        cell: side of the square, in pixels.

    Returns:
        (H, W, 3) uint8 sRGB; a single picture as it is.
    """
    if len(pictures) == 1:
        return pictures[0]
    square = Image.new("RGB", (cell, cell), PAPER)
    across = max(1, math.isqrt(max(len(pictures) - 1, 0)) + 1)
    side = cell // across
    above = (cell - -(-len(pictures) // across) * side) // 2
    for place, pixels in enumerate(pictures):
        image = _fitted(pixels, side)
        left, top = place % across * side, above + place // across * side
        square.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
    return np.array(square)


def fitted(pixels: Pixels, cell: int) -> Pixels:
    """A picture scaled down into a cell as a sheet does it, so that many take little memory.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        cell: side of the square, in pixels; a smaller picture is kept as it is.
    """
    return np.array(_fitted(pixels, cell))


@dataclass(frozen=True)
class _Style:
    font: Lettering
    size: int
    gap: int

    @classmethod
    def for_cell(cls, cell: int) -> "_Style":
        size = max(SMALLEST_TEXT, cell // 16)
        return cls(Lettering(size), size, max(4, cell // 32))

    def height(self, lines: int) -> int:
        return lines * self._line + self.gap

    @property
    def _line(self) -> int:
        return math.ceil(self.size * 1.3)

    def write(
        self, sheet: Image.Image, text: str, left: int, top: int, width: int, lines: int
    ) -> None:
        """Centred in `width`, cut to `lines`."""
        for place, line in enumerate(self.wrapped(text, width, lines)):
            indent = (width - self.font.width(line)) / 2
            below = top + self.gap // 2 + place * self._line
            self.font.draw(sheet, left + max(0, round(indent)), below, line, INK)

    def wrapped(self, text: str, width: int, lines: int) -> list[str]:
        """Lines no wider than `width`; where more would follow, the last ends in an ellipsis."""
        wrapped: list[str] = []
        rest = self.font.shown(text)
        while rest and len(wrapped) < lines:
            taken = self._fitting(rest, width)
            wrapped.append(rest[:taken].rstrip())
            rest = rest[taken:].lstrip()
        if rest:
            last = wrapped[-1]
            while last and self.font.width(last + "…") > width:
                last = last[:-1]
            wrapped[-1] = last.rstrip() + "…"
        return wrapped

    def _fitting(self, text: str, width: int) -> int:
        """How many characters fit, up to the last word that ends inside; at least one."""
        if self.font.width(text) <= width:
            return len(text)
        fits = 1
        while self.font.width(text[: fits + 1]) <= width:
            fits += 1
        space = text.rfind(" ", 0, fits + 1)
        return space if space > 0 else fits


def _fitted(pixels: Pixels, cell: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    return image
