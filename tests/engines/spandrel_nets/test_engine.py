"""Upscalers of several architectures, as files that people have."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.choosing import choose, engines
from safelight.engines.interface import EnlargeRequest
from safelight.engines.machine.enlarging import Enlarger
from safelight.engines.machine.loaded import forget_loaded
from safelight.engines.realesrgan.engine import Model, open_enlarger
from safelight.engines.spandrel_nets.engine import ENGINE
from safelight.engines.spandrel_nets.library import spandrel
from safelight.engines.spandrel_nets.network import SpandrelRunner, averaged_down, reach_of
from safelight.engines.spandrel_nets.opening import opened
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    InvalidMediaError,
    UnsafePickleError,
)
from safelight.progress import watching
from safelight.weights.registry import registry
from tests.engines.spandrel_nets.tiny_upscalers import (
    FURTHER,
    MAKERS,
    compact,
    esrgan,
    made,
    save,
    trained,
)

FOLDER = "upscale_models"


@pytest.fixture
def folder(volume: Path) -> Path:
    forget_loaded()
    return volume / "models" / FOLDER


@pytest.fixture
def picture(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[100:132, 120:320])


def asked(name: str, factor: int, tile: int = 64) -> EnlargeRequest:
    return EnlargeRequest(name, factor, tile)


def levels_off(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def by_spandrel(path: Path, image: np.ndarray) -> np.ndarray:
    """What the library alone makes, with its own loader."""
    net = spandrel().ModelLoader(device="cpu").load_from_file(path).eval()
    values = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    made_of = net(values)[0].permute(1, 2, 0) * 255
    return made_of.round().to(torch.uint8).numpy()


@pytest.mark.parametrize("end", [".pth", ".safetensors"])
@pytest.mark.parametrize("architecture", sorted(MAKERS))
def test_each_architecture_gives_what_spandrel_itself_gives(
    folder: Path, picture: np.ndarray, architecture: str, end: str
):
    path = save(MAKERS[architecture](), folder / f"my {architecture}{end}")
    image = picture[:32, :56]
    expected = by_spandrel(path, image)
    scale = expected.shape[0] // image.shape[0]
    request = asked(f"my {architecture}", scale, 256)
    assert ENGINE.can(request) is None
    found = ENGINE.open_enlarger(request).enlarge(image)
    assert levels_off(found, expected) <= 1
    assert found.std() > 20


@pytest.mark.parametrize("architecture", sorted(MAKERS))
def test_tiles_are_within_one_level_of_the_whole(
    folder: Path, picture: np.ndarray, architecture: str
):
    net = opened(save(MAKERS[architecture](), folder / "net.pth"))
    enlarger = ENGINE.open_enlarger(asked("net", net.scale))
    assert levels_off(enlarger.enlarge(picture), enlarger.enlarge_window(picture)) <= 1
    enlarger.reach = 0
    assert levels_off(enlarger.enlarge(picture), enlarger.enlarge_window(picture)) > 1


@pytest.mark.parametrize("architecture", sorted(FURTHER))
def test_further_architectures_open_and_enlarge_in_tiles(
    folder: Path, picture: np.ndarray, architecture: str
):
    path = save(made(architecture, **FURTHER[architecture]), folder / "net.pth")
    enlarger = ENGINE.open_enlarger(asked("net", 2))
    whole = enlarger.enlarge_window(picture)
    assert levels_off(whole, by_spandrel(path, picture)) <= 1
    assert levels_off(enlarger.enlarge(picture), whole) <= 1
    assert whole.std() > 10


@pytest.mark.parametrize("model", ["anime", "video"])
def test_trained_networks_give_what_their_own_engine_gives(
    folder: Path, photo: np.ndarray, model: Model
):
    trained(model, folder / "theirs.pth")
    image = np.ascontiguousarray(photo[100:124, 150:270])
    request = asked("theirs", 4)
    enlarger = ENGINE.open_enlarger(request)
    found = enlarger.enlarge(image)
    assert levels_off(found, enlarger.enlarge_window(image)) <= 1
    expected = open_enlarger(model, 4, tile=256).enlarge(image)
    assert levels_off(found, expected) <= 1


@pytest.mark.parametrize("under", ["params_ema", "params", "state_dict"])
@pytest.mark.parametrize("old", [False, True])
def test_what_trainers_wrap_tensors_in_is_taken_off(folder: Path, under: str, old: bool):
    save(compact(), folder / "wrapped.pth", under=under, old=old)
    assert ENGINE.can(asked("wrapped", 2)) is None


@pytest.mark.parametrize(("scale", "factor"), [(4, 2), (4, 3), (8, 3), (3, 2), (2, 2)])
def test_smaller_factors_are_averaged_by_area(scale: int, factor: int):
    native = np.random.default_rng(1).random((3, 5 * scale, 7 * scale), np.float32)
    fine = native.repeat(factor, 1).repeat(factor, 2)
    expected = fine.reshape(3, 5 * factor, scale, 7 * factor, scale).mean(axis=(2, 4))
    found = averaged_down(torch.from_numpy(native), scale, factor)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_network_of_four_times_serves_two_and_three(folder: Path, picture: np.ndarray):
    save(esrgan(4), folder / "four.pth")
    whole = ENGINE.open_enlarger(asked("four", 4)).enlarge(picture).astype(float)
    for factor in (2, 3):
        found = ENGINE.open_enlarger(asked("four", factor)).enlarge(picture)
        assert found.shape == (32 * factor, 200 * factor, 3)
        assert abs(found.mean() - whole.mean()) < 0.1


def test_further_than_it_goes_is_refused_with_how_far(folder: Path):
    save(compact(2), folder / "two.pth")
    refusal = ENGINE.can(asked("two", 4))
    assert isinstance(refusal, InvalidFieldValueError)
    assert "enlarges 2 times, upscale_factor is 4" in refusal.problem
    assert "upscale_factor to 2" in refusal.remedy


def test_one_that_keeps_the_size_is_refused_as_what_it_is(folder: Path):
    save(compact(1), folder / "clean.pth")
    refusal = ENGINE.can(asked("clean", 2))
    assert isinstance(refusal, InvalidFieldValueError)
    assert "RealESRGAN Compact" in refusal.problem
    assert "keeps their size" in refusal.problem


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_grey_and_of_transparency_enlarge_colours(
    folder: Path, picture: np.ndarray, channels: int
):
    save(compact(2, channels), folder / "other.pth")
    found = ENGINE.open_enlarger(asked("other", 2)).enlarge(picture)
    assert found.shape == (64, 400, 3)
    plain = picture.repeat(2, 0).repeat(2, 1)
    assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] > 0.5


def test_one_that_makes_other_channels_than_it_takes_is_refused(folder: Path):
    net = made("Compact", num_in_ch=2, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    save(net, folder / "odd.pth")
    refusal = ENGINE.can(asked("odd", 2))
    assert isinstance(refusal, InvalidFieldValueError)
    assert "takes 2 channels" in refusal.problem


def test_an_unknown_name_is_refused_with_those_near_it(folder: Path):
    save(compact(), folder / "4x-UltraSharp.pth")
    registry().scan()
    refusal = ENGINE.can(asked("4x-UltraShrp", 2))
    assert isinstance(refusal, DependencyMissingError)
    assert "4x-UltraSharp" in refusal.problem
    with pytest.raises(DependencyMissingError, match=r"photo, anime, video.*4x-UltraSharp"):
        choose(asked("4x-UltraShrp", 2))


def test_the_engine_is_found_and_chosen_by_the_name(folder: Path):
    save(compact(), folder / "mine.safetensors")
    assert engines()["spandrel"] is ENGINE
    chosen = choose(asked("mine", 2))
    assert chosen.engine is ENGINE
    assert chosen.identity.weights == (registry().get_model("mine").sha256,)
    assert choose(asked("video", 2)).engine.engine_id == "realesrgan"


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
):
    monkeypatch.chdir(tmp_path)
    folder.mkdir(parents=True)
    held = {"params": compact().state_dict(), "more": Runs()}
    torch.save(held, folder / "evil.pth", _use_new_zipfile_serialization=not old)
    refusal = ENGINE.can(asked("evil", 2))
    assert isinstance(refusal, UnsafePickleError)
    with pytest.raises(UnsafePickleError):
        ENGINE.open_enlarger(asked("evil", 2))
    assert not (tmp_path / "ran").exists()
    assert pickle.loads(pickle.dumps(Runs())) is None  # it would have run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("end", [".pth", ".safetensors"])
def test_a_file_that_breaks_off_is_refused(folder: Path, end: str):
    path = save(compact(), folder / f"half{end}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert isinstance(ENGINE.can(asked("half", 2)), InvalidMediaError)


def test_tensors_of_no_upscaler_are_refused(folder: Path):
    folder.mkdir(parents=True)
    torch.save({"some.weight": torch.zeros(3)}, folder / "other.pth")
    refusal = ENGINE.can(asked("other", 2))
    assert isinstance(refusal, InvalidMediaError)
    assert "no architecture that spandrel" in refusal.problem


def test_missing_tensors_are_refused(folder: Path):
    net = compact()
    state = net.state_dict()
    del state["body.2.weight"]
    folder.mkdir(parents=True)
    torch.save(state, folder / "lacks.pth")
    refusal = ENGINE.can(asked("lacks", 2))
    assert isinstance(refusal, InvalidMediaError)
    assert "body.2.weight" in refusal.problem


def test_without_spandrel_the_package_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    save(compact(), folder / "mine.pth")
    monkeypatch.setattr("safelight.engines.spandrel_nets.library.NEEDS", ("no_such_spandrel",))
    refusal = ENGINE.can(asked("mine", 2))
    assert isinstance(refusal, DependencyMissingError)
    assert "no_such_spandrel" in refusal.problem


def test_what_stands_in_for_torchvision_is_seen_by_nobody_else():
    spandrel()
    found = sys.modules.get("torchvision")
    assert found is None or found.__spec__ is not None


def test_tiles_are_lowered_when_memory_runs_out(
    folder: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    save(compact(), folder / "mine.pth")
    calm = ENGINE.open_enlarger(asked("mine", 2)).enlarge(picture)
    enlarger = ENGINE.open_enlarger(asked("mine", 2, 256))
    runner = enlarger._runner
    assert isinstance(runner, SpandrelRunner)
    whole = runner._computed

    def short(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if values.shape[2] > 100:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return whole(values, dtype)

    monkeypatch.setattr(runner, "_computed", short)
    with watching(None) as notes:
        found = enlarger.enlarge(picture)
    assert notes == [
        "out of memory: tile lowered from 256 to 128 px",
        "out of memory: tile lowered from 128 to 64 px",
    ]
    np.testing.assert_array_equal(found, calm)


def test_half_precision_that_overflows_is_computed_again_in_full(folder: Path, picture: np.ndarray):
    net = compact()
    with torch.no_grad():
        net.body[2].weight.mul_(5e5)
        net.body[4].weight.mul_(1 / 700)
        net.body[6].weight.mul_(1 / 700)
    path = save(net, folder / "wide.pth")
    full = SpandrelRunner(opened(path), "cpu", torch.float32)
    expected = Enlarger(full, full, 2, 64, 0.0).enlarge(picture)
    half = SpandrelRunner(opened(path), "cpu", torch.float16)
    with watching(None) as notes:
        found = Enlarger(half, half, 2, 64, 0.0).enlarge(picture)
    assert any("float16" in note for note in notes)
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_weights_that_half_precision_cannot_hold_stay_in_full(folder: Path):
    net = compact()
    with torch.no_grad():
        net.body[2].weight[0, 0, 0, 0] = 1e5
    path = save(net, folder / "wide.pth")
    assert SpandrelRunner(opened(path), "cpu", torch.float16).dtype == torch.float32


def test_the_overlap_of_convolutions_is_one_px_each():
    class Shown:
        model = compact(2, blocks=5)

    assert reach_of(Shown(), 1) == 7
    assert reach_of(Shown(), 8) == 8


def test_the_look_is_remembered_and_the_network_loaded_once(folder: Path, picture: np.ndarray):
    save(compact(2, blocks=4), folder / "mine.pth")
    first = ENGINE.open_enlarger(asked("mine", 2))
    second = ENGINE.open_enlarger(asked("mine", 2))
    assert first._runner is second._runner
    np.testing.assert_array_equal(first.enlarge(picture), second.enlarge(picture))
    assert (folder.parent.parent / "cache" / "upscalers.json").is_file()
