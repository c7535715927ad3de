"""Headers that ask for more room than their file could fill."""

import struct
import zlib
from pathlib import Path

import av
import pytest

from safelight.errors import InvalidMediaError
from safelight.media.sound import probe_sound
from safelight.media.video.mp4_index import MOST_SAMPLES, require_few_samples
from safelight.media.video.stream import probe


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def track(*tables: bytes, kind: bytes = b"vide") -> bytes:
    handler = box(b"hdlr", numbers(0, 0), kind, bytes(13))
    return box(b"trak", box(b"mdia", handler, box(b"minf", box(b"stbl", *tables))))


def header(*tables: bytes, kind: bytes = b"vide") -> bytes:
    return box(b"moov", track(*tables, kind=kind))


def packed(moov: bytes) -> bytes:
    return box(
        b"moov",
        box(
            b"cmov",
            box(b"dcom", b"zlib"),
            box(b"cmvd", numbers(len(moov)), zlib.compress(moov)),
        ),
    )


SIZES = box(b"stsz", numbers(0, 7, 50_000_000))
START = box(b"ftyp", b"isom", numbers(0), b"isom")


@pytest.mark.parametrize(
    "content",
    [
        header(SIZES),
        header(box(b"stts", numbers(0, 1, 50_000_000, 1)), SIZES),
        header(SIZES, kind=b"soun"),
        header(box(b"stz2", numbers(0, 8, 50_000_000))),
        header(box(b"stsc", numbers(0, 1, 1, 2_000_000_000, 1)), kind=b"soun"),
        box(b"moof", box(b"traf", box(b"trun", numbers(0, 2_000_000_000)))),
        box(b"udta", SIZES),
        packed(header(SIZES)),
        packed(bytes(70 * 2**20)),
        struct.pack(">I", 1) + b"moov" + struct.pack(">Q", 16 + len(track(SIZES))) + track(SIZES),
        struct.pack(">I", 0) + b"moov" + track(SIZES),
    ],
)
@pytest.mark.parametrize("look", [probe, probe_sound])
def test_more_samples_than_bytes_are_refused_before_room_is_made(
    tmp_path: Path, content: bytes, look
):
    path = tmp_path / "a.mp4"
    path.write_bytes(START + content)
    with pytest.raises(InvalidMediaError, match=r"a\.mp4 \(\d+ bytes\) (lists|has)"):
        look(path)


def test_a_large_file_has_a_limit_too(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(START + header(box(b"stsz", numbers(0, 1, MOST_SAMPLES + 1))))
    with path.open("r+b") as file:
        file.truncate(MOST_SAMPLES * 2)
    with pytest.raises(InvalidMediaError, match="lists"):
        require_few_samples(path)


@pytest.mark.parametrize("rate", [8000, 48000])
@pytest.mark.parametrize("codec", ["pcm_u8", "adpcm_ima_qt"])
def test_sound_that_is_counted_before_compression_is_taken(tmp_path: Path, codec: str, rate: int):
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame(
            "u8" if codec == "pcm_u8" else "s16p", "mono", stream.codec_context.frame_size or 6400
        )
        frame.sample_rate = rate
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(40):
            frame.pts = number * frame.samples
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    require_few_samples(path)
    assert probe_sound(path) == "audio/mp4"


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\x1a\x45\xdf\xa3" * 40, START[:-3]])
def test_what_is_no_mp4_is_for_others_to_judge(tmp_path: Path, content: bytes):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    require_few_samples(path)
