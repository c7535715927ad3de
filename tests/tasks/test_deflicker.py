"""The deflicker stage on stored videos."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.media.video.stream import probe, read_frames
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.base.ingest import ingest
from tasks.deflicker import DeflickerParams, deflicker
from tests.media.clips import map_frames, write_video

BOX = Path(__file__).resolve().parents[2] / "examples" / "box.mp4"


@pytest.fixture
def clip(volume: Path) -> ArtifactRef:
    return ingest(str(BOX), ("video",))


def stored(path: Path) -> ArtifactRef:
    info = probe(path)
    return current_store().put(
        path,
        "video/mp4",
        width=info.width,
        height=info.height,
        frames=info.frames,
        fps=float(info.fps),
    )


@pytest.mark.slow
def test_a_stored_clip_loses_its_flicker_and_keeps_its_sound(volume: Path, tmp_path: Path):
    gains = iter(1 + np.random.default_rng(3).uniform(-0.2, 0.2, 1000))

    def flickering(frame: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(frame * (0.8 * next(gains))), 0, 255).astype(np.uint8)

    map_frames(BOX, tmp_path / "flicker.mp4", flickering, {})
    source = stored(tmp_path / "flicker.mp4")
    made = deflicker.fn(source, DeflickerParams())
    path = current_store().fetch(made)
    assert (probe(path).frames, probe(path).fps) == (probe(BOX).frames, probe(BOX).fps)

    def sound(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert sound(path) == sound(BOX) != []
    ratios = [
        [frame.mean() / true.mean() for frame, true in zip(read_frames(each), read_frames(BOX))]  # noqa: B905
        for each in (tmp_path / "flicker.mp4", path)
    ]
    before, after = (np.std(np.log(each)) for each in ratios)
    assert 20 * np.log10(before / after) > 10
    record = read_record(path)
    assert record is not None
    assert (record.stage, record.origin) == ("deflicker", "enhances")
    assert record.parameters == {"level": 1.0}
    assert "1 scenes" in " ".join(made.metadata["notes"])


def test_level_0_gives_the_artifact_itself(clip: ArtifactRef):
    assert deflicker.fn(clip, DeflickerParams(level=0)).sha256 == clip.sha256


def test_the_same_clip_gives_the_same_bytes(volume: Path, tmp_path: Path, photo: np.ndarray):
    shown = [np.rint(photo[:64, 160:256] * gain).astype(np.uint8) for gain in (1, 0.8, 0.9, 0.7)]
    write_video(tmp_path / "a.mp4", shown, Fraction(25))
    ref = stored(tmp_path / "a.mp4")
    assert len({deflicker.fn(ref, DeflickerParams()).sha256 for _ in range(2)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("half", ["measured", "changed"])
def test_it_stops_in_either_half(clip: ArtifactRef, half: str):
    def stopping(done: int, total: int) -> None:
        if done > (total // 4 if half == "measured" else 3 * total // 4):
            request_stop()

    params = DeflickerParams()
    try:
        with (
            calling(Call(deflicker.declared, [clip, params])),
            watching(stopping),
            pytest.raises(StopRequestedError),
        ):
            deflicker.fn.__wrapped__(clip, params)
    finally:
        clear_stop()
    made = deflicker.fn(clip, params)
    again = any("had been made by an earlier attempt" in text for text in made.metadata["notes"])
    assert again == (half == "changed")
