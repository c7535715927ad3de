"""Videos of kinds that cameras, editors and the web have: grey, transparent, cut by edit lists."""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.media.video.stream import frame_times, probe, read_frames
from safelight.progress import watching
from safelight.store.inputs import keep_media
from tasks.deflicker import DeflickerParams, deflicker
from tasks.denoise import DenoiseParams, denoise
from tasks.grade import GradeParams, grade
from tasks.interpolate import InterpolateParams, interpolate
from tasks.upscale import UpscaleParams, upscale
from tests.media.clips import alphas_in, map_frames

WIDTH, HEIGHT, FRAMES = 64, 48, 6


def scene(index: int) -> np.ndarray:
    """A slope with a bar that stands elsewhere in each frame."""
    picture = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    picture[..., 0] = np.linspace(20, 230, WIDTH)
    picture[..., 1] = 120
    picture[..., 2] = np.linspace(200, 40, HEIGHT)[:, None]
    picture[..., 3] = 255
    picture[:, 8 * index : 8 * index + 8, :3] = 255
    picture[32:, :24, 3] = 0
    picture[32:, 24:40, 3] = 128
    return picture


def encoded(
    path: Path, codec: str, pix_fmt: str, frames: int = FRAMES, form: str | None = None, **options
) -> Path:
    with av.open(str(path), "w", format=form) as out:
        stream = out.add_stream(codec, rate=25, options={k: str(v) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        if pix_fmt.startswith("yuva") and codec.startswith("libvpx"):
            stream.metadata["alpha_mode"] = "1"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgba")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    return path


def frames_in(path: Path) -> Iterator[np.ndarray]:
    return (frame.astype(int) for frame in read_frames(path))


TRANSPARENT = {
    "VP9": ("a.webm", "libvpx-vp9", "yuva420p", {"crf": 4, "b": 0, "auto-alt-ref": 0}),
    "VP8": ("a.webm", "libvpx", "yuva420p", {"crf": 4, "b": "4M", "auto-alt-ref": 0}),
    "ProRes 4444": ("a.mov", "prores_ks", "yuva444p10le", {"profile": 4, "alpha_bits": 16}),
    "PNG": ("a.mov", "png", "rgba", {}),
    "RLE": ("a.mov", "qtrle", "argb", {}),
    "FFV1": ("a.mkv", "ffv1", "bgra", {}),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_is_kept(tmp_path: Path, kind: str) -> None:
    name, codec, pix_fmt, options = TRANSPARENT[kind]
    source = encoded(tmp_path / name, codec, pix_fmt, **options)
    target = tmp_path / "made"
    with watching(None) as notes:
        made = map_frames(source, target, lambda pixels: 255 - pixels, {})
    assert (made.frames, made.media_type) == (FRAMES, "video/webm")
    assert [text for text in notes if "kept, so the result is VP9" in text]
    alphas = alphas_in(target)
    assert len(alphas) == FRAMES
    for index, (frame, alpha) in enumerate(zip(frames_in(target), alphas, strict=True)):
        colours, cover = scene(index)[..., :3].astype(float), scene(index)[..., 3:] / 255
        off = np.abs(frame - ((255 - colours) * cover + 255 * (1 - cover)))
        assert off[36:, :20].max() <= 6  # white where nothing is seen
        assert off[:28].mean() < 8
        assert off[36:, 27:37].mean() < 12
        assert np.abs(alpha - scene(index)[..., 3]).mean() < 2
    again = tmp_path / "again"
    map_frames(source, again, lambda pixels: 255 - pixels, {})
    assert again.read_bytes() == target.read_bytes()


def test_what_could_be_transparent_and_is_not_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "argb"
        for index in range(3):
            opaque = np.dstack((scene(index)[..., :3], np.full((HEIGHT, WIDTH), 255, np.uint8)))
            frame = av.VideoFrame.from_ndarray(opaque, format="rgba")
            out.mux(stream.encode(frame.reformat(format="argb")))
        out.mux(stream.encode(None))
    made = map_frames(path, tmp_path / "made", lambda pixels: pixels, {})
    assert made.media_type == "video/mp4"


@pytest.mark.parametrize(
    ("codec", "media_type"), [("libopus", "video/webm"), ("aac", "video/x-matroska")]
)
def test_a_transparent_video_with_sound(tmp_path: Path, codec: str, media_type: str) -> None:
    silent = encoded(tmp_path / "a.mkv", "ffv1", "bgra")
    path = tmp_path / "b.mkv"
    with av.open(str(silent)) as source, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream(codec, rate=48_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
        tone = np.sin(np.arange(9600) / 12).astype(np.float32)[None]
        form = "fltp" if codec == "aac" else "flt"
        frame = av.AudioFrame.from_ndarray(tone, format=form, layout="mono")
        frame.rate, frame.pts = 48_000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    made = map_frames(path, tmp_path / "made", lambda pixels: pixels, {"comment": "a record"})
    assert (made.media_type, made.has_audio) == (media_type, True)
    with av.open(str(tmp_path / "made")) as written:
        assert written.metadata["COMMENT"] == "a record"
    assert len(alphas_in(tmp_path / "made")) == FRAMES


def test_stages_enlarge_and_move_transparency(volume: Path, tmp_path: Path) -> None:
    from safelight.store.store import current_store

    name, codec, pix_fmt, options = TRANSPARENT["VP9"]
    source = keep_media(encoded(tmp_path / name, codec, pix_fmt, 2, **options), ("video",))
    larger = upscale.fn(source, UpscaleParams())
    even = interpolate.fn(source, InterpolateParams(target_fps=50))
    warm = grade.fn(source, GradeParams(colour="warm"))
    steady = deflicker.fn(source, DeflickerParams())
    calm = denoise.fn(source, DenoiseParams(level=0.5))
    for made, factor, frames in (
        (larger, 2, 2), (even, 1, 4), (warm, 1, 2), (steady, 1, 2), (calm, 1, 2)
    ):  # fmt: skip
        assert (made.media_type, made.frames) == ("video/webm", frames)
        alphas = alphas_in(current_store().fetch(made))
        assert len(alphas) == frames
        for alpha in alphas:
            small = alpha.reshape(HEIGHT, factor, WIDTH, factor).mean(axis=(1, 3))
            assert np.abs(small - scene(0)[..., 3]).mean() < 3


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "yuv420p"])
def test_a_grey_video_gets_no_colour(volume: Path, tmp_path: Path, pix_fmt: str) -> None:
    path = tmp_path / "grey.mkv"
    noise = np.random.default_rng(5)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for index in range(4):
            grain = noise.integers(-20, 20, (HEIGHT, WIDTH))
            grey = np.clip(scene(index)[..., 0] + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    source = keep_media(path, ("video",))
    before = list(frames_in(path))
    from safelight.store.store import current_store

    for made, factor in (
        (upscale.fn(source, UpscaleParams()), 2),
        (denoise.fn(source, DenoiseParams(level=0.5)), 1),
    ):
        for frame, old in zip(frames_in(current_store().fetch(made)), before, strict=True):
            assert (frame.max(axis=2) - frame.min(axis=2)).max() <= 2
            small = frame.reshape(HEIGHT, factor, WIDTH, factor, 3).mean(axis=(1, 3))
            assert np.abs(small - old).mean() < 12


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("mpeg2video", "yuv422p", {"b": "20M"}),
        ("libx264", "yuv420p", {"crf": 4}),
    ],
)
def test_mxf_is_read(volume: Path, tmp_path: Path, codec: str, pix_fmt: str, options) -> None:
    path = encoded(tmp_path / "broadcast.mxf", codec, pix_fmt, **options)
    source = keep_media(path, ("video",))
    assert (source.media_type, source.frames, source.fps) == ("video/mxf", FRAMES, 25)
    assert source.uri.endswith(".mxf")
    made = map_frames(path, tmp_path / "made", lambda pixels: pixels, {})
    assert (made.frames, made.fps, made.start_seconds) == (FRAMES, 25, 0)
    for index, frame in enumerate(frames_in(tmp_path / "made")):
        assert np.abs(frame - scene(index)[..., :3]).mean() < 12


def with_edits(path: Path, edits: list[tuple[int, int]]) -> bytes:
    """An MP4 whose only track plays these parts, each from a frame for so many frames."""
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") - 4
    old = int.from_bytes(data[place : place + 4], "big")
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (movie,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    table = b"".join(
        struct.pack(">IiI", movie * count // 25, scale * begin // 25, 0x10000)
        for begin, count in edits
    )
    made = struct.pack(">4sII", b"elst", 0, len(edits)) + table
    made = struct.pack(">I", len(made) + 4) + made
    for name in (b"edts", b"trak", b"moov"):  # all lie around it; the pixels lie before them
        at = data.rindex(name, 0, place) - 4
        size = int.from_bytes(data[at : at + 4], "big") + len(made) - old
        data[at : at + 4] = size.to_bytes(4, "big")
    data[place : place + old] = made
    return bytes(data)


@pytest.mark.parametrize(
    ("edits", "reordered"),
    [
        ([(2, 4), (10, 5)], 2),
        ([(0, 3), (6, 3), (12, 3)], 0),
        ([(8, 4), (1, 4)], 2),
        ([(5, 10)], 2),
        ([(0, 4)], 0),
    ],
)
def test_parts_are_played_as_edit_lists_say(tmp_path: Path, edits, reordered: int) -> None:
    frames = 18
    options = {"crf": "4", "g": "4", "bf": str(reordered)}
    plain = tmp_path / "plain.mp4"
    with av.open(str(plain), "w", options={"movflags": "-faststart"}) as out:
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            grey = np.full((HEIGHT, WIDTH, 3), 12 * index + 10, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(stream.encode(None))
    shift = round(av.open(str(plain)).streams.video[0].start_time or 0)
    assert shift == 0
    source = tmp_path / "cut.mp4"
    source.write_bytes(with_edits(plain, [(begin + reordered, count) for begin, count in edits]))
    wanted = [begin + each for begin, count in edits for each in range(count)]
    info = probe(source)
    assert info.frames == len(wanted)
    assert [shown * 25 for shown in frame_times(source).since_start()] == list(range(len(wanted)))
    assert info.fps == Fraction(25)
    map_frames(source, tmp_path / "made", lambda pixels: pixels, {})
    seen = [round((frame.mean() - 10) / 12) for frame in frames_in(tmp_path / "made")]
    assert seen == wanted


def with_captions(source: Path, target: Path) -> Path:
    """The H.264 of `source` with EIA-608 captions in its frames, as ATSC A/53 puts them."""
    captions = bytes.fromhex("b50031 47413934 03 c1ff fc942c ff")
    message = bytes([6, 4, len(captions)]) + captions + b"\x80"
    with av.open(str(source)) as read, av.open(str(target), "w") as out:
        video = read.streams.video[0]
        stream = out.add_stream_from_template(video)
        for packet in read.demux(video):
            if packet.dts is None:
                continue
            made = av.Packet(len(message).to_bytes(4) + message + bytes(packet))
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.stream, made.is_keyframe = stream, packet.is_keyframe
            out.mux(made)
    return target


def stereoscopic(source: Path, target: Path) -> Path:
    with av.open(str(source)) as read, av.open(str(target), "w") as out:
        video = read.streams.video[0]
        stream = out.add_stream_from_template(video)
        stream.metadata["stereo_mode"] = "left_right"
        for packet in read.demux(video):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


@pytest.mark.parametrize(
    ("change", "ending", "lost"),
    [
        (with_captions, "mp4", "closed captions inside its frames"),
        (stereoscopic, "mkv", "that it is stereoscopic; both views are in the frames as before"),
    ],
)
def test_what_frames_lose_is_noted(
    tmp_path: Path, change: Callable[[Path, Path], Path], ending: str, lost: str
) -> None:
    plain = encoded(tmp_path / "plain.mp4", "libx264", "yuv420p")
    source = change(plain, tmp_path / f"a.{ending}")
    said: list[list[str]] = []
    for path in (plain, source):
        with watching(None) as notes:
            map_frames(path, tmp_path / "made", lambda pixels: pixels, {})
        said.append(notes)
    assert said == [[], [f"left aside of the source: {lost}"]]
