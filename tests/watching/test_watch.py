"""Folders that work by themselves: each content once, nothing lost, nothing half read."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from safelight.errors import ForbiddenPathError, InvalidFieldValueError
from safelight.settings import reload_settings
from safelight.store.places import BucketPlace
from safelight.watching.bucket import BucketSource
from safelight.watching.opening import allowed_to_change, open_watched
from safelight.watching.source import FolderSource, Seen
from safelight.watching.watch import Look, Watch
from tests.watching.looking import over_folder, turned, watch_over

CHECKOUT = Path(__file__).resolve().parents[2]


def picture(number: int, side: int = 24) -> bytes:
    """A picture of noise, each number another one."""
    made = io.BytesIO()
    drawn = random.Random(number)
    Image.frombytes("RGB", (side, side + 8), drawn.randbytes(3 * side * (side + 8))).save(
        made, "PNG"
    )
    return made.getvalue()


def until(done: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def looks(watch: Watch, *, until_quiet: float = 60.0) -> list[Look]:
    """Look until nothing is left to do."""
    found: list[Look] = []
    end = time.monotonic() + until_quiet
    while True:
        found.append(watch.look())
        if not found[-1].waiting:
            return found
        assert time.monotonic() < end, found[-1]
        time.sleep(0.05)


def told(watch: Watch) -> list[tuple[str, str]]:
    return [(each.name, each.state) for look in looks(watch) for each in look.told]


@pytest.fixture(name="folder")
def watched_folder(tmp_path: Path, volume: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_content_is_done_once_whatever_it_is_called(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    (folder / "sub" / "käfer.png").write_bytes(picture(1))
    (folder / "b.png").write_bytes(picture(2))
    (folder / "copy of b.png").write_bytes(picture(2))
    watch = over_folder(folder, out)
    assert told(watch) == [("b.png", "done"), ("sub/käfer.png", "done")]
    assert files(out) == ["b.png", "sub/käfer.png"]
    assert (out / "b.png").read_bytes() == turned(picture(2))
    (folder / "b.png").rename(folder / "sub" / "renamed.png")
    shutil.copy(folder / "sub" / "käfer.png", folder / "again.png")
    assert told(watch) == []
    assert told(over_folder(folder, out)) == []  # another process, later
    (folder / "copy of b.png").write_bytes(picture(3))  # of another content now
    assert told(watch) == [("copy of b.png", "done")]
    (folder / "b.png").write_bytes(picture(4))
    assert told(over_folder(folder, out)) == [("b.png", "done")]
    assert (out / "b.png").read_bytes() == turned(picture(2))
    assert (out / "b-2.png").read_bytes() == turned(picture(4))
    assert len((tmp_path / "made.log").read_text().split()) == 4


def test_what_cannot_be_read_is_refused_with_a_text(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    (folder / "sub" / "broken.png").write_bytes(picture(1)[:100])
    (folder / "notes.pdf").write_bytes(b"%PDF-1.7 no picture")
    (folder / "good.png").write_bytes(picture(2))
    for name in (".hidden.png", "half.png.part", "beside.txt"):
        (folder / name).write_bytes(b"x")
    states = dict(told(over_folder(folder, out)))
    assert states == {"good.png": "done", "notes.pdf": "refused", "sub/broken.png": "refused"}
    text = (out / "refused" / "sub" / "broken.png.txt").read_text()
    assert text.startswith("sub/broken.png\nINVALID_FIELD_VALUE: ")
    assert "Fix: " in text
    assert (out / "refused" / "notes.pdf").read_bytes() == b"%PDF-1.7 no picture"
    assert told(over_folder(folder, out)) == []
    (folder / "sub" / "broken.png").write_bytes(picture(1))  # saved again, whole
    assert told(over_folder(folder, out)) == [("sub/broken.png", "done")]


@pytest.mark.parametrize("original", ["move", "delete"])
def test_originals_are_moved_or_deleted_once_their_results_are_there(
    folder: Path, tmp_path: Path, original: str
):
    out = tmp_path / "out"
    contents = {"a.png": picture(1), "sub/b.png": picture(2), "sub/bad.png": b"bad"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    watch = over_folder(folder, out, original)  # pyright: ignore
    assert len(told(watch)) == 3
    assert files(folder) == []
    moved = ["originals/a.png", "originals/sub/b.png"] if original == "move" else []
    refused = ["refused/sub/bad.png", "refused/sub/bad.png.txt"]
    assert files(out) == sorted(["a.png", "sub/b.png", *moved, *refused])
    for name in ("a.png", "sub/b.png"):
        if original == "move":
            assert (out / "originals" / name).read_bytes() == contents[name]
    (folder / "late copy.png").write_bytes(picture(1))
    assert told(watch) == []
    assert files(folder) == []


def test_a_file_that_grows_is_not_read(folder: Path, tmp_path: Path):
    watch = over_folder(folder, tmp_path / "out")
    data = picture(1, side=200)
    with (folder / "slow.png").open("wb") as file:
        for start in range(0, len(data), len(data) // 4):
            file.write(data[start : start + len(data) // 4])
            file.flush()
            for _ in range(12):  # longer than a file settles: it is still open
                assert watch.look().told == []
                time.sleep(0.05)
    assert told(watch) == [("slow.png", "done")]
    assert (tmp_path / "out" / "slow.png").read_bytes() == turned(data)


def test_another_file_of_the_name_is_not_deleted(folder: Path):
    source = FolderSource(folder)
    path = folder / "a.png"
    path.write_bytes(picture(1))
    (seen,) = source.scan()
    path.write_bytes(picture(2, side=30))
    source.remove(seen)
    assert path.read_bytes() == picture(2, side=30)
    (now,) = source.scan()
    source.remove(now)
    assert files(folder) == []
    source.remove(Seen("none.png", 1, 1))


def test_links_are_not_followed(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.png").write_bytes(picture(1))
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (folder / "links").symlink_to(tmp_path / "elsewhere")
    assert FolderSource(folder).scan() == []


def test_a_target_within_the_folder_is_not_watched(folder: Path):
    (folder / "a.png").write_bytes(picture(1))
    out = folder / "out"
    source, place = open_watched(str(folder), str(out), private=False)
    watch = watch_over(source, place, folder.with_name("made.log"))
    assert told(watch) == [("a.png", "done")]
    assert told(watch) == []
    assert files(out) == ["a.png"]
    for target in (folder, folder.parent):
        with pytest.raises(InvalidFieldValueError, match="is watched"):
            open_watched(str(folder), str(target), private=False)
    with pytest.raises(ForbiddenPathError, match="no folder"):
        open_watched(str(folder / "none"), str(folder / "out"), private=False)


def test_runs_write_only_where_an_operator_lets_them(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAFELIGHT_WATCH_ROOTS", f"{tmp_path}/share, s3://photos/in")
    reload_settings()
    assert allowed_to_change("exports/a") == str(volume / "exports" / "a")
    assert allowed_to_change(f"{tmp_path}/share/x") == f"{tmp_path}/share/x"
    assert allowed_to_change("s3://photos/in/2026") == "s3://photos/in/2026"
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "out").symlink_to("/etc")
    for location in (
        "/etc",
        "exports/../cache",
        "outputs",
        f"{tmp_path}/shared",
        f"{tmp_path}/share/out",
        "s3://photos/inside",
        "s3://other",
    ):
        with pytest.raises(ForbiddenPathError, match="SAFELIGHT_WATCH_ROOTS"):
            allowed_to_change(location)


@pytest.mark.usefixtures("volume")
def test_a_prefix_of_a_bucket_is_watched(moto, tmp_path: Path):
    prefix = f"watch/{uuid4()}"
    client = moto.client()

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket=moto.bucket, Key=f"{prefix}/in/{name}", Body=data)

    put("käfer 1.png", picture(1))
    put("sub/b.png", picture(2))
    put("sub/copy.png", picture(2))
    put("bad.png", b"bad")
    put("half.png.part", b"x")
    place = BucketPlace(moto.opened(f"{prefix}/out"), "", 0)
    source = BucketSource(moto.opened(f"{prefix}/in"))
    log = tmp_path / "made.log"
    watch = watch_over(source, place, log, "move")
    assert dict(told(watch)) == {"käfer 1.png": "done", "sub/b.png": "done", "bad.png": "refused"}
    listed = client.list_objects_v2(Bucket=moto.bucket, Prefix=prefix)["Contents"]
    assert sorted(each["Key"].removeprefix(f"{prefix}/") for each in listed) == [
        "in/half.png.part",
        "out/käfer 1.png",
        "out/originals/käfer 1.png",
        "out/originals/sub/b.png",
        "out/originals/sub/copy.png",
        "out/refused/bad.png",
        "out/refused/bad.png.txt",
        "out/sub/b.png",
    ]
    assert told(watch_over(source, place, log, "move")) == []


class _Dropping(threading.Thread):
    """People and programs that save into a folder: at once, slowly, under other names, twice."""

    def __init__(self, folder: Path, count: int, seconds: float) -> None:
        super().__init__()
        self._folder = folder
        self._count = count
        self._seconds = seconds
        self._drawn = random.Random(7)

    def run(self) -> None:
        began = time.monotonic()
        slow: list[threading.Thread] = []
        for number in range(self._count):
            wait = began + self._seconds * number / self._count - time.monotonic()
            time.sleep(max(0.0, wait))
            path = self._folder / f"sub{number % 5}" / f"picture {number}.png"
            data, way = picture(number), self._drawn.randrange(5)
            if way == 0:
                slow.append(threading.Thread(target=self._slowly, args=(path, data)))
                slow[-1].start()
            elif way == 1:
                half = path.with_name(f"{path.name}.part")
                half.write_bytes(data)
                half.rename(path)
            else:
                path.write_bytes(data)
            if way == 2:
                (self._folder / f"copy {number}.png").write_bytes(data)
            if way == 3:
                path.rename(path.with_name(f"renamed {number}.png"))
        for each in slow:
            each.join()

    def _slowly(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            for start in range(0, len(data), 500):
                file.write(data[start : start + 500])
                file.flush()
                time.sleep(0.25)


def _dropped_and_killed(
    tmp_path: Path, volume: Path, count: int, seconds: float, contents: tuple[int, int]
) -> tuple[int, int]:
    """Kill the watch a moment after it did so many contents more; kills, and runs that it made."""
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(5):
        (folder / f"sub{number}").mkdir(parents=True)
    dropping = _Dropping(folder, count, seconds)
    dropping.start()
    ledger, drawn, kills = volume / "outputs" / "watches" / "test", random.Random(3), 0

    def done() -> int:
        return len([path for path in ledger.glob("*.json") if len(path.stem) == 64])

    words = [sys.executable, "-m", "tests.watching.looking", str(folder), str(out)]
    end = time.monotonic() + 240 + 10 * seconds
    while dropping.is_alive() or done() < count:
        watching = subprocess.Popen(
            words, cwd=CHECKOUT, env={**os.environ, "VOLUME_ROOT": str(volume)}, stdout=-1
        )
        assert watching.stdout is not None
        watching.stdout.readline()
        wanted = min(count, done() + drawn.randint(*contents))
        while done() < wanted and watching.poll() is None:
            assert time.monotonic() < end, f"{done()} of {count} after {kills} kills"
            time.sleep(0.02)
        time.sleep(drawn.uniform(0, 0.05))
        watching.send_signal(signal.SIGKILL)
        watching.wait()
        watching.stdout.close()
        kills += 1
    dropping.join()
    last = over_folder(folder, out)
    assert told(last) == []
    made = [path for path in out.rglob("*") if path.is_file() and ".unfinished" not in path.parts]
    assert not [path for path in made if "refused" in path.parts]
    expected = {turned(picture(number)) for number in range(count)}
    assert len(made) == count
    assert {path.read_bytes() for path in made} == expected
    runs = (tmp_path / "made.log").read_text().split()
    assert len(set(runs)) == count
    return kills, len(runs)


@pytest.mark.slow
def test_contents_are_done_once_though_the_watch_is_killed_again_and_again(
    tmp_path: Path, volume: Path
):
    kills, _ = _dropped_and_killed(tmp_path, volume, 30, 3, (0, 5))
    assert kills >= 3


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_1000_files_in_a_minute_with_kills(tmp_path: Path, volume: Path):
    began = time.monotonic()
    kills, runs = _dropped_and_killed(tmp_path, volume, 1000, 60, (150, 300))
    seconds = time.monotonic() - began
    sys.stderr.write(f"1000 contents, {kills} kills, {runs} runs, {seconds:.0f} s\n")
