"""What goes wrong between us and the bytes: lines, servers, keys, processes and disks that fail."""

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
from pydantic import SecretStr

from safelight.errors import (
    AuthInvalidError,
    AuthMissingError,
    ChecksumMismatchError,
    DiskFullError,
    InvalidFieldValueError,
    MissingFileError,
    PipelineError,
    StoreUnavailableError,
)
from safelight.process_identity import here, own_start
from safelight.store.disk import half_made, sweep_abandoned, work_prefix
from safelight.store.local import UNFINISHED, LocalFolder
from safelight.store.owners import sweep_claims
from safelight.store.s3 import ATTEMPTS, Bucket
from safelight.store.scratch import trim
from safelight.store.store import Store, current_store
from tests.chaos.machines import CONTAINER, can_contain
from tests.store.conftest import bucket_place, folder_place
from tests.store.servers import ACCESS_KEY, SECRET_KEY, Line, S3Server, free_ports, until

LARGE = 17 * 2**20
WRITER = """
import sys
from pathlib import Path
from safelight.store.local import LocalFolder
LocalFolder(Path(sys.argv[1])).write("outputs/x", Path(sys.argv[2]), "video/mp4")
"""
UPLOADER = """
import sys
from pydantic import SecretStr
from safelight.store.s3 import Bucket
url, bucket, prefix, access, secret = sys.argv[1:]
store = Bucket(bucket, prefix, endpoint_url=url, region="us-east-1", access_key=SecretStr(access),
               secret_key=SecretStr(secret), path_style=True)
store.write("outputs/x", bytes(17 * 2**20), "video/mp4")
"""
WORKER = """
from safelight.store.store import current_store
with current_store().workspace() as folder:
    with open(folder + "/half.mp4", "wb") as file:
        file.write(b"half")
    print(folder, flush=True)
    input()
"""


# lines that break


@pytest.mark.parametrize("after", [0, 2_000, 3 * 2**20])
def test_an_upload_that_is_cut_off_is_tried_again(moto: S3Server, after: int):
    data = os.urandom(LARGE)
    with Line(moto.port, cut_connections=2, cut_after=after) as line:
        moto.opened(f"cut/{after}", url=line.url).write("x", data, "video/mp4")
        assert line.cut == 2
    assert moto.opened(f"cut/{after}").read("x") == data


@pytest.mark.parametrize("after", [0, 100_000, 3 * 2**20])
def test_a_download_that_is_cut_off_is_taken_up_again(moto: S3Server, tmp_path: Path, after: int):
    data = os.urandom(5 * 2**20)
    moto.opened("down").write("x", data, "video/mp4")
    with Line(moto.port, cut_connections=2, cut_after=after) as line:
        fetched = moto.opened("down", url=line.url).fetch("x", tmp_path / "x")
        assert line.cut == 2
    assert fetched.read_bytes() == data


def test_a_download_that_always_breaks_off_leaves_nothing(moto: S3Server, tmp_path: Path):
    moto.opened("never").write("x", os.urandom(2**20), "video/mp4")
    with Line(moto.port, cut_connections=1000, cut_after=100_000) as line:
        with pytest.raises(StoreUnavailableError) as caught:
            moto.opened("never", url=line.url).fetch("x", tmp_path / "scratch" / "x")
        assert line.cut >= ATTEMPTS
    assert caught.value.transient
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_upload_that_always_breaks_off_shows_nothing(moto: S3Server):
    with (
        Line(moto.port, cut_connections=1000, cut_after=100_000) as line,
        pytest.raises(StoreUnavailableError),
    ):
        moto.opened("nothing", url=line.url).write("x", os.urandom(2**20), "video/mp4")
    assert moto.opened("nothing").list("") == []


