"""Engines on a GPU over the bare libraries: `python -m tests.benchmarks.gpu [FILE]`.

Needs torch, diffusers and the checkout, no Prefect. Models have random weights of real shapes, and
each ratio is of two measurements of one process, the runs taking turns. Prints one JSON object, and
writes it to FILE too; PARTS=name,name measures some of it. On a machine without CUDA
everything runs in small, to show that it does.
"""

import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"
DTYPE = torch.bfloat16 if ON_GPU else torch.float32
GIB = 2**30
ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a house on a hill by the sea, number {}"

COLD = """
import sys, time
started = time.perf_counter()
import torch
from pathlib import Path
way, folder, side, steps, device = sys.argv[1], *sys.argv[2:6]
side, steps = int(side), int(steps)
if way == "bare":
    from diffusers import AutoPipelineForText2Image
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    pipeline = AutoPipelineForText2Image.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline("a house", width=side, height=side, num_inference_steps=steps).images[0]
else:
    from safelight.engines.diffusion import Drawing, draw
    from safelight.weights.checkpoints import find_checkpoint
    card = find_checkpoint(Path(folder).name)
    draw(Drawing(card=card, prompt="a house", seed=1, steps=steps, guidance_scale=5.0), side, side)
print(time.perf_counter() - started)
"""


def sync() -> None:
    """Wait for the device."""
    if ON_GPU:
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Of one run, the device's work included."""
    sync()
    started = time.perf_counter()
    work()
    sync()
    return time.perf_counter() - started


