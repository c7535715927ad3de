"""What is loaded is what was hashed, whatever happens to the names of the files meanwhile."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safelight.engines.diffusers.model import load_model
from safelight.errors import ChecksumMismatchError, InvalidMediaError
from safelight.settings import reload_settings
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.hashing import weights_sha256
from safelight.weights.pinned import pinned
from safelight.weights.places import STARTER


@pytest.fixture
def model(volume: Path) -> Path:
    reload_settings()
    (volume / "models").mkdir(parents=True)
    return Path(shutil.copytree(STARTER, volume / "models" / "m"))


def unet_of(model: Path) -> Path:
    return next((model / "unet").glob("*.safetensors"))


def other_tensors(file: Path, target: Path) -> Path:
    tensors = load_file(file)
    save_file({name: torch.zeros_like(held) for name, held in tensors.items()}, target)
    return target


def test_libraries_load_the_files_that_were_hashed(model: Path, tmp_path: Path):
    from diffusers import UNet2DConditionModel

    unet = unet_of(model)
    true = load_file(unet)
    with pinned(model, weights_sha256(model)) as path:
        other_tensors(unet, tmp_path / "other").replace(unet)
        shutil.rmtree(model / "vae")
        loaded = UNet2DConditionModel.from_pretrained(path / "unet").state_dict()
        assert weights_sha256(path) != weights_sha256(model)
    assert all(torch.equal(loaded[name].to(held.dtype), held) for name, held in true.items())


def test_other_files_than_the_card_is_of_are_not_loaded(model: Path, tmp_path: Path):
    card = find_checkpoint("m")
    unet = unet_of(model)
    before = unet.stat()
    other = other_tensors(unet, tmp_path / "other")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(unet)
    with pytest.raises(ChecksumMismatchError, match=r"has sha256 [0-9a-f]{64} now, expected"):
        load_model(card, "cpu", "fp32")


def test_a_single_file_is_pinned_as_well(tmp_path: Path, volume: Path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, file)
    with pinned(file, weights_sha256(file)) as path:
        other_tensors(file, tmp_path / "other").replace(file)
        assert path.name == "x.safetensors"
        assert load_file(path)["a"].tolist() == [1, 1]


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path, volume: Path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, file)
    sha256 = weights_sha256(file)

    def load() -> None:
        with pinned(file, sha256), file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"\x41")

    with pytest.raises(ChecksumMismatchError, match="was written to"):
        load()


def test_a_pipe_is_refused(model: Path):
    sha256 = weights_sha256(model)
    os.mkfifo(model / "unet" / "notes.txt")
    with pytest.raises(InvalidMediaError), pinned(model, sha256):
        pass
