"""What pages are drawn from: photographs of scikit-image (public domain or CC0), runs, moments."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from flows.running.checking import RecordedFlow
from flows.running.recorded import run_inline
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tests.media.clips import write_video

Cells = list[tuple[str, Pixels]]
"""Captions and pictures of a sheet."""
FRAMES, FLICKER = 72, 0.2


def ran(flow: RecordedFlow[...], **parameters: Any) -> tuple[ArtifactRef, ...]:
    """The results of a flow, run in this process.

    Raises:
        SystemExit: it failed.
    """
    manifest = run_inline(flow, parameters, f"page-{flow.name}", lambda *_: None)
    if manifest.error is not None:
        raise SystemExit(f"{flow.name}: {manifest.error}")
    return manifest.results


def stored(pixels: Pixels) -> ArtifactRef:
    """(H, W, 3) uint8 sRGB as a picture of the store."""
    path = settings().volume_root / "uploads" / "picture.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return ingest(str(path), ("image",))


def filmed(frames: Iterable[Pixels], fps: int = 24) -> ArtifactRef:
    """(H, W, 3) uint8 sRGB each as a video of the store."""
    path = settings().volume_root / "uploads" / "clip.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, Fraction(fps))
    return ingest(str(path), ("video",))


def frames_of(video: ArtifactRef) -> list[Pixels]:
    """All its frames."""
    return list(read_frames(current_store().fetch(video)))


def moments(video: ArtifactRef, text: str) -> Cells:
    """Its first frame, the one in the middle and the last."""
    shown = frames_of(video)
    seconds = len(shown) / (video.fps or 1)
    picked = (0, len(shown) // 2, len(shown) - 1)
    return [(f"{text}, {at / len(shown) * seconds:.1f} s", shown[at]) for at in picked]


def larger(pixels: Pixels, times: int) -> Pixels:
    """Each pixel as a square."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def flickering(frames: int = FRAMES, size: int = 0) -> ArtifactRef:
    """A slow pan over a photograph whose light is off by up to a fifth in each frame."""
    ground = data.astronaut()[0:216, :] if not size else data.astronaut()[50 : 50 + size, 170:]
    wide = size or 320
    drawn = np.random.default_rng(5)

    def shown() -> Iterable[Pixels]:
        for at in range(frames):
            frame = ground[:, 2 * at : 2 * at + wide] * np.float32(0.8)
            gain = 1 + drawn.uniform(-FLICKER, FLICKER)
            yield np.clip(np.rint(frame * gain), 0, 255).astype(np.uint8)

    return filmed(shown())
