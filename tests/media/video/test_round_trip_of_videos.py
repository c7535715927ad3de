"""Videos that went through: FFmpeg shows the same pictures and sound, at the same times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.clips import map_frames
from tests.media.outside import needs_ffmpeg, probed, shown, times

pytestmark = needs_ffmpeg

WIDTH, HEIGHT, FRAMES, SOUND_RATE = 64, 48, 6, 48_000
COLOURS = {
    "601": (5, 1), "601 full": (5, 2), "709": (1, 1), "709 full": (1, 2), "2020": (9, 1),
}  # fmt: skip
PRIMARIES = {"709": (1, 1), "2020": (9, 14), "601": (6, 6)}
"""With the transfer curve that goes with them, as H.273 numbers both."""
TURNS = {
    "90": (90, False, False), "180": (180, False, False), "270": (270, False, False),
    "mirrored": (0, True, False), "upside down": (0, False, True), "90 mirrored": (90, True, False),
}  # fmt: skip
ASPECTS = {"16:11": (Fraction(16, 11), 0), "4:3 turned": (Fraction(4, 3), 90)}
RATES = [
    Fraction(8), Fraction(16), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50),
    Fraction(240),
]  # fmt: skip


def scene(index: int) -> np.ndarray:
    """Colours that a wrong matrix or range would show, and corners that all differ."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = np.linspace(30, 220, WIDTH)
    picture[..., 1] = np.linspace(60, 200, HEIGHT)[:, None]
    picture[..., 2] = 40 + 20 * index
    picture[:12, :12] = (200, 30, 30)  # edges in the middle of areas
    picture[36:, 52:] = (30, 60, 210)
    return picture


def film(
    path: Path,
    rate: Fraction = Fraction(25),
    *,
    matrix: int = 1,
    span: int = 1,
    primaries: tuple[int, int] = (1, 1),
    turn: tuple[int, bool, bool] | None = None,
    aspect: Fraction | None = None,
    lasts: tuple[int, ...] = (1,) * FRAMES,
    sounds: tuple[tuple[str, Fraction], ...] = (),
    chapters: bool = False,
    interlaced: str | None = None,
    **metadata: str,
) -> Path:
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata)
        options = {"crf": "1"} | ({"x264-params": f"{interlaced}=1"} if interlaced else {})
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.colorspace, context.color_range = matrix, span
        context.color_primaries, context.color_trc = primaries
        if aspect:
            context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(*turn)
        tracks = []
        for language, _ in sounds:
            track = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
            track.metadata["language"] = language
            tracks.append(track)
        if chapters:
            out.set_chapters(
                [
                    {
                        "id": each,
                        "start": each * 100,
                        "end": each * 100 + 100,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": f"Part {each}"},
                    }
                    for each in range(2)
                ]
            )
        at = 0
        for index, ticks in enumerate(lasts):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24").reformat(
                format="yuv444p", dst_colorspace=matrix, dst_color_range=span, src_color_range=2
            )
            frame.color_primaries, frame.color_trc = primaries
            frame.pts, frame.time_base = at, 1 / rate
            at += ticks
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for track, (_, begins) in zip(tracks, sounds, strict=True):
            tone = np.sin(np.arange(9600) / 12).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = SOUND_RATE, round(begins * SOUND_RATE)
            frame.time_base = Fraction(1, SOUND_RATE)
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def through(source: Path, tmp_path: Path, seen: list[np.ndarray] | None = None) -> Path:
    """The file made of frames as they are; what a stage was given of them goes to `seen`."""
    target = tmp_path / "made"

    def kept(pixels: np.ndarray) -> np.ndarray:
        if seen is not None:
            seen.append(pixels.copy())
        return pixels

    map_frames(source, target, kept, {})
    return target


def assert_goes_through(
    source: Path, tmp_path: Path, size: tuple[int, int], *filters: str, begins: int = 0
) -> Path:
    """Each value that a stage is given, and the result over small areas, as FFmpeg shows them.

    The result over areas, since it is encoded anew, with half the resolution of colour. `begins`
    is the first frame that both versions of FFmpeg's filters show alike.
    """
    seen: list[np.ndarray] = []
    made = through(source, tmp_path, seen)
    before, after = shown(source, *size, "rgb24", *filters), shown(made, *size)
    assert before.shape == after.shape == np.shape(seen)
    assert np.abs(np.array(seen, int) - before)[begins:].max() <= 2
    assert np.abs(areas(before) - areas(after)).max() <= 2
    return made


