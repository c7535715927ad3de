import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from safelight.errors import InvalidFieldValueError
from safelight.media.video.lossless import read_lossless
from safelight.media.video.stream import FrameWriter, probe, read_frames, transform_frames
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.interpolate import InterpolateParams, interpolate
from tests.media.clips import write_video

CLIP = Path(__file__).parents[2] / "examples" / "box.mp4"
NTSC = Fraction(1000, 1001)


@pytest.fixture(autouse=True)
def _on_the_cpu(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")


def small(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """A part of the clip, so that the network has little to do."""
    for frame in frames:
        yield np.ascontiguousarray(frame[60:124, 160:256])


def timed(target: Path, fps: Fraction, frames: int = 4) -> ArtifactRef:
    """The shipped clip's picture at another rate, with its whole sound."""
    transform_frames(
        CLIP, target, lambda shown: islice(small(shown), frames), {}, fps=fps, frames=frames
    )
    return current_store().put(target, "video/mp4")


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [(24, 60, 1), (30, 60, 1), (60, 120, 1), (24, 60, NTSC), (30, 120, NTSC)],
)
def test_frames_duration_and_sound_are_exact(
    tmp_path: Path, source: int, target: int, factor: Fraction
) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(source) * factor)
    before = probe(tmp_path / "a.mp4")
    made = interpolate.fn(ref, InterpolateParams(target_fps=target))
    path = current_store().fetch(made)
    after = probe(path)

    assert after.fps == target * factor
    assert after.frames == made.frames == 4 * target // source
    assert after.duration_seconds == before.duration_seconds
    assert (made.width, made.height, made.kind) == (96, 64, "video")
    assert packets_of(path) == packets_of(CLIP) != []
    assert made.metadata["notes"] == []


def test_source_frames_are_kept(tmp_path: Path) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(24))
    made = interpolate.fn(ref, InterpolateParams(target_fps=60))
    after = list(read_frames(current_store().fetch(made)))
    before = list(read_frames(tmp_path / "a.mp4"))

    for index in (0, 2):
        kept = after[index * 5 // 2].astype(int)
        near, far = (np.abs(kept - before[index + step]).mean() for step in (0, 1))
        assert near < 2.5  # what is left is the second encoding
        assert near < far / 2


def test_a_cut_is_not_blended(tmp_path: Path, photo: np.ndarray) -> None:
    scene = np.ascontiguousarray(photo[20:84, 180:276])
    frames = [*islice(small(read_frames(CLIP)), 4), *[scene] * 4]
    write_video(tmp_path / "a.mp4", frames, Fraction(30))
    ref = current_store().put(tmp_path / "a.mp4", "video/mp4")
    after = list(
        read_frames(current_store().fetch(interpolate.fn(ref, InterpolateParams(target_fps=120))))
    )

    def far(one: np.ndarray, two: np.ndarray) -> float:
        return float(np.abs(one.astype(int) - two).mean())

    for index in (13, 14, 15):
        assert min(far(after[index], frames[3]), far(after[index], scene)) < 4
    assert far(after[13], frames[3]) < 4
    assert far(after[14], scene) < 4


def test_what_does_not_divide_is_longer_by_less_than_a_frame(tmp_path: Path) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(24), frames=5)
    made = interpolate.fn(ref, InterpolateParams(target_fps=60))

    assert made.frames == 13  # 12.5
    assert "longer" in str(made.metadata["notes"])


def test_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(30), frames=3)
    params = InterpolateParams(source_fps=30, target_fps=60)
    record = read_record(current_store().fetch(interpolate.fn(ref, params)))

    assert record is not None
    assert record.stage == "interpolate"
    assert record.parameters == {
        "source_fps": 30,
        "target_fps": 60,
        "duplicates": "keep",
    }
    assert record.sources == (ref.sha256,)
    assert record.engine_id == "rife"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(30), frames=4)
    made = {interpolate.fn(ref, InterpolateParams(target_fps=60)).sha256 for _ in range(2)}

    assert len(made) == 1