def test_a_file_replaced_during_a_download_is_not_patched_together(moto: S3Server, tmp_path: Path):
    """Taking up a download again must not lay the end of one object to the start of another."""
    first, second = os.urandom(2**20), os.urandom(2**20)
    store = moto.opened("swap")
    store.write("x", first, "video/mp4")
    with Line(moto.port, cut_connections=1, cut_after=300_000) as line:
        through = moto.opened("swap", url=line.url)
        swap = Swapping(through, lambda: store.write("x", second, "video/mp4"))
        with pytest.raises(StoreUnavailableError, match="412"):
            swap.fetch("x", tmp_path / "x")
    assert moto.opened("swap").read("x") == second


class Swapping:
    """Does something between the first and the second request of a bucket's client."""

    def __init__(self, bucket: Bucket, between) -> None:
        self._bucket, self._between, self._requests = bucket, between, 0
        client = bucket.client
        client.meta.events.register("before-send.s3.GetObject", self._before)

    def _before(self, **_: object) -> None:
        self._requests += 1
        if self._requests == 2:
            self._between()

    def fetch(self, key: str, target: Path) -> Path:
        return self._bucket.fetch(key, target)


# servers that are gone, slow or elsewhere


def gone() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def test_a_server_that_is_gone_is_worth_another_try(moto: S3Server):
    bucket = moto.opened("gone", url=gone())
    with pytest.raises(StoreUnavailableError, match="did not answer") as caught:
        bucket.size("x")
    assert caught.value.transient
    assert caught.value.code == "STORE_UNAVAILABLE"
    assert "SAFELIGHT_S3_ENDPOINT_URL" in caught.value.remedy


def test_a_server_that_does_not_answer_is_given_up(moto: S3Server, monkeypatch):
    monkeypatch.setattr("safelight.store.s3.TIMEOUT_SECONDS", 0.2)
    with (
        Line(moto.port, held_after=0) as line,
        pytest.raises(StoreUnavailableError, match="ReadTimeout"),
    ):
        moto.opened("slow", url=line.url).read("x")


def test_a_bucket_that_is_not_there_is_named(moto: S3Server):
    missing = S3Server(moto.url, "nowhere").opened("")
    for call in (lambda: missing.read("x"), lambda: missing.write("x", b"x", "text/plain")):
        with pytest.raises(MissingFileError, match="no bucket nowhere"):
            call()


@pytest.mark.parametrize(
    ("endpoint", "bucket"), [("no address", "bucket"), ("http://127.0.0.1:1", "no/bucket name")]
)
def test_what_is_no_address_is_refused(endpoint: str, bucket: str):
    with pytest.raises(InvalidFieldValueError, match="no bucket that can be asked"):
        opened_with(endpoint, bucket=bucket).size("x")


# keys


def opened_with(
    endpoint: str | None,
    access_key: str | None = ACCESS_KEY,
    secret_key: str | None = SECRET_KEY,
    bucket: str = "safelight",
) -> Bucket:
    return Bucket(
        bucket,
        "",
        endpoint_url=endpoint,
        region="us-east-1",
        access_key=SecretStr(access_key) if access_key else None,
        secret_key=SecretStr(secret_key) if secret_key else None,
        path_style=True,
    )