def fresh() -> None:
    """Nothing of an earlier measurement is left on the device."""
    from safelight.engines.machine.loaded import forget_loaded
    from safelight.settings import reload_settings

    reload_settings()
    forget_loaded()
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Busy:
    """Samples how much of the time the GPU computed."""

    def __init__(self) -> None:
        self._samples: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Busy":
        if ON_GPU:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if ON_GPU:
            self._thread.join()

    def _sample(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._over.wait(0.1):
            self._samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    @property
    def percent(self) -> float | None:
        """Mean of the samples."""
        return round(float(np.mean(self._samples)), 1) if self._samples else None


@contextmanager
def bare(folder: Path, compiled: bool) -> Iterator[Any]:
    """Diffusers' own recipe: bfloat16, SDPA, channels last, and compiled where asked."""
    from diffusers import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(
        folder, torch_dtype=DTYPE, local_files_only=True
    ).to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    if ON_GPU:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        if compiled:
            torch._dynamo.config.recompile_limit = 64
            pipeline.unet.compile_repeated_blocks(fullgraph=True)
    yield pipeline
    del pipeline
    fresh()


def draw_bare(pipeline: Any, first: int, count: int, side: int, steps: int, scale: float) -> None:
    generators = [torch.Generator("cpu").manual_seed(first + i) for i in range(count)]
    pipeline(
        [PROMPT.format(first + i) for i in range(count)],
        negative_prompt=[""] * count if scale > 1 else None,
        width=side,
        height=side,
        num_inference_steps=steps,
        guidance_scale=scale,
        generator=generators,
    )


def wanted(name: str, first: int, count: int, steps: int, scale: float) -> list[Any]:
    from safelight.engines.diffusion import Drawing
    from safelight.weights.checkpoints import find_checkpoint

    card = find_checkpoint(name)
    return [
        Drawing(
            card=card,
            prompt=PROMPT.format(first + at),
            seed=first + at,
            steps=steps,
            guidance_scale=scale,
        )
        for at in range(count)
    ]


def sampling(folder: Path, compiled: bool) -> dict[str, object]:
    """SDXL, 1024 px, 20 steps: pictures a second against the best batch of the bare recipe."""
    from safelight.engines.diffusion import draw_together
    from safelight.settings import reload_settings

    side, steps, count, scale = (1024, 20, 16, 5.0) if ON_GPU else (64, 2, 2, 5.0)
    many = 8 if ON_GPU else 1
    # each size is compiled by itself, and what trying finds is known: 8
    most = many if compiled else None
    began = time.perf_counter()
    rates: dict[int, float] = {}

    def bare_rate(pipeline: Any, size: int) -> None:
        took = seconds(lambda: draw_bare(pipeline, 0, size, side, steps, scale))
        rates[size] = max(size / took, rates.get(size, 0.0))

    def ours(pictures: list[Any]) -> list[int]:
        sizes: list[int] = []
        draw_together(pictures, side, side, lambda _, drawn: sizes.append(drawn.batch), most)
        return sizes

    with bare(folder, compiled) as pipeline:
        for size in {many} if compiled else {1, many}:
            draw_bare(pipeline, 0, size, side, 2, scale)
            bare_rate(pipeline, size)
        prepared_bare = time.perf_counter()
        os.environ["SAFELIGHT_COMPILE"] = "true" if compiled else "false"
        reload_settings()
        before = torch.cuda.memory_allocated() if ON_GPU else 0
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        search = ours(wanted(folder.name, 0, many * 2 if compiled else many * 4 - 2, steps, scale))
        prepared = time.perf_counter()
        pictures = wanted(folder.name, 0, count, steps, scale)
        sizes: list[int] = []
        took = seconds(lambda: sizes.extend(ours(pictures)))
        peak = (torch.cuda.max_memory_allocated() - before) / GIB if ON_GPU else 0.0
        bare_rate(pipeline, many)
        os.environ["SAFELIGHT_COMPILE"] = "false"
    return {
        "ours_per_s": round(count / took, 3),
        "batch": max(sizes),
        "tried": sorted(set(search)),
        "bare_per_s": {size: round(rate, 3) for size, rate in rates.items()},
        "ratio": round(count / took / max(rates.values()), 3),
        "peak_gib": round(peak, 2),
        "prepared_s": [round(prepared_bare - began, 1), round(prepared - prepared_bare, 1)],
    }


def turbo(folder: Path) -> dict[str, object]:
    """500 pictures of one step, each encoded as a PNG: how busy the device is."""
    from safelight.engines.diffusion import draw_together

    side, count = (512, 500) if ON_GPU else (64, 4)
    size = 16 if ON_GPU else 2
    with bare(folder, compiled=False) as pipeline:
        draw_bare(pipeline, 0, size, side, 1, 0.0)

        def loop() -> None:
            for first in range(0, count // 4, size):
                draw_bare(pipeline, first, min(size, count // 4 - first), side, 1, 0.0)

        rate = (count // 4) / seconds(loop)
    fresh()
    draw_together(wanted(folder.name, 0, count // 5, 1, 0.0), side, side, lambda _, __: None)
    made: list[int] = []
    with ThreadPoolExecutor(8) as encoders, Busy() as busy:
        began = time.perf_counter()
        jobs: list[Any] = []

        def receive(_: int, drawn: Any) -> None:
            made.append(drawn.batch)
            jobs.append(encoders.submit(png, drawn.pixels))

        draw_together(wanted(folder.name, 0, count, 1, 0.0), side, side, receive)
        drawn_s = time.perf_counter() - began
        for job in jobs:
            job.result()
        took = time.perf_counter() - began
    fresh()
    return {
        "ours_per_s": round(count / took, 2),
        "bare_without_png_per_s": round(rate, 2),
        "ratio": round(count / took / rate, 3),
        "batch": max(made),
        "busy_percent": busy.percent,
        "seconds": [round(drawn_s, 2), round(took, 2)],
    }


def png(pixels: np.ndarray) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def formats(folder: Path) -> dict[str, object]:
    """SD 1.5 in each number format, one at a time and together: pictures a second."""
    from safelight.engines.diffusion import draw, draw_together

    side, steps, count = (512, 20, 8) if ON_GPU else (64, 2, 2)
    found: dict[str, object] = {}
    for precision in ("fp16", "bf16") if ON_GPU else ("fp32",):
        os.environ["SAFELIGHT_PRECISION"] = precision
        fresh()
        pictures = wanted(folder.name, 0, count, steps, 7.5)
        draw(pictures[0], side, side)
        alone = seconds(lambda p=pictures: [draw(one, side, side) for one in p[:4]])
        draw_together(wanted(folder.name, 0, 126 if ON_GPU else 2, 2, 7.5), side, side, _ignore)
        together = seconds(lambda p=pictures: draw_together(p, side, side, _ignore))
        found[precision] = {
            "alone_per_s": round(min(4, count) / alone, 2),
            "together_per_s": round(count / together, 2),
        }
    os.environ.pop("SAFELIGHT_PRECISION")
    fresh()
    return found


def _ignore(_: int, __: object) -> None:
    pass


def flux(folder: Path) -> dict[str, object]:
    """A Flux-schnell of six blocks, 1024 px, 4 steps."""
    from safelight.engines.diffusion import draw, draw_together

    side, steps = (1024, 4) if ON_GPU else (64, 2)
    pictures = wanted(folder.name, 0, 4 if ON_GPU else 2, steps, 0.0)
    draw(pictures[0], side, side)
    alone = seconds(lambda: [draw(one, side, side) for one in pictures[:2]])
    together = seconds(lambda: draw_together(pictures, side, side, _ignore))
    fresh()
    return {
        "alone_per_s": round(2 / alone, 2),
        "together_per_s": round(len(pictures) / together, 2),
    }


def cold(folder: Path) -> dict[str, object]:
    """SD 1.5: first picture of a new process, import and load included."""
    side, steps = (512, 20) if ON_GPU else (64, 2)
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    for way in ("bare", "ours", "ours", "bare") if ON_GPU else ("bare", "ours"):
        result = subprocess.run(
            [sys.executable, "-c", COLD, way, str(folder), str(side), str(steps), DEVICE],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if result.returncode:
            return {"failed": result.stderr[-1500:]}
        took[way].append(float(result.stdout.split()[-1]))
    ours, other = min(took["ours"]), min(took["bare"])
    return {
        "ours_s": [round(s, 2) for s in took["ours"]],
        "bare_s": [round(s, 2) for s in took["bare"]],
        "ratio": round(ours / other, 3),
    }


def enlarging() -> dict[str, object]:
    """Real-ESRGAN against its network on windows that are on the device already.

    A picture alone, and as the frames of a video: several at once, those before on their way back.
    """
    from safelight.engines.realesrgan.engine import NETWORKS, TorchRunner, open_enlarger
    from safelight.media.ahead import several_at_once

    found: dict[str, object] = {}
    for model, height, width, tile in (("video", 1080, 1920, 512), ("anime", 1024, 1024, 512)):
        if not ON_GPU:
            height, width, tile = 48, 64, 32
        picture = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
        dtype = torch.float16 if ON_GPU else torch.float32
        runner = TorchRunner(NETWORKS[model], DEVICE, dtype)
        enlarger = open_enlarger(model, 4, tile)
        windows = window_batches(picture, tile, enlarger.reach, dtype)
        rounds = 5 if ON_GPU else 1

        def alone(runner: Any = runner, windows: Any = windows) -> None:
            with torch.inference_mode():
                for batch in windows:
                    runner.network(batch)

        for work in (alone, lambda e=enlarger, p=picture: e.enlarge(p)):
            work()
            work()
        network = min(seconds(alone) for _ in range(rounds))
        ours = min(seconds(lambda e=enlarger, p=picture: e.enlarge(p)) for _ in range(rounds))
        count = 40 if ON_GPU else 3

        def frames(open_one: Any = enlarger, picture: np.ndarray = picture, n: int = count) -> None:
            with several_at_once(open_one.together) as ahead:
                for _ in ahead.in_order(ahead.begin(open_one.enlarge, picture) for _ in range(n)):
                    pass

        frames()
        each = min(seconds(frames) for _ in range(rounds)) / count
        network = min(network, *(seconds(alone) for _ in range(rounds)))
        found[model] = {
            "ratio": round(network / each, 3),
            "ratio_alone": round(network / ours, 3),
            "together": enlarger.together,
            "each_ms": round(each * 1000, 1),
            "alone_ms": round(ours * 1000, 1),
            "network_ms": round(network * 1000, 1),
        }
        del runner, windows, enlarger
        fresh()
    return found


def window_batches(picture: np.ndarray, tile: int, reach: int, dtype: torch.dtype) -> list[Any]:
    """The windows of a picture on the device, those of one shape together, a few at a time."""
    from safelight.media.tiles import tiles

    height, width = picture.shape[:2]
    alike: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for part in tiles(height, width, tile, reach):
        window = torch.from_numpy(np.ascontiguousarray(picture[part.window])).to(DEVICE)
        values = (window.permute(2, 0, 1).float() / 255).to(dtype)
        alike.setdefault(tuple(values.shape), []).append(values)
    return [torch.stack(group) for group in alike.values()]


def interpolating() -> dict[str, object]:
    """RIFE against its network on frames that are on the device already."""
    from safelight.engines.rife.engine import Rife

    height, width, count = (1088, 1920, 30) if ON_GPU else (64, 64, 2)
    from skimage import data

    photo = np.tile(data.astronaut(), (height // 512 + 1, width // 512 + 2, 1))[:height]
    frames = [np.ascontiguousarray(photo[:, 3 * at : width + 3 * at]) for at in range(count + 1)]
    engine = Rife()
    there = [
        (torch.from_numpy(f).to(DEVICE).permute(2, 0, 1).float() / 255).to(engine.dtype)
        for f in frames[:4]
    ]

    def alone() -> None:
        with torch.inference_mode():
            for at in range(count):
                pair = torch.stack([there[at % 3], there[at % 3 + 1]])
                engine.network.middle(pair, 0.5)

    def ours() -> None:
        pairs = ((frames[at], frames[at + 1], 0.5) for at in range(count))
        for _ in engine.moments(pairs):
            pass

    alone()
    ours()
    recorded = engine._replay is not None
    rounds = 3 if ON_GPU else 1
    network = min(seconds(alone) for _ in range(rounds))
    took = min(seconds(ours) for _ in range(rounds))
    fresh()
    return {
        "ratio": round(network / took, 3),
        "recorded": recorded,
        "ours_ms": round(took / count * 1000, 2),
        "network_ms": round(network / count * 1000, 2),
    }


def main() -> None:
    """Measure all, and print it."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    found: dict[str, object] = {
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name() if ON_GPU else "cpu, in small",
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ |= {
            "SAFELIGHT_MODELS_DIR": str(root / "models"),
            "VOLUME_ROOT": str(root / "volume"),
            "SAFELIGHT_DEVICE": DEVICE,
            "HF_HUB_OFFLINE": "1",
        }
        from tests.gpu.shapes import build

        def shaped(name: str) -> Path:
            folder = root / "models" / name
            if not folder.is_dir():
                build(name, folder, tiny=not ON_GPU, device=DEVICE)
                fresh()
            return folder

        parts: dict[str, Callable[[], dict[str, object]]] = {
            "enlarging": enlarging,
            "interpolating": interpolating,
            "formats_sd15": lambda: formats(shaped("sd15")),
            "flux_cut": lambda: flux(shaped("flux")),
            "turbo": lambda: in_bf16(lambda: turbo(shaped("sdxl"))),
            "sdxl": lambda: in_bf16(lambda: sampling(shaped("sdxl"), compiled=False)),
            "cold": lambda: in_bf16(lambda: cold(shaped("sd15"))),
            "sdxl_compiled": lambda: in_bf16(lambda: sampling(shaped("sdxl"), compiled=True)),
        }
        asked = [name for name in os.environ.get("PARTS", "").split(",") if name] or list(parts)
        for name in asked:
            started = time.perf_counter()
            try:
                found[name] = parts[name]()
            except Exception:  # noqa: BLE001 - one part that fails must not hide the others' figures
                found[name] = {"failed": traceback.format_exc()[-1500:]}
                fresh()
            found[f"{name}_s"] = round(time.perf_counter() - started, 1)
            sys.stderr.write(f"{name} {json.dumps(found[name])} {found[f'{name}_s']}\n")
            if target:
                target.write_text(json.dumps(found, indent=2))
    sys.stdout.write(json.dumps(found) + "\n")
    sys.exit(any(isinstance(f, dict) and "failed" in f for f in found.values()))


def in_bf16(measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Both sides in the format of diffusers' recipe."""
    os.environ["SAFELIGHT_PRECISION"] = "bf16" if ON_GPU else "fp32"
    fresh()
    try:
        return measure()
    finally:
        os.environ.pop("SAFELIGHT_PRECISION")
        fresh()


if __name__ == "__main__":
    main()
