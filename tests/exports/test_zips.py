"""A batch as one zip: whole, in parts, and the same bytes whoever makes it."""

import fcntl
import io
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from safelight.errors import ChecksumMismatchError, ForbiddenPathError, MissingFileError
from safelight.exports.facts import Result
from safelight.exports.placing import named
from safelight.exports.template import parse
from safelight.exports.zips import Zip, check_zip, plan_zip, write_zip
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import Failure
from safelight.store.store import current_store
from tests.exports.hostile import prompts
from tests.exports.making import MOMENT, result

pytestmark = pytest.mark.usefixtures("volume")
NAMES = parse("{name}", "names")
FAILED = BatchOutcome(
    number=9,
    where="line 9",
    state="failed",
    error=Failure(code="OUT_OF_MEMORY", problem="no memory", remedy="smaller"),
)


def report_of(*outcomes: BatchOutcome, key: str = "spring") -> BatchReport:
    return BatchReport(
        flow_run_id="run", flow="generate", batch=key, ran="here", requests=9, outcomes=outcomes
    )


def some(count: int = 12) -> list[tuple[PurePosixPath, Result]]:
    drawn = random.Random(1)
    results = [
        result(drawn.randbytes(drawn.choice([0, 1, 5000])), name=f"pi\u00e8ce {n % 5}", number=n)
        for n in range(count)
    ]
    return named(results, NAMES)


def whole(planned: Zip) -> bytes:
    return b"".join(planned.chunks())


def test_all_results_are_in_it_under_their_names():
    files = some()
    planned = plan_zip(files, report_of(FAILED))
    data = whole(planned)
    assert len(data) == planned.size
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        text = archive.read("not-made.txt").decode()
        assert archive.namelist() == [*(str(path) for path, _ in files), "not-made.txt"]
        for path, each in files:
            info = archive.getinfo(str(path))
            assert archive.read(info) == current_store().read(each.ref)
            assert info.date_time == MOMENT.timetuple()[:6]
            assert info.compress_type == zipfile.ZIP_STORED
            assert not info.flag_bits & 8  # readers of streams find the length before the bytes
    assert text.splitlines() == [
        "line 9: failed, OUT_OF_MEMORY: no memory",
        "8 requests did not run",
    ]


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_another_program_unpacks_hostile_names(tmp_path: Path):
    results = [result(f"{n}", name=text) for n, text in enumerate(prompts())]
    files = named(results, NAMES)
    file = tmp_path / "all.zip"
    file.write_bytes(whole(plan_zip(files)))
    out = tmp_path / "out"
    done = subprocess.run(
        ["unzip", "-n", "-O", "UTF-8", "-d", out, file], capture_output=True, text=True, check=False
    )
    if done.returncode == 10:  # built without -O
        done = subprocess.run(["unzip", "-n", "-d", out, file], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([path for path in out.rglob("*") if path.is_file()]) == 500
    assert {path.parent for path in out.rglob("*.png")} == {out}


def test_every_part_is_that_of_the_whole():
    planned = plan_zip(some(), report_of(FAILED))
    data, drawn = whole(planned), random.Random(2)
    ends = [(0, 0), (0, 1), (planned.size - 1, planned.size), (0, planned.size)]
    ends += [tuple(sorted(drawn.choices(range(planned.size + 1), k=2))) for _ in range(300)]
    for start, stop in ends:
        assert b"".join(planned.chunks(start, stop)) == data[start:stop], (start, stop)


def test_it_is_the_same_whoever_makes_it(volume: Path):
    files = some()
    first = plan_zip(files)
    data = whole(first)
    kept = [*(volume / "cache" / "zips").iterdir()]
    assert len(kept) == 1
    again = plan_zip(files)  # from what was kept
    assert (again.digest, again.size, whole(again)) == (first.digest, first.size, data)
    kept[0].write_bytes(b"{")
    assert whole(plan_zip(files)) == data
    kept[0].unlink()
    code = (
        "import pickle, sys; from safelight.exports.zips import plan_zip;"
        "planned = plan_zip(pickle.load(sys.stdin.buffer));"
        "sys.stdout.buffer.write(b''.join(planned.chunks()))"
    )
    import pickle

    other = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(files),
        env={"VOLUME_ROOT": str(volume), "TZ": "Asia/Tokyo", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert other.stdout == data


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files[:-1],
        lambda files: [*files[1:], files[0]],
        lambda files: [(PurePosixPath("other.png"), files[0][1]), *files[1:]],
    ],
)
def test_other_results_or_names_are_another_zip(change: Callable[..., list[object]]):
    files = some()
    assert plan_zip(change(files)).digest != plan_zip(files).digest  # pyright: ignore
    assert plan_zip(files, report_of()).digest != plan_zip(files).digest


def test_damaged_and_deleted_files_are_never_sent(volume: Path):
    files = named([result(b"a" * 5000, name="a"), result(b"b" * 5000, name="b")], NAMES)
    planned = plan_zip(files)
    stored = volume / files[1][1].ref.uri.removeprefix("store:")
    stored.write_bytes(b"x" * 5000)
    with pytest.raises(ChecksumMismatchError):
        whole(planned)
    stored.unlink()
    with pytest.raises(MissingFileError, match="no longer in the store"):
        planned.require_all()


