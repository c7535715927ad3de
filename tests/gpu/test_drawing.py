"""Models in the shapes of real ones: drawn together, short of memory, with add-ons, compiled."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.diffusion import (
    AddOn,
    Drawing,
    Drawn,
    add_on,
    draw,
    draw_together,
    redraw,
)
from safelight.engines.machine.loaded import forget_loaded
from safelight.progress import StopRequestedError, watching
from safelight.weights.checkpoints import find_checkpoint
from tests.gpu.shapes import SHAPES, build, build_controlnet, build_lora

Configure = Callable[[str, str], None]
PROMPTS = ("a red heart", "a house on a hill", "a red heart", "the sea at night, a boat", "x")
SIDES = {"cpu": 64, "cuda:0": 512}
SOAKED_ON_CPU = pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.soak), pytest.param("cuda:0", marks=pytest.mark.gpu)],
    indirect=True,
)
"""What takes a CPU longer than it tells of one, where other tests say the same."""
LEVELS = {"cuda:0": 12}
"""How far a picture may be from that drawn alone: in half precision the order of a sum counts, and
untrained weights damp nothing. On a CPU it is the same to the byte."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family, SD 1.5 in its real shape where there is a GPU."""
    folder, on_gpu = tmp_path_factory.mktemp("models"), torch.cuda.is_available()
    for name in SHAPES:
        real = on_gpu and name == "sd15"
        build(name, folder / name, tiny=not real, device="cuda:0" if on_gpu else "cpu")
    build_lora(folder / "sd15", folder / "loras")
    build_controlnet(folder / "sd15", folder / "controlnet" / "edges")
    return folder


@pytest.fixture(autouse=True)
def _real_shapes_are_for_gpus(request: pytest.FixtureRequest) -> None:
    if torch.cuda.is_available() and "device" in request.fixturenames:
        if request.getfixturevalue("device") == "cpu":
            pytest.skip("the shapes are too large for a CPU where there is a GPU")


@pytest.fixture(autouse=True)
def _folders(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    monkeypatch.setenv("VOLUME_ROOT", str(tmp_path / "volume"))


def drawings(name: str, steps: int = 2, **more: object) -> list[Drawing]:
    card = find_checkpoint(name)
    return [
        Drawing(card=card, prompt=prompt, seed=seed, steps=steps, guidance_scale=4.0, **more)
        for seed, prompt in enumerate(PROMPTS)
    ]


def together(wanted: list[Drawing], side: int, most: int | None = None) -> list[Drawn]:
    found: dict[int, Drawn] = {}
    draw_together(wanted, side, side, found.__setitem__, most)
    assert list(found) == list(range(len(wanted)))
    return list(found.values())


def levels_off(found: np.ndarray, expected: np.ndarray) -> float:
    """How far nine in a thousand pixels are off at least."""
    assert found.shape == expected.shape
    return float(np.quantile(np.abs(found.astype(int) - expected.astype(int)), 0.991))


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "bf16"])
@pytest.mark.parametrize("name", SHAPES)
def test_pictures_drawn_together_are_those_drawn_alone(
    device: str, name: str, precision: str, configured: Configure
):
    if device == "cpu" and precision != "fp16":
        pytest.skip("a CPU draws in single precision alone")
    configured(device, "fp32" if device == "cpu" else precision)
    wanted, side = drawings(name), SIDES[device]
    found = together(wanted, side, most=4)
    assert {drawn.batch for drawn in found} <= {1, 2, 3, 4}
    assert all(drawn.place < drawn.batch for drawn in found)
    for drawing, drawn in zip(wanted, found, strict=True):
        alone = draw(drawing, side, side)[0]
        assert alone.std() > 1
        if device == "cpu":
            assert drawn.pixels.tobytes() == alone.tobytes()
        else:
            allowed = LEVELS[device] * (4 if precision == "bf16" else 1)
            assert levels_off(drawn.pixels, alone) <= allowed


@SOAKED_ON_CPU
def test_the_same_batch_has_the_same_bytes_again(device: str, configured: Configure):
    configured(device, "auto")
    wanted, side = drawings("sd15"), SIDES[device]
    for _ in range(3):  # finds the size, which takes some batches of each
        together(wanted, side, most=2)
    first, second = (together(wanted, side, most=2) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.batch, one.place) == (other.batch, other.place)
        assert one.pixels.tobytes() == other.pixels.tobytes()