@pytest.fixture
def guarded(moto: S3Server) -> Iterator[tuple[str, str]]:
    """moto checks signatures while this lasts; the keys it takes."""
    import boto3

    iam = boto3.client(
        "iam",
        endpoint_url=moto.url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    iam.create_user(UserName="painter")
    iam.put_user_policy(
        UserName="painter",
        PolicyName="all",
        PolicyDocument='{"Version": "2012-10-17", "Statement": '
        '[{"Effect": "Allow", "Action": "*", "Resource": "*"}]}',
    )
    keys = iam.create_access_key(UserName="painter")["AccessKey"]
    _check_signatures(moto, "0")
    yield keys["AccessKeyId"], keys["SecretAccessKey"]
    _check_signatures(moto, "inf")
    iam.delete_access_key(UserName="painter", AccessKeyId=keys["AccessKeyId"])
    iam.delete_user_policy(UserName="painter", PolicyName="all")
    iam.delete_user(UserName="painter")


def _check_signatures(server: S3Server, after: str) -> None:
    with urllib3.PoolManager() as http:
        assert http.request("POST", f"{server.url}/moto-api/reset-auth", body=after).status == 200


def assert_refused(call, *secrets: str) -> None:
    with pytest.raises(AuthInvalidError) as caught:
        call()
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(secret in told for secret in secrets)
    assert not caught.value.transient
    assert "SAFELIGHT_S3_SECRET_KEY" in caught.value.remedy


def test_a_wrong_secret_is_said_and_not_shown(moto: S3Server, guarded: tuple[str, str]):
    access, secret = guarded
    right = opened_with(moto.url, access, secret)
    right.write("guarded", b"x", "text/plain")
    assert right.read("guarded") == b"x"
    for keys in ((access, "wrong-" + secret), ("AKIAUNKNOWN", secret)):
        wrong = opened_with(moto.url, *keys)
        for call in (
            lambda: wrong.read("guarded"),  # noqa: B023
            lambda: wrong.size("guarded"),  # noqa: B023
            lambda: wrong.list(""),  # noqa: B023
            lambda: wrong.write("guarded", b"y", "text/plain"),  # noqa: B023
            lambda: wrong.write("guarded", bytes(LARGE), "text/plain"),  # noqa: B023
            lambda: wrong.delete("guarded"),  # noqa: B023
        ):
            assert_refused(call, secret, keys[1])
    assert right.read("guarded") == b"x"


@pytest.mark.slow
def test_ceph_refuses_a_wrong_secret_too(radosgw: S3Server):
    wrong = radosgw.opened("", secret_key="wrong-secret")
    for call in (
        lambda: wrong.read("x"),
        lambda: wrong.size("x"),
        lambda: wrong.list(""),
        lambda: wrong.write("x", b"y", "text/plain"),
        lambda: wrong.delete("x"),
    ):
        assert_refused(call, "wrong-secret")


@pytest.mark.parametrize("keys", [(ACCESS_KEY, None), (None, SECRET_KEY), (None, None)])
def test_missing_keys_are_asked_for(keys, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AuthMissingError, match="no keys"):
        opened_with(gone(), *keys).size("x")


def test_a_password_in_the_address_is_not_shown():
    with pytest.raises(PipelineError) as caught:
        opened_with(gone().replace("//", "//user:hidden-word@")).size("x")
    assert "hidden-word" not in str(caught.value)


# processes that are killed


def python(*words: object, within: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*within, sys.executable, "-c", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    with suppress(BrokenPipeError):
        process.communicate(timeout=60)


def test_a_writer_killed_half_way_leaves_nothing_that_is_seen(tmp_path: Path):
    """It reads from a pipe that gives half of the bytes and then nothing."""
    root, pipe = tmp_path / "store", tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = python(WRITER, root, pipe)
    with pipe.open("wb", buffering=0) as feed:
        feed.write(bytes(3 * 2**20))
        until(lambda: [p.stat().st_size > 0 for p in (root / UNFINISHED).glob("*")] == [True], 30)
        assert not LocalFolder(root).exists("outputs/x")
        assert len(list((root / UNFINISHED).iterdir())) == 1, "that of a living writer stays"
        kill(writer)
    assert len(list((root / UNFINISHED).iterdir())) == 1
    store = LocalFolder(root)
    assert list((root / UNFINISHED).iterdir()) == []
    assert store.list("") == []
    assert store.size("outputs/x") is None
    store.write("outputs/x", b"whole", "video/mp4")
    assert store.read("outputs/x") == b"whole"


def test_an_uploader_killed_half_way_leaves_nothing_that_is_seen(moto: S3Server):
    with Line(moto.port, held_after=4 * 2**20) as line:
        keys = (moto.bucket, "killed", ACCESS_KEY, SECRET_KEY)
        uploader = python(UPLOADER, line.url, *keys)
        try:
            assert line.reached.wait(60)
        finally:
            kill(uploader)
    store = moto.opened("killed")
    assert store.list("") == []
    assert not store.exists("outputs/x")


def test_the_workspace_of_a_killed_process_is_swept_at_the_next_start(volume: Path):
    workers = [python(WORKER, VOLUME_ROOT=str(volume)) for _ in range(2)]
    dead, living = (Path(worker.stdout.readline().strip()) for worker in workers)
    try:
        kill(workers[0])
        assert (dead / "half.mp4").is_file()
        current_store()
        assert not dead.exists()
        assert (living / "half.mp4").is_file()
    finally:
        workers[1].communicate("\n", timeout=60)
    assert not living.exists()


def test_downloads_used_longest_ago_go_first_and_fresh_ones_stay(tmp_path: Path):
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(bytes(100))
        os.utime(path, (number + 1, 9))
    (tmp_path / "fresh.png").write_bytes(bytes(500))
    trim(tmp_path, kept_bytes=750)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.png", "3.png", "fresh.png"]
    trim(tmp_path, kept_bytes=0)
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.png"]


@pytest.mark.skipif(not can_contain(), reason="process tables of one's own need root")
def test_what_a_killed_container_left_is_swept_from_outside_and_by_the_next(volume: Path):
    dead, living = (python(WORKER, within=CONTAINER, VOLUME_ROOT=str(volume)) for _ in range(2))
    workspaces = [Path(worker.stdout.readline().strip()) for worker in (dead, living)]
    assert all((workspace / "half.mp4").is_file() for workspace in workspaces)
    kill(dead)  # and with it everything in its container
    try:
        third = python(WORKER, "", within=CONTAINER, VOLUME_ROOT=str(volume))
        third.communicate("\n", timeout=60)
        assert [workspace.is_dir() for workspace in workspaces] == [False, True]
        kill(living)
        current_store()
        assert not any(workspace.is_dir() for workspace in workspaces)
    finally:
        kill(living)


def test_locks_of_the_living_and_the_fresh_stay_and_others_go(volume: Path):
    owners = volume / "cache" / "owners"
    with current_store().workspace():
        (mine,) = owners.iterdir()
        fresh = owners / f"{mine.name}1"
        fresh.touch()
        old = owners / f"{mine.name}2"
        for path in (mine, old):
            path.touch()
            os.utime(path, (0, 0))
        sweep_claims()
        assert sorted(owners.iterdir()) == sorted([mine, fresh])


def test_only_half_made_files_are_swept(tmp_path: Path):
    plain = tmp_path / "work-99999999-notes.txt"
    plain.write_text("mine")
    other = tmp_path / "work-99999999-another.machine-abcdef"
    other.write_text("theirs")
    with half_made(tmp_path) as mine:
        mine.write_text("still needed")
        sweep_abandoned(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([plain, other, mine])
    os.utime(other, (0, 0))
    sweep_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [plain]


# disks that are full or damaged


def test_a_half_made_file_belongs_to_the_process_that_its_name_proves(tmp_path: Path):
    place, pid, start = here(), os.getpid(), own_start()
    elsewhere = replace(place, namespace="1").tag
    kept = [f"work-{pid}-{place.tag}.{start}-a", f"work-99999999-{elsewhere}.{start}-b"]
    swept = [f"work-{pid}-{place.tag}.{start - 1}-c", f"work-99999999-{place.tag}.{start}-d"]
    for name in (*kept, *swept):
        (tmp_path / name).write_text("half")
    sweep_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_left_as_it_was(small_disk: Path, tmp_path: Path):
    store = LocalFolder(small_disk / "store")
    store.write("outputs/x", b"before", "video/mp4")
    (tmp_path / "source").write_bytes(bytes(2 * 2**20))
    for source in (bytes(2 * 2**20), tmp_path / "source"):
        with pytest.raises(DiskFullError, match="no room left") as caught:
            store.write("outputs/x", source, "video/mp4")
        assert "VOLUME_ROOT" in caught.value.remedy
    assert list((small_disk / "store" / UNFINISHED).iterdir()) == []
    assert store.read("outputs/x") == b"before"
    store.write("outputs/y", bytes(2**19), "video/mp4")


def test_a_full_scratch_disk_is_said_and_left_as_it_was(
    moto: S3Server, small_disk: Path, tmp_path: Path
):
    data = os.urandom(2 * 2**20)
    place = bucket_place(moto)
    large = tmp_path / "large.mp4"
    large.write_bytes(data)
    ref = put_elsewhere(place.store(tmp_path / "scratch"), large)
    store = place.store(small_disk / "scratch")
    with pytest.raises(DiskFullError):
        store.fetch(ref)
    with pytest.raises(DiskFullError):
        store.put(large, "video/mp4")
    store.settle()
    assert list((small_disk / "scratch").iterdir()) == []
    assert store.read(ref) == data


def put_elsewhere(store: Store, path: Path):
    ref = store.put(path, "video/mp4")
    store.settle()
    return ref


def test_a_file_cut_short_after_it_was_checked_is_noticed(tmp_path: Path):
    """A check is remembered only as long as the file stays as it was."""
    store = folder_place(tmp_path / "store").store(tmp_path / "scratch")
    ref = store.put(os.urandom(1000), "video/mp4")
    path = store.fetch(ref)
    assert store.fetch(ref) == path
    os.truncate(path, 999)
    for read in (store.fetch, store.read):
        with pytest.raises(ChecksumMismatchError, match=ref.sha256) as caught:
            read(ref)
        assert ref.uri.removeprefix("store:") in caught.value.remedy


def test_a_damaged_download_is_loaded_again(moto: S3Server, tmp_path: Path):
    place, data = bucket_place(moto), os.urandom(1000)
    (tmp_path / "x.mp4").write_bytes(data)
    ref = put_elsewhere(place.store(tmp_path / "first"), tmp_path / "x.mp4")
    store = place.store(tmp_path / "second")
    path = store.fetch(ref)
    path.write_bytes(bytes(1000))
    assert store.fetch(ref).read_bytes() == data


def mounted_at(folder: Path, *words: str) -> None:
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount")
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")


@pytest.mark.parametrize("below", ["uploads", "outputs/manifests"])
@pytest.mark.parametrize("kind", ["disk", "bind"])
def test_a_folder_of_the_store_may_be_a_disk_of_its_own(tmp_path: Path, below: str, kind: str):
    """A folder of the same disk that is mounted there has its device number, and no renames."""
    root, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ("-t", "tmpfs", "tmpfs") if kind == "disk" else ("--bind", str(elsewhere))
    mounted_at(root / below, *words)
    try:
        store = LocalFolder(root)
        abandoned = root / below / UNFINISHED / half_made_by_a_dead_process()
        abandoned.parent.mkdir()
        abandoned.write_bytes(b"half")
        for key in (f"{below}/ab/x.png", f"{below}/y.json", "cache/z"):
            store.write(key, key.encode(), "image/png")
            assert store.read(key) == key.encode()
            store.write(key, b"again", "image/png")
            assert store.read(key) == b"again"
        assert store.list("") == sorted([f"{below}/ab/x.png", f"{below}/y.json", "cache/z"])
        assert not list(root.rglob(f"{UNFINISHED}/*")), "also what a dead process left"
    finally:
        subprocess.run(["umount", str(root / below)], check=True)


def half_made_by_a_dead_process() -> str:
    ended = python("pass")
    ended.communicate()
    name = work_prefix()
    return f"{name.replace(str(os.getpid()), str(ended.pid), 1)}0123456789abcdef"


def test_a_full_disk_of_the_root_keeps_nothing_from_the_disk_of_outputs(tmp_path: Path):
    root = tmp_path / "store"
    mounted_at(root, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    try:
        mounted_at(root / "outputs", "-t", "tmpfs", "tmpfs")
        try:
            (root / "filled").write_bytes(bytes(2**20 - 2**16))
            LocalFolder(root).write("outputs/ab/x", bytes(2**18), "video/mp4")
        finally:
            subprocess.run(["umount", str(root / "outputs")], check=True)
    finally:
        subprocess.run(["umount", str(root)], check=True)
