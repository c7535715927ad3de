"""One suite for every place that bytes may be kept in: what holds for one holds for all."""

import hashlib
import itertools
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safelight.errors import ChecksumMismatchError, ForbiddenPathError, MissingFileError
from safelight.store.keys import LONGEST, LONGEST_PART, checked_key
from tests.store.conftest import Place, folder_place
from tests.store.servers import until

LARGE = 17 * 2**20 + 12345
"""More than two whole parts of a multipart upload, and a bit."""
HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../x",
    "a/./x",
    "a//x",
    "a/",
    ".hidden",
    "a/.hidden",
    ".unfinished/x",
    "a\\..\\x",
    "C:x",
    "a\0b",
    "a\nb",
    "a b",
    "a%2e%2e/b",
    "é",
    "a" * (LONGEST_PART + 1),
    "/".join(["a"] * LONGEST),
    "~/x",
    "a?versionId=1",
]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def opened(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_bytes_come_back(place: Place, tmp_path: Path, size: int):
    data = os.urandom(size)
    place.backend.write("outputs/ab/x.bin", data, "text/plain")
    assert place.backend.read("outputs/ab/x.bin") == data
    assert place.backend.size("outputs/ab/x.bin") == size
    assert place.backend.exists("outputs/ab/x.bin")
    fetched = place.backend.fetch("outputs/ab/x.bin", tmp_path / "away" / "x")
    assert fetched.read_bytes() == data


def test_a_large_file_comes_back_and_the_source_stays(place: Place, tmp_path: Path):
    data = os.urandom(LARGE)
    source = tmp_path / "source"
    source.write_bytes(data)
    place.backend.write("outputs/large.bin", source, "video/mp4", sha256(data))
    assert place.backend.size("outputs/large.bin") == LARGE
    assert place.backend.read("outputs/large.bin") == data
    assert place.backend.fetch("outputs/large.bin", tmp_path / "away").read_bytes() == data
    assert source.read_bytes() == data
    if place.server is not None:
        found = place.server.client().list_objects_v2(Bucket=place.server.bucket)["Contents"]
        assert [item["ETag"][-3:] for item in found if item["Size"] == LARGE] == ['-3"']  # 3 parts


def test_nothing_there_is_said_so(place: Place, tmp_path: Path):
    assert place.backend.size("outputs/none") is None
    assert not place.backend.exists("outputs/none")
    place.backend.delete("outputs/none")
    for read in (place.backend.read, lambda key: place.backend.fetch(key, tmp_path / "away")):
        with pytest.raises(MissingFileError, match="nothing is stored"):
            read("outputs/none")
    assert not (tmp_path / "away").exists()
    assert place.backend.list("") == []


def test_a_source_that_is_not_there_is_said_so(place: Place, tmp_path: Path):
    for known in (None, "0" * 64):
        with pytest.raises(MissingFileError):
            place.backend.write("outputs/x", tmp_path / "none", "text/plain", known)
    assert place.backend.list("") == []


def test_deleted_is_gone(place: Place):
    place.backend.write("outputs/x", b"x", "text/plain")
    place.backend.delete("outputs/x")
    assert place.backend.size("outputs/x") is None
    assert place.backend.list("") == []


def test_the_last_write_counts(place: Place):
    place.backend.write("cache/x", b"first, and longer", "text/plain")
    place.backend.write("cache/x", b"second", "text/plain")
    assert place.backend.read("cache/x") == b"second"


@pytest.mark.parametrize("size", [5, LARGE])
def test_other_bytes_than_announced_are_not_kept(place: Place, tmp_path: Path, size: int):
    (tmp_path / "source").write_bytes(bytes(size))
    for source in (bytes(size), tmp_path / "source"):
        with pytest.raises(ChecksumMismatchError):
            place.backend.write("outputs/x", source, "text/plain", sha256(b"other"))
    assert not place.backend.exists("outputs/x")
    assert place.backend.list("") == []


@pytest.mark.parametrize("change", ["one bit", "cut short", "longer"])
def test_changed_bytes_are_refused(place: Place, tmp_path: Path, change: str):
    data = os.urandom(1000)
    changed = {
        "one bit": bytes([data[0] ^ 1]) + data[1:],
        "cut short": data[:-1],
        "longer": data + b"\0",
    }[change]
    store = place.store(tmp_path / "mine")
    ref = store.put(data, "image/png")
    store.settle()
    key = ref.uri.removeprefix("store:")
    assert store.fetch(ref).read_bytes() == store.read(ref) == data
    place.overwrite(key, changed)
    stranger = place.store(tmp_path / "another")
    for read in (stranger.fetch, stranger.read):
        with pytest.raises(ChecksumMismatchError, match=ref.sha256):
            read(ref)
    assert list((tmp_path / "another").glob("*")) == []


def test_damage_that_shows_in_the_size_is_mended_by_the_next_write(place: Place, tmp_path: Path):
    store = place.store(tmp_path / "mine")
    ref = store.put(b"whole", "image/png")
    store.settle()
    place.overwrite(ref.uri.removeprefix("store:"), b"who")
    store.put(b"whole", "image/png")
    store.settle()
    assert place.store(tmp_path / "another").read(ref) == b"whole"


def test_a_link_opens_with_anything_that_reads_urls(place: Place):
    place.backend.write("outputs/a.png", b"picture", "image/png")
    link = place.backend.link("outputs/a.png", 60)
    with urllib.request.urlopen(link, timeout=30) as answer:
        assert answer.read() == b"picture"
        assert answer.headers["Content-Type"] == "image/png"


def test_a_link_opens_nothing_else_and_ends(place: Place):
    if place.server is None or not place.server.checks_signatures:
        pytest.skip("file: links do not end, and moto takes any signature")
    place.backend.write("outputs/a", b"mine", "text/plain")
    place.backend.write("outputs/b", b"secret", "text/plain")
    link, short = place.backend.link("outputs/a", 60), place.backend.link("outputs/a", 1)
    time.sleep(2.1)
    for refused in (link.replace("outputs/a", "outputs/b"), link[:-1] + "!", short):
        with pytest.raises(urllib.error.HTTPError) as caught:
            opened(refused)
        assert caught.value.code in (400, 403)
        caught.value.close()
    assert opened(link) == b"mine"


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_keys_are_refused(place: Place, tmp_path: Path, key: str):
    before = sorted(tmp_path.rglob("*"))
    backend = place.backend
    for call in (
        lambda: backend.write(key, b"x", "text/plain"),
        lambda: backend.read(key),
        lambda: backend.fetch(key, tmp_path / "away"),
        lambda: backend.exists(key),
        lambda: backend.size(key),
        lambda: backend.delete(key),
        lambda: backend.link(key, 60),
    ):
        with pytest.raises(ForbiddenPathError, match="plain relative path"):
            call()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["{outside}", "{outside}/file", "link"])
