"""Uploads behind the next stage's compute: overlap, bounds, and records that never lie."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.errors import MissingFileError, StoreUnavailableError
from safelight.store.artifact import ArtifactRef
from safelight.store.background import THREADS, Uploads
from safelight.store.inputs import EXAMPLES, find_stored, upload_local
from safelight.store.results import REFERENCE, SafelightResults
from safelight.store.s3 import Bucket
from safelight.store.store import Store, current_store
from tests.store.servers import ACCESS_KEY, SECRET_KEY, Line, S3Server, free_ports, until

ENDING = """
import sys, time
from pathlib import Path
from pydantic import SecretStr
from safelight.store import background as uploading
from safelight.store.s3 import Bucket
from safelight.store.store import Store
url, bucket, prefix, access, secret, scratch, seconds = sys.argv[1:]
uploading.EXIT_SECONDS = float(seconds)
store = Store(Bucket(bucket, prefix, endpoint_url=url, region="us-east-1",
                     access_key=SecretStr(access), secret_key=SecretStr(secret), path_style=True),
              Path(scratch), 0, remote=True)
ref = store.put(b"last words", "text/plain")
store.write_record("cache/results/last", ref.uri.encode())
"""


@pytest.fixture
def held(moto: S3Server) -> Iterator[Line]:
    """A line to moto that lets nothing through until it is released."""
    with Line(moto.port, held_after=0) as line:
        yield line


@pytest.fixture
def behind(moto: S3Server, held: Line, tmp_path: Path) -> Store:
    """A remote store behind the held line."""
    bucket = moto.opened(tmp_path.name, url=held.url)
    return Store(bucket, tmp_path / "scratch", 0, remote=True)


@pytest.fixture
def arrived(moto: S3Server, tmp_path: Path) -> Bucket:
    """The same bucket and prefix, seen directly."""
    return moto.opened(tmp_path.name)


def key(ref: ArtifactRef) -> str:
    return ref.uri.removeprefix("store:")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_put_returns_before_a_byte_has_arrived(behind: Store, held: Line, arrived: Bucket):
    refs = [behind.put(os.urandom(2**20), "image/png") for _ in range(2 * THREADS)]
    assert held.reached.wait(60)
    assert arrived.list("") == []
    held.released.set()
    behind.settle()
    assert arrived.list("outputs/") == sorted(key(ref) for ref in refs)
    assert sha256(arrived.read(key(refs[0]))) == refs[0].sha256


def test_what_is_on_its_way_can_be_read(behind: Store, held: Line, tmp_path: Path):
    """The next stage needs it now, and the stage that made it has cleaned up behind itself."""
    picture = behind.put(b"picture", "image/png")
    with behind.workspace() as folder:
        made = Path(folder) / "made.mp4"
        made.write_bytes(b"video")
        video = behind.put(made, "video/mp4")
    brought = tmp_path / "brought.mp4"
    brought.write_bytes(b"brought")
    upload = behind.put(brought, "video/mp4", folder="uploads")
    brought.write_bytes(b"changed")
    for ref, data in ((picture, b"picture"), (video, b"video"), (upload, b"brought")):
        assert behind.read(ref) == data
        assert behind.fetch(ref).read_bytes() == data
        assert behind.holds(key(ref), len(data))
    held.released.set()
    behind.settle()
    for ref, data in ((picture, b"picture"), (video, b"video"), (upload, b"brought")):
        assert behind.backend.read(key(ref)) == data
    left = sorted(path.name for path in (tmp_path / "scratch").iterdir())
    assert not any(name.startswith("work-") for name in left)


def test_a_record_arrives_after_the_artifacts_it_names(behind: Store, held: Line, arrived: Bucket):
    ref = behind.put(os.urandom(9 * 2**20), "video/mp4")
    behind.write_record("cache/results/a", ref.uri.encode())
    assert behind.read_record("cache/results/a") == ref.uri.encode()
    assert held.reached.wait(60)
    wrong: list[list[str]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen = arrived.list("")
            if "cache/results/a" in seen and key(ref) not in seen:
                wrong.append(seen)

    watcher = threading.Thread(target=watch)
    watcher.start()
    held.released.set()
    behind.settle()
    done.set()
    watcher.join()
    assert wrong == []
    assert arrived.list("") == ["cache/results/a", key(ref)]


def test_a_record_waits_for_nothing_that_is_put_after_it(moto: S3Server, tmp_path: Path):
    direct = moto.opened(tmp_path.name)
    with Line(moto.port, held_after=4 * 2**20) as line:
        bucket = moto.opened(tmp_path.name, url=line.url)
        store = Store(bucket, tmp_path / "scratch", 0, remote=True)
        first = store.put(b"first", "image/png")
        store.write_record("cache/results/first", first.uri.encode())
        second = store.put(os.urandom(6 * 2**20), "video/mp4")
        assert line.reached.wait(60)
        until(lambda: direct.exists("cache/results/first"))
        assert not direct.exists(key(second))
        line.released.set()
        store.settle()
    assert direct.exists(key(second))


@pytest.mark.parametrize("late", [False, True], ids=["made before", "made after"])
def test_a_failed_upload_drops_the_records_that_name_it(
    moto: S3Server, held: Line, tmp_path: Path, late: bool
):
    """The upload fails because its file vanishes; the server is well and would take the record."""
    uploads, direct = Uploads(moto.opened(tmp_path.name, url=held.url)), moto.opened(tmp_path.name)
    source, record = tmp_path / "lost", b'{"uri": "store:outputs/lost"}'
    source.write_bytes(b"lost")
    uploads.send("outputs/lost", source, "image/png", sha256(b"lost"))
    assert held.reached.wait(60)
    source.unlink()
    if late:
        held.released.set()
        until(lambda: uploads.on_its_way("outputs/lost") is None)
    uploads.record("cache/results/a", record)
    uploads.record("cache/results/other", b'{"uri": "store:outputs/other"}')
    held.released.set()
    with pytest.raises(MissingFileError):
        uploads.settle()
    uploads.settle()  # said once
    assert direct.list("") == (["cache/results/other"] if late else [])

    uploads.send("outputs/lost", b"lost", "image/png", sha256(b"lost"))
    uploads.record("cache/results/a", record)
    uploads.settle()
    assert {"cache/results/a", "outputs/lost"} <= set(direct.list(""))


def test_a_server_that_is_gone_shows_when_the_stage_settles(moto: S3Server, tmp_path: Path):
    bucket = moto.opened("gone", url=f"http://127.0.0.1:{free_ports(1)[0]}")
    store = Store(bucket, tmp_path / "scratch", 0, remote=True)
    ref = store.put(b"picture", "image/png")
    store.write_record("cache/results/a", ref.uri.encode())
    with pytest.raises(StoreUnavailableError):
        store.settle()


def test_the_same_bytes_twice_are_sent_once(behind: Store, held: Line, moto: S3Server, tmp_path):
    source = tmp_path / "x.mp4"
    source.write_bytes(b"video")
    first, second = (behind.put(source, "video/mp4") for _ in range(2))
    assert first == second
    held.released.set()
    behind.settle()
    written = moto.opened(tmp_path.name)
    before = head(moto, tmp_path.name, key(first))
    time.sleep(1.1)
    behind.put(source, "video/mp4")
    behind.settle()
    assert head(moto, tmp_path.name, key(first)) == before, "not written again"
    assert written.list("") == [key(first)]
    assert not any(p.name.startswith("work-") for p in (tmp_path / "scratch").iterdir())


def head(server: S3Server, prefix: str, name: str):
    found = server.client().head_object(Bucket=server.bucket, Key=f"{prefix}/{name}")
    return found["LastModified"]


@pytest.mark.parametrize("bound", [{"pending_bytes": 2500}, {"pending_artifacts": 2}])
def test_no_more_than_the_bound_is_on_its_way(
    moto: S3Server, held: Line, tmp_path: Path, bound: dict[str, int]
):
    uploads = Uploads(moto.opened(tmp_path.name, url=held.url), **bound)
    sent: list[int] = []

    def send() -> None:
        for number in range(4):
            data = bytes([number]) * 1000
            uploads.send(f"outputs/{number}", data, "image/png", sha256(data))
            sent.append(number)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: len(sent) == 2)
    time.sleep(0.2)
    assert sent == [0, 1]
    held.released.set()
    sender.join(60)
    uploads.settle()
    assert moto.opened(tmp_path.name).list("") == [f"outputs/{number}" for number in range(4)]


def test_one_artifact_above_the_bound_is_still_sent(moto: S3Server, tmp_path: Path):
    uploads = Uploads(moto.opened(tmp_path.name), pending_bytes=10)
    uploads.send("outputs/x", bytes(1000), "image/png", sha256(bytes(1000)))
    uploads.settle()
    assert moto.opened(tmp_path.name).size("outputs/x") == 1000


@pytest.mark.parametrize(("released", "seconds"), [(True, 30), (False, 1)])
def test_a_process_that_ends_waits_for_its_uploads_but_not_for_ever(
    moto: S3Server, held: Line, tmp_path: Path, released: bool, seconds: int
):
    words = (held.url, moto.bucket, tmp_path.name, ACCESS_KEY, SECRET_KEY, tmp_path / "scratch")
    ending = subprocess.Popen(
        [sys.executable, "-c", ENDING, *map(str, words), str(seconds)], stderr=subprocess.PIPE
    )
    assert held.reached.wait(60)
    if released:
        held.released.set()
    _, told = ending.communicate(timeout=60)
    assert ending.returncode == 0, told
    keys = moto.opened(tmp_path.name).list("")
    if released:
        assert [name.split("/")[0] for name in keys] == ["cache", "outputs"]
    else:
        assert keys == []
        assert b"2 artifacts and records were not stored within 1" in told


@pytest.fixture
def configured(moto: S3Server, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings name a prefix of moto's bucket; the volume root of this machine."""
    from safelight.settings import settings

    monkeypatch.setenv("SAFELIGHT_STORE", f"s3://{moto.bucket}/{volume.parent.name}")
    monkeypatch.setenv("SAFELIGHT_S3_ENDPOINT_URL", moto.url)
    monkeypatch.setenv("SAFELIGHT_S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("SAFELIGHT_S3_SECRET_KEY", SECRET_KEY)
    settings.cache_clear()
    current_store.cache_clear()
    return volume


def test_results_of_stages_are_read_back_only_while_their_files_are_there(configured: Path):
    """The whole way: settings, store, the block that Prefect keeps results with."""
    store, block = current_store(), SafelightResults()
    ref = store.put(b"picture", "image/png")
    given = {"__class__": REFERENCE, "data": ref.model_dump(mode="json")}
    record = json.dumps({"metadata": {}, "result": json.dumps(given)}).encode()
    block.write_path("stage-1", record)
    store.settle()
    current_store.cache_clear()  # another machine
    assert json.loads(json.loads(block.read_path("stage-1"))["result"]) == given
    current_store().backend.delete(key(ref))
    with pytest.raises(ValueError, match="gone or cut short"):
        block.read_path("stage-1")
    with pytest.raises(ValueError, match="nothing is stored"):
        block.read_path("stage-2")
    with pytest.raises(MissingFileError):
        current_store().read_record("cache/results/stage-2")


def test_an_upload_is_found_from_another_machine(configured: Path, tmp_path: Path, monkeypatch):
    from safelight.settings import settings

    (tmp_path / "x.png").write_bytes((EXAMPLES / "astronaut.png").read_bytes())
    uri = upload_local(tmp_path / "x.png")
    assert find_stored(uri, ("image",)).width == 512, "also while it is on its way"
    current_store().settle()
    monkeypatch.setenv("VOLUME_ROOT", str(tmp_path / "another"))
    settings.cache_clear()
    current_store.cache_clear()
    found = find_stored(uri, ("image",))
    assert (found.uri, found.width, found.bytes) == (uri, 512, (tmp_path / "x.png").stat().st_size)
    assert current_store().backend.list("") == [uri.removeprefix("store:")]
