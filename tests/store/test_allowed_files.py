"""What is said of a path that a run was given and that leads to no file."""

import os
from pathlib import Path

import pytest

from safelight.errors import ForbiddenPathError, MissingFileError
from safelight.settings import reload_settings
from safelight.store.inputs import allowed_file


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "volume" / "uploads").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "clip.mp4").write_bytes(b"x")
    with monkeypatch.context() as changed:
        changed.setenv("VOLUME_ROOT", str(tmp_path / "volume"))
        changed.chdir(tmp_path / "elsewhere")
        reload_settings()
        yield tmp_path / "volume"
    reload_settings()


@pytest.mark.parametrize("location", ["uploads/face.webp", "nothing/at/all.csv", "face.webp"])
def test_a_missing_file_below_the_volume_root_is_missing(root: Path, location: str):
    with pytest.raises(MissingFileError) as refused:
        allowed_file(location)
    assert location in refused.value.problem
    assert f"looked in {root.resolve()}" in refused.value.problem


@pytest.mark.parametrize("location", ["../elsewhere/clip.mp4", "clip.mp4", "../../nothing.png"])
def test_a_path_out_of_the_volume_root_stays_forbidden(root: Path, location: str):
    with pytest.raises(ForbiddenPathError):
        allowed_file(location)


def test_a_file_that_is_there_is_found(root: Path):
    (root / "uploads" / "face.webp").write_bytes(b"x")
    assert os.path.samefile(allowed_file("uploads/face.webp"), root / "uploads" / "face.webp")
