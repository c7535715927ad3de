"""Frames against those of the network's own code, at times worked out by hand.

That code is in the package the weights come from, whose own module needs a video server; its
network is opened beside it.
"""

import importlib
import sys
import types
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from safelight.engines.rife import engine as rife
from safelight.media.video.retiming import retimed
from safelight.settings import settings

BLOCK = 64
"""Sides are filled up to multiples of it by going on with the last row and column."""
ALIAS = "reference_of_rife"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def network() -> Iterator[Any]:
    package = types.ModuleType(ALIAS)
    package.__path__ = [str(rife.weights_path().parent)]
    sys.modules[ALIAS] = package
    made = importlib.import_module(f"{ALIAS}.IFNet_HDv3").IFNet("cpu").eval()
    state = torch.load(rife.weights_path(), map_location="cpu", weights_only=True)
    told = made.load_state_dict(
        {name.removeprefix("module."): tensor for name, tensor in state.items()}, strict=False
    )
    assert not told.missing_keys
    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == ALIAS]:
        del sys.modules[name]


def wanted(network: Any, first: np.ndarray, second: np.ndarray, timestep: float) -> np.ndarray:
    """(H, W, 3) levels that are not rounded."""
    height, width = first.shape[:2]
    sides = ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0))
    frames = [np.pad(each, sides, mode="edge") for each in (first, second)]
    pair = torch.from_numpy(np.concatenate(frames, axis=2)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        # scales of its own: the code doubles those of the caller where motion is far
        _, _, merged = network(pair, timestep, scale_list=[8, 4, 2, 1])
    made = merged[3][0].permute(1, 2, 0).numpy()[:height, :width]
    return np.clip(made * 255, 0, 255)


def panned(photo: np.ndarray, shift: int, height: int = 160, width: int = 240) -> np.ndarray:
    return np.ascontiguousarray(photo[100 : 100 + height, 40 + shift : 40 + shift + width])


@pytest.mark.parametrize("timestep", [0.25, 0.5, 0.8])
@pytest.mark.parametrize(
    ("height", "width", "shift"),
    [(128, 192, 12), (1, 1, 3), (1, 90, 3), (70, 1, 3), (67, 101, 7), (256, 320, 90)],
)
def test_a_frame_is_that_of_the_network_s_own_code(
    photo: np.ndarray, network: Any, timestep: float, height: int, width: int, shift: int
):
    first, second = (panned(photo, at, height, width) for at in (0, shift))
    made = rife.Rife().between(first, second, timestep)
    expected = wanted(network, first, second, timestep)
    assert made.shape == (height, width, 3)
    assert np.abs(made - expected).max() < 0.51  # what rounding alone leaves
    if min(height, width) > 1:
        other = wanted(network, first, second, timestep - 0.1)
        assert np.abs(made - other).max() > 1


def test_new_frames_are_made_for_their_times_and_none_across_a_cut(photo: np.ndarray, network: Any):
    """24 to 60 frames a second: two of five source times have a frame, the rest lie between."""
    scene = np.ascontiguousarray(255 - photo[300:364, 300:396])
    moving = [panned(photo, shift, 64, 96) for shift in (0, 4, 4, 8)]  # the third repeats
    shown = [*moving, scene, scene]
    made = list(retimed(iter(shown), 6, Fraction(24), Fraction(60), rife.Rife().between))
    assert len(made) == 15
    by_hand: list[tuple[int, float]] = [
        *((0, 0.0), (0, 0.4), (0, 0.8), (1, 0.2), (1, 0.6)),
        *((2, 0.0), (2, 0.4), (2, 0.8), (3, 0.2), (3, 0.6)),
        *((4, 0.0), (4, 0.4), (4, 0.8), (5, 0.0), (5, 0.0)),
    ]
    for place, (left, timestep) in enumerate(by_hand):
        frame = made[place]
        if timestep == 0 or left in (1, 4):  # a source frame, or between two that are equal
            assert np.array_equal(frame, shown[left]), place
        elif left == 3:  # a cut: the nearer one is held
            assert np.array_equal(frame, shown[3 if timestep < 0.5 else 4]), place
        else:
            expected = wanted(network, shown[left], shown[left + 1], timestep)
            assert np.abs(frame - expected).max() <= 1, place
    assert np.array_equal(made[0], shown[0])
    assert np.array_equal(made[-1], shown[-1])
