"""When the frames of odd files are shown."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.errors import InvalidMediaError
from safelight.media.video.stream import frame_times, probe, read_frames
from safelight.progress import watching
from tests.media.clips import map_frames

SIDE = 48


def grey(level: int) -> av.VideoFrame:
    picture = np.full((SIDE, SIDE), level, np.uint8)
    return av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")


def timed(path: Path, times: list[int | None], tick: Fraction, codec: str = "ffv1") -> Path:
    """One frame for each time; where two are equal or one is None, packets say so too."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.time_base = tick
        for index, time in enumerate(times):
            frame = grey(10 * index)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets = stream.encode(frame)
            packets += stream.encode(None) if index == len(times) - 1 else []
            for packet in packets:
                packet.time_base = tick
                packet.pts = packet.dts = time
                packet.duration = 0
                out.mux(packet)
    return path


def shown(path: Path) -> list[Fraction]:
    times = frame_times(path)
    return [time * times.tick for time in times.ticks]


def levels(path: Path) -> list[int]:
    return [round(float(frame.mean())) for frame in read_frames(path)]


MS = Fraction(1, 1000)


@pytest.mark.parametrize("at", [(5, 20), (1,), (40, 41, 47)])
def test_hidden_frames_are_no_frames(tmp_path: Path, at: tuple[int, ...]) -> None:
    """Encoders of VP8 send pictures to refer to that are never shown."""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx", rate=30, options={"lag-in-frames": "0"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in range(48):
            for packet in stream.encode(grey(5 * index)):
                if index in at:
                    data = bytearray(bytes(packet))
                    data[0] &= ~0x10  # RFC 6386, 9.1: show_frame
                    hidden = av.Packet(bytes(data))
                    hidden.stream, hidden.time_base = stream, packet.time_base
                    hidden.pts, hidden.dts = packet.pts, packet.dts
                    out.mux(hidden)
                out.mux(packet)
        out.mux(stream.encode(None))

    info = probe(path)
    assert (info.frames, info.fps, info.jitter_seconds) == (48, 30, 0)
    with watching(None) as notes:
        made = map_frames(path, tmp_path / "b", lambda frame: frame, {})
    assert (made.frames, made.fps, made.duration_seconds) == (48, 30, Fraction(48, 30))
    assert f"{len(at)} packets of the picture show nothing" in str(notes)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 40, 40, 80, 120], [0, 40, 60, 80, 120]),
        ([0, 0, 0, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 40, 80, 80], [0, 40, 80, 100]),
        ([0, 100, 110, 500, 510], [0, 100, 110, 500, 510]),
        ([300, 340, 380], [300, 340, 380]),
    ],
    ids=["two", "three at the start", "at the end", "varying", "a late start"],
)
def test_each_frame_has_a_time_of_its_own(
    tmp_path: Path, times: list[int], expected: list[int]
) -> None:
    path = timed(tmp_path / "a.mkv", list(times), MS)
    assert shown(path) == [Fraction(time, 1000) for time in expected]

    with watching(None) as notes:
        made = map_frames(path, tmp_path / "b", lambda frame: frame, {})
    assert made.frames == len(times)
    assert levels(tmp_path / "b") == levels(path)
    after = [time - shown(tmp_path / "b")[0] for time in shown(tmp_path / "b")]
    assert after == [Fraction(time - expected[0], 1000) for time in expected]
    assert ("no time of their own" in str(notes)) == (len(set(times)) < len(times))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_what_starts_before_zero_starts_at_zero(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    options = {"avoid_negative_ts": "disabled", "movflags": "+negative_cts_offsets"}
    with av.open(str(path), "w", options=options if ending == "mp4" else {}) as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0", "crf": "4"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in range(8):
            frame = grey(10 * index)
            frame.pts, frame.time_base = index - 2, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    count = len(levels(path))
    assert probe(path).frames == count
    made = map_frames(path, tmp_path / "b", lambda frame: frame, {})
    assert made.frames == count
    assert levels(tmp_path / "b") == levels(path)
    assert made.start_seconds >= 0


@pytest.mark.parametrize(
    "rate",
    [
        Fraction(8),
        Fraction(10),
        Fraction(25, 2),
        Fraction(15),
        Fraction(16),
        Fraction(24000, 1001),
        Fraction(30000, 1001),
        Fraction(48),
        Fraction(144),
        Fraction(15000, 1001),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_rates_come_out_exactly(tmp_path: Path, rate: Fraction, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in range(13):
            out.mux(stream.encode(grey(10 * index)))
        out.mux(stream.encode(None))

    info = probe(path)
    assert (info.frames, info.fps, info.jitter_seconds) == (13, rate, 0)
    assert map_frames(path, tmp_path / "b", lambda frame: frame, {}).fps == rate


def test_a_clip_cut_in_the_middle_of_a_group_shows_what_can_be_decoded(tmp_path: Path) -> None:
    """Pictures that refer to what was cut off are not shown by players either."""
    whole = tmp_path / "whole.mkv"
    options = {"x265-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:log-level=none"}
    with av.open(str(whole), "w") as out:
        stream = out.add_stream("libx265", rate=25, options=options)
        stream.width = stream.height = SIDE * 2
        stream.pix_fmt = "yuv420p"
        for index in range(24):
            picture = np.full((SIDE * 2, SIDE * 2), 10 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    path = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        track = out.add_stream_from_template(source.streams.video[0])
        keys = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if keys >= 2 and packet.dts is not None:
                packet.stream = track
                out.mux(packet)
    shown_frames = len(levels(path))
    made = map_frames(path, tmp_path / "b", lambda frame: frame, {})

    assert made.frames == shown_frames
    assert levels(tmp_path / "b") == levels(path)


def test_a_file_changed_under_its_name_is_looked_at_again(tmp_path: Path) -> None:
    path = timed(tmp_path / "a.mkv", [0, 40, 80], MS)
    assert probe(path).frames == 3
    timed(path, [0, 40, 80, 120], MS)
    assert probe(path).frames == 4
    path.write_bytes(b"no video")
    with pytest.raises(InvalidMediaError):
        probe(path)


def test_frames_that_are_days_apart_have_no_rate(tmp_path: Path) -> None:
    path = timed(tmp_path / "a.mkv", [0, 400_000_000], MS)
    with pytest.raises(InvalidMediaError, match="span"):
        probe(path)


def test_slides_that_are_minutes_apart_are_taken(tmp_path: Path) -> None:
    path = timed(tmp_path / "a.mkv", [0, 600_000, 1_200_000], MS)
    assert probe(path).frames == 3
