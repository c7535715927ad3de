"""Enlarges pictures of any size in tiles, on whatever runs a network on windows of them."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Protocol

import numpy as np

from safelight.engines.machine.memory import until_it_fits
from safelight.errors import OutOfMemoryError
from safelight.media.guided import REACH as DENOISE_REACH
from safelight.media.tiles import Box, scaled, tiles
from safelight.pixels import Pixels
from safelight.progress import note, step

SMALLEST_TILE = 64
"""Below this the overlap costs more than it saves: windows are mostly neighbours."""
TOGETHER = 8
"""Frames that are worked on at once at most where an accelerator computes: while it has one, others
come and go, and the processor's cores do what is left to do to them."""


@dataclass(frozen=True)
class Bite:
    """What is enlarged at once, and where the part of it that is kept goes."""

    window: Pixels
    """(h, w, 3) uint8: the core and its neighbours."""
    core: Box
    """The part of the window that is kept."""
    target: Pixels
    """The enlarged core's place in the result."""


class Runner(Protocol):
    """Enlarges windows with one network on one device."""

    @property
    def batches(self) -> bool:
        """Whether `frugal` makes a difference."""
        ...

    @property
    def grid(self) -> int:
        """Windows that begin at multiples of it are computed like the whole picture."""
        ...

    def filled(
        self, bites: Sequence[Bite], factor: int, denoise: float, frugal: bool
    ) -> Generator[None]:
        """Fill the target of every bite, in any order; yields once after each of them.

        Closed early, it leaves no work behind that still reads or writes.

        Args:
            bites: what to enlarge.
            factor: output px per input px, 1 to 4.
            denoise: 0 to 1, how far noise is smoothed before.
            frugal: one window at a time, in as little memory as the tile allows.

        Raises:
            OutOfMemoryError: the device has no room for a window of this size.
        """
        ...

    def release(self) -> None:
        """Give working memory back; the weights stay."""
        ...


class Reaching(Protocol):
    """What tiling needs to know about a network."""

    @property
    def reach(self) -> int:
        """Overlap of tiles, input px."""
        ...


class Enlarger:
    """Enlarges pictures of any size with one network; memory depends on the tile alone."""

    def __init__(
        self, runner: Runner, network: Reaching, factor: int, tile: int, denoise: float
    ) -> None:
        self._runner = runner
        self.factor, self.denoise = factor, denoise
        self.tile = tile
        """Side of a tile; lowered when memory runs out."""
        self.reach = network.reach + (DENOISE_REACH if denoise else 0)
        """Overlap of tiles, input px."""
        self.frugal = not runner.batches
        """Whether windows go to the device one by one; set when memory runs out."""
        self.together = max(2, min(physical_cores() // 2, TOGETHER)) if runner.batches else 1
        """How many threads may enlarge pictures at once."""
        self._saving = Lock()

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None] = step) -> Pixels:
        """Enlarge (H, W, 3) uint8 sRGB to (H * factor, W * factor, 3).

        Args:
            image: the picture.
            on_tile: called with how many tiles are done and how many there are, first with 0; what
                it raises ends the work.

        Raises:
            OutOfMemoryError: no room for the result, or for tiles of 64 px.
            StopRequestedError: the run was asked to stop.
        """
        height, width, channels = image.shape
        shape = height * self.factor, width * self.factor, channels
        try:
            target = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"a result of {shape[1]}x{shape[0]} px takes {np.prod(shape) / 2**30:.1f} GiB, "
                "more than there is",
                "lower upscale_factor, or use a machine with more memory",
            ) from error
        tried = self.tile, self.frugal

        def attempt() -> None:
            nonlocal tried
            tried = self.tile, self.frugal
            self._fill(target, image, on_tile, *tried)

        def save(error: Exception) -> None:
            with self._saving:
                if tried == (self.tile, self.frugal):  # else another picture has saved some
                    self._save_memory(error)

        until_it_fits(attempt, save, self._runner.release)
        return target

    def enlarge_window(self, window: Pixels) -> Pixels:
        """Enlarge one window, its edges taken for the edges of the picture."""
        height, width = window.shape[:2]
        target = np.empty((height * self.factor, width * self.factor, 3), np.uint8)
        bite = Bite(window, (slice(0, height), slice(0, width)), target)
        with closing(self._runner.filled([bite], self.factor, self.denoise, self.frugal)) as done:
            next(done)
        return target

    def close(self) -> None:
        """Give working memory back; kept until then, because taking it anew for each frame costs
        a tenth of the time. The network stays loaded."""
        self._runner.release()

    def _fill(
        self,
        target: Pixels,
        image: Pixels,
        on_tile: Callable[[int, int], None],
        tile: int,
        frugal: bool,
    ) -> None:
        height, width = image.shape[:2]
        bites = [
            Bite(image[part.window], part.core_in_window, target[scaled(part.core, self.factor)])
            for part in tiles(height, width, tile, self.reach, self._runner.grid)
        ]
        with closing(self._runner.filled(bites, self.factor, self.denoise, frugal)) as filled:
            on_tile(0, len(bites))
            for done, _ in enumerate(filled, 1):
                on_tile(done, len(bites))

    def _save_memory(self, error: Exception) -> None:
        if self.frugal and self.tile <= SMALLEST_TILE:
            raise error
        if not self.frugal:
            self.frugal = True
            note("out of memory: tiles are enlarged one by one")
            return
        smaller = max(self.tile // 2, SMALLEST_TILE)
        note(f"out of memory: tile lowered from {self.tile} to {smaller} px")
        self.tile = smaller


@lru_cache(maxsize=1)
def physical_cores() -> int:
    """Threads to compute with: more than one per core only makes them wait for each other."""
    import psutil

    return psutil.cpu_count(logical=False) or 1