def test_links_do_not_lead_out_of_the_folder(tmp_path: Path, target: str):
    backend, outside = folder_place(tmp_path / "store").backend, tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"not yours")
    backend.write("a", b"x", "text/plain")
    (tmp_path / "store" / "link").symlink_to(target.format(outside=outside))
    for call in (
        backend.read,
        backend.delete,
        backend.size,
        lambda key: backend.list(f"{key}/"),
        lambda key: backend.fetch(key, tmp_path / "away"),
        lambda key: backend.write(key, b"x", "text/plain"),
    ):
        for key in ("link", "link/file"):
            with pytest.raises(ForbiddenPathError, match="leads outside"):
                call(key)
    assert (outside / "file").read_bytes() == b"not yours"


def test_a_file_is_no_folder(tmp_path: Path):
    backend = folder_place(tmp_path / "store").backend
    backend.write("a", b"x", "text/plain")
    with pytest.raises(ForbiddenPathError):
        backend.write("a/b", b"x", "text/plain")
    with pytest.raises(MissingFileError):
        backend.read("a/b")
    assert not backend.exists("a/b")
    assert backend.list("") == ["a"]


def test_the_longest_key_is_taken(place: Place):
    key = "/".join(["a" * LONGEST_PART, "b" * LONGEST_PART, "c" * (LONGEST - 2 * LONGEST_PART - 2)])
    place.backend.write(key, b"x", "text/plain")
    assert place.backend.list("") == [key]
    assert place.backend.read(key) == b"x"


