"""What players do to frames before they show them: turn, mirror, stretch, deinterlace."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import ExifTags, Image

from safelight.media.video.stream import probe, read_frames
from safelight.progress import watching
from tests.media.clips import map_frames

WIDTH, HEIGHT = 64, 48
FRAMES = 4


def corners() -> np.ndarray:
    """A picture whose eight orientations all differ."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    picture[:24, :32] = 230
    picture[24:, :32] = 30
    picture[:24, 32:] = 150
    return picture


def turned(picture: np.ndarray, degrees: int, hflip: bool, vflip: bool) -> np.ndarray:
    """As a player does: turned against the clock, then mirrored."""
    upright = np.rot90(picture, degrees // 90)
    upright = upright[:, ::-1] if hflip else upright
    return upright[::-1] if vflip else upright


def oriented(
    path: Path, degrees: int, hflip: bool, vflip: bool, aspect: Fraction | None = None
) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.set_display_rotation(degrees, hflip, vflip)
        for _ in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        out.mux(stream.encode(None))
    return path


def close(one: np.ndarray, two: np.ndarray) -> bool:
    return one.shape == two.shape and bool(np.abs(one.astype(int) - two).mean() < 3)


@pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (3, 180), (6, 270), (8, 90)])
def test_photographs_as_frames_are_turned_as_their_own_tags_say(
    tmp_path: Path, orientation: int, degrees: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(corners()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    path = tmp_path / "a.mkv"
    with av.open(str(tmp_path / "a.jpg")) as photo, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(photo.streams.video[0])
        for packet in photo.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    (shown,) = read_frames(path)
    assert close(shown, turned(corners(), degrees, hflip=False, vflip=False))


def decoded_frames() -> int:
    """How many there are, of use or not."""
    return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())


@pytest.mark.parametrize("degrees", [0, 90])
def test_no_frame_outlives_its_use(tmp_path: Path, degrees: int) -> None:
    path = oriented(tmp_path / "a.mp4", degrees, hflip=False, vflip=False)
    gc.collect()
    before = decoded_frames()
    gc.disable()  # what only it would free has piled up until then
    try:
        assert len(list(read_frames(path))) == FRAMES
        left = decoded_frames() - before
    finally:
        gc.enable()
    assert left <= 1


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("hflip", "vflip"), [(False, False), (True, False), (False, True)])
def test_pictures_are_turned_and_mirrored(
    tmp_path: Path, ending: str, degrees: int, hflip: bool, vflip: bool
) -> None:
    path = oriented(tmp_path / f"a.{ending}", degrees, hflip, vflip)
    shown = list(read_frames(path))
    expected = turned(corners(), degrees, hflip, vflip)

    assert all(close(frame, expected) for frame in shown)
    made = map_frames(path, tmp_path / "b", lambda frame: frame, {})
    assert (made.height, made.width) == expected.shape[:2]
    assert close(next(read_frames(tmp_path / "b")), expected)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("degrees", "aspect", "shown"),
    [
        (0, Fraction(4, 3), Fraction(4, 3)),
        (90, Fraction(4, 3), Fraction(3, 4)),
        (180, Fraction(8, 9), Fraction(8, 9)),
        (270, Fraction(16, 11), Fraction(11, 16)),
    ],
)
def test_the_sides_of_a_pixel_turn_with_the_picture(
    tmp_path: Path, ending: str, degrees: int, aspect: Fraction, shown: Fraction
) -> None:
    path = oriented(tmp_path / f"a.{ending}", degrees, False, False, aspect)

    assert probe(path).pixel_aspect == shown
    assert map_frames(path, tmp_path / "b", lambda frame: frame, {}).pixel_aspect == shown
    with av.open(str(tmp_path / "b")) as container:
        assert container.streams.video[0].sample_aspect_ratio == shown


def bar(moment: int, height: int = HEIGHT) -> np.ndarray:
    """A white bar that moves far between two half pictures."""
    picture = np.full((height, WIDTH), 40, np.uint8)
    left = (moment * 5) % (WIDTH - 16)
    picture[:, left : left + 16] = 220
    return picture


def woven(index: int, top_first: bool) -> np.ndarray:
    """Two moments in the lines of one frame."""
    picture = bar(2 * index)
    later = bar(2 * index + 1)
    picture[top_first::2] = later[top_first::2]
    return picture


