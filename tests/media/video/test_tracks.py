"""Sound, subtitles, chapters and titles of a source in what is made of it."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from safelight.progress import watching
from tests.media.clips import map_frames
from tests.media.outside import needs_ffmpeg

SIDE = 32
RATE = 16_000
FRAMES = 20


def tone(hertz: float, rate: int, samples: int) -> np.ndarray:
    """Rises to four times its pitch, so that no part is like another."""
    at = np.arange(samples) / rate
    return 0.4 * np.sin(2 * np.pi * hertz * (at + 1.5 * at**2))


def with_sound(
    path: Path,
    tracks: list[tuple[str, dict[str, str]]],
    rate: int = RATE,
    *,
    default: int = 0,
    subtitles: str | None = None,
    chapters: int = 0,
    layout: str = "mono",
    **metadata: str,
) -> Path:
    """A short film: one tone per track, 800 ms."""
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata)
        picture = out.add_stream("libx264", rate=25)
        picture.width = picture.height = SIDE
        picture.pix_fmt = "yuv420p"
        sounds = []
        for index, (codec, tags) in enumerate(tracks):
            sound = out.add_stream(codec, rate=rate, layout=layout)
            sound.metadata.update(tags)
            sound.disposition = av.stream.Disposition.default if index == default else 0
            sounds.append(sound)
        words = out.add_stream(subtitles) if subtitles else None
        if words is not None:
            words.metadata["language"] = "eng"
            words.codec_context.time_base = Fraction(1, 1000)
            words.codec_context.subtitle_header = HEADER
        if chapters:
            out.set_chapters(
                [
                    {
                        "id": index,
                        "start": 1000 * index * FRAMES // 25 // chapters,
                        "end": 1000 * (index + 1) * FRAMES // 25 // chapters,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": f"Part {index}"},
                    }
                    for index in range(chapters)
                ]
            )
        for index in range(FRAMES):
            grey = np.full((SIDE, SIDE), 10 * index, np.uint8)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        for index, sound in enumerate(sounds):
            wave = tone(300 * (index + 1), rate, rate * FRAMES // 25)
            many = sound.layout.nb_channels
            samples = np.repeat((wave * 32767).astype(np.int16)[:, None], many, axis=1)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", layout)
            frame.sample_rate, frame.pts = rate, 0
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        if words is not None:
            for index in range(2):
                packet = av.Packet(f"line {index}".encode())
                packet.stream, packet.time_base = words, Fraction(1, 1000)
                packet.pts = packet.dts = 300 * index
                packet.duration = 200
                out.mux(packet)
        out.mux(picture.encode(None))
    return path


HEADER = b"[Script Info]\nScriptType: v4.00+\n"


def heard(path: Path, track: int = 0) -> np.ndarray:
    """One channel of a track, decoded as floats, from second 0 on."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        rate = stream.rate
        resampler = av.AudioResampler("flt", "mono", rate)
        parts = [
            part.to_ndarray()[0, max(-round((frame.time or 0) * rate), 0) :]
            for frame in container.decode(stream)
            for part in resampler.resample(frame)
        ]
    return np.concatenate(parts)


