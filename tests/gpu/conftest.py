"""Runs on the CPU in small, and on CUDA where there is a device; needs no fixture from outside."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from safelight.engines.machine.loaded import forget_loaded
from safelight.settings import reload_settings


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where the test runs."""
    import torch

    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Sets device and precision as an operator does."""

    def configure(device: str, precision: str) -> None:
        monkeypatch.setenv("SAFELIGHT_DEVICE", device)
        monkeypatch.setenv("SAFELIGHT_PRECISION", precision)
        reload_settings()

    yield configure
    monkeypatch.undo()
    reload_settings()
    forget_loaded()


@pytest.fixture
def drawn() -> Callable[..., np.ndarray]:
    """Draws a picture of waves, a bar and noise, moved to the left."""

    def draw(height: int, width: int, moved: float = 0.0) -> np.ndarray:
        down, across = np.mgrid[0:height, 0:width].astype(float)
        across += moved
        channels = [
            np.sin(across / 9 + number) + np.cos(down / 7 - number) * np.sin(across / 23)
            for number in range(3)
        ]
        picture = 128 + 50 * np.stack(channels, axis=-1)
        picture[(across > width / 3) & (across < width / 2)] *= 0.4
        picture += np.random.default_rng(3).normal(0, 3, picture.shape)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    return draw
