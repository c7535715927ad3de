"""Long video stages that are stopped or killed go on where they were, to the same bytes."""

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from safelight.media.video.lossless import LosslessWriter, read_lossless
from safelight.progress import StopRequestedError, clear_stop, request_stop
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.base.catalog import find_stage
from tasks.base.ingest import ingest
from tasks.base.resuming import FOLDER, resuming
from tests.media.clips import write_video

FRAMES = 24


def noisy(count: int, side: tuple[int, int] = (34, 50), seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    base = draw.integers(40, 200, (*side, 3))
    return [
        np.clip(np.roll(base, shift, 1) + draw.integers(-9, 9, base.shape), 0, 255).astype(np.uint8)
        for shift in range(count)
    ]


@pytest.fixture
def clip(volume: Path) -> ArtifactRef:
    path = volume / "uploads" / "clip.mp4"
    path.parent.mkdir(parents=True)
    write_video(path, noisy(FRAMES), Fraction(24))
    return ingest(str(path), ("video",))


@pytest.mark.parametrize("side", [(34, 50), (33, 51), (1, 1)])
def test_kept_frames_are_the_very_pixels(tmp_path: Path, side: tuple[int, int]):
    frames = noisy(20, side)
    with LosslessWriter(tmp_path / "chunk.mkv") as writer:
        for frame in frames:
            writer.add(frame)
    for kept, frame in zip(read_lossless(tmp_path / "chunk.mkv"), frames, strict=True):
        np.testing.assert_array_equal(kept, frame)


class FailureError(Exception):
    pass


def made_until(key: str, frames: list[np.ndarray], stop: int | None) -> tuple[list, int]:
    """Frames that came out, and how many of them were really made."""
    calls, shown = 0, []

    def make(at: int) -> np.ndarray:
        nonlocal calls
        calls += 1
        return frames[at]

    with resuming(key, make) as remembered:
        for at in range(len(frames)):
            if at == stop:
                raise FailureError
            shown.append(remembered(at))
    return shown, calls


@pytest.mark.usefixtures("volume")
def test_nothing_is_made_twice_however_often_it_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.base.resuming.CHUNK_FRAMES", 5)
    frames = noisy(23)
    for stop in (0, 7, 12, 12, 21):
        with pytest.raises(FailureError):
            made_until("key", frames, stop)
    shown, calls = made_until("key", frames, None)
    assert calls == 2
    assert all((one == two).all() for one, two in zip(shown, frames, strict=True))
    assert current_store().backend.list(FOLDER) == []
    assert made_until("key", frames, None)[1] == 23


@pytest.mark.usefixtures("volume")
def test_a_damaged_chunk_is_made_again():
    frames = noisy(8)
    with pytest.raises(FailureError):
        made_until("key", frames, 6)
    backend = current_store().backend
    (name,) = backend.list(FOLDER)
    backend.delete(name)
    backend.write(name, b"no video at all", "video/x-matroska")
    shown, calls = made_until("key", frames, None)
    assert calls == 8
    assert all((one == two).all() for one, two in zip(shown, frames, strict=True))


STAGES = [
    ("interpolate", {"target_fps": 60}),
    ("upscale", {"model": "video"}),
    ("grade", {"colour": "warm", "grain": 0.3, "tone": 0.2}),
    ("denoise", {"level": 0.6}),
]


@pytest.mark.parametrize(("name", "parameters"), STAGES)
def test_a_stopped_stage_makes_the_same_file_as_one_that_was_not(
    clip: ArtifactRef, monkeypatch: pytest.MonkeyPatch, name: str, parameters: dict
):
    stage = find_stage(name)
    params = stage.params_type(**parameters)
    whole = stage.fn(clip, params)
    assert isinstance(whole, ArtifactRef)
    seen = 0

    def stop_later(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == FRAMES // 2:
            request_stop()

    from safelight.progress import watching

    try:
        call = Call(stage.declared, [clip, params])
        with calling(call), watching(stop_later), pytest.raises(StopRequestedError):
            stage.fn.__wrapped__(clip, params)
    finally:
        clear_stop()
    assert current_store().backend.list(FOLDER)
    again = stage.fn(clip, params)
    assert again.sha256 == whole.sha256
    assert "earlier attempt" in " ".join(again.metadata["notes"])
    assert current_store().backend.list(FOLDER) == []


KILLED = """
import os, sys
import tasks.base.resuming
tasks.base.resuming.CHUNK_FRAMES = 4
from safelight.engines.rife.engine import Rife
from safelight.media.video.stream import probe
from tasks.base.ingest import ingest
from tasks.interpolate import InterpolateParams, interpolate

real, calls = Rife.begin, 0
def begin(self, *args):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    return real(self, *args)
Rife.begin = begin
made = interpolate.fn(ingest(sys.argv[1], ("video",)), InterpolateParams(target_fps=60))
print(made.sha256, calls)
"""


@pytest.mark.soak
def test_sigkill_costs_no_more_than_a_chunk(clip: ArtifactRef, volume: Path):
    source = str(volume / "uploads" / "clip.mp4")

    def attempt(kill_at: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", KILLED, source, str(kill_at)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert attempt(21).returncode == -signal.SIGKILL
    digest, calls = attempt(10**6).stdout.split()
    from tasks.interpolate import InterpolateParams, interpolate

    for key in current_store().backend.list(FOLDER):
        raise AssertionError(key)
    whole = interpolate.fn(clip, InterpolateParams(target_fps=60))
    assert digest == whole.sha256
    made = attempt(10**6).stdout.split()[1]
    assert int(calls) == int(made) - 16  # 19 were taken, in four whole chunks of 4 and 3 more
