"""A toy engine that moves lips, for tests: it paints the lower half of each frame red."""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import safelight.engines as folder
from safelight.engines import choosing

ENGINE = """
from fractions import Fraction

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine
from safelight.engines.lips import Written
from safelight.media.video.stream import FrameWriter, probe, read_frames

class Lips(LocalEngine):
    engine_id = "toy_lips"
    asked = []

    def identity(self, request):
        return EngineIdentity(engine_id="toy_lips", version=request.fidelity)

    def sync_lips(self, request, video, sound, job, folder):
        self.asked.append((request.fidelity, sound.suffix, job))
        with FrameWriter(folder / "spoken.mp4", probe(video).fps, {}) as writer:
            for frame in read_frames(video):
                spoken = frame.copy()
                spoken[len(frame) // 2 :, :, 0] = 255
                writer.add(spoken)
        return Written(folder / "spoken.mp4")

ENGINE = Lips()
"""


@contextmanager
def lips(path: Path, written: str = ENGINE) -> Iterator[object]:
    """An engine `toy_lips` is installed inside; what this one was asked is its `asked`."""
    (path / "toy_lips.py").write_text(textwrap.dedent(written))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "__path__", [*folder.__path__, str(path)])
        choosing.engines.cache_clear()
        yield choosing.engines()["toy_lips"]
    choosing.engines.cache_clear()
    sys.modules.pop(f"{folder.__name__}.toy_lips", None)
