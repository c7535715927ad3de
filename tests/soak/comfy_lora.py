"""A LoRA that was trained here in a real ComfyUI: `python -m tests.soak.comfy_lora`.

Needs SAFELIGHT_COMFY_DIR (and SAFELIGHT_COMFY_PYTHON). A random Stable Diffusion 1.5 of few
blocks is trained for a few steps and saved as one file, by ComfyUI's own names of its layers.
ComfyUI draws with and without LoraLoader, Safelight draws the same: seed, steps, guidance, euler;
both take their noise from a CPU. Prints a JSON line; the exit status is 1 when ComfyUI left out a
layer, the LoRA changes too little to tell, or the two draw it differently.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, STEPS, GUIDANCE, SEED = 64, 4, 7.0, 42
PROMPT = "a photo of zorbo"
ALIKE_DB, CHANGED_DB = 40, 25
"""At least between ComfyUI's picture and ours; at most between those with the LoRA and without."""
ONE_FILE = """
import sys
folder, target = sys.argv[1:]
sys.argv = ["", "--cpu"]
sys.path.insert(0, ".")
from comfy.utils import unet_to_diffusers
from safetensors.torch import load_file, save_file
blocks = {
    "num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0], "transformer_depth_middle": 1,
}
names = unet_to_diffusers(blocks)
made = {}
for name, weight in load_file(f"{folder}/unet/diffusion_pytorch_model.safetensors").items():
    made["model.diffusion_model." + names[name]] = weight
for name, weight in load_file(f"{folder}/vae/diffusion_pytorch_model.safetensors").items():
    made["first_stage_model." + name] = weight
for name, weight in load_file(f"{folder}/text_encoder/model.safetensors").items():
    inner = name if name.startswith("text_model.") else "text_model." + name
    made["cond_stage_model.transformer." + inner] = weight
save_file(made, target)
"""
"""Run by ComfyUI's Python in its folder."""


def main() -> int:
    """Measure and print; 1 when a bar was missed."""
    with tempfile.TemporaryDirectory() as told:
        root = Path(told)
        elsewhere = root / "elsewhere.yaml"
        elsewhere.write_text(
            f"soak:\n  base_path: {root / 'models'}\n  checkpoints: checkpoints\n  loras: loras\n"
        )
        words = "--fp32-unet --fp32-vae --fp32-text-enc --extra-model-paths-config"
        os.environ |= {
            "VOLUME_ROOT": str(root),
            "SAFELIGHT_MODELS_DIR": str(root / "models"),
            "SAFELIGHT_COMFY_OPTIONS": f"{words} {elsewhere}",
        }
        measured = _measured(root)
    print(json.dumps({"soak": "comfy_lora", **measured}))  # noqa: T201
    alike = min(measured["plain_db"], measured["with_lora_db"]) >= ALIKE_DB
    changed = max(measured["comfy_changed_db"], measured["ours_changed_db"]) <= CHANGED_DB
    return 0 if alike and changed and not measured["not_loaded"] else 1


def _measured(root: Path) -> dict[str, Any]:
    from safelight.engines.comfy.launching import log_of
    from safelight.engines.comfy.managed import managed
    from safelight.engines.diffusers.training import trainer
    from safelight.engines.training import DatasetOptions, ExportFacts
    from safelight.settings import settings
    from tests.engines.diffusers.training.small import request, trained

    checkout = settings().comfy_dir
    if checkout is None:
        raise SystemExit("set SAFELIGHT_COMFY_DIR")
    pipeline = root / "models" / "few-blocks"
    build(pipeline, checkout / "comfy" / "sd1_tokenizer")
    asked = request(
        DatasetOptions(resolution=SIDE),
        "few-blocks",
        max_train_steps=4,
        network_targets="all",
        learning_rate=0.02,
        text_encoder_lr=0.02,
    )
    trained(asked, root / "training")
    lora = root / "models" / "loras" / "zorbo-v1.safetensors"
    lora.parent.mkdir()
    facts = ExportFacts("zorbo-v1", "zorbo", "", None)
    trainer.export_lora(root / "training" / "trained", facts, lora)
    ours = {kind: _ours(used) for kind, used in (("plain", None), ("with_lora", lora))}
    (root / "models" / "checkpoints").mkdir()
    python = settings().comfy_python or checkout / "venv" / "bin" / "python"
    target = root / "models" / "checkpoints" / "few-blocks.safetensors"
    subprocess.run(
        [str(python), "-c", ONE_FILE, str(pipeline), str(target)], cwd=checkout, check=True
    )
    managed().require()
    theirs = {kind: _theirs(root, kind) for kind in ours}
    managed().close()
    log = "".join(path.read_text() for path in log_of("any").parent.glob("*.log"))
    if log.count("got prompt") != len(theirs):
        raise SystemExit("the log of ComfyUI was not found")
    return {
        "layers": _layers(lora),
        "not_loaded": log.count("lora key not loaded"),
        "plain_db": psnr(ours["plain"], theirs["plain"]),
        "with_lora_db": psnr(ours["with_lora"], theirs["with_lora"]),
        "comfy_changed_db": psnr(theirs["plain"], theirs["with_lora"]),
        "ours_changed_db": psnr(ours["plain"], ours["with_lora"]),
        "contrast": round(float(theirs["plain"].std()), 1),
    }


