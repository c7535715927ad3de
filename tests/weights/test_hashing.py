"""sha256 of weights: once for each state of a file."""

import json
import os
from pathlib import Path

import pytest

from safelight.digests import sha256_of
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
    monkeypatch.setattr(hashing, "_known", {})  # as a process that just started
    stat = file.stat()
    file.write_bytes(b"b")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and time: not looked into
    assert weights_sha256(file) == true
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert weights_sha256(file) == sha256_of(b"b")


def test_a_damaged_cache_is_made_anew(folder: Path, volume: Path):
    kept = volume / "cache" / "weights.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{broken")
    file = folder / "model_index.json"
    assert weights_sha256(file) == sha256_of(b"{}")
    assert len(json.loads(kept.read_text())) == 1