def flagging(parity: str) -> Graph:
    """Says of frames which half picture comes first."""
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=WIDTH, height=HEIGHT, format="yuv420p", time_base=Fraction(1, 25)),
        graph.add("setfield", f"mode={parity}"),
        graph.add("buffersink"),
    )
    graph.configure()
    return graph


def interlaced(path: Path, codec: str, options: dict[str, str], top_first: bool) -> Path:
    """Twenty frames of the moving bar."""
    flagged = flagging("tff" if top_first else "bff")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if codec == "ffv1":
            stream.codec_context.field_order = 2 if top_first else 3
        for index in range(20):
            grey = woven(index, top_first)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
            if codec != "ffv1":
                flagged.vpush(frame)
                frame = flagged.vpull()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def combs(frame: np.ndarray) -> float:
    """How much lines differ from both neighbours while these agree."""
    grey = frame.astype(int).mean(axis=2)
    here, above, below = grey[1:-1], grey[:-2], grey[2:]
    apart = np.abs(above - here) + np.abs(below - here) - 2 * np.abs(above - below)
    return float(np.maximum(apart, 0).mean())


H264 = {"crf": "4", "x264-params": "interlaced=1"}
MPEG2 = {"flags": "+ildct+ilme+qscale", "global_quality": "236"}


@pytest.mark.parametrize(
    ("ending", "codec", "options", "top_first"),
    [
        ("mp4", "libx264", H264, True),
        ("mkv", "libx264", H264, False),
        ("mkv", "mpeg2video", MPEG2, True),
        ("mov", "mpeg2video", MPEG2, False),
        ("mkv", "ffv1", {}, True),
        ("mkv", "ffv1", {}, False),
    ],
)
def test_half_pictures_become_whole_ones(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str], top_first: bool
) -> None:
    path = interlaced(tmp_path / f"a.{ending}", codec, options, top_first)
    before = av.VideoFrame.from_ndarray(woven(3, top_first), format="gray").to_ndarray(
        format="rgb24"
    )
    assert combs(before) > 30

    with watching(None) as notes:
        made = map_frames(path, tmp_path / "b", lambda frame: frame, {})

    assert (made.frames, made.fps) == (20, 25)
    shown = list(read_frames(tmp_path / "b"))
    assert max(combs(frame) for frame in shown[1:-1]) < 6
    for index in range(1, 19):  # it shows the moment that came first
        truth = np.repeat(bar(2 * index)[..., None], 3, axis=2).astype(int)
        later = np.repeat(bar(2 * index + 1)[..., None], 3, axis=2).astype(int)
        assert np.abs(shown[index] - truth).mean() < np.abs(shown[index] - later).mean()
    assert "20 frames were interlaced" in str(notes)


def test_whole_frames_among_interlaced_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    flagged = flagging("tff")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video", rate=25, options=MPEG2)
        whole = av.CodecContext.create("mpeg2video", "w")
        for each in (stream.codec_context, whole):
            each.width, each.height, each.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        whole.time_base, whole.framerate = Fraction(1, 25), Fraction(25)
        whole.options = {"flags": "+qscale", "global_quality": "236"}
        for index in range(20):
            grey = woven(index, True) if index < 8 else bar(2 * index)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
            encoder = stream.codec_context if index < 8 else whole
            if index < 8:
                flagged.vpush(frame)
                frame = flagged.vpull()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets = encoder.encode(frame)
            packets += encoder.encode(None) if index in (7, 19) else []
            for packet in packets:
                packet.stream = stream
                out.mux(packet)
    with watching(None) as notes:
        map_frames(path, tmp_path / "b", lambda frame: frame, {})

    assert "7 frames were interlaced" in str(notes)
    before, after = list(read_frames(path)), list(read_frames(tmp_path / "b"))
    assert len(before) == len(after) == 19  # the decoder drops one where the kind changes
    assert max(combs(frame) for frame in after[1:]) < 6
    for index in range(9, 19):
        truth = np.repeat(bar(2 * index + 2)[..., None], 3, axis=2).astype(int)
        assert np.abs(before[index] - truth).mean() < 2
        assert np.abs(after[index] - truth).mean() < 2
