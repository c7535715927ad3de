"""Zips of pictures, as people and attackers make them."""

import io
import json
import os
import stat
import zipfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import JsonValue

from flows.batching.gathering import gather_given, gather_local
from flows.batching.reading import archives, members
from flows.batching.reading.archives import zip_members
from flows.batching.reading.members import Members
from flows.batching.requests import find_target
from safelight.errors import PipelineError
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("volume")
SHARED: dict[str, JsonValue] = {"prompt": "for all"}


def png(shade: int = 90) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 40, 40)).save(made, "PNG")
    return made.getvalue()


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def local(path: Path, *, keep: bool = False):
    return gather_local(path, "transform", SHARED, sheet=None, read_prompts=False, keep=keep)


def refused(path: Path, *, keep: bool = False) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        local(path, keep=keep)
    assert caught.value.remedy
    return caught.value


@contextmanager
def opened(path: Path) -> Generator[Members | None]:
    with path.open("rb") as file, zip_members(file.fileno(), path.name) as found:
        yield found


def test_a_zip_is_read_as_its_folder_would_be(tmp_path: Path, volume: Path):
    files = {
        "set/10.png": png(10),
        "set/2.png": png(2),
        "set/2.txt": "a cat".encode("utf-8-sig"),
        "set/metadata.csv": b"file_name,prompt\n10.png,from the table\n",
        "__MACOSX/set/._2.png": b"x",
        "set/.DS_Store": b"x",
        "notes.pdf": b"%PDF-1.4",
    }
    found = local(zipped(tmp_path / "pictures.zip", files), keep=True)
    assert found is not None
    assert {one.where: one.parameters["prompt"] for one in found.requests} == {
        "set/2.png": "a cat",
        "set/10.png": "from the table",
    }
    assert [str(each) for each in found.left_aside] == [
        "notes.pdf: no picture or video",
        "__MACOSX/: of the operating system",
        "set/.DS_Store: hidden",
    ]
    links = [json.loads(line)["image"] for line in found.lines.splitlines()]
    kept = [(volume / link.removeprefix("store:")).read_bytes() for link in links]
    assert kept == [png(2), png(10)]
    assert not [path for path in (volume / "cache").rglob("*.png")]


def test_a_run_reads_a_zip_by_path_and_by_link(volume: Path):
    file = volume / "uploads" / "pictures.zip"
    file.parent.mkdir(parents=True)
    zipped(file, {"a.png": png()})
    target = find_target("enhance")
    stored = current_store().put(file, "application/zip", folder="uploads")
    for location in ("uploads/pictures.zip", stored.uri):
        given_ones = gather_given(location, target, {}, sheet=None, read_prompts=False)
        assert given_ones is not None
        assert [row.where for row in given_ones[0]] == ["a.png"]


def test_spreadsheets_and_tables_are_no_zips_of_pictures():
    made = Path(__file__).parent / "data"
    for file in (made / "products.ods", made / "products.xlsx", Path(__file__)):
        assert gather_local(
            file, "generate", {}, sheet=None, read_prompts=False, keep=False
        ) is None  # fmt: skip


LEADING_OUT = (
    "../a.png", "a/../../b.png", "/etc/a.png", "\\\\server\\a.png", "C:\\a.png", "c:a.png",
    "..\\a.png",
)  # fmt: skip


@pytest.mark.parametrize("name", LEADING_OUT)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str):
    error = refused(zipped(tmp_path / "evil.zip", {"good.png": png(), name: png(2)}), keep=True)
    assert error.code == "PERMISSION_DENIED"
    assert not list(tmp_path.rglob("a.png"))


