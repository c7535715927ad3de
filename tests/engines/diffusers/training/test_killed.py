"""SIGKILL of the process that trains: another one goes on, and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from safelight.engines.diffusers.training import trainer
from safelight.engines.diffusers.training.states import name_of
from safelight.store.store import current_store
from tasks.training.files import Checkpoints
from tests.engines.diffusers.training.small import Kept, request, trained

OPTIONS = {
    "save_every": 2,
    "network_dropout": 0.2,
    "text_encoder_lr": 0.01,
    "lr_scheduler": "cosine",
    "ema_decay": 0.9,
}


def run(folder: Path, steps: int, dies_in: int | None) -> bytes:
    """Train with checkpoints in the store; the process ends within a step."""
    course = Checkpoints(current_store(), "train-one", "0" * 64)
    if dies_in is not None:
        _mortal(dies_in)
    return trained(request(max_train_steps=steps, **OPTIONS), folder, course)


def _mortal(dies_in: int) -> None:
    import torch

    clip = torch.nn.utils.clip_grad_norm_
    left = [dies_in]

    def dies(*arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return clip(*arguments, **named)

    torch.nn.utils.clip_grad_norm_ = dies


def killed(folder: Path, steps: int, dies_in: int) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from tests.engines.diffusers.training.test_killed import run; "
        "run(Path(sys.argv[1]), *map(int, sys.argv[2:]))"
    )
    words = [sys.executable, "-c", code, str(folder), str(steps), str(dies_in)]
    ended = subprocess.run(words, cwd=Path(__file__).parents[4], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("kills", "steps"),
    [
        pytest.param(1, 4, id="once"),
        pytest.param(5, 12, id="5 times", marks=pytest.mark.soak),
    ],
)
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path: Path, kills: int, steps: int):
    whole = trained(request(max_train_steps=steps, **OPTIONS), tmp_path / "whole", Kept())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "data").write_bytes((tmp_path / "whole" / "data").read_bytes())
    draw = random.Random(kills)

    def checkpoints() -> Sequence[str]:
        return Checkpoints(current_store(), "train-one", "").checkpoints()

    first = 3
    for _ in range(kills):
        # within a step, anywhere; what was done since the last checkpoint is done again
        done = 0 if first > 1 else int(checkpoints()[0][5:12])
        killed(tmp_path / "one", steps, draw.randint(first, steps - done))
        first = 1
        assert checkpoints()[0] >= name_of(2)
    assert run(tmp_path / "one", steps, None) == whole


@pytest.mark.usefixtures("models")
def test_the_file_is_the_same_and_every_reader_draws_the_same(tmp_path: Path):
    """By diffusers, by our own reader, and by what was trained: PSNR over 50 dB."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    from safelight.engines.diffusers.draw import draw
    from safelight.engines.diffusers.drawing import AddOn, Drawing
    from safelight.engines.training import ExportFacts
    from safelight.weights.checkpoints import find_checkpoint
    from safelight.weights.hashing import weights_sha256

    asked = request(
        max_train_steps=4, network_targets="all", text_encoder_lr=0.05, learning_rate=0.05
    )
    trained(asked, tmp_path / "t")
    file = tmp_path / "zorbo.safetensors"
    facts = ExportFacts("zorbo-v1", "zorbo", "a toy", "Apache-2.0")
    trainer.export_lora(tmp_path / "t" / "trained", facts, file)
    first = file.read_bytes()
    trainer.export_lora(tmp_path / "t" / "trained", facts, file)
    assert file.read_bytes() == first
    with safe_open(str(file), "pt") as opened:
        names, told = set(opened.keys()), opened.metadata()
    assert {
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha",
        "lora_unet_mid_block_resnets_0_conv1.lora_up.weight",
    } <= names
    minimum = ("v2", "base_model_version", "network_module", "network_dim", "network_alpha")
    assert [told[f"ss_{name}"] for name in minimum] == [
        "False",
        "sd_v1",
        "networks.lora",
        "2",
        "4.0",
    ]
    assert told["modelspec.architecture"] == "stable-diffusion-v1/lora"

    (ours,) = trainer.draw_samples(asked, tmp_path / "t" / "trained", ["a red cat"])
    card = find_checkpoint("tiny")
    drawing = Drawing(
        card=card,
        prompt="a red cat",
        negative_prompt="",
        seed=42,
        steps=2,
        guidance_scale=7.0,
        num_images=1,
        loras=(AddOn(file, weights_sha256(file), 1.0),),
    )
    (merged,) = draw(drawing, 32, 32)
    pipeline = StableDiffusionPipeline.from_pretrained(card.file_path, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def by_diffusers() -> np.ndarray:
        return np.asarray(
            pipeline(
                "a red cat",
                width=32,
                height=32,
                num_inference_steps=2,
                guidance_scale=7.0,
                generator=torch.Generator().manual_seed(42),
            ).images[0]
        )

    plain = by_diffusers()
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    loaded = by_diffusers()
    assert psnr(plain, loaded) < 40  # it changes the picture
    assert psnr(ours, loaded) > 50
    assert psnr(merged, loaded) > 50


def psnr(first, second) -> float:
    import numpy as np

    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