@SOAKED_ON_CPU
def test_cancelled_in_a_batch_the_model_draws_on(device: str, configured: Configure):
    configured(device, "auto")
    wanted, side = drawings("sd15"), SIDES[device]

    def stop(done: int, total: int) -> None:
        if done * 2 >= total:
            raise StopRequestedError

    with watching(stop), pytest.raises(StopRequestedError):
        together(wanted, side)
    assert len(together(wanted, side)) == len(wanted)


def test_a_lora_comes_and_goes(device: str, configured: Configure):
    configured(device, "auto")
    side, plain = SIDES[device], drawings("sd15")[0]
    with_style = replace(plain, loras=(add_on("loras", "style", 1.0),))
    before = draw(plain, side, side)[0]
    styled = draw(with_style, side, side)[0]
    assert levels_off(styled, before) > 2
    assert draw(with_style, side, side)[0].tobytes() == styled.tobytes()
    assert draw(plain, side, side)[0].tobytes() == before.tobytes()


def test_a_controlnet_steers(device: str, configured: Configure):
    configured(device, "auto")
    side = SIDES[device]
    control = np.zeros((side, side, 3), np.uint8)
    control[side // 4 : side // 2] = 255
    net: AddOn = add_on("controlnet", "edges", 1.0)
    plain = drawings("sd15")[0]
    steered = replace(plain, controlnet=net, control_image=control)
    assert levels_off(draw(steered, side, side)[0], draw(plain, side, side)[0]) > 2


@pytest.mark.gpu
def test_compiled_blocks_draw_the_same_picture(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    configured("cuda:0", "fp16")
    wanted = drawings("sd15")[0]
    plain = draw(wanted, 512, 512)[0]
    monkeypatch.setenv("SAFELIGHT_COMPILE", "true")
    configured("cuda:0", "fp16")
    compiled = draw(wanted, 512, 512)[0]
    assert levels_off(compiled, plain) <= LEVELS["cuda:0"]
    with_style = replace(wanted, loras=(add_on("loras", "style", 1.0),))
    assert levels_off(draw(with_style, 512, 512)[0], plain) > 2
    assert draw(wanted, 512, 512)[0].tobytes() == compiled.tobytes()


@contextmanager
def only_free(gib: float) -> Iterator[None]:
    """Take the rest of the device's memory."""
    gc.collect()
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    taken = torch.empty(max(int(free - gib * 2**30), 0), dtype=torch.uint8, device="cuda:0")
    try:
        yield
    finally:
        del taken
        torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.parametrize("gib", [1.5, 0.9])
def test_short_of_memory_it_draws_in_a_thriftier_way(configured: Configure, gib: float):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    configured("cuda:0", "fp16")
    wanted = replace(drawings("sd15", steps=2)[0], num_images=4)
    expected = draw(wanted, 1024, 1024)
    with only_free(gib), watching(None) as notes:
        found = draw(wanted, 1024, 1024)
    assert any("out of memory" in note for note in notes), notes
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        assert levels_off(one, other) <= 40  # the decoder in tiles differs at their borders
    again = draw(wanted, 1024, 1024)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(again, expected, strict=True))


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_is_halved(configured: Configure):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    configured("cuda:0", "fp16")
    wanted = drawings("sd15") * 4
    draw(wanted[0], 1024, 1024)
    with only_free(3.0), watching(None) as notes:
        found = together(wanted, 1024)
    assert len(found) == len(wanted)
    assert max(drawn.batch for drawn in found) < 16, notes
    for drawing, drawn in list(zip(wanted, found, strict=True))[-5:]:
        assert levels_off(drawn.pixels, draw(drawing, 1024, 1024)[0]) <= LEVELS["cuda:0"]


@pytest.mark.gpu
def test_a_forgotten_model_gives_its_memory_back(configured: Configure):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    forget_loaded()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    configured("cuda:0", "fp16")
    together(drawings("sd15"), 512)
    assert torch.cuda.memory_allocated() - before > 1.5 * 2**30
    forget_loaded()
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 64 * 2**20


def test_a_picture_is_drawn_over(device: str, configured: Configure):
    configured(device, "auto")
    side = SIDES[device]
    picture = np.full((side, side, 3), 128, np.uint8)
    wanted = drawings("sd15", steps=4)[0]
    assert redraw(wanted, picture, 0.5)[0].shape == (side, side, 3)


@pytest.mark.gpu
def test_a_device_is_named_by_its_number(configured: Configure):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from safelight.engines.machine.device import resolve_device
    from safelight.errors import DependencyMissingError

    configured("cuda:0", "fp16")
    assert resolve_device() == "cuda:0"
    configured(f"cuda:{torch.cuda.device_count()}", "fp16")
    with pytest.raises(DependencyMissingError):
        resolve_device()