def test_a_zip_of_the_same_batch_is_replaced_and_nothing_else(tmp_path: Path):
    file = tmp_path / "out.zip"
    check_zip(file, "--zip")
    one, both = report_of(FAILED), report_of()
    assert write_zip(plan_zip(some(3), one), one, file) == file
    check_zip(file, "--zip")
    assert write_zip(plan_zip(some(5), both), both, file) == file
    assert len(zipfile.ZipFile(file).namelist()) == 6
    other = report_of(key="autumn")
    assert write_zip(plan_zip(some(2), other), other, file) == tmp_path / "out-2.zip"
    assert len(zipfile.ZipFile(file).namelist()) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.zip", "out.zip", "volume"]


class _Slow:
    """A zip of whose bytes some come at a time; it tells from where they were asked for."""

    def __init__(self, planned: Zip, pause: float = 0.0) -> None:
        self.size, self.digest = planned.size, planned.digest
        self.asked: list[int] = []
        self._planned = planned
        self._pause = pause

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        self.asked.append(start)
        for chunk in self._planned.chunks(start):
            time.sleep(self._pause)
            yield chunk


def _planned(names: str = "{number}") -> Zip:
    drawn = random.Random(2)
    results = [result(drawn.randbytes(2**20), number=n) for n in range(1, 31)]
    return plan_zip(named(results, parse(names, "names")), report_of())


def test_a_zip_that_was_cut_goes_on_and_has_its_name_only_when_whole(tmp_path: Path, volume: Path):
    file = tmp_path / "out.zip"
    words = (
        "from tests.exports.test_zips import _planned, _Slow, write_zip, report_of, Path\n"
        f"write_zip(_Slow(_planned(), 0.05), report_of(), Path({str(file)!r}))"
    )
    writing = subprocess.Popen(
        [sys.executable, "-c", words],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "VOLUME_ROOT": str(volume)},
    )

    def part() -> Path | None:
        return next(tmp_path.glob("out.zip.*.part"), None)

    while (half := part()) is None or half.stat().st_size < 5 * 2**20:
        assert writing.poll() is None
        time.sleep(0.01)
    assert not file.exists()
    writing.kill()
    writing.wait()
    got = half.stat().st_size
    assert 5 * 2**20 <= got < _planned().size
    assert not file.exists()
    again = _Slow(_planned())
    assert write_zip(again, report_of(), file) == file
    assert again.asked == [got]
    assert file.read_bytes() == whole(_planned())
    assert part() is None


@pytest.mark.parametrize("damage", ["hole", "longer", "other names"])
def test_a_part_that_is_none_of_it_is_not_taken_for_one(tmp_path: Path, damage: str):
    file, planned = tmp_path / "out.zip", _planned()
    data = bytearray(whole(planned)[: 3 * 2**20])
    digest = planned.digest
    if damage == "hole":
        data[2**20 : 2**20 + 4096] = bytes(4096)
    elif damage == "longer":
        data = bytearray(whole(planned) + b"more")
    else:
        digest = _planned("{id}").digest
    (tmp_path / f"out.zip.{digest[:16]}.part").write_bytes(data)
    assert write_zip(planned, report_of(), file) == file
    assert file.read_bytes() == whole(planned)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "volume"]


def test_two_that_write_one_zip_do_not_meet(tmp_path: Path):
    file, planned = tmp_path / "out.zip", _planned()
    half = tmp_path / f"out.zip.{planned.digest[:16]}.part"
    half.write_bytes(b"of another process")
    with half.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert write_zip(planned, report_of(), file) == file
        assert half.read_bytes() == b"of another process"
    assert file.read_bytes() == whole(planned)


def test_what_is_no_zip_of_a_batch_stays(tmp_path: Path):
    file = tmp_path / "notes.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mine.txt", "mine")
    before = file.read_bytes()
    for path in (file, tmp_path / "none" / "out.zip", tmp_path):
        with pytest.raises(ForbiddenPathError, match="--zip"):
            check_zip(path, "--zip")
    report = report_of()
    assert write_zip(plan_zip(some(2), report), report, file).name == "notes-2.zip"
    assert file.read_bytes() == before


class _Read(io.RawIOBase):
    """A zip as a file that nobody has written."""

    def __init__(self, planned: Zip) -> None:
        self._planned = planned
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._planned.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        stop = min(self._at + len(buffer), self._planned.size)
        data = b"".join(self._planned.chunks(self._at, stop))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@pytest.mark.soak
@pytest.mark.slow
def test_more_than_4_gib_are_one_zip(tmp_path: Path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(4 * 2**30 + 5)  # nothing but a hole: it takes no room
    ref = current_store().put(b"", "video/mp4").model_copy(update={"bytes": 4 * 2**30 + 5})
    sha256 = "709fc0b74f7c916cedccb212d681c035f36ffbb31ebfe806eb40c31592744eb5"  # of so many zeros
    ref = ref.model_copy(
        update={"sha256": sha256, "uri": f"store:outputs/{sha256[:2]}/{sha256}.mp4"}
    )
    target = current_store().backend.path(ref.uri.removeprefix("store:"))  # pyright: ignore
    target.parent.mkdir(parents=True, exist_ok=True)
    large.rename(target)
    files = named([Result(ref, {"name": "film"}, MOMENT), result("after", name="after")], NAMES)
    planned = plan_zip(files)
    with zipfile.ZipFile(io.BufferedReader(_Read(planned))) as archive:
        assert archive.getinfo("film.mp4").file_size == ref.bytes
        assert archive.read("after.png") == b"after"
