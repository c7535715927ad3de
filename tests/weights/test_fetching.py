"""A fetched file is whole and right, or it is not there; what broke off goes on or is dropped."""

import errno
import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.errors import (
    ChecksumMismatchError,
    DiskFullError,
    DownloadFailedError,
    PipelineError,
    RateLimitExceededError,
)
from safelight.weights import fetching
from safelight.weights.asking import Web
from safelight.weights.fetching import TRIES, Fetch, Part
from safelight.weights.sources import Source
from tests.weights.faulty import Faulty, serving
from tests.weights.files import safetensors

CONTENT = safetensors({f"t{n}": (50, 50) for n in range(8)}, {"a": "b"}, fill=7)


@pytest.fixture
def faulty(volume: Path) -> Iterator[Faulty]:
    with serving(Faulty(CONTENT)) as server:
        yield server


def fetch(faulty: Faulty, folder: Path, **known: object) -> tuple[Path, str]:
    """One try of a person: a fresh process would do the same."""
    source = Source(
        **{  # type: ignore[arg-type]
            "address": "test:m",
            "url": f"{faulty.url}/m.safetensors",
            "file_name": "m.safetensors",
            "sha256": faulty.sha256,
            **known,
        }
    )
    part = Part(folder / "part" / "m.safetensors")
    web = Web(read_seconds=5)
    try:
        return part.file, Fetch(web, lambda done, total: None, sleep=lambda _: None).run(
            source, part
        )
    finally:
        web.close()


def test_a_file_comes_whole_at_once(faulty: Faulty, tmp_path: Path):
    file, sha256 = fetch(faulty, tmp_path)
    assert file.read_bytes() == CONTENT
    assert sha256 == faulty.sha256
    assert len(faulty.asked) == 1


def test_what_broke_off_goes_on_where_it_stopped(faulty: Faulty, tmp_path: Path):
    faulty.plan = ["cut", "cut", "none"]
    file, _ = fetch(faulty, tmp_path)
    assert file.read_bytes() == CONTENT
    ranges = [headers.get("Range") for _, _, headers in faulty.asked]
    assert ranges[0] is None
    starts = [int(str(r).removeprefix("bytes=").rstrip("-")) for r in ranges[1:]]
    assert 0 < starts[0] < starts[1]
    assert all(headers["If-Range"] == '"v1"' for _, _, headers in faulty.asked[1:])


def test_another_process_goes_on_too(faulty: Faulty, tmp_path: Path):
    faulty.plan = ["cut"] + ["reset"] * TRIES
    with pytest.raises(DownloadFailedError, match="bytes are there"):
        fetch(faulty, tmp_path)
    asked = len(faulty.asked)
    file, _ = fetch(faulty, tmp_path)
    assert file.read_bytes() == CONTENT
    assert "Range" in faulty.asked[asked][2]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    faulty: Faulty, tmp_path: Path
):
    faulty.plan = ["cut", "other content"]
    with pytest.raises(ChecksumMismatchError, match="deleted"):
        fetch(faulty, tmp_path)
    assert not (tmp_path / "part").exists()
    assert fetch(faulty, tmp_path)[0].read_bytes() == CONTENT


def test_a_wrong_file_is_deleted(faulty: Faulty, tmp_path: Path):
    with pytest.raises(ChecksumMismatchError, match="expected 0000"):
        fetch(faulty, tmp_path, sha256="0" * 64)
    assert not (tmp_path / "part").exists()


def test_a_file_of_another_size_than_its_card_says_is_not_taken(faulty: Faulty, tmp_path: Path):
    with pytest.raises(DownloadFailedError, match="expected 9"):
        fetch(faulty, tmp_path, size=9)
    assert not (tmp_path / "part" / "m.safetensors").exists()


@pytest.mark.parametrize("fault", ["416", "no range", "other range", "short length"])
def test_a_part_that_the_server_does_not_go_on_with_is_dropped(
    faulty: Faulty, tmp_path: Path, fault: str
):
    faulty.plan = ["cut", fault]
    assert fetch(faulty, tmp_path, size=len(CONTENT))[0].read_bytes() == CONTENT