def carried(source: Path, target: Path) -> tuple[str, list[str]]:
    with watching(None) as notes:
        made = map_frames(source, target, lambda frame: frame, {"comment": "record"})
    assert made.frames == FRAMES
    return made.media_type, notes


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [
        ("3gp", "libopencore_amrnb", 8_000),
        ("mov", "adpcm_ima_qt", 16_000),
        ("mov", "adpcm_ima_qt", 44_100),
        ("mov", "adpcm_ima_qt", 22_050),
    ],
)
def test_sound_that_neither_container_holds_is_encoded_anew(
    tmp_path: Path, ending: str, codec: str, rate: int
) -> None:
    source = with_sound(tmp_path / f"a.{ending}", [(codec, {})], rate)
    media_type, notes = carried(source, tmp_path / "b")

    assert media_type == "video/mp4"
    assert "encoded as AAC" in str(notes)
    before, after = heard(source), heard(tmp_path / "b")
    shared = min(len(before), len(after))
    assert shared > 0.7 * rate
    lags = np.correlate(after[: rate // 2], before[rate // 100 : rate // 4])
    assert abs(int(lags.argmax()) - rate // 100) <= rate // 1000 + 1  # 1 ms


@needs_ffmpeg
@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("codec", ["adpcm_ima_wav", "adpcm_ms", "adpcm_yamaha"])
def test_sound_whose_channels_have_no_names_is_encoded_anew(
    tmp_path: Path, codec: str, layout: str
) -> None:
    plain = with_sound(tmp_path / "a.mov", [("pcm_s16le", {})], 44_100, layout=layout)
    source = tmp_path / "a.mkv"  # which does not say which channel is which
    words = ["ffmpeg", "-v", "error", "-i", plain, "-c:v", "copy", "-c:a", codec, source]
    subprocess.run([str(word) for word in words], check=True)
    with av.open(str(source)) as container:
        assert container.streams.audio[0].layout.channels[0].name == "NONE"
    media_type, notes = carried(source, tmp_path / "b")

    assert media_type == "video/mp4"
    assert "encoded as AAC" in str(notes)
    with av.open(str(tmp_path / "b")) as container:
        assert container.streams.audio[0].layout.name == layout
    before, after = heard(source), heard(tmp_path / "b")
    lags = np.correlate(after[:22_050], before[441:11_025])
    assert abs(int(lags.argmax()) - 441) <= 45  # 1 ms
    shared = min(len(before), len(after)) - 2000
    assert np.corrcoef(before[:shared], after[:shared])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("ending", "codec", "becomes"),
    [
        ("mov", "pcm_alaw", "pcm_s16le"),
        ("mov", "pcm_mulaw", "pcm_s16le"),
        ("mov", "pcm_f32be", "pcm_f32le"),
        ("mov", "pcm_s8", "pcm_s16le"),
        ("mov", "pcm_f64be", "pcm_f64le"),
        ("mov", "pcm_s16be", "pcm_s16be"),
        ("mov", "pcm_s24le", "pcm_s24le"),
        ("mkv", "pcm_f32le", "pcm_f32le"),
    ],
)
def test_uncompressed_sound_of_any_kind_keeps_its_samples(
    tmp_path: Path, ending: str, codec: str, becomes: str
) -> None:
    source = with_sound(tmp_path / f"a.{ending}", [(codec, {})])
    media_type, _ = carried(source, tmp_path / "b")

    assert media_type == "video/x-matroska"
    with av.open(str(tmp_path / "b")) as container:
        assert container.streams.audio[0].codec_context.name == becomes
    assert np.array_equal(heard(source), heard(tmp_path / "b"))


def test_a_track_of_unknown_kind_beside_a_good_one_is_noted(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mov", [("aac", {}), ("pcm_alaw", {"language": "fra"})])
    data = source.read_bytes()
    assert data.count(b"alaw") >= 1
    source.write_bytes(data.replace(b"alaw", b"zzzz"))
    media_type, notes = carried(source, tmp_path / "b")

    assert media_type == "video/mp4"
    assert len([text for text in notes if text.startswith("left out: sound of track 2")]) == 1
    with av.open(str(tmp_path / "b")) as container:
        assert [s.codec_context.name for s in container.streams.audio] == ["aac"]


def test_sound_only_of_unknown_kind_leaves_a_silent_video(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mov", [("pcm_mulaw", {})])
    source.write_bytes(source.read_bytes().replace(b"ulaw", b"qqqq"))
    media_type, notes = carried(source, tmp_path / "b")

    assert media_type == "video/mp4"
    assert "no decoder here knows" in str(notes)


def test_a_picture_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mov", [("aac", {})])
    source.write_bytes(source.read_bytes().replace(b"avc1", b"zzz1"))
    from safelight.errors import InvalidMediaError
    from safelight.media.video.stream import probe

    with pytest.raises(InvalidMediaError, match="no decoder here knows"):
        probe(source)


def listed(path: Path) -> list[tuple[str | None, str | None, int]]:
    """Language, title (which MP4 calls name) and disposition of each sound track."""
    with av.open(str(path)) as container:
        return [
            (
                s.metadata.get("language"),
                s.metadata.get("title", s.metadata.get("name")),
                int(s.disposition),
            )
            for s in container.streams.audio
        ]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("default", [0, 2])
def test_languages_titles_defaults_and_chapters_stay(
    tmp_path: Path, ending: str, codec: str, default: int
) -> None:
    told = [
        {"language": "jpn", "title": "Original"},
        {"language": "ger", "title": "Kommentar"},
        {"language": "ita"},
    ]
    source = with_sound(
        tmp_path / f"a.{ending}",
        [(codec, tags) for tags in told],
        default=default,
        chapters=3,
        title="Family film",
        artist="Somebody",
    )
    before = listed(source)
    _, notes = carried(source, tmp_path / "b")
    after = listed(tmp_path / "b")
    with av.open(str(tmp_path / "b")) as container:
        parts = [
            (c["metadata"]["title"], float(c["start"] * (c["time_base"] or 0)))
            for c in container.chapters()
        ]
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert [each[:2] for each in after] == [
        ("jpn", "Original"),
        ("ger", "Kommentar"),
        ("ita", None),
    ]
    assert after == before
    assert [name for name, _ in parts] == ["Part 0", "Part 1", "Part 2"]
    assert [start for _, start in parts] == pytest.approx([0, 0.266, 0.533], abs=0.001)
    assert (tags["title"], tags["artist"], tags["comment"]) == ("Family film", "Somebody", "record")
    assert not any("left out" in text for text in notes)
    for track in range(3):
        assert np.allclose(heard(source, track), heard(tmp_path / "b", track))


@pytest.mark.parametrize(
    ("ending", "codec", "sound", "kept", "media_type"),
    [
        ("mkv", "subrip", "aac", "srt", "video/x-matroska"),
        ("mkv", "subrip", "pcm_s16le", "srt", "video/x-matroska"),
        ("mp4", "mov_text", "aac", "mov_text", "video/mp4"),
        ("mov", "mov_text", "pcm_s16le", None, "video/x-matroska"),
    ],
)
def test_subtitles_that_the_container_takes_stay(
    tmp_path: Path, ending: str, codec: str, sound: str, kept: str | None, media_type: str
) -> None:
    source = with_sound(tmp_path / f"a.{ending}", [(sound, {})], subtitles=codec)
    found, notes = carried(source, tmp_path / "b")

    assert found == media_type
    with av.open(str(tmp_path / "b")) as container:
        streams = [s for s in container.streams if s.type == "subtitle"]
        assert [s.codec_context.name for s in streams] == ([kept] if kept else [])
        assert all(s.metadata["language"] == "eng" for s in streams)
        if kept:
            texts = [bytes(p) for p in container.demux(streams) if p.size]
            assert len([text for text in texts if b"line" in text]) == 2
    assert any("left out: subtitles" in text for text in notes) == (kept is None)


def test_the_same_source_gives_the_same_bytes_with_sound_encoded_anew(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "a.mov", [("adpcm_ima_qt", {}), ("pcm_alaw", {})])
    made = set()
    for name in ("b", "c"):
        carried(source, tmp_path / name)
        made.add((tmp_path / name).read_bytes())
    assert len(made) == 1
