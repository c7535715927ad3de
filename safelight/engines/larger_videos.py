"""Videos enlarged whole, by engines that take files: a part of `safelight.engines.interface`."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from safelight.engines.interface import Engine, EnlargeRequest


@runtime_checkable
class EnlargesVideos(Engine, Protocol):
    """Super-resolution of a file; such an engine is not given the frames of a video."""

    def enlarge_video(self, request: EnlargeRequest, video: Path, folder: Path) -> Path:
        """Enlarge a video.

        Args:
            request: how; its `video` is true.
            video: MP4, WebM or MKV.
            folder: an empty one, for the result.

        Returns:
            A video with the same frames, `factor` times as wide and as high; of its sound nothing
            is taken.
        """
        ...