def test_a_part_without_a_name_of_its_content_is_not_gone_on_with(faulty: Faulty, tmp_path: Path):
    faulty.plan = ["cut"] + ["reset"] * TRIES
    with pytest.raises(DownloadFailedError):
        fetch(faulty, tmp_path)
    said = tmp_path / "part" / "said.json"
    said.write_text(json.dumps({"total": len(CONTENT), "validator": None}))
    asked = len(faulty.asked)
    assert fetch(faulty, tmp_path)[0].read_bytes() == CONTENT
    assert "Range" not in faulty.asked[asked][2]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("page", DownloadFailedError, "is a page"),
        ("circle", DownloadFailedError, "in circles"),
        ("500", DownloadFailedError, "answers 500"),
        ("429", RateLimitExceededError, "slow down"),
        ("long length", DownloadFailedError, "bytes are there"),
    ],
)
def test_a_server_that_stays_broken_is_told_by_its_fault(
    faulty: Faulty, tmp_path: Path, fault: str, error: type[PipelineError], says: str
):
    faulty.plan = [fault] * 20
    with pytest.raises(error, match=says):
        fetch(faulty, tmp_path)


def test_a_disk_without_room_is_told_before_anything_is_written(
    faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "LEFT_FREE", shutil.disk_usage(tmp_path).total)
    with pytest.raises(DiskFullError, match=f"{len(CONTENT)} bytes are to come"):
        fetch(faulty, tmp_path)
    assert not (tmp_path / "part" / "m.safetensors").exists()


FULL = """
import resource, sys
from pathlib import Path
from tests.weights.test_fetching import CONTENT, fetch
from tests.weights.faulty import Faulty
faulty = Faulty(CONTENT)
faulty.url = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    fetch(faulty, Path(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_fills_meanwhile_keeps_what_is_there(faulty: Faulty, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, faulty.url, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.startswith("DiskFullError")
    assert (tmp_path / "part" / "m.safetensors").stat().st_size == 10_000
    asked = len(faulty.asked)
    assert fetch(faulty, tmp_path)[0].read_bytes() == CONTENT
    assert faulty.asked[asked][2]["Range"] == "bytes=10000-"


EXPECTED = {"DOWNLOAD_FAILED", "CHECKSUM_MISMATCH", "DISK_FULL", "RATE_LIMIT_EXCEEDED"}


def tried(faulty: Faulty, folder: Path, dice: random.Random) -> tuple[str, bool]:
    """One try of a person, at times on a disk that fills: its code, and whether it was one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = dice.random() < 0.2
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (dice.randrange(len(CONTENT)), hard))
    try:
        fetch(faulty, folder)
    except PipelineError as error:
        return error.code, full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return "", full


def random_faults(count: int, folder: Path) -> int:
    """Fetch file after file with random faults until each is there; how many faults there were."""
    seen = rounds = 0
    while seen < count:
        rounds += 1
        dice, here = random.Random(rounds), folder / str(rounds)
        file = here / "part" / "m.safetensors"
        with serving(Faulty(CONTENT, dice=dice)) as faulty:
            for attempt in range(60):
                code, full = tried(faulty, here, dice)
                seen += full
                if not code:
                    break
                assert code in EXPECTED
                assert not (code == "CHECKSUM_MISMATCH" and file.exists())
                if attempt == 50:
                    faulty.dice = None  # a server that is mended
            seen += sum(fault not in ("none", "slow") for fault, _, _ in faulty.asked)
        assert file.read_bytes() == CONTENT
    return seen


def test_twenty_random_faults_end_in_the_right_file(volume: Path, tmp_path: Path):
    assert random_faults(20, tmp_path) >= 20


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_random_faults_end_in_the_right_file(volume: Path, tmp_path: Path):
    assert random_faults(200, tmp_path) >= 200


def test_errors_of_the_disk_are_told_as_what_they_are(tmp_path: Path):
    with pytest.raises(DiskFullError), fetching.disk_refusals(tmp_path):
        raise OSError(errno.EDQUOT, "quota")
