"""What people bring is looked at before any model loads; each refusal says what to do."""

import io
import os
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safelight.errors import (
    ChecksumMismatchError,
    ForbiddenPathError,
    InvalidMediaError,
    MissingFileError,
    PipelineError,
)
from safelight.media.images import decode_image
from safelight.settings import settings as app_settings
from safelight.store.inputs import (
    EXAMPLES,
    allowed_file,
    allowed_roots,
    open_allowed,
    upload_local,
)
from safelight.store.opening import opened_below, path_of_handle
from safelight.store.store import current_store
from tasks.base.ingest import ingest

ANY = ("image", "video", "audio")


def png(width: int = 8, height: int = 6) -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return buffer.getvalue()


def video(path: Path, frames: int = 3, *, sound: bool = False) -> bytes:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, width=32, height=16, pix_fmt="yuv420p")
        track = out.add_stream("aac", rate=48000) if sound else None
        out.start_encoding()
        for _ in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), np.uint8))))
        out.mux(stream.encode())
        if track is not None:
            quiet = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "mono")
            quiet.rate = 48000
            out.mux(track.encode(quiet))
            out.mux(track.encode())
    return path.read_bytes()


@pytest.fixture
def brought(volume: Path) -> Callable[[str, bytes], str]:
    """Puts a file below the volume root; its path."""
    folder = volume / "inbox"
    folder.mkdir(parents=True)

    def bring(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return str(folder / name)

    return bring


def stored(volume: Path) -> list[str]:
    return [key for key in current_store().backend.list("") if key.startswith(("uploads", "outp"))]


def assert_refusal(caught: PipelineError, code: str, found: str, expected: str, remedy: str):
    assert caught.code == code
    assert found in caught.problem
    assert expected in caught.problem
    assert remedy in caught.remedy
    assert not caught.transient


# what is taken


def test_a_picture_is_kept_as_it_is_with_its_facts(volume, brought):
    ref = ingest(brought("x.png", png()), ("image",))
    assert (ref.media_type, ref.width, ref.height) == ("image/png", 8, 6)
    assert ref.uri.startswith("store:uploads/")
    assert current_store().read(ref) == png()
    assert np.array_equal(current_store().remembered(ref), decode_image(png()))
    assert ingest(ref.uri, ("image",)) == ref


def test_the_content_decides_not_the_name(volume, brought):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "WEBP")
    assert ingest(brought("x.mp4", buffer.getvalue()), ("image",)).media_type == "image/webp"


def test_a_video_is_kept_with_its_facts(volume, brought, tmp_path):
    ref = ingest(brought("x.mp4", video(tmp_path / "x")), ("image", "video"))
    assert (ref.media_type, ref.width, ref.height, ref.frames, ref.fps) == (
        "video/mp4", 32, 16, 3, 25.0,
    )  # fmt: skip
    assert ingest(ref.uri, ("video",)) == ref


@pytest.mark.parametrize("kinds", [("audio",), ("image", "audio"), ANY])
def test_sound_is_kept_as_sound(volume, brought, kinds):
    ref = ingest(brought("x.wav", wav()), kinds)
    assert ref.media_type == "audio/wav"
    assert ref.width is None


def test_everything_a_person_has_can_be_uploaded(volume, tmp_path):
    """From any folder: who runs the command may read the file."""
    for name, data, kind in (
        ("x.png", png(), "uploads"),
        ("x.wav", wav(), "uploads"),
        ("x.mp4", video(tmp_path / "v", sound=True), "uploads"),
    ):
        (tmp_path / name).write_bytes(data)
        uri = upload_local(tmp_path / name)
        assert uri.startswith(f"store:{kind}/")
        assert uri.endswith(name[-4:])


def test_examples_and_named_folders_may_be_read(volume, tmp_path, monkeypatch):
    from safelight.settings import settings

    assert ingest(str(EXAMPLES / "astronaut.png"), ("image",)).width
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.png").write_bytes(png())
    with pytest.raises(ForbiddenPathError):
        ingest(str(tmp_path / "mine" / "x.png"), ("image",))
    monkeypatch.setenv("SAFELIGHT_INPUT_ROOTS", f"/nowhere{os.pathsep}{tmp_path / 'mine'}")
    settings.cache_clear()
    assert ingest(str(tmp_path / "mine" / "x.png"), ("image",)).width == 8


def test_an_output_is_taken_under_its_own_link(volume):
    ref = current_store().put(png(), "image/png", width=8, height=6)
    assert ingest(ref.uri, ("image",)).uri == ref.uri
    assert stored(volume) == [ref.uri.removeprefix("store:")], "not stored a second time"


# what is refused