def test_a_stop_in_the_middle_leaves_no_half_file(tmp_path: Path, volume: Path) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(30))
    before = sorted(path for path in volume.rglob("*") if path.is_file())

    def stopping(done: int, total: int) -> None:
        assert total == 8
        if done == 3:
            request_stop()

    try:
        params = InterpolateParams(target_fps=60)
        call = Call(interpolate.declared, [ref, params])
        with (
            calling(call),
            watching(stopping),
            pytest.raises(StopRequestedError, match="step 4 of 8"),
        ):
            # without the stage's own listener, which would replace ours
            interpolate.fn.__wrapped__(ref, params)
    finally:
        clear_stop()
    left = sorted(path for path in volume.rglob("*") if path.is_file())
    kept = volume / "cache" / "frames"  # whole chunks, for the next attempt
    assert [path for path in left if not path.is_relative_to(kept)] == before
    for path in left:
        if path.is_relative_to(kept):
            assert len(list(read_lossless(path))) > 0


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        (60, 60, r"target_fps 60 is not above source_fps 60; use one of 120, 240"),
        (120, 24, r"target_fps 24 is not above source_fps 120; use one of 240"),
        (240, 60, r"a source at 240 cannot be raised further"),
        (23, 60, r"Input should be 24, 25"),
        (24, 61, r"Input should be 24, 25"),
    ],
)
def test_rates_that_do_not_fit_are_refused(source: int, target: int, found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        InterpolateParams(source_fps=source, target_fps=target)  # pyright: ignore


def test_the_target_rate_is_required() -> None:
    with pytest.raises(ValidationError, match="target_fps\n  Field required"):
        InterpolateParams()  # pyright: ignore


@pytest.mark.parametrize(
    ("rate", "params", "found"),
    [
        (30, {"target_fps": 30}, "target_fps 30 is not above source_fps 30"),
        (60, {"target_fps": 24}, "target_fps 24 is not above source_fps 60"),
        (25, {"source_fps": 30, "target_fps": 60}, r"source_fps is 30, the video has 25\.000"),
        (15, {"source_fps": 24, "target_fps": 60}, r"source_fps is 24, the video has 15\.000"),
        (48, {"target_fps": 30}, "target_fps 30 is not above source_fps 48"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, rate: int, params: dict[str, int], found: str
) -> None:
    ref = timed(tmp_path / "a.mp4", Fraction(rate), frames=2)

    with pytest.raises(InvalidFieldValueError, match=found):
        interpolate.fn(ref, InterpolateParams.model_validate(params))


def _uneven(path: Path, every: list[int]) -> ArtifactRef:
    frames = small(read_frames(CLIP))
    with FrameWriter(path, Fraction(30), {}) as writer:
        for frame, at, end in zip(frames, every, every[1:], strict=False):
            writer.add_at(frame, at, end - at, Fraction(1, 3000))
    return current_store().put(path, "video/mp4")


def test_a_camera_s_jitter_is_evened_out(tmp_path: Path) -> None:
    ref = _uneven(tmp_path / "a.mp4", [0, 110, 195, 300, 390, 500, 600])
    made = interpolate.fn(ref, InterpolateParams(target_fps=60))

    assert (made.frames, made.fps) == (12, 60)
    assert "up to 3 ms off" in str(made.metadata["notes"])


def test_frames_of_a_rate_that_varies_are_shown_at_their_own_times(tmp_path: Path) -> None:
    ref = _uneven(tmp_path / "a.mp4", [0, 100, 200, 1200, 1300, 1400, 1500])
    made = interpolate.fn(ref, InterpolateParams(target_fps=60))
    after = list(read_frames(current_store().fetch(made)))
    before = list(read_frames(tmp_path / "a.mp4"))

    assert (made.frames, made.fps) == (30, 60)
    for index, at in enumerate([0, 2, 4, 24, 26, 28]):
        assert np.abs(after[at].astype(int) - before[index]).mean() < 2.5
    for at in range(5, 22):  # what stands still for 1/3 s does not creep
        assert np.abs(after[at].astype(int) - before[2]).mean() < 2.5


@pytest.mark.parametrize(
    ("rate", "target", "exact"),
    [
        (Fraction(16), 60, Fraction(60)),
        (Fraction(8), 24, Fraction(24)),
        (Fraction(25, 2), 25, Fraction(25)),
        (Fraction(15000, 1001), 60, 60 * NTSC),
        (Fraction(48), 60, Fraction(60)),
        (Fraction(144), 240, Fraction(240)),
    ],
)
def test_any_rate_below_the_target_is_raised(
    tmp_path: Path, rate: Fraction, target: int, exact: Fraction
) -> None:
    ref = timed(tmp_path / "a.mp4", rate, frames=3)
    made = interpolate.fn(ref, InterpolateParams.model_validate({"target_fps": target}))
    info = probe(current_store().fetch(made))

    assert info.fps == exact
    assert info.frames == made.frames == -(-3 * exact // rate)
    assert packets_of(current_store().fetch(made)) == packets_of(CLIP)


def test_animation_on_twos_moves_evenly_without_its_repeats(tmp_path: Path) -> None:
    drawn = list(islice(small(read_frames(CLIP)), 0, 16, 4))
    write_video(tmp_path / "a.mp4", [drawn[index // 2] for index in range(8)], Fraction(24))
    ref = current_store().put(tmp_path / "a.mp4", "video/mp4")
    changes = {}
    for duplicates in ("keep", "drop"):
        params = InterpolateParams.model_validate({"target_fps": 60, "duplicates": duplicates})
        made = interpolate.fn(ref, params)
        shown = list(read_frames(current_store().fetch(made)))
        assert len(shown) == 20
        steps = [np.abs(two.astype(int) - one).mean() for one, two in pairwise(shown[:15])]
        changes[duplicates] = float(np.std(steps) / np.mean(steps))
        dropped = "4 frames that repeat the one before were dropped"
        assert (dropped in str(made.metadata["notes"])) == (duplicates == "drop")
    assert changes["drop"] < 0.5 * changes["keep"]


MEASURE = """
import sys
from pathlib import Path
from safelight.store.store import current_store
from tasks.interpolate import InterpolateParams, interpolate
ref = current_store().put(Path(sys.argv[1]), "video/mp4")
made = interpolate.fn(ref, InterpolateParams(target_fps=60))
print(made.frames, made.metadata["peak_bytes"])
"""


@pytest.mark.soak
@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    flash = [np.full((270, 480, 3), level, np.uint8) for level in (0, 255)]  # cuts cost no network
    peaks = {}
    for length in (60, 600):
        path = tmp_path / f"{length}.mp4"
        moving = list(islice(read_frames(CLIP), 3))
        shown = (moving[i] if i < len(moving) else flash[i % 2] for i in range(length))
        write_video(path, shown, Fraction(30))
        out = subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)],
            env={**os.environ, "VOLUME_ROOT": str(tmp_path / f"volume{length}")},
            capture_output=True,
            text=True,
            check=True,
            timeout=280,
        ).stdout.split()
        assert int(out[0]) == 2 * length
        peaks[length] = int(out[1])

    # all frames of the longer clip take 233 MB, more than half of what the process needs
    assert peaks[600] <= 1.1 * peaks[60], peaks
