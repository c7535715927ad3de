"""Working through a picture in tiles, so that memory does not grow with the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from safelight.pixels import Pixels
from safelight.progress import step

Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Tile:
    """One bite: a core that is kept, inside a window that is looked at."""

    core: Box
    """Where it lies in the picture; the cores of all tiles cover each pixel once."""
    window: Box
    """The core and its neighbours, cut off at the edges of the picture."""

    @property
    def core_in_window(self) -> Box:
        """Where the core lies in the window."""
        (rows, columns), (top, left) = self.core, self.window
        return _moved(rows, -top.start), _moved(columns, -left.start)


def tiles(height: int, width: int, tile: int, overlap: int, grid: int = 1) -> list[Tile]:
    """Divide a picture into cores of almost equal size, row by row.

    The windows end where the picture ends and nothing is made up beyond it: whatever an engine
    does at the edge of a whole picture, it then does at the same place in a tile.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        tile: longest side of a core.
        overlap: how far a window reaches beyond its core, where the picture does.
        grid: windows begin at multiples of it, and reach up to as far further for that.

    Raises:
        ValueError: an empty picture, tile or grid, or a negative overlap.
    """
    if min(height, width, tile, grid) < 1 or overlap < 0:
        raise ValueError(
            f"picture {width}x{height}, tile {tile}, overlap {overlap}, grid {grid}: "
            "sides and grid must be at least 1, the overlap at least 0"
        )
    rows, columns = _spans(height, tile), _spans(width, tile)
    return [
        Tile(
            (row, column),
            (_grown(row, overlap, height, grid), _grown(column, overlap, width, grid)),
        )
        for row in rows
        for column in columns
    ]


def map_tiles_into(
    target: Pixels,
    image: Pixels,
    tile: int,
    overlap: int,
    scale: int,
    fn: Callable[[Pixels], Pixels],
    on_tile: Callable[[int, int], None] = step,
) -> None:
    """Enlarge a picture tile by tile, as if it were done at once.

    Seamless when `overlap` is at least as far as `fn` looks around each pixel.

    Args:
        target: (H * scale, W * scale, 3) uint8 that is filled, for instance a file mapped into
            memory.
        image: (H, W, 3) uint8.
        tile: longest side of the part that is kept of each tile, input px.
        overlap: real neighbours that `fn` sees around that part, input px.
        scale: output px per input px along each side.
        fn: from (h, w, 3) to (h * scale, w * scale, 3) uint8.
        on_tile: called before each tile with how many are done and how many there are.
    """
    height, width = image.shape[:2]
    todo = tiles(height, width, tile, overlap)
    for done, part in enumerate(todo):
        on_tile(done, len(todo))
        target[scaled(part.core, scale)] = fn(image[part.window])[
            scaled(part.core_in_window, scale)
        ]
    on_tile(len(todo), len(todo))


def scaled(box: Box, scale: int) -> Box:
    """The same place in a picture `scale` times as large."""
    rows, columns = box
    return (
        slice(rows.start * scale, rows.stop * scale),
        slice(columns.start * scale, columns.stop * scale),
    )


def _spans(length: int, tile: int) -> list[slice]:
    count = -(-length // tile)
    ends = [length * index // count for index in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _grown(span: slice, overlap: int, length: int, grid: int) -> slice:
    start = max(span.start - overlap, 0)
    return slice(start - start % grid, min(span.stop + overlap, length))


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
