import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.video import stream as video
from safelight.media.video.stream import FrameWriter, probe, read_frames, transform_frames
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching
from tests.media.clips import map_frames, write_video

CLIP = Path(__file__).parents[3] / "examples" / "box.mp4"
SIDE = 64


def smooth(index: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Colours that change slowly enough to survive halved colour resolution."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / (width - 1)
    green = 255 * y / (height - 1)
    blue = (red + green + 8 * index) / 2
    return np.stack([red, green, np.clip(blue, 0, 255)], axis=-1).round().astype(np.uint8)


def packets_of(path: Path, kind: str = "audio") -> list[bytes]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams) if packet.size]


def worst(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second).max())


def remux(
    target: Path, frames: int = 30, codec: str = "libx264", rotation: int = 0, **tags: int
) -> Path:
    """A small foreign file whose colour tags are as told."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream(codec, rate=30, options={"crf": "4"})
        stream.width, stream.height = SIDE, SIDE // 2
        stream.pix_fmt = "yuv444p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            rgb = av.VideoFrame.from_ndarray(smooth(index, SIDE // 2, SIDE), format="rgb24")
            frame = rgb.reformat(
                format="yuv444p",
                dst_colorspace=tags.get("colorspace", 5),
                src_color_range=2,
                dst_color_range=tags.get("color_range", 1),
            )
            frame.colorspace = tags.get("colorspace", 2)
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target


def as_mkv(target: Path) -> None:
    """The shipped clip in another container."""
    with av.open(str(CLIP)) as source, av.open(str(target), "w") as out:
        tracks = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                out.mux(packet)


@pytest.fixture
def with_pcm(tmp_path: Path) -> Path:
    """MOV with uncompressed sound, which MP4 players do not take."""
    path = tmp_path / "pcm.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for index in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(smooth(index), format="rgb24")))
            wave = np.arange(1920, dtype=np.int16)[None] * (index + 1)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 1920 * index
            out.mux(sound.encode(frame))
        for each in (stream, sound):
            out.mux(each.encode(None))
    return path


def test_the_shipped_clip_is_counted() -> None:
    info = probe(CLIP)

    assert (info.width, info.height, info.frames, info.fps) == (480, 270, 72, 30)
    assert info.duration_seconds == Fraction(12, 5)
    assert info.has_audio
    assert info.media_type == "video/mp4"
    assert info.jitter_seconds == 0
    assert sum(1 for _ in read_frames(CLIP)) == 72


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(240)])
def test_what_is_written_has_exactly_the_rate_asked_for(tmp_path: Path, rate: Fraction) -> None:
    made = write_video(tmp_path / "a.mp4", map(smooth, range(7)), rate)

    assert (made.frames, made.fps, made.duration_seconds) == (7, rate, 7 / rate)


def test_colours_come_back_within_a_few_levels(tmp_path: Path) -> None:
    frames = [smooth(index) for index in range(5)]
    write_video(tmp_path / "a.mp4", frames, Fraction(25))
    back = list(read_frames(tmp_path / "a.mp4"))

    errors = np.abs(np.array(frames).astype(int) - np.array(back))
    assert errors.mean() < 1.5
    assert np.percentile(errors, 99) <= 4
    assert errors.max() <= 10  # single pixels, where colour at half resolution meets the border


def test_files_are_tagged_bt709(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [smooth(0)], Fraction(25))
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert context.pix_fmt == "yuv420p"
    assert tags == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "tags",
    [
        {"colorspace": 1, "color_range": 1},
        {"colorspace": 6, "color_range": 1},
        {"colorspace": 5, "color_range": 2},
        {},
    ],
    ids=["bt709", "bt601", "full range", "untagged and small: bt601"],
)
def test_foreign_colours_are_read_by_their_tags(tmp_path: Path, tags: dict[str, int]) -> None:
    first = next(read_frames(remux(tmp_path / "a.mp4", **tags)))

    assert worst(first, smooth(0, SIDE // 2, SIDE)) <= 4


def test_colours_read_by_the_wrong_tag_would_show(tmp_path: Path) -> None:
    path = remux(tmp_path / "a.mp4", colorspace=1)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        wrong = frame.reformat(format="rgb24", src_colorspace=5).to_ndarray()

    assert worst(wrong, smooth(0, SIDE // 2, SIDE)) > 10


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    path = remux(tmp_path / "a.mp4", color_trc=16, color_primaries=9, colorspace=9)

    with pytest.raises(InvalidMediaError, match=r"high dynamic range \(PQ\)"):
        probe(path)


def test_a_recording_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    path = remux(tmp_path / "a.mp4", rotation=90)
    upright = next(read_frames(path))

    assert upright.shape == (SIDE, SIDE // 2, 3)
    assert (probe(path).width, probe(path).height) == (SIDE // 2, SIDE)
    assert worst(upright, np.rot90(smooth(0, SIDE // 2, SIDE))) <= 4


def test_mapping_keeps_sound_bit_for_bit_and_carries_tags(tmp_path: Path) -> None:
    tags = {"comment": '{"stage": "grade", "größe": 1}', "safelight": "own key"}
    with watching(None) as notes:
        made = map_frames(CLIP, tmp_path / "a.mp4", lambda frame: 255 - frame, tags)

    assert made == probe(CLIP)
    assert packets_of(tmp_path / "a.mp4") == packets_of(CLIP) != []
    assert notes == []
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert tags.items() <= container.metadata.items()
        assert "creation_time" not in container.metadata
        assert "encoder" not in container.metadata
    inverted = 255 - next(read_frames(tmp_path / "a.mp4"))
    assert np.abs(inverted.astype(int) - next(read_frames(CLIP))).mean() < 1.5


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    litter: list[np.ndarray] = []

    def littering(frame: np.ndarray) -> np.ndarray:
        """Leave other bytes in freed memory each time: an encoder that reads them shows it."""
        noise = np.random.default_rng(len(files)).integers(0, 255, 30_000, np.uint8)
        litter.append(noise[: 1000 * (len(litter) % 30)].copy())
        if len(litter) > 40:
            del litter[::2]
        return frame[:100, :64]

    files: set[bytes] = set()
    for index in range(4):
        map_frames(CLIP, tmp_path / "a.mp4", littering, {"comment": "x"})
        files.add((tmp_path / "a.mp4").read_bytes())
        assert len(files) == 1, f"run {index} gave other bytes"


def test_the_index_stands_at_the_front(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [smooth(0)], Fraction(25))
    data = (tmp_path / "a.mp4").read_bytes()

    assert data.index(b"moov") < data.index(b"mdat")


def test_sound_that_mp4_does_not_hold_goes_into_mkv(with_pcm: Path, tmp_path: Path) -> None:
    with watching(None) as notes:
        made = map_frames(with_pcm, tmp_path / "a.mp4", lambda frame: frame, {"comment": "x"})

    assert made.media_type == "video/x-matroska"
    assert made.frames == 10
    assert "pcm_s16le" in notes[0]
    assert b"".join(packets_of(tmp_path / "a.mp4")) == b"".join(packets_of(with_pcm))
    with av.open(str(tmp_path / "a.mp4")) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    assert tags["comment"] == "x"


def test_frames_keep_their_own_times(tmp_path: Path) -> None:
    shown = [0, 100, 110, 500, 501, 900]
    source = tmp_path / "a.mp4"
    with FrameWriter(source, Fraction(25), {}) as writer:
        for index, (pts, end) in enumerate(zip(shown, [*shown[1:], 1000], strict=True)):
            writer.add_at(smooth(index), pts, end - pts, Fraction(1, 1000))
    info = probe(source)
    assert info.fps == 6
    assert info.jitter_seconds > 0

    assert map_frames(source, tmp_path / "b.mp4", lambda frame: frame, {}) == info
    with av.open(str(tmp_path / "b.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([pts / 1000 for pts in shown])


def test_a_picture_that_starts_after_the_sound_stays_there(tmp_path: Path) -> None:
    as_mkv(tmp_path / "a.mkv")
    before = probe(tmp_path / "a.mkv")
    assert before.start_seconds > 0  # the sound has a run-up that MKV cannot show before 0

    after = map_frames(tmp_path / "a.mkv", tmp_path / "b.mp4", lambda frame: frame, {})

    assert abs(after.start_seconds - before.start_seconds) < Fraction(1, 1000)
    assert (after.fps, after.frames) == (30, 72)


def test_odd_sizes_keep_every_pixel(tmp_path: Path) -> None:
    with watching(None) as notes:
        made = write_video(tmp_path / "a.mp4", [smooth(0, 33, 51)], Fraction(25))

    assert (made.width, made.height) == (51, 33)
    assert "4:4:4" in notes[0]
    back = next(read_frames(tmp_path / "a.mp4"))
    assert np.abs(back.astype(int) - smooth(0, 33, 51)).mean() < 2


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMediaError, match="frame 1 is 32x64 px"):
        write_video(tmp_path / "a.mp4", [smooth(0), smooth(0, 64, 32)], Fraction(25))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_video_without_frames(tmp_path: Path) -> None:
    with pytest.raises(InvalidMediaError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], Fraction(25))
    assert list(tmp_path.iterdir()) == []


def test_a_stop_leaves_no_half_file(tmp_path: Path) -> None:
    seen: list[int] = []

    def stopping(done: int, total: int) -> None:
        seen.append(done)
        assert total == 72
        if done == 5:
            request_stop()

    try:
        with watching(stopping), pytest.raises(StopRequestedError):
            map_frames(CLIP, tmp_path / "a.mp4", lambda frame: frame[:32, :32], {})
    finally:
        clear_stop()
    assert seen == [1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"older")

    def failing(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        yield next(frames)
        raise KeyError

    with pytest.raises(KeyError):
        transform_frames(CLIP, tmp_path / "a.mp4", failing, {})
    assert (tmp_path / "a.mp4").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_work_may_lag_behind_the_frames_it_reads(tmp_path: Path) -> None:
    def two_late(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        waiting = [next(frames), next(frames)]
        for frame in frames:
            yield waiting.pop(0)
            waiting.append(frame)
        yield from waiting

    made = transform_frames(CLIP, tmp_path / "a.mp4", two_late, {})

    assert made == probe(CLIP)
    assert packets_of(tmp_path / "a.mp4") == packets_of(CLIP)


def test_sound_behind_the_last_frame_wanted_is_not_lost(tmp_path: Path) -> None:
    def first_only(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        yield next(frames)

    made = transform_frames(CLIP, tmp_path / "a.mp4", first_only, {}, fps=Fraction(30), frames=1)

    assert made.frames == 1
    assert packets_of(tmp_path / "a.mp4") == packets_of(CLIP)


def _damaged(start: float, length: int) -> bytes:
    data = bytearray(CLIP.read_bytes())
    at = int(start * len(data))
    data[at : at + length] = bytes(length)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", r"\(0 bytes\) cannot be read as a video"),
        (b"just text\n" * 50, r"\(500 bytes\) cannot be read"),
        (b"#EXTM3U\n#EXTINF:9,\n" + str(CLIP).encode(), "cannot be read"),
        (CLIP.with_name("astronaut.png").read_bytes(), "cannot be read"),
        (CLIP.read_bytes()[:3000], "cannot be read"),
        (CLIP.read_bytes()[: CLIP.stat().st_size * 9 // 10], "breaks off"),
        (CLIP.read_bytes()[: CLIP.stat().st_size // 3], "breaks off"),
    ],
    ids=["empty", "text", "playlist", "picture", "header only", "last tenth gone", "third left"],
)
def test_what_is_no_whole_video_is_refused(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "a.mp4").write_bytes(data)

    with pytest.raises(InvalidMediaError, match=found):
        probe(tmp_path / "a.mp4")


@pytest.mark.parametrize("left", [0.95, 0.5])
def test_a_truncated_mkv_is_refused(tmp_path: Path, left: float) -> None:
    as_mkv(tmp_path / "a.mkv")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: int(len(data) * left)])

    with pytest.raises(InvalidMediaError, match="breaks off"):
        probe(tmp_path / "b.mkv")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(CLIP)) as source, av.open(str(tmp_path / "a.mp4"), "w") as out:
        track = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)

    with pytest.raises(InvalidMediaError, match="no video stream"):
        probe(tmp_path / "a.mp4")


def test_damage_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(_damaged(0.5, 3000))

    with pytest.raises(InvalidMediaError):
        map_frames(tmp_path / "a.mp4", tmp_path / "b.mp4", lambda frame: frame[:32, :32], {})
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        probe(tmp_path / "nowhere.mp4")


def test_the_module_does_not_load_the_library() -> None:
    assert "import av\n" not in Path(video.__file__).read_text().split('"""', 2)[2].split("def ")[0]


def test_frames_of_two_sizes_are_refused_by_the_source_s_sizes(tmp_path: Path) -> None:
    source = tmp_path / "two sizes.webm"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        other = av.CodecContext.create("libvpx", "w")
        other.width, other.height, other.pix_fmt = 96, 64, "yuv420p"
        other.time_base, other.framerate = Fraction(1, 10), Fraction(10)
        for index in range(10):
            encoder, width, height = (stream, 64, 48) if index < 5 else (other, 96, 64)
            frame = av.VideoFrame.from_ndarray(smooth(index, height, width), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            for packet in encoder.encode(frame):
                packet.stream = stream
                out.mux(packet)
            if index == 4:
                out.mux(stream.encode(None))
        for packet in other.encode(None):
            packet.stream = stream
            out.mux(packet)
    told = r"two sizes.webm has frames of 64x48 px, and of 96x64 px from 0.50 s on"
    with pytest.raises(InvalidMediaError, match=told):
        map_frames(source, tmp_path / "made", lambda frame: frame.repeat(2, 0).repeat(2, 1), {})
    assert not (tmp_path / "made").exists()
