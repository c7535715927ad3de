"""Frames that a long video stage has made, kept so that a killed run goes on where it was.

What is kept are the results of the engine, losslessly and in order, not the file that is being
encoded: a resumed run encodes everything again, which is cheap, and its file is the same to the
byte as one that was never interrupted.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.behind import Behind
from safelight.media.video.lossless import MEDIA_TYPE, LosslessWriter, read_lossless
from safelight.media.video.retiming import Pending
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.store.disk import disk_errors
from safelight.store.store import Store, current_store

P = ParamSpec("P")
FOLDER = "cache/frames/"
CHUNK_FRAMES = 64
"""Frames in a chunk at most; 1 s to 3 s of video."""
CHUNK_SECONDS = 20.0
"""A slow engine's chunk is closed after this long: what a kill costs at most."""
FRAMES_BEHIND = 4
"""Frames that wait to be kept while the next is made."""


@contextmanager
def resuming(key: str, make: Callable[P, Pixels]) -> Generator[Callable[P, Pixels]]:
    """Give back what `make` made in an earlier attempt, and keep what it makes now.

    The stage must call the result in the same order with the same arguments each time. What was
    kept is dropped when the block ends without an error.

    Args:
        key: the stage's cache key: equal keys mean equal frames.
        make: the engine's call for one frame, (H, W, 3) uint8.
    """

    def begin(*args: P.args, **kwargs: P.kwargs) -> Pending:
        made = make(*args, **kwargs)
        return lambda: made

    with resuming_begun(key, begin) as begun:

        def remembered(*args: P.args, **kwargs: P.kwargs) -> Pixels:
            return begun(*args, **kwargs)()

        yield remembered


@contextmanager
def resuming_begun(key: str, begin: Callable[P, Pending]) -> Generator[Callable[P, Pending]]:
    """`resuming` for an engine that begins a frame before the one before it is taken.

    Frames must be taken in the order in which they were begun; those that were not taken when the
    block ends are not kept.
    """
    store = current_store()
    with store.workspace() as folder:
        frames = _Frames(store, f"{FOLDER}{key}/", Path(folder))

        def remembered(*args: P.args, **kwargs: P.kwargs) -> Pending:
            known = frames.next_known()
            if known is not None:
                return lambda: known
            pending = begin(*args, **kwargs)

            def finished() -> Pixels:
                made = pending()
                keeping.call(frames.keep, made)
                return made

            return finished

        with Behind(FRAMES_BEHIND) as keeping:
            try:
                yield remembered
            except BaseException:
                keeping.settle()  # stopped or failed: nothing of it is lost
                frames.close_chunk()
                raise
        frames.drop()


class _Frames:
    """Chunks of one stage's frames, in order, in the store."""

    def __init__(self, store: Store, prefix: str, folder: Path) -> None:
        self._store = store
        self._prefix = prefix
        self._folder = folder
        self._known: Iterator[Pixels] | None = self._read()
        self._count = 0
        self._writer: LosslessWriter | None = None
        self._begun = 0.0

    def next_known(self) -> Pixels | None:
        """The next frame of the earlier attempt; None from its end on."""
        if self._known is None:
            return None
        try:
            pixels = next(self._known, None)
        except InvalidMediaError:
            pixels = None  # the rest of this chunk is made again
        if pixels is None:
            self._known = None
            if self._count:
                note(f"{self._count} frames had been made by an earlier attempt")
            return None
        self._count += 1
        return pixels

    def keep(self, pixels: Pixels) -> None:
        """Add a frame that was made now."""
        if self._writer is None:
            self._begun = time.monotonic()
            self._writer = LosslessWriter(self._chunk())
        with disk_errors(self._chunk()):
            self._writer.add(pixels)
        full = self._writer.frames >= CHUNK_FRAMES
        if full or time.monotonic() - self._begun >= CHUNK_SECONDS:
            self.close_chunk()

    def close_chunk(self) -> None:
        """Put the chunk that is being written into the store."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with disk_errors(self._chunk()):
            writer.close()
        self._store.backend.write(f"{self._prefix}{self._count:08d}.mkv", self._chunk(), MEDIA_TYPE)
        self._chunk().unlink()
        self._count += writer.frames

    def drop(self) -> None:
        """Remove all chunks: the stage's result has them now."""
        if self._writer is not None:
            self._writer.close()
        for key in self._store.backend.list(self._prefix):
            self._store.backend.delete(key)

    def _read(self) -> Iterator[Pixels]:
        at = 0
        while True:
            target = self._folder / "known.mkv"
            try:
                chunk = self._store.backend.fetch(f"{self._prefix}{at:08d}.mkv", target)
            except MissingFileError:
                return
            for pixels in read_lossless(chunk):
                at += 1
                yield pixels

    def _chunk(self) -> Path:
        return self._folder / "chunk.mkv"
