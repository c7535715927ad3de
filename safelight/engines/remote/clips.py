"""Clips that a provider made of a picture, as frames."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from safelight.engines.interface import AnimateRequest
from safelight.engines.results import Clip
from safelight.media.video.stream import probe, read_frames
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.store.disk import work_prefix
from safelight.store.store import current_store

Fetched = Path
"""The file of a clip."""


def clip_of(title: str, request: AnimateRequest, fetch: Callable[[Path], Fetched]) -> Clip:
    """The frames of a clip, its file kept until they are gone through.

    Args:
        title: of the provider, for notes.
        request: what was asked for; what is longer is left away.
        fetch: puts the file into a folder.
    """
    scratch = current_store().scratch
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=work_prefix(), dir=scratch))
    try:
        path = fetch(folder)
        info = probe(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made = info.frames / info.fps
    if made > Fraction(request.seconds) + 1 / info.fps:
        note(
            f"{title} made {float(made):.2f} s, {request.seconds:g} s were asked for: the rest is "
            "left away"
        )

    def frames() -> Iterator[Pixels]:
        try:
            for at, frame in enumerate(read_frames(path)):
                if at > request.seconds * info.fps:
                    return
                yield frame
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return Clip(frames(), info.fps)
