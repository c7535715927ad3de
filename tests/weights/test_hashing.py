"""sha256 of weights: once for each state of a file."""

import json
import os
from pathlib import Path

import pytest

from safelight.digests import sha256_of
from safelight.remembered import Remembered
from safelight.weights import hashing
from safelight.weights.hashing import weights_sha256


@pytest.fixture
def folder(volume: Path, tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "unet").mkdir(parents=True)
    (made / "unet" / "a.safetensors").write_bytes(b"a")
    (made / "model_index.json").write_bytes(b"{}")
    return made


def test_a_folder_counts_names_and_contents(folder: Path):
    before = weights_sha256(folder)
    assert weights_sha256(folder) == before
    (folder / "unet" / "a.safetensors").rename(folder / "unet" / "b.safetensors")
    renamed = weights_sha256(folder)
    (folder / "unet" / "b.safetensors").write_bytes(b"bb")
    assert len({before, renamed, weights_sha256(folder)}) == 3


def test_a_known_file_is_not_read_again_even_by_another_process(
    folder: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    file = folder / "unet" / "a.safetensors"
    true = weights_sha256(file)
    assert true == sha256_of(b"a")
    assert true in json.loads((volume / "cache" / "weights.json").read_text()).values()
    # as a process that just started
    monkeypatch.setattr(hashing, "_known", Remembered("weights.json"))
    stat = file.stat()
    kept = volume / "cache" / "weights.json"
    known = json.loads(kept.read_text())
    kept.write_text(json.dumps(dict.fromkeys(known, "0" * 64)))  # shows what is taken from it
    assert weights_sha256(file) == "0" * 64
    file.write_bytes(b"b")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as copies and archives set it back
    assert weights_sha256(file) == sha256_of(b"b")


def test_a_file_put_in_place_of_one_of_equal_size_and_time_is_hashed(folder: Path):
    file = folder / "unet" / "a.safetensors"
    before, stat = weights_sha256(folder), file.stat()
    other = folder.parent / "other"
    other.write_bytes(b"b")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert weights_sha256(folder) != before


def test_files_behind_a_linked_folder_count(folder: Path, tmp_path: Path):
    (folder / "unet").rename(tmp_path / "elsewhere")
    (folder / "unet").symlink_to(tmp_path / "elsewhere")
    (folder / "self").symlink_to(folder)
    before = weights_sha256(folder)
    (tmp_path / "elsewhere" / "a.safetensors").write_bytes(b"other")
    assert weights_sha256(folder) != before


def test_a_damaged_cache_is_made_anew(folder: Path, volume: Path):
    kept = volume / "cache" / "weights.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{broken")
    file = folder / "model_index.json"
    assert weights_sha256(file) == sha256_of(b"{}")
    assert len(json.loads(kept.read_text())) == 1
