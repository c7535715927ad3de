"""What is made on the volume is for its owner alone."""

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from safelight.cli.server import make_home
from safelight.errors import InvalidFieldValueError
from safelight.private import as_started, keep_private, make_folder
from safelight.remembered import Remembered
from safelight.settings import reload_settings
from safelight.store.places import DiskPlace
from safelight.store.store import current_store


def rights(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


@pytest.fixture(autouse=True)
def usual_mask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def made_in(volume: Path) -> list[Path]:
    store = current_store()
    store.put(b"x", "text/plain")
    store.put(b"y", "text/plain", folder="uploads")
    store.write_record("cache/results/x", b"{}")
    with store.workspace():
        pass
    Remembered("facts.json").put("a", 1)
    make_home(volume / "cache" / "prefect")
    return [volume, *(path for path in volume.rglob("*") if not path.is_symlink())]


def test_nobody_else_reads_what_is_made(volume: Path):
    made = made_in(volume)
    assert len(made) > 12
    assert {rights(path) for path in made if path.is_dir()} == {"0o700"}
    assert {rights(path) for path in made if path.is_file()} == {"0o600"}


def test_a_group_may_share_a_volume(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAFELIGHT_UMASK", "007")
    reload_settings()
    os.umask(0)
    made = made_in(volume)
    assert {rights(path) for path in made if path.is_dir()} - {"0o700"} == {"0o770"}
    assert {rights(path) for path in made if path.is_file()} - {"0o600"} == {"0o660"}


def test_a_home_of_before_is_closed(volume: Path):
    home = volume / "cache" / "prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").touch()
    make_home(home)
    assert rights(home) == "0o700"


def test_copies_that_a_person_asks_for_are_made_as_usual(volume: Path, tmp_path: Path):
    ref = current_store().put(b"x", "text/plain")
    keep_private()
    place = DiskPlace(tmp_path / "out", private=False)
    assert place.put(PurePosixPath("a/x.txt"), current_store().fetch(ref), ref)
    assert rights(tmp_path / "out" / "a" / "x.txt") == "0o644"
    assert rights(tmp_path / "out" / "a") == "0o755"
    assert rights(tmp_path / "out") == "0o755"
    make_folder(tmp_path / "ours")
    assert rights(tmp_path / "ours") == "0o700"
    with as_started():
        pass
    (tmp_path / "later").touch()
    assert rights(tmp_path / "later") == "0o600"


@pytest.mark.slow
def test_the_command_keeps_what_it_makes_private(tmp_path: Path):
    volume = tmp_path / "volume"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from safelight.cli.edge import guarded; import pathlib; guarded(['--help']);"
            f"pathlib.Path({str(tmp_path / 'made')!r}).touch()",
        ],
        env={**os.environ, "VOLUME_ROOT": str(volume)},
        capture_output=True,
        check=True,
    )
    assert rights(tmp_path / "made") == "0o600"


@pytest.mark.parametrize("value", ["", "9", "0777777", "rw"])
def test_a_mask_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("SAFELIGHT_UMASK", value)
    with pytest.raises(InvalidFieldValueError, match="SAFELIGHT_UMASK"):
        reload_settings()
    monkeypatch.undo()
    reload_settings()