def build(folder: Path, words: Path) -> None:
    """A random model with the widths of Stable Diffusion 1.5 and few blocks.

    Args:
        folder: is made, in the layout of diffusers.
        words: CLIP's tokenizer.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(320, 320),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    ).eval()
    with torch.no_grad():  # what a random model answers is hardly more than nothing
        latents, moment = torch.randn(4, 4, SIDE // 8, SIDE // 8), torch.tensor(500)
        seen = text(torch.randint(0, 49406, (4, 77)))[0]
        noise = unet(latents, moment, seen).sample
        unet.conv_out.weight /= noise.std()
        vae.decoder.conv_out.weight *= 0.5 / vae.decode(latents).sample.std()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",  # as ComfyUI's scheduler "normal"
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=77),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """In dB; 99 for the same picture."""
    error = float(np.mean((first.astype(float) - second.astype(float)) ** 2))
    return 99.0 if error == 0 else round(float(10 * np.log10(255**2 / error)), 1)


def _layers(lora: Path) -> int:
    from safetensors import safe_open

    with safe_open(str(lora), "np") as file:
        return sum(name.endswith(".alpha") for name in file.keys())


def _ours(lora: Path | None) -> np.ndarray:
    from safelight.engines.diffusers.draw import draw
    from safelight.engines.diffusers.drawing import AddOn, Drawing
    from safelight.weights.checkpoints import find_checkpoint
    from safelight.weights.hashing import weights_sha256

    drawing = Drawing(
        card=find_checkpoint("few-blocks"),
        prompt=PROMPT,
        negative_prompt="",
        seed=SEED,
        steps=STEPS,
        guidance_scale=GUIDANCE,
        num_images=1,
        loras=() if lora is None else (AddOn(lora, weights_sha256(lora), 1.0),),
    )
    (made,) = draw(drawing, SIDE, SIDE)
    return made


def _theirs(root: Path, kind: str) -> np.ndarray:
    from safelight.engines.comfy.engine import ENGINE
    from safelight.engines.graphs import GraphRequest
    from tests.engines.comfy.comfy_server import GRAPH

    graph = json.loads(json.dumps(GRAPH))
    graph["4"]["inputs"]["ckpt_name"] = "few-blocks.safetensors"
    graph["6"]["inputs"]["text"] = PROMPT
    graph["3"]["inputs"] |= {"seed": SEED, "steps": STEPS, "cfg": GUIDANCE}
    graph["5"]["inputs"] |= {"width": SIDE, "height": SIDE}
    if kind == "with_lora":
        strengths = {"strength_model": 1.0, "strength_clip": 1.0}
        graph["10"] = {
            "class_type": "LoraLoader",
            "inputs": {
                "model": ["4", 0],
                "clip": ["4", 1],
                "lora_name": "zorbo-v1.safetensors",
                **strengths,
            },
        }
        graph["3"]["inputs"]["model"] = ["10", 0]
        for node in ("6", "7"):
            graph[node]["inputs"]["clip"] = ["10", 1]
    folder = root / f"comfy-{kind}"
    folder.mkdir()
    request = GraphRequest(workflow="soak", graph=json.dumps(graph), media=())
    (made,) = ENGINE.run_graph(request, (), kind, folder)
    with Image.open(made) as picture:
        return np.asarray(picture.convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
