"""Frames that are made while others are taken: the same as one by one, in order, and no fewer."""

import gc
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from safelight.engines.machine.transfers import Transfers
from safelight.engines.rife.engine import Network, Rife
from safelight.errors import OutOfMemoryError
from safelight.media.video.retiming import in_order, retimed
from safelight.progress import watching

SIZES = {"cpu": (60, 90), "cuda:0": (540, 960)}
Frames = list[np.ndarray]


def levels_off(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


@pytest.fixture
def frames(device: str, drawn: Callable[..., np.ndarray]) -> Frames:
    return [drawn(*SIZES[device], moved=moved) for moved in (0, 3, 5, 9)]


@pytest.fixture
def engine(device: str, configured: Callable[[str, str], None]) -> Rife:
    configured(device, "fp32")
    return Rife()


def wanted(frames: Frames) -> list[tuple[np.ndarray, np.ndarray, float]]:
    return [(*pair, timestep) for pair in pairwise(frames) for timestep in (0.25, 0.5)]


def test_fp32_agrees_with_the_cpu(
    device: str, frames: Frames, configured: Callable[[str, str], None]
):
    configured(device, "fp32")
    found = list(Rife().moments(wanted(frames)))
    configured("cpu", "fp32")
    one_by_one = [Rife().between(*each) for each in wanted(frames)]
    worst = 0 if device == "cpu" else 1
    assert [levels_off(*pair) <= worst for pair in zip(found, one_by_one, strict=True)] == [
        True
    ] * 6


def test_fp16_is_within_two_levels(
    device: str, frames: Frames, configured: Callable[[str, str], None]
):
    made = []
    for precision in ("fp16", "fp32"):
        configured(device, precision)
        made.append(Rife().between(frames[0], frames[1], 0.5))
    assert levels_off(*made) <= 2


def test_each_frame_goes_over_once_and_results_stay(
    engine: Rife, frames: Frames, monkeypatch: pytest.MonkeyPatch
):
    sent, up = list[int](), Transfers.up

    def counted(self: Transfers, arrays: list[np.ndarray]) -> torch.Tensor:
        sent.extend(id(array) for array in arrays)
        return up(self, arrays)

    monkeypatch.setattr(Transfers, "up", counted)
    made = list(engine.moments(wanted(frames)))
    assert sent == [id(frame) for frame in frames]
    kept = [frame.copy() for frame in made]
    again = list(engine.moments(wanted(frames[::-1])))
    assert len(again) == len(made)
    for frame, copy in zip(made, kept, strict=True):
        assert frame.flags.writeable
        np.testing.assert_array_equal(frame, copy)


def test_a_retimed_clip_has_every_frame_in_order(engine: Rife, frames: Frames):
    def shown(make: Callable) -> Frames:
        return list(in_order(retimed(iter(frames), 4, Fraction(24), Fraction(60), make)))

    found, expected = shown(engine.begin), shown(engine.between)
    assert len(found) == len(expected) == 10
    for one, other in zip(found, expected, strict=True):
        assert levels_off(one, other) <= 1


def test_shortage_makes_the_same_frames_or_says_so(
    device: str, engine: Rife, frames: Frames, monkeypatch: pytest.MonkeyPatch
):
    expected = engine.between(frames[0], frames[1], 0.5)
    if device == "cpu":
        middle = Network.middle

        def tight(self: Network, pair: torch.Tensor, timestep: float, rows: int | None):
            if rows is None:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
            return middle(self, pair, timestep, rows)

        with monkeypatch.context() as patch, watching(None) as notes:
            patch.setattr(Network, "middle", tight)
            made = list(Rife().moments(wanted(frames)))
        for one, other in zip(made, engine.moments(wanted(frames)), strict=True):
            assert levels_off(one, other) <= 1
        assert len(made) == 6
        assert notes == ["out of memory: frames are worked through in bands of 256 rows"]
    else:
        until_short(device, frames)
    assert levels_off(Rife().between(frames[0], frames[1], 0.5), expected) <= 1


def until_short(device: str, frames: Frames) -> None:
    """Leaves the device less and less memory until a frame does not fit."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    Rife().between(frames[0], frames[1], 0.5)
    peak = torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    for percent in range(150, 0, -3):
        torch.cuda.empty_cache()
        room = peak * percent // 100
        free = torch.cuda.mem_get_info(device)[0]
        taken = torch.empty(free - room, dtype=torch.uint8, device=device)
        try:
            with watching(None) as notes:
                Rife().between(frames[0], frames[1], 0.5)
        except OutOfMemoryError as error:
            notes.append(str(error))
        finally:
            del taken
        if notes:
            assert all("in bands of" in text for text in notes)
            break
    else:
        pytest.fail("there was always enough memory")
    torch.cuda.empty_cache()


def in_use() -> tuple[int, int]:
    """Tensors, and bytes they take on a CUDA device."""
    gc.collect()
    tensors = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
    return tensors, torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


@pytest.mark.slow
def test_ten_runs_take_no_more_than_two(engine: Rife, frames: Frames):
    small = [np.ascontiguousarray(frame[:32, :64]) for frame in frames[:3]]
    for _ in range(2):
        list(engine.moments(wanted(small)))
    before = in_use()
    for _ in range(8):
        list(engine.moments(wanted(small)))
    assert in_use() == before


@pytest.mark.slow
def test_stopped_in_the_middle_it_goes_on_with_another_clip(engine: Rife, frames: Frames):
    expected = engine.between(frames[1], frames[2], 0.25)
    list(engine.moments(wanted(frames[:3])))
    engine.settle()
    before = in_use()
    made = engine.moments(wanted(frames[:3]))
    next(made)
    made.close()
    engine.settle()
    assert in_use()[0] <= before[0]
    assert levels_off(next(engine.moments(wanted(frames[1:]))), expected) <= 1


@pytest.mark.gpu
def test_a_recording_makes_the_same_frames_also_where_motion_is_far(
    configured: Callable[[str, str], None], drawn: Callable[..., np.ndarray]
):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    configured("cuda:0", "fp16")
    near = [drawn(256, 448, 2.0 * at) for at in range(9)]
    frames = [*near, drawn(256, 448, 140.0), drawn(256, 448, 142.0), drawn(256, 448, 144.0)]
    wanted = [(one, two, 0.25) for one, two in pairwise(frames)]
    engine = Rife()
    found = list(engine.moments(wanted))
    for (one, two, when), frame in zip(wanted, found, strict=True):
        alone = Rife().between(one, two, when)  # a fresh one has recorded nothing
        assert np.abs(frame.astype(int) - alone.astype(int)).max() <= 1
    again = list(engine.moments(wanted))
    assert all(np.array_equal(one, other) for one, other in zip(found[5:], again[5:], strict=True))
