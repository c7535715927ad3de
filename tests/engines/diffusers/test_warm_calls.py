"""Nothing of a call stays in a warm process: later pictures are those of a fresh one."""

import gc
import hashlib
import random
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers import calling
from safelight.engines.diffusers.drawing import Control
from safelight.engines.diffusers.model import DiffusionModel
from safelight.engines.diffusion import Drawing, add_on, draw, redraw
from safelight.engines.machine.loaded import GIB, forget_loaded, loaded_stats
from safelight.errors import PipelineError
from safelight.settings import reload_settings
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from
from tests.engines.diffusers.test_draw import make_controlnet, make_ip_adapter

MODELS = ("tiny", "second")
SAMPLERS = (None, "euler", "euler_a", "dpmpp_2m_karras", "ddim", "dpmpp_2m_sde", "lms", "no such")
LORAS = ((), (("warm", 0.8),), (("warm", -0.5), ("cold", 1.0)), (("alien", 1.0),))
NETS = (None, None, ("edges", 0.0, 1.0), ("edges", 0.4, 1.0), ("no such", 0.0, 1.0))
ADAPTERS = (None, None, "face")
WORDS = ((), ("starlight",), ("too_wide",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two models, LoRAs and words for both, and one of each that fits neither."""
    folder = tmp_path_factory.mktemp("warm")
    for seed, name in enumerate(MODELS):
        build_untrained(folder / name, seed=seed)
    make_controlnet(folder)
    make_ip_adapter(folder)
    (folder / "loras").mkdir()
    (folder / "embeddings").mkdir()
    torch.manual_seed(6)
    layer = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    for name, width in (("warm", 8), ("cold", 8), ("alien", 9)):
        start = f"lora_unet_{layer}"
        save_file(
            {
                f"{start}.lora_down.weight": torch.randn(2, width),
                f"{start}.lora_up.weight": torch.randn(8, 2),
                f"{start}.alpha": torch.tensor(2.0),
            },
            folder / "loras" / f"{name}.safetensors",
        )
    for name, width in (("starlight", 32), ("too_wide", 33)):
        save_file(
            {"emb_params": torch.randn(2, width)}, folder / "embeddings" / f"{name}.safetensors"
        )
    with models_from(folder) as models:
        yield models


class Held:
    """Which models were loaded, without holding them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[weakref.ref[DiffusionModel]] = []
        made = DiffusionModel.__init__

        def noting(one: DiffusionModel, *given: object, **named: object) -> None:
            made(one, *given, **named)
            self.seen.append(weakref.ref(one))

        patch.setattr(DiffusionModel, "__init__", noting)

    def alive(self) -> int:
        gc.collect()
        return sum(one() is not None for one in self.seen)


def check_memory(folder: Path, runs: int, growth_mib: int) -> None:
    """Five models take turns where three fit: never more are held, and memory stays."""
    names = [f"turn_{number}" for number in range(5)]
    for seed, name in enumerate(names):
        build_untrained(folder / name, seed=50 + seed)
    cards = [find_checkpoint(name) for name in names]
    room = sum(card.file_size_bytes for card in cards[:3]) * 1.1
    dice, process = random.Random(4), psutil.Process()
    early, most = 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_MODEL_MEMORY_GIB", str(room / GIB))
        reload_settings()
        forget_loaded()
        held = Held(patch)
        for run in range(runs):
            drawing = Drawing(dice.choice(cards), "a red cat", run, steps=1, guidance_scale=1.0)
            draw(drawing, 64, 64)
            stats = loaded_stats()
            assert stats.kept_bytes <= room
            assert held.alive() == stats.kept <= 3
            if run == runs // 5:
                early = process.memory_info().rss
        most = process.memory_info().rss - early
        assert len(held.seen) > runs // 4  # they came and went
    reload_settings()
    forget_loaded()
    assert most < growth_mib * 2**20, f"{most / 2**20:.0f} MiB more"


def guided(drawing: Drawing, dice: random.Random, size: tuple[int, int]) -> Drawing:
    """The drawing with a ControlNet and an IP-Adapter, or without them."""
    picture = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    net, adapter = dice.choice(NETS), dice.choice(ADAPTERS)
    if net is not None:
        control = Control(add_on("controlnet", net[0], 1.0), picture, *net[1:])
        drawing = replace(drawing, controls=(control,))
    if adapter is not None:
        face = add_on("ip_adapter", adapter, 0.8)
        drawing = replace(drawing, ip_adapter=face, reference_images=(picture,))
    return drawing


def outcome_of(seed: int) -> str:
    """What one call gives, which its number describes: digest of the pixels, or the code."""
    dice = random.Random(seed)
    try:
        drawing = Drawing(
            find_checkpoint(dice.choice(MODELS)),
            dice.choice(("a red cat", "a photo of starlight", "dog " * 90)),
            dice.randrange(1000),
            steps=dice.choice((1, 2, 3)),
            guidance_scale=dice.choice((1.0, 4.0)),
            num_images=dice.choice((1, 2)),
            scheduler=dice.choice(SAMPLERS),
            loras=tuple(add_on("loras", *use) for use in dice.choice(LORAS)),
            embeddings=tuple(add_on("embeddings", name, 1.0) for name in dice.choice(WORDS)),
        )
        width, height = dice.choice(((64, 64), (96, 64), (64, 80)))
        drawing = guided(drawing, dice, (height, width))
        made = draw(drawing, width, height)
        if dice.random() < 0.3:
            made = redraw(drawing, made[0], 0.7)
    except PipelineError as error:
        return error.code
    return hashlib.sha256(b"".join(pixels.tobytes() for pixels in made)).hexdigest()


def with_memory_running_out(seed: int, patch: pytest.MonkeyPatch) -> None:
    """The same call, whose first attempt at pictures finds no memory."""
    real, times = calling.through, iter(range(1, 9))

    def through(*arguments: object) -> object:
        if next(times, 9) <= 1 + seed % 2:
            raise MemoryError("out of memory")
        return real(*arguments)

    with patch.context() as now:
        now.setattr(calling, "through", through)
        outcome_of(seed)


def fresh(folder: Path, seeds: list[int]) -> dict[int, str]:
    """The same calls, each by models loaded for it alone, in a process of its own."""
    program = (
        "import sys\n"
        "from safelight.engines.machine.loaded import forget_loaded\n"
        "from tests.engines.diffusers.test_warm_calls import outcome_of\n"
        "for seed in map(int, sys.argv[1:]):\n"
        "    forget_loaded()\n"
        "    print(seed, outcome_of(seed))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, seeds)],
        cwd=Path(__file__).resolve().parents[3],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {int(seed): outcome for seed, outcome in map(str.split, done.stdout.splitlines())}


def check_calls(folder: Path, seeds: range) -> None:
    wanted = fresh(folder, list(seeds))
    order = [*seeds, *seeds]
    random.Random(1).shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        for place, seed in enumerate(order):
            if place % 5 == 2:
                with_memory_running_out(seed, patch)
            assert outcome_of(seed) == wanted[seed], (place, seed)
    assert len(set(wanted.values())) > len(wanted) // 3
    assert any(outcome.isupper() for outcome in wanted.values())


@pytest.mark.slow
def test_calls_in_random_order_are_those_of_a_fresh_process(models: Path):
    check_calls(models, range(4))


@pytest.mark.soak
def test_models_that_take_turns_stay_within_their_memory(models: Path):
    check_memory(models, 15, growth_mib=200)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_100_runs_with_five_models_stay_within_their_memory(models: Path):
    check_memory(models, 100, growth_mib=30)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_300_calls_in_random_order_are_those_of_a_fresh_process(models: Path):
    check_calls(models, range(100, 250))
