"""Something that each provider does, for tests; also what a process does that is to be killed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from safelight.engines.choosing import engines
from safelight.engines.interface import AnimateRequest, DrawRequest, EnlargeRequest
from safelight.engines.lips import LipsyncRequest
from safelight.engines.work import Work, current_work, working
from safelight.provenance.charges import Charge, charging
from tests.engines.remote.providing import clip
from tests.sounds import write_tone

DRAW = DrawRequest(prompt="a red heart", width=64, height=64, steps=20, seed=7)
ENLARGE = EnlargeRequest("photo", 2, 256)
SMALL = np.full((32, 32, 3), 90, np.uint8)
LARGE = np.full((320, 320, 3), 90, np.uint8)


def as_work(name: str, act: Callable[[], object], run: str = "run-1") -> dict[str, Charge]:
    """What one try of some work costs; raises as it does."""
    charges: dict[str, Charge] = {}
    with working(Work(run, lambda: name)), charging(charges):
        act()
    return charges


def fal_draws() -> object:
    return engines()["provider_fal"].draw(DRAW)


def runware_enlarges() -> object:
    opened = engines()["provider_runware"].open_enlarger(ENLARGE)
    return opened.enlarge(SMALL)


def kling_animates() -> object:
    request = AnimateRequest(seconds=1, fps=8, prompt="waves")
    return list(engines()["provider_kling"].animate(request, LARGE).frames)


def sync_speaks(tmp_path: Path) -> object:
    video, sound, made = tmp_path / "said.mp4", tmp_path / "said.wav", tmp_path / "made"
    if not video.exists():
        clip(tmp_path)
        (tmp_path / "clip.mp4").rename(video)
        write_tone(sound, 1.0)
    made.mkdir(exist_ok=True)
    request = LipsyncRequest("standard")
    return engines()["provider_synclabs"].sync_lips(
        request, video, sound, current_work().name(), made
    )
