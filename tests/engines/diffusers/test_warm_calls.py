"""Nothing of a call stays in a warm process: later pictures are those of a fresh one."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers import calling
from safelight.engines.diffusion import Drawing, add_on, draw, redraw
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import PipelineError
from safelight.settings import reload_settings
from safelight.weights.checkpoints import find_checkpoint

MODELS = ("first", "second")
SAMPLERS = (None, "euler", "euler_a", "dpmpp_2m_karras", "ddim", "dpmpp_2m_sde", "lms", "no such")
LORAS = ((), (("warm", 0.8),), (("warm", -0.5), ("cold", 1.0)), (("alien", 1.0),))
WORDS = ((), ("starlight",), ("too_wide",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two models, LoRAs and words for both, and one of each that fits neither."""
    folder = tmp_path_factory.mktemp("warm")
    for seed, name in enumerate(MODELS):
        build_untrained(folder / name, seed=seed)
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFELIGHT_MODELS_DIR", str(folder))
        patch.setenv("VOLUME_ROOT", str(folder / "volume"))
        patch.setenv("SAFELIGHT_DEVICE", "cpu")
        reload_settings()
        yield folder
    reload_settings()
    forget_loaded()


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


def test_calls_in_random_order_are_those_of_a_fresh_process(models: Path):
    check_calls(models, range(8))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_300_calls_in_random_order_are_those_of_a_fresh_process(models: Path):
    check_calls(models, range(100, 250))