def areas(frames: np.ndarray) -> np.ndarray:
    """Means of 16 by 16 pixels."""
    count, height, width, channels = frames.shape
    return frames.reshape(count, height // 16, 16, width // 16, 16, channels).mean(axis=(2, 4))


@pytest.mark.parametrize("colours", COLOURS)
def test_matrices_and_ranges(tmp_path: Path, colours: str) -> None:
    matrix, span = COLOURS[colours]
    source = film(tmp_path / "a.mp4", matrix=matrix, span=span)
    assert_goes_through(source, tmp_path, (WIDTH, HEIGHT))


@pytest.mark.parametrize("colours", COLOURS)
def test_flat_colours(tmp_path: Path, colours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, span = COLOURS[colours]
    chart = np.random.default_rng(matrix).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    chart[0] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    bars = chart.repeat(16, axis=0).repeat(16, axis=1)
    monkeypatch.setitem(globals(), "scene", lambda _: bars)
    source = film(tmp_path / "a.mp4", matrix=matrix, span=span)
    seen: list[np.ndarray] = []
    made = through(source, tmp_path, seen)
    assert np.abs(np.array(seen, int) - bars).max() <= 2
    # within each patch, away from its edges, where half the resolution of colour does not show
    before, after = (
        shown(path, WIDTH, HEIGHT)
        .reshape(FRAMES, HEIGHT // 16, 16, WIDTH // 16, 16, 3)[:, :, 4:12, :, 4:12]
        .mean(axis=(2, 4))
        for path in (source, made)
    )
    assert np.abs(before - after).max() <= 2


@pytest.mark.parametrize("primaries", PRIMARIES)
def test_primaries_and_transfer(tmp_path: Path, primaries: str) -> None:
    source = film(tmp_path / "a.mp4", primaries=PRIMARIES[primaries])
    made = assert_goes_through(source, tmp_path, (WIDTH, HEIGHT))
    said = [probed(path, "-show_streams")["streams"][0] for path in (source, made)]
    for key in ("color_primaries", "color_transfer"):
        assert said[0][key] == said[1][key]


@pytest.mark.parametrize("turn", TURNS)
def test_turns_and_mirrors(tmp_path: Path, turn: str) -> None:
    source = film(tmp_path / "a.mp4", turn=TURNS[turn])
    size = (HEIGHT, WIDTH) if "90" in turn or "270" in turn else (WIDTH, HEIGHT)
    made = assert_goes_through(source, tmp_path, size)
    stream = probed(made, "-show_streams")["streams"][0]
    assert (stream["width"], stream["height"]) == size
    assert "side_data_list" not in stream


@pytest.mark.parametrize("aspect", ASPECTS)
def test_pixels_that_are_not_square(tmp_path: Path, aspect: str) -> None:
    ratio, degrees = ASPECTS[aspect]
    source = film(tmp_path / "a.mp4", aspect=ratio, turn=(degrees, False, False))
    size = (HEIGHT, WIDTH) if degrees else (WIDTH, HEIGHT)
    made = assert_goes_through(source, tmp_path, size)
    told = probed(made, "-show_streams")["streams"][0]["sample_aspect_ratio"].replace(":", "/")
    assert Fraction(told) == (1 / ratio if degrees else ratio)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_rates(tmp_path: Path, rate: Fraction, ending: str) -> None:
    source = film(tmp_path / f"a.{ending}", rate)
    made = through(source, tmp_path)
    assert Fraction(probed(made, "-show_streams")["streams"][0]["avg_frame_rate"]) == rate
    before, after = times(source, "v"), times(made, "v")
    assert len(after) == FRAMES
    assert max(abs(one - two) for one, two in zip(before, after, strict=True)) <= Fraction(1, 1000)


def test_uneven_times(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", Fraction(100), lasts=(1, 7, 2, 40, 3, 5))
    made = through(source, tmp_path)
    assert times(made, "v") == times(source, "v")


@pytest.mark.parametrize("begins", [Fraction(0), Fraction(3, 10), Fraction(1, 50)])
def test_sound_stays_where_it_is(tmp_path: Path, begins: Fraction) -> None:
    source = film(tmp_path / "a.mp4", sounds=(("eng", begins),))
    made = through(source, tmp_path)
    apart = [times(path, "a")[0] - times(path, "v")[0] for path in (source, made)]
    assert abs(apart[0] - apart[1]) <= Fraction(1, 1000)
    assert len(times(source, "a")) == len(times(made, "a"))


def test_tracks_chapters_and_titles(tmp_path: Path) -> None:
    source = film(
        tmp_path / "a.mkv",
        sounds=(("jpn", Fraction(0)), ("deu", Fraction(0))),
        chapters=True,
        title="Harbour",
        artist="A. North",
    )
    asked = ("-show_streams", "-show_chapters", "-show_format")
    before, after = (probed(path, *asked) for path in (source, through(source, tmp_path)))

    def told(found: dict) -> list:
        languages = [
            each["tags"]["language"] for each in found["streams"] if each["codec_type"] == "audio"
        ]
        chapters = [
            (Fraction(each["start_time"]), Fraction(each["end_time"]), each["tags"]["title"])
            for each in found["chapters"]
        ]
        names = {name.lower(): value for name, value in found["format"]["tags"].items()}
        return [languages, chapters, names["title"], names["artist"]]

    assert told(before) == told(after)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_half_pictures(tmp_path: Path, order: str) -> None:
    source = film(tmp_path / "a.mp4", interlaced=order)
    whole = "bwdif=send_frame:auto:interlaced"
    made = assert_goes_through(source, tmp_path, (WIDTH, HEIGHT), whole, begins=1)
    assert probed(made, "-show_streams")["streams"][0]["field_order"] == "progressive"