part = st.from_regex(r"[A-Za-z0-9_\-][A-Za-z0-9._\-]{0,20}", fullmatch=True)
places = itertools.count()
plain_keys = st.lists(part, min_size=1, max_size=4).map("/".join)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a"])).map("/".join))
def test_a_key_is_taken_only_when_it_stays_where_it_is(key: str):
    try:
        checked_key(key)
    except ForbiddenPathError:
        return
    assert os.path.normpath(key) == key
    assert os.path.normpath(f"/root/{key}").startswith("/root/")
    assert key.isascii()
    assert key.isprintable()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plain_keys, st.binary(max_size=50))
def test_plain_keys_keep_their_bytes(place: Place, key: str, data: bytes):
    key = f"{next(places)}/{key}"  # a folder that it made may stay, and keys be tried in any order
    place.backend.write(key, data, "text/plain")
    assert place.backend.read(key) == data
    assert key in place.backend.list("")
    assert place.backend.list(key)[0] == key
    place.backend.delete(key)
    assert place.backend.list(key) == []


def test_listing_is_sorted_and_keeps_to_its_prefix(place: Place):
    keys = ["a/b/2", "a/b/10", "a/bc", "a/c/1", "b", "ab/1"]
    for key in keys:
        place.backend.write(key, b"x", "text/plain")
    assert place.backend.list("") == sorted(keys)
    assert place.backend.list("a/") == ["a/b/10", "a/b/2", "a/bc", "a/c/1"]
    assert place.backend.list("a/b") == ["a/b/10", "a/b/2", "a/bc"]
    assert place.backend.list("a/b/") == ["a/b/10", "a/b/2"]
    assert place.backend.list("none/") == []


@pytest.mark.parametrize("prefix", ["../", "/", "/etc/", "a/../../", "\0", "\0/", "x" * 5000])
def test_hostile_prefixes_are_refused(place: Place, prefix: str):
    with pytest.raises(ForbiddenPathError, match="plain relative path"):
        place.backend.list(prefix)


def test_more_than_a_page_is_listed(place: Place):
    """Servers give 1000 keys at a time; here the client is made to ask for 7."""
    if place.server is None:
        pytest.skip("a folder has no pages")
    pages: list[dict[str, object]] = []

    def ask_for_less(params: dict[str, object], **_: object) -> None:
        params["MaxKeys"] = 7
        pages.append(params)

    backend = place.server.opened(place.prefix)
    backend.client.meta.events.register("before-parameter-build.s3.ListObjectsV2", ask_for_less)
    names = [f"n/{number:04}" for number in range(20)]
    for name in names:
        backend.write(name, b"", "text/plain")
    assert backend.list("n/") == names
    assert len(pages) == 3


def test_a_reader_never_sees_a_half_written_file(place: Place, tmp_path: Path):
    versions = [bytes([number]) * size for number, size in ((1, LARGE), (2, 1000), (3, LARGE // 2))]
    done = threading.Event()
    torn: list[int] = []
    seen: set[int] = set()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                size, listed = place.backend.size("outputs/x"), place.backend.list("")
                if listed not in ([], ["outputs/x"]) or size not in (None, *map(len, versions)):
                    torn.append(size or -1)
                try:
                    data = place.backend.read("outputs/x")
                except MissingFileError:
                    continue
                seen.add(data[0])
                if data not in versions:
                    torn.append(len(data))
        except BaseException as error:  # noqa: BLE001  (shown below)
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for data in versions * 2:
            source = tmp_path / "source"
            source.write_bytes(data)
            place.backend.write("outputs/x", source, "text/plain")
            until(lambda data=data: data[0] in seen or failed)
    finally:
        done.set()
        reader.join()
    assert failed == []
    assert torn == []
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("second", ["a/b", "a/b/c/d"])
def test_a_folder_says_that_a_key_is_in_the_way_of_another(tmp_path: Path, second: str):
    backend = folder_place(tmp_path).backend
    backend.write("a/b/c", b"kept", "text/plain")
    with pytest.raises(ForbiddenPathError, match="name a file"):
        backend.write(second, b"x", "text/plain")
    assert backend.read("a/b/c") == b"kept"
