"""Batches, streams and shortage of memory: the same pixels as one window at a time on the CPU."""

import gc
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from safelight.engines.realesrgan.engine import (
    NETWORKS,
    Enlarger,
    Model,
    NcnnRunner,
    TorchRunner,
    open_enlarger,
)
from safelight.errors import OutOfMemoryError
from safelight.media.ahead import several_at_once
from safelight.media.tiles import tiles
from safelight.progress import StopRequestedError, watching

SIZES = {"cpu": (30, 45), "cuda:0": (300, 410)}
TILES = {"cpu": 16, "cuda:0": 64}


def levels_off(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def enlarger(
    device: str, model: Model, factor: int, tile: int, denoise: float = 0.0, dtype=torch.float32
) -> Enlarger:
    network = NETWORKS[model]
    return Enlarger(TorchRunner(network, device, dtype), network, factor, tile, denoise)


def on_the_cpu(model: Model, factor: int, tile: int, denoise: float = 0.0) -> Enlarger:
    """What the others are compared with: ncnn where it is installed."""
    if find_spec("ncnn") is None:
        return enlarger("cpu", model, factor, tile, denoise)
    return Enlarger(NcnnRunner(NETWORKS[model]), NETWORKS[model], factor, tile, denoise)


@pytest.fixture
def picture(device: str, drawn: Callable[..., np.ndarray]) -> np.ndarray:
    return drawn(*SIZES[device])


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each call of a whole or first part of a network got."""
    from safelight.engines.realesrgan.ncnn_graph import TorchGraph

    sizes, run = list[int](), TorchGraph.run

    def counted(self: TorchGraph, source: str, target: str, values: torch.Tensor) -> torch.Tensor:
        if source == "data":
            sizes.append(values.shape[0])
        return run(self, source, target, values)

    monkeypatch.setattr(TorchGraph, "run", counted)
    return sizes


@pytest.mark.parametrize(
    ("model", "factor", "denoise"),
    [("video", 1, 0.0), ("video", 2, 0.5), ("video", 3, 0.0), ("video", 4, 1.0), ("anime", 2, 0.0)],
)
def test_fp32_agrees_with_the_cpu(
    device: str,
    picture: np.ndarray,
    batches: list[int],
    model: Model,
    factor: int,
    denoise: float,
):
    if model == "anime":
        picture = picture[:15, :22] if device == "cpu" else picture[:100, :136]
    found = enlarger(device, model, factor, TILES[device], denoise).enlarge(picture)
    assert max(batches) > 1
    expected = on_the_cpu(model, factor, TILES[device], denoise).enlarge(picture)
    assert levels_off(found, expected) <= 1


@pytest.mark.parametrize("model", ["video", "anime"])
def test_fp16_is_within_a_few_levels(device: str, picture: np.ndarray, model: Model):
    if device == "cpu":
        picture = picture[:16, :24]
    half, full = (
        enlarger(device, model, 4, TILES[device], dtype=dtype).enlarge(picture)
        for dtype in (torch.float16, torch.float32)
    )
    # 90 convolutions add up: 7 levels at the worst pixel of a noisy picture, measured on an H200
    assert levels_off(half, full) <= (8 if model == "anime" and device != "cpu" else 2)


def test_windows_together_give_what_they_give_alone(
    device: str, picture: np.ndarray, batches: list[int]
):
    several = enlarger(device, "video", 3, TILES[device])
    together = several.enlarge(picture)
    count = len(tiles(*picture.shape[:2], several.tile, several.reach))
    assert sum(batches) == count > len(batches)
    batches.clear()
    several.frugal = True
    alone = several.enlarge(picture)
    assert batches == [1] * count
    assert levels_off(together, alone) <= 1


def test_the_last_layers_see_a_core_at_once_or_in_bites(
    device: str, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("safelight.engines.realesrgan.torch_backend.TAIL_TILE", 16)
    anime = enlarger(device, "anime", 2, 40)
    picture = picture[:40, :40]
    monkeypatch.setattr(TorchRunner, "_free_bytes", lambda self: 2**30)
    at_once = anime.enlarge(picture)
    monkeypatch.setattr(TorchRunner, "_free_bytes", lambda self: 0)
    in_bites = anime.enlarge(picture)
    assert levels_off(at_once, in_bites) <= 1


def test_the_bare_network_has_the_layout_of_pictures(device: str, picture: np.ndarray):
    runner = TorchRunner(NETWORKS["video"], device, torch.float32)
    values = torch.from_numpy(picture).permute(2, 0, 1)[None].to(device).float() / 255
    made = runner.network(values)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0)
    expected = Enlarger(runner, NETWORKS["video"], 4, 512, 0.0).enlarge(picture)
    assert levels_off(made.cpu().numpy().astype(np.uint8), expected) <= 1


def test_the_order_of_channels_in_memory_is_a_choice(device: str, picture: np.ndarray):
    class Planes(TorchRunner):
        channels_last = False

    network, picture = NETWORKS["anime"], picture[:15, :22]
    apart = Enlarger(Planes(network, device, torch.float32), network, 2, 16, 0.0)
    together = enlarger(device, "anime", 2, 16)
    assert levels_off(apart.enlarge(picture), together.enlarge(picture)) <= 1


def test_the_settings_choose_device_and_precision(
    device: str, picture: np.ndarray, configured: Callable[[str, str], None]
):
    if device == "cpu" and find_spec("ncnn") is None:
        pytest.skip("ncnn is not installed")
    configured(device, "auto")
    found = open_enlarger("video", 2, TILES[device]).enlarge(picture)
    assert levels_off(found, enlarger(device, "video", 2, TILES[device]).enlarge(picture)) <= 2


@contextmanager
def scarce(device: str, room: int, most_pixels: int) -> Generator[None]:
    """Leaves `room` bytes on a CUDA device; the CPU has no room for more than `most_pixels`."""
    if device != "cpu":
        torch.cuda.empty_cache()
        taken = torch.empty(
            torch.cuda.mem_get_info(device)[0] - room, dtype=torch.uint8, device=device
        )
        try:
            yield
        finally:
            del taken
            torch.cuda.empty_cache()
        return
    from safelight.engines.realesrgan.ncnn_graph import TorchGraph

    run = TorchGraph.run

    def tight(self: TorchGraph, source: str, target: str, values: torch.Tensor) -> torch.Tensor:
        if values.shape[0] * values.shape[2] * values.shape[3] > most_pixels:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return run(self, source, target, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchGraph, "run", tight)
        yield


def test_shortage_lowers_first_the_batch_and_then_the_tile(
    device: str, drawn: Callable[..., np.ndarray]
):
    picture, tile = {"cpu": (drawn(24, 136), 128), "cuda:0": (drawn(1024, 2048), 1024)}[device]
    tight = enlarger(device, "video", 2, tile)
    expected = tight.enlarge(picture)
    tight.close()
    # 64 channels of a window of 1024x1044 px take 274 MB: what one layer reads has room, and
    # what it writes has not
    with scarce(device, room=400 * 2**20, most_pixels=2080), watching(None) as notes:
        found = tight.enlarge(picture)
    assert notes[:2] == [
        "out of memory: tiles are enlarged one by one",
        f"out of memory: tile lowered from {tile} to {tile // 2} px",
    ]
    assert len(notes) == len(set(notes))
    assert levels_off(found, expected) <= 1
    assert levels_off(tight.enlarge(picture), expected) <= 1


def frames_of(
    device: str, drawn: Callable[..., np.ndarray], small: tuple[int, int], large: tuple[int, int]
) -> list[np.ndarray]:
    height, width = small if device == "cpu" else large
    return [drawn(height, width, 2.5 * at) for at in range(9)]


def at_once(open_one: Enlarger, frames: list[np.ndarray]) -> list[np.ndarray]:
    with several_at_once(open_one.together) as ahead:
        return list(ahead.in_order(ahead.begin(open_one.enlarge, frame) for frame in frames))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_frames_enlarged_at_once_are_those_enlarged_alone(
    device: str, drawn: Callable[..., np.ndarray], dtype: torch.dtype
):
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("the CPU computes in full precision alone")
    frames = frames_of(device, drawn, (24, 40), (512, 640))
    video = enlarger(device, "video", 4, {"cpu": 16, "cuda:0": 256}[device], dtype=dtype)
    assert video.together > 1
    expected = [video.enlarge(frame) for frame in frames]
    for found, alone in zip(at_once(video, frames), expected, strict=True):
        np.testing.assert_array_equal(found, alone)


def test_frames_at_once_that_run_short_save_step_by_step(
    device: str, drawn: Callable[..., np.ndarray]
):
    frames = frames_of(device, drawn, (24, 136), (1024, 2048))
    tile = {"cpu": 128, "cuda:0": 1024}[device]
    video = enlarger(device, "video", 2, tile)
    expected = [video.enlarge(frame) for frame in frames]
    video.close()
    with (
        scarce(device, room=700 * 2**20, most_pixels=2080),
        watching(None) as notes,
    ):
        found = at_once(video, frames)
    assert notes[0] == "out of memory: tiles are enlarged one by one"
    assert len(notes) == len(set(notes)), "several at once that run short must not save twice"
    for one, other in zip(found, expected, strict=True):
        assert levels_off(one, other) <= 1


def test_no_room_at_all_is_an_error_and_leaves_it_working(
    device: str, drawn: Callable[..., np.ndarray]
):
    picture = {"cpu": drawn(20, 66), "cuda:0": drawn(256, 400)}[device]
    video = enlarger(device, "video", 2, 64)
    expected = video.enlarge(picture)
    video.close()
    with (
        scarce(device, room=2**24, most_pixels=10),
        pytest.raises(OutOfMemoryError, match="lower tile"),
    ):
        video.enlarge(picture)
    assert levels_off(video.enlarge(picture), expected) <= 1


def in_use() -> tuple[int, int, int]:
    """Tensors, bytes they take on a CUDA device, threads."""
    gc.collect()
    tensors = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
    taken = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return tensors, taken, threading.active_count()


@pytest.mark.slow
def test_ten_runs_take_no_more_than_two(device: str, picture: np.ndarray):
    video = enlarger(device, "video", 2, TILES[device])
    picture = picture[: picture.shape[0] // 2]
    for _ in range(2):
        video.enlarge(picture)
    before = in_use()
    for _ in range(8):
        video.enlarge(picture)
    assert in_use() == before


@pytest.mark.slow
def test_a_cancelled_picture_leaves_nothing_in_flight(device: str, picture: np.ndarray):
    video = enlarger(device, "video", 2, TILES[device])
    expected = video.enlarge(picture)
    before = in_use()
    seen = list[int]()

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise StopRequestedError("stopped")

    with pytest.raises(StopRequestedError):
        video.enlarge(picture, stop)
    if device != "cpu":
        assert torch.cuda.current_stream(device).query()
    assert seen == [0, 1, 2]
    assert in_use() == before
    assert levels_off(video.enlarge(picture), expected) <= 1