MEDIA = {
    "empty": (b"", ("image",), "empty (0 bytes)", "expected image", "upload the file again"),
    "empty video": (b"", ("video",), "empty (0 bytes)", "expected video", "upload the file again"),
    "truncated picture": (
        png(64, 64)[:-60], ("image",), "breaks off or is damaged", "", "export the picture again",
    ),
    "only a head": (png()[:20], ("image",), "", "", "picture again"),
    "100 megapixels": (
        png_header(10_000, 10_001), ("image",), "10000x10001 px, 100.0 megapixels", "at most 67.2",
        "SAFELIGHT_MAX_INPUT_MEGAPIXELS",
    ),
    "text named .png": (
        b"just some text", ("image",), "text that begins with 'just some text'",
        "expected a PNG, JPEG, WebP", "convert",
    ),
    "empty gif": (b"GIF89a" + bytes(50), ("image",), "x", "damaged", "export"),
    "text for a video": (b"just some text", ("video",), "", "", ""),
    "sound for a picture": (
        wav(), ("image",), "a video or sound (RIFF)", "expected a PNG, JPEG, WebP", "convert",
    ),
    "sound for a video": (wav(), ("video",), "", "", ""),
    "picture for a video": (png(), ("video",), "holds image", "expected video", "video"),
    "picture for a sound": (png(), ("audio",), "holds image", "expected audio", "audio"),
    "text for a sound": (b"just some text", ("audio",), "nothing that can be", "WAV", "WAV"),
    "text for anything": (b"just some text", ANY, "", "", ""),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{outside}\n#EXT-X-ENDLIST\n",
        ANY, "", "", "",
    ),
    "playlist for a sound": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{outside}\n#EXT-X-ENDLIST\n",
        ("audio",), "nothing that can be decoded", "expected WAV", "convert",
    ),
    "list of files": (b"ffconcat version 1.0\nfile {outside}\n", ANY, "", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", MEDIA)
@pytest.mark.parametrize("name", ["x.png", "x.mp4", "x.wav", "x"])
def test_files_that_are_not_what_they_should_be(volume, brought, tmp_path, case, name):
    data, kinds, found, expected, remedy = MEDIA[case]
    (tmp_path / "secret.wav").write_bytes(wav())
    path = brought(name, data.replace(b"{outside}", str(tmp_path / "secret.wav").encode()))
    with pytest.raises(InvalidMediaError) as caught:
        ingest(path, kinds)
    assert_refusal(caught.value, "INVALID_FIELD_VALUE", found, expected, remedy)
    assert stored(volume) == []


@pytest.mark.parametrize("kinds", [("video",), ANY, ("image", "video")])
def test_videos_without_frames_and_cut_ones(volume, brought, tmp_path, kinds):
    whole = video(tmp_path / "x", 25)
    for data in (video(tmp_path / "none", 0), whole[: len(whole) // 2], whole[:200]):
        with pytest.raises(InvalidMediaError) as caught:
            ingest(brought("x.mp4", data), kinds)
        assert caught.value.code == "INVALID_FIELD_VALUE"
        assert caught.value.remedy
    assert stored(volume) == []


@pytest.mark.parametrize("sound", [False, True])
def test_a_video_for_a_sound(volume, brought, tmp_path, sound):
    path = brought("x.m4a", video(tmp_path / "x", sound=sound))
    with pytest.raises(InvalidMediaError, match=r"holds . sound and 1 video tracks") as caught:
        ingest(path, ("audio",))
    assert caught.value.remedy == "convert the sound to WAV"


# where it may lie


def outside(volume: Path, tmp_path: Path) -> Path:
    path = tmp_path / "outside.png"
    path.write_bytes(png())
    return path


PLACES = {
    "outside": lambda volume, away: str(away),
    "outside by dots": lambda volume, away: f"{volume}/../{away.name}",
    "link out": lambda volume, away: link(volume / "link.png", away),
    "folder link out": lambda volume, away: link(volume / "folder", away.parent) + f"/{away.name}",
    "a neighbour with the same start": lambda volume, away: neighbour(volume),
    "a system file": lambda volume, away: "/etc/passwd",
    "a NUL": lambda volume, away: f"{volume}/x\0.png",
    "a folder": lambda volume, away: str(volume),
    "a pipe": lambda volume, away: pipe(volume / "pipe.png"),
    "a device": lambda volume, away: link(volume / "zero.png", Path("/dev/zero")),
    "links in a circle": lambda volume, away: link(volume / "circle", volume / "circle"),
    "a name too long": lambda volume, away: f"{volume}/{'x' * 5000}.png",
    "half a letter": lambda volume, away: f"{volume}/\ud800.png",
    "a link to another protocol": lambda volume, away: "http://127.0.0.1:1/x.png",
    "a database": lambda volume, away: "store:cache/results/x",
    "dots in a link": lambda volume, away: f"store:uploads/../../{away.name}",
    "absolute link": lambda volume, away: f"store:uploads/{away}",
    "no key": lambda volume, away: "store:",
    "NUL in a link": lambda volume, away: "store:uploads/x\0",
    "a manifest": lambda volume, away: "store:outputs/manifests/x.json",
    "no content's name": lambda volume, away: "store:uploads/ab/none.png",
}


def link(name: Path, target: Path) -> str:
    name.symlink_to(target)
    return str(name)


def pipe(name: Path) -> str:
    os.mkfifo(name)
    return str(name)


def neighbour(volume: Path) -> str:
    other = volume.with_name(volume.name + "-2")
    other.mkdir()
    (other / "x.png").write_bytes(png())
    return str(other / "x.png")


@pytest.mark.timeout(20)  # a pipe that is opened waits for ever
@pytest.mark.parametrize("place", PLACES)
def test_places_that_may_not_be_read(volume: Path, tmp_path: Path, place: str):
    volume.mkdir()
    location = PLACES[place](volume, outside(volume, tmp_path))
    with pytest.raises(ForbiddenPathError) as caught:
        ingest(location, ("image",))
    assert caught.value.code == "PERMISSION_DENIED"
    assert caught.value.remedy
    assert not caught.value.transient
    assert str(caught.value).isprintable()
    assert stored(volume) == []


@pytest.mark.parametrize(
    "location", ["{volume}/none.png", "{volume}/a/b", f"store:uploads/ab/{0:064}.png"]
)
def test_what_is_not_there(volume: Path, location: str):
    with pytest.raises(MissingFileError) as caught:
        ingest(location.format(volume=volume), ("image",))
    assert caught.value.code == "FILE_NOT_FOUND"


def test_paths_start_at_the_volume_root_or_else_at_the_working_folder(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "elsewhere"
    for folder, side in ((volume / "uploads", 8), (elsewhere / "uploads", 16)):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(png(side, side))
    (elsewhere / "uploads" / "y.png").write_bytes(png(16, 16))
    monkeypatch.chdir(elsewhere)
    assert ingest("uploads/x.png", ("image",)).width == 8
    with pytest.raises(ForbiddenPathError):
        ingest("uploads/y.png", ("image",))
    monkeypatch.setenv("SAFELIGHT_INPUT_ROOTS", str(elsewhere))
    app_settings.cache_clear()
    assert ingest("uploads/y.png", ("image",)).width == 16


def test_names_are_never_used_for_what_is_stored(volume, brought):
    for name in ("..png", "-rf.png", "a b\n.png", "%s{x}.png", "ü.png", "$(x).png"):
        assert ingest(brought(name, png()), ("image",)).uri.endswith(".png")
    assert len(stored(volume)) == 1


def test_a_file_changed_in_the_store_is_not_taken_for_what_its_link_names(volume, brought):
    ref = ingest(brought("x.png", png()), ("image",))
    (volume / ref.uri.removeprefix("store:")).write_bytes(png(16, 16))
    with pytest.raises(ChecksumMismatchError, match=ref.sha256):
        ingest(ref.uri, ("image",))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["{volume}/", "{volume}/../", "store:uploads/", "store:", "/", ""]),
    st.text(st.characters(exclude_categories=[]), max_size=30)
    | st.lists(st.sampled_from(["..", ".", "", "x", "outside.png"]), max_size=6).map("/".join),
)
def test_no_location_gives_what_lies_outside(volume: Path, tmp_path: Path, start: str, rest: str):
    outside(volume, tmp_path)
    with pytest.raises((ForbiddenPathError, MissingFileError)) as caught:
        ingest(start.format(volume=volume) + rest, ("image",))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_that_takes_the_place_of_what_was_looked_at_is_not_followed(
    volume: Path, tmp_path: Path, swapped: str
):
    secret = tmp_path / "elsewhere" / "album"
    secret.mkdir(parents=True)
    (secret / "dog.png").write_bytes(png(9, 9))
    (volume / "album").mkdir(parents=True)
    named = volume / "album" / "dog.png"
    named.write_bytes(png())
    root, path = allowed_roots()[0], allowed_file(str(named))
    if swapped == "file":
        named.unlink()
        named.symlink_to(secret / "dog.png")
    else:
        (volume / "album").rename(volume / "before")
        (volume / "album").symlink_to(secret)
    with pytest.raises(ForbiddenPathError), opened_below(root, path):
        pass


def test_a_pipe_that_takes_the_place_of_what_was_looked_at_keeps_nobody_waiting(volume: Path):
    volume.mkdir(exist_ok=True)
    os.mkfifo(volume / "pipe.png")
    with pytest.raises(ForbiddenPathError), opened_below(volume, volume / "pipe.png"):
        pass


def test_what_was_opened_is_read_whatever_becomes_of_its_name(volume: Path, tmp_path: Path):
    volume.mkdir(exist_ok=True)
    (volume / "a.png").write_bytes(png())
    (tmp_path / "elsewhere.png").write_bytes(png(9, 9))
    own = tmp_path / "own"
    own.mkdir()
    with open_allowed("a.png") as (handle, path), path_of_handle(handle, path.name, own) as stable:
        (volume / "a.png").unlink()
        (volume / "a.png").symlink_to(tmp_path / "elsewhere.png")
        assert stable.read_bytes() == png()
    assert not list(own.iterdir())