def test_links_are_left_aside(tmp_path: Path):
    path = zipped(tmp_path / "links.zip", {"a.png": png()})
    link = zipfile.ZipInfo("b.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    found = local(path)
    assert found is not None
    assert [one.where for one in found.requests] == ["a.png"]
    assert [str(each) for each in found.left_aside] == ["b.png: a link"]


def patched(path: Path, files: dict[str, bytes], at: int, value: int, width: int = 2) -> Path:
    """The first entry of the list of files with another number at a place (APPNOTE 4.3.12)."""
    data = bytearray(zipped(path, files).read_bytes())
    start = data.index(b"PK\x01\x02") + at
    data[start : start + width] = value.to_bytes(width, "little")
    path.write_bytes(data)
    return path


def test_encrypted_zips_are_refused(tmp_path: Path):
    error = refused(patched(tmp_path / "locked.zip", {"a.png": png()}, 8, 1))
    assert error.code == "INVALID_FIELD_VALUE"
    assert error.problem == "locked.zip: a.png is encrypted"


@pytest.mark.parametrize("method", [9, zipfile.ZIP_LZMA, 99])
def test_other_methods_are_refused(tmp_path: Path, method: int):
    error = refused(patched(tmp_path / "other.zip", {"a.png": png()}, 10, method))
    assert f"method {method}" in error.problem


def test_bombs_are_refused_before_anything_is_unpacked(tmp_path: Path, volume: Path):
    flat = zipped(tmp_path / "flat.zip", {f"{at}.bmp": bytes(2**26) for at in range(5)})
    assert "unpacks to 335544320" in refused(flat, keep=True).problem
    liar = patched(tmp_path / "liar.zip", {"a.png": png()}, 24, 0xFFFFFFF0, 4)
    assert "unpacks to" in refused(liar, keep=True).problem
    assert not list(volume.rglob("*.png"))


def test_a_size_that_is_told_too_small_is_damage(tmp_path: Path):
    path = patched(tmp_path / "liar.zip", {"a.png": png() + bytes(2**20)}, 24, 64, 4)
    error = refused(path, keep=True)
    assert "a.png cannot be unpacked" in error.problem


def test_lists_and_counts_of_files_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = zipped(tmp_path / "many.zip", {f"{at}.png": png() for at in range(9)})
    monkeypatch.setattr(archives, "LONGEST_READ", 300)
    assert "list of files has" in refused(path).problem
    monkeypatch.undo()
    monkeypatch.setattr(members, "MOST_FILES", 8)
    assert "more than 8 files" in refused(path).problem


@pytest.mark.parametrize("case", ["empty", "cut", "no zip", "nothing in it", "two of a name"])
def test_damaged_and_empty_zips_are_refused(tmp_path: Path, case: str):
    path = zipped(tmp_path / "some.zip", {} if case == "empty" else {"a.png": png()})
    if case == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif case == "no zip":
        path.write_bytes(b"PK\x03\x04" + os.urandom(200))
    elif case == "nothing in it":
        zipped(path, {"a.md": b"x"})
    elif case == "two of a name":
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a.png", png(3))
    assert refused(path).code in ("INVALID_FIELD_VALUE", "CONTRACT_MISMATCH")


def test_a_damaged_picture_is_named(tmp_path: Path):
    data = bytearray(zipped(tmp_path / "x.zip", {"b/a.png": png()}, 0).read_bytes())
    data[data.index(b"IDAT") + 4] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(data)
    assert refused(tmp_path / "x.zip", keep=True).problem.startswith("b/a.png cannot be unpacked")


@pytest.mark.parametrize("encoding", ["utf-8", "cp437", "shift_jis"])
def test_names_in_other_encodings_survive(tmp_path: Path, encoding: str):
    name = {"utf-8": "Grün/猫.png", "cp437": "Grün.png", "shift_jis": "猫.png"}[encoding]
    raw = name.encode(encoding)
    data = zipped(tmp_path / "names.zip", {"x" * len(raw): png()}).read_bytes()
    (tmp_path / "names.zip").write_bytes(data.replace(b"x" * len(raw), raw))
    found = local(tmp_path / "names.zip", keep=True)
    assert found is not None
    (request,) = found.requests
    assert request.where == (name if encoding != "shift_jis" else raw.decode("cp437"))
    assert len(found.lines.splitlines()) == 1


def test_long_and_windows_names_are_taken(tmp_path: Path):
    long = "d/" + "ä" * 300 + ".png"
    path = zipped(
        tmp_path / "long.zip", {long: png(), "by\\windows.png": png(2), "./c.png": png(3)}
    )
    found = local(path, keep=True)
    assert found is not None
    assert [one.where for one in found.requests] == ["c.png", "by/windows.png", long]


WHOLE = io.BytesIO()
with zipfile.ZipFile(WHOLE, "w", zipfile.ZIP_DEFLATED) as _made:
    _made.writestr("a/b.png", png())
    _made.writestr("a/b.txt", "a cat")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE.getvalue()) - 1), st.binary(min_size=1, max_size=6))
def test_whatever_the_bytes_are_a_zip_is_read_or_refused(tmp_path: Path, at: int, bad: bytes):
    data = bytearray(WHOLE.getvalue())
    data[at : at + len(bad)] = bad
    path = tmp_path / "fuzzed.zip"
    path.write_bytes(data)
    with suppress(PipelineError), opened(path) as found:  # any other error fails the test
        for member in found.files if found is not None else ():
            with member.opened() as copy:
                assert copy.read_bytes().startswith(member.start(4))
