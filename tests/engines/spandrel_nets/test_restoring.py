"""Restorers of faces as files people have: opened, refused for what they are not, repeatable."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.choosing import choose
from safelight.engines.machine.loaded import forget_loaded
from safelight.engines.mending import RestoreRequest
from safelight.engines.spandrel_nets.engine import ENGINE
from safelight.engines.spandrel_nets.library import spandrel
from safelight.engines.spandrel_nets.restoring import Restorer
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    MissingFileError,
    UnsafePickleError,
)
from safelight.weights.registry import registry
from tests.engines.spandrel_nets.tiny_upscalers import compact, made, restoreformer, save

FOLDER = "restorers"


@pytest.fixture
def folder(volume: Path) -> Path:
    forget_loaded()
    return volume / "models" / FOLDER


@pytest.fixture
def face(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[40:296, 90:346].repeat(2, 0).repeat(2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("end", [".pth", ".safetensors"])
def test_a_file_is_opened_and_counts(folder: Path, end: str):
    path = save(restoreformer(), folder / f"mine{end}")
    for request in (RestoreRequest(), RestoreRequest("mine")):
        chosen = choose(request)
        assert chosen.engine is ENGINE
        assert len(chosen.identity.weights) == 1
    path.unlink()
    with pytest.raises(MissingFileError, match="mine"):
        choose(RestoreRequest("mine"))


def test_without_a_file_the_refusal_names_one_and_the_folder(folder: Path):
    with pytest.raises(DependencyMissingError) as refused:
        choose(RestoreRequest())
    assert str(folder) in refused.value.problem
    assert "GFPGANv1.4.pth" in refused.value.remedy


def test_a_file_in_the_folder_of_comfyui_is_found_once_it_is_scanned(folder: Path, volume: Path):
    save(restoreformer(), volume / "models" / "facerestore_models" / "theirs.pth")
    registry().scan(hashes=False)
    assert choose(RestoreRequest()).engine is ENGINE
    assert choose(RestoreRequest("theirs")).engine is ENGINE


def test_an_upscaler_is_refused_as_a_restorer(folder: Path):
    save(compact(2), folder / "two.pth")
    with pytest.raises(
        InvalidFieldValueError, match=r"two\.pth \(RealESRGAN Compact\) restores no"
    ):
        choose(RestoreRequest())


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


def test_a_file_that_could_run_code_is_refused(folder: Path):
    folder.mkdir(parents=True)
    torch.save({"params": compact().state_dict(), "more": Runs()}, folder / "evil.pth")
    with pytest.raises(UnsafePickleError):
        choose(RestoreRequest())


@pytest.mark.slow
def test_it_gives_what_the_network_itself_gives(folder: Path, face: np.ndarray):
    net = restoreformer()
    save(net, folder / "mine.pth")
    found = ENGINE.restore_face(RestoreRequest(), face)
    with torch.inference_mode():
        levels = torch.from_numpy(face).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = ((net(levels)[0][0] + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1
    assert found.std() > 10


@pytest.mark.slow
def test_gfpgan_is_given_the_noise_of_its_file(face: np.ndarray):
    """A narrow one; those of people all have one size, which is 350 MB."""
    net = made("GFPGAN", num_mlp=1, narrow=0.125)
    with torch.no_grad():
        for name, each in net.named_parameters():
            if name.endswith("modulated_conv.weight") or name.endswith(".weight"):
                each.normal_(0, 0.05)
        for name, each in net.stylegan_decoder.named_parameters():
            if name.endswith("style_conv1.weight") or each.shape == (1,):
                each.fill_(1)  # how strongly noise is added
    library = spandrel()
    descriptor = library.ImageModelDescriptor(
        net,
        net.state_dict(),
        architecture=library.architectures.GFPGAN.GFPGANArch(),
        purpose="FaceSR",
        tags=[],
        supports_half=False,
        supports_bfloat16=True,
        scale=1,
        input_channels=3,
        output_channels=3,
    )
    restorer = Restorer(descriptor, "cpu")
    first = restorer.restore(face)
    assert np.array_equal(restorer.restore(face), first)
    with torch.inference_mode():
        levels = torch.from_numpy(face).permute(2, 0, 1)[None].float() / 127.5 - 1
        runs = [net(levels)[0] for _ in range(2)]
    assert not torch.equal(*runs)  # left to itself, it draws other noise each time
