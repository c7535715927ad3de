"""Short videos that hold exactly the pixels that were put in: results on their way."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels

CODEC = "libx264rgb"
OPTIONS = {"qp": "0", "preset": "ultrafast", "g": "16"}
"""Quantiser 0 on RGB is lossless; the preset is the fastest there is, its files the largest."""
MEDIA_TYPE = "video/x-matroska"


class LosslessWriter:
    """Encodes frames of one size; a context manager, the file is whole once it ends."""

    def __init__(self, target: Path) -> None:
        """Open the file.

        Args:
            target: is overwritten.
        """
        import av

        self.frames = 0
        """Frames added so far."""
        self._container = av.open(str(target), "w", format="matroska")
        self._stream = self._container.add_stream(CODEC, rate=Fraction(25), options=OPTIONS)
        self._stream.pix_fmt = "rgb24"

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file."""
        self.close()

    def add(self, pixels: Pixels) -> None:
        """Append (H, W, 3) uint8 pixels.

        Raises:
            OSError: no room is left.
        """
        from av import VideoFrame

        if not self.frames:
            self._stream.height, self._stream.width = pixels.shape[:2]
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds."""
        if self.frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def read_lossless(path: Path) -> Iterator[Pixels]:
    """Read the frames back.

    Yields:
        (H, W, 3) uint8, the very values that were added.

    Raises:
        InvalidMediaError: the file is damaged.
    """
    import av
    import av.error

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except av.error.FFmpegError as error:
        raise InvalidMediaError(
            f"kept frames in {path.name} are damaged: {error}", "run the flow again"
        ) from error
