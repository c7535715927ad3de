"""Upscalers on a device: as on the CPU, in half precision, in little memory."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.machine.enlarging import Enlarger
from safelight.progress import watching

if find_spec("spandrel") is None or find_spec("einops") is None:
    pytest.skip("spandrel and einops are not installed", allow_module_level=True)

from safelight.engines.spandrel_nets.engine import _dtype_of
from safelight.engines.spandrel_nets.network import SpandrelRunner
from safelight.engines.spandrel_nets.opening import look, opened
from tests.engines.spandrel_nets.tiny_upscalers import MAKERS, save

SIZES = {"cpu": (24, 72), "cuda:0": (200, 410)}


@pytest.fixture
def picture(device: str, drawn: Callable[..., np.ndarray]) -> np.ndarray:
    return drawn(*SIZES[device])


def enlarger(path: Path, device: str, dtype: torch.dtype, tile: int = 64) -> Enlarger:
    runner = SpandrelRunner(opened(path), device, dtype)
    return Enlarger(runner, runner, runner.scale, tile, 0.0)


@pytest.mark.parametrize("architecture", sorted(MAKERS))
def test_a_device_gives_what_the_cpu_gives(
    device: str, picture: np.ndarray, tmp_path: Path, architecture: str
):
    path = save(MAKERS[architecture](), tmp_path / "net.pth")
    expected = enlarger(path, "cpu", torch.float32, 512).enlarge(picture)
    found = enlarger(path, device, torch.float32).enlarge(picture)
    assert int(np.abs(found.astype(int) - expected).max()) <= 1


@pytest.mark.parametrize("architecture", sorted(MAKERS))
def test_half_precision_is_near_where_an_architecture_supports_it(
    device: str,
    picture: np.ndarray,
    tmp_path: Path,
    architecture: str,
    configured: Callable[[str, str], None],
):
    configured(device, "fp16")
    path = save(MAKERS[architecture](), tmp_path / "net.pth")
    told, _ = look(str(path))
    dtype = _dtype_of(told, device)
    assert dtype == (torch.float16 if told.supports_half else torch.float32)
    expected = enlarger(path, "cpu", torch.float32, 512).enlarge(picture).astype(float)
    found = enlarger(path, device, dtype).enlarge(picture)
    assert 10 * np.log10(255**2 / max(np.mean((found - expected) ** 2), 1e-6)) > 40


def test_what_does_not_fit_is_done_in_smaller_tiles(
    device: str, drawn: Callable[..., np.ndarray], tmp_path: Path
):
    if device == "cpu":
        pytest.skip("the memory of a machine cannot be made small")
    path = save(MAKERS["ESRGAN"](), tmp_path / "net.pth")
    picture = drawn(600, 600)
    expected = enlarger(path, device, torch.float32, 64).enlarge(picture)
    whole = enlarger(path, device, torch.float32, 1024)
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6e9 / total)
    try:
        with watching(None) as notes:
            found = whole.enlarge(picture)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("tile lowered" in note for note in notes)
    assert int(np.abs(found.astype(int) - expected).max()) <= 1
