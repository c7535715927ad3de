"""Weights inside installed packages are the known ones, or are not loaded."""

import os
import shutil
from pathlib import Path

import pytest

from safelight.engines import mtcnn
from safelight.engines.realesrgan.network import NETWORKS, weights_files
from safelight.engines.rife import engine as rife
from safelight.errors import ChecksumMismatchError
from safelight.weights.packaged import KNOWN, packaged_sha256


def test_the_installed_files_are_the_known_ones():
    used = [rife.weights_path(), *mtcnn.weights_paths()]
    used += [file for network in NETWORKS.values() for file in weights_files(network)]
    assert {path.name for path in used} == set(KNOWN)
    assert [packaged_sha256(path) for path in used] == [KNOWN[path.name] for path in used]


def test_a_changed_file_is_refused_whatever_its_time(tmp_path: Path):
    source = mtcnn.weights_paths()[0]
    copy = Path(shutil.copy2(source, tmp_path / source.name))
    assert packaged_sha256(copy) == KNOWN[source.name]
    before = copy.stat()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChecksumMismatchError, match=source.name):
        packaged_sha256(copy)


def test_no_engine_loads_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = rife.weights_path()
    changed = tmp_path / source.name
    changed.write_bytes(source.read_bytes() + b"\0")
    monkeypatch.setattr(rife, "weights_path", lambda: changed)
    with pytest.raises(ChecksumMismatchError):
        rife.Rife()


def test_an_unknown_file_is_refused(tmp_path: Path):
    (tmp_path / "other.pkl").write_bytes(b"x")
    with pytest.raises(ChecksumMismatchError):
        packaged_sha256(tmp_path / "other.pkl")
