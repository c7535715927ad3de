"""A single file as people bring it draws what the folder it was made of draws."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.layouts import clip_vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTokenizer

Tensors = dict[str, torch.Tensor]
CHANNELS = (32, 32, 64, 64)
LEVELS = len(CHANNELS)
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE = [
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{LEVELS - 1 - int(m[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{LEVELS - 1 - int(m[1])}.upsample"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
]


def unet_name(name: str) -> str:
    """Its name in the files of the first authors."""
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    if "resnets" in name:
        for ours, theirs in RESNET.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
    for pattern, theirs in (
        (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{at(m) + 1}.0"),
        (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{at(m) + 1}.1"),
        (
            r"^down_blocks\.(\d)\.downsamplers\.0\.conv",
            lambda m: f"input_blocks.{3 * (int(m[1]) + 1)}.0.op",
        ),
        (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{at(m)}.0"),
        (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{at(m)}.1"),
        (
            r"^up_blocks\.(\d)\.upsamplers\.0",
            lambda m: f"output_blocks.{3 * int(m[1]) + 2}.{1 if m[1] == '0' else 2}",
        ),
        (r"^mid_block\.attentions\.0", lambda m: "middle_block.1"),
        (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
    ):
        name = re.sub(pattern, theirs, name)
    return name


def at(found: re.Match[str]) -> int:
    return 3 * int(found[1]) + int(found[2])


def vae_tensor(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    for pattern, theirs in VAE:
        name = re.sub(pattern, theirs, name)
    squared = "attn_1" in name and tensor.ndim == 2
    return name, tensor[..., None, None] if squared else tensor


def build_controlnet(folder: Path, seed: int) -> Tensors:
    """Save a ControlNet for the narrow model; give its tensors."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel(
        block_out_channels=CHANNELS,
        cross_attention_dim=64,
        attention_head_dim=8,
        conditioning_embedding_out_channels=(4, 8, 8, 16),
    )
    last = net.controlnet_cond_embedding.conv_out
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block, last):
        torch.nn.init.normal_(block.weight)  # zero at first, which would do nothing
    for block in (net.controlnet_cond_embedding.conv_in, *net.controlnet_cond_embedding.blocks):
        torch.nn.init.normal_(block.weight, std=0.5)  # so that the picture is heard
    net.save_pretrained(folder)
    made: Tensors = {}
    for name, tensor in net.state_dict().items():
        name = re.sub(r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0", name)
        name = name.replace("controlnet_mid_block", "middle_block_out.0")
        name = name.replace("controlnet_cond_embedding.conv_in", "input_hint_block.0")
        name = name.replace("controlnet_cond_embedding.conv_out", "input_hint_block.14")
        name = re.sub(
            r"^controlnet_cond_embedding\.blocks\.(\d)",
            lambda m: f"input_hint_block.{2 * int(m[1]) + 2}",
            name,
        )
        made[f"control_model.{unet_name(name)}"] = tensor.clone()
    return made


def tokenizer(folder: Path, **changes: str) -> "CLIPTokenizer":
    from transformers import CLIPTokenizer

    folder.mkdir()
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(vocabulary)
    (folder / "merges.txt").write_text(merges)
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **changes)


def build(folder: Path, seed: int) -> Tensors:
    """Save a Stable Diffusion 1.5, narrow but with all its levels; give its tensors."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        block_out_channels=CHANNELS, cross_attention_dim=64, attention_head_dim=8, sample_size=8
    )
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
        layers_per_block=2,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=1,
            eos_token_id=49407,
        )
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer(folder.parent / "words"),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    words = "cond_stage_model.transformer.text_model."
    made = {f"model.diffusion_model.{unet_name(n)}": t for n, t in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        name, tensor = vae_tensor(name, tensor)
        made[f"first_stage_model.{name}"] = tensor
    made |= {f"{words}{n.removeprefix('text_model.')}": t for n, t in text.state_dict().items()}
    return {name: tensor.contiguous().clone() for name, tensor in made.items()}


def build_xl(folder: Path, seed: int) -> Tensors:
    """Save a Stable Diffusion XL, narrow; give its tensors."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    width, second_width = 64, 128
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=width + second_width,
        attention_head_dim=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=second_width + 6 * 256,
        sample_size=8,
    )
    vae = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
        layers_per_block=2,
        scaling_factor=0.13025,
    )

    def text(width: int, act: str) -> "CLIPTextConfig":
        return CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=width // 64,
            hidden_act=act,
            projection_dim=width,
            eos_token_id=49407,
        )

    first = CLIPTextModel(text(width, "quick_gelu"))
    second = CLIPTextModelWithProjection(text(second_width, "gelu"))
    words = tokenizer(folder.parent / "words_xl")
    second_words = tokenizer(folder.parent / "words_xl_2", pad_token="!")
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=words,
        tokenizer_2=second_words,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",  # as the config that XL was published with
        ),
    ).save_pretrained(folder)
    made = {f"model.diffusion_model.{unet_name(n)}": t for n, t in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        name, tensor = vae_tensor(name, tensor)
        made[f"first_stage_model.{name}"] = tensor
    prefix = "conditioner.embedders.0.transformer.text_model."
    made |= {f"{prefix}{n.removeprefix('text_model.')}": t for n, t in first.state_dict().items()}
    made |= open_clip(second.state_dict(), "conditioner.embedders.1.model.")
    return {name: tensor.contiguous().clone() for name, tensor in made.items()}


def open_clip(state: Tensors, prefix: str) -> Tensors:
    """A text encoder as OpenCLIP saves it: query, key and value in one tensor."""
    made: Tensors = {}
    for name, tensor in state.items():
        name = name.removeprefix("text_model.")
        if ".q_proj." in name:
            parts = [state[f"text_model.{name}".replace("q_proj", f"{p}_proj")] for p in "qkv"]
            name = name.replace(".q_proj.", ".in_proj_").replace("self_attn", "attn")
            tensor = torch.cat(parts)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        for ours, theirs in (
            ("encoder.layers", "transformer.resblocks"),
            ("self_attn", "attn"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("final_layer_norm", "ln_final"),
            ("fc1", "c_fc"),
            ("fc2", "c_proj"),
            ("embeddings.token_embedding", "token_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
        ):
            name = name.replace(ours, theirs)
        if name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T
        made[f"{prefix}{name}"] = tensor
    return made


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    tensors = build(folder / "narrow", seed=1)
    save_file(tensors, folder / "whole.safetensors")
    torch.save({"state_dict": tensors}, folder / "older.ckpt")
    bent = {**tensors, "model.diffusion_model.out.2.bias": torch.full((4,), 0.5)}
    save_file(bent, folder / "bent.safetensors")
    kept = {name: t for name, t in tensors.items() if not name.startswith("first_stage_model")}
    save_file(kept, folder / "blind.safetensors")
    save_file(build_xl(folder / "narrow_xl", seed=2), folder / "whole_xl.safetensors")
    nets = folder / "controlnet"
    nets.mkdir()
    save_file(build_controlnet(nets / "edges", seed=3), nets / "lines.safetensors")
    save_file({"weight": torch.ones(4)}, nets / "other.safetensors")
    (folder / "embeddings").mkdir()
    both = {"clip_l": torch.randn(2, 64), "clip_g": torch.randn(2, 128)}
    save_file(both, folder / "embeddings" / "zzwish.safetensors")
    save_file({"emb_params": both["clip_l"]}, folder / "embeddings" / "zzhalf.safetensors")
    save_file({"weight": torch.ones(4)}, folder / "other.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _settings(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()
    forget_loaded()


def drawn(name: str, prompt: str = "a photograph of an astronaut") -> Pixels:
    return draw(Drawing(card=find_checkpoint(name), prompt=prompt, seed=3, steps=3), 64, 64)[0]


@pytest.mark.parametrize("name", ["whole", pytest.param("older", marks=pytest.mark.slow)])
def test_a_single_file_draws_what_its_folder_draws(name: str):
    folder = drawn("narrow")
    assert np.abs(drawn(name).astype(int) - folder).max() <= 1
    assert np.abs(drawn("bent").astype(int) - folder).max() > 1
    assert np.abs(drawn(name, "a cat").astype(int) - folder).max() > 1


@pytest.mark.slow
def test_a_single_file_of_xl_draws_what_its_folder_draws():
    folder = drawn("narrow_xl")
    assert np.abs(drawn("whole_xl").astype(int) - folder).max() <= 1
    assert np.abs(drawn("narrow_xl", "a cat").astype(int) - folder).max() > 1
    assert find_checkpoint("whole_xl").base_model == "sdxl"


def steered(net: str, left: int) -> Pixels:
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:44, left : left + 20] = 255
    drawing = Drawing(
        card=find_checkpoint("narrow"),
        prompt="a photograph",
        seed=3,
        steps=3,
        controlnet=add_on("controlnet", net, 1),
        control_image=image,
    )
    return draw(drawing, 64, 64)[0]


def test_a_controlnet_in_a_single_file_steers_as_its_folder_does():
    folder = steered("edges", 4)
    assert np.abs(steered("lines", 4).astype(int) - folder).max() <= 1
    assert np.abs(steered("lines", 36).astype(int) - folder).max() > 1
    with pytest.raises(InvalidMediaError, match=r"other\.safetensors"):
        steered("other", 4)


@pytest.mark.slow
def test_an_embedding_speaks_to_both_encoders_of_xl():
    def wished(*names: str) -> Pixels:
        embeddings = tuple(add_on("embeddings", name, 1) for name in names)
        card = find_checkpoint("narrow_xl")
        drawing = Drawing(card=card, prompt="zzwish", seed=3, steps=3, embeddings=embeddings)
        return draw(drawing, 64, 64)[0]

    plain = wished()
    assert not np.array_equal(wished("zzwish"), plain)
    with pytest.raises(InvalidMediaError, match="emb_params, expected clip_l and clip_g"):
        wished("zzhalf")
    assert np.array_equal(wished(), plain)


def test_what_a_single_file_holds_is_told_without_loading_it():
    card = find_checkpoint("whole")
    assert (card.base_model, card.native_width, card.native_height) == ("sd", 512, 512)


@pytest.mark.parametrize("name", ["blind", "other"])
def test_a_file_that_is_no_whole_model_is_named(name: str):
    with pytest.raises(InvalidMediaError, match=f"{name}.safetensors"):
        drawn(name)


def test_the_vocabulary_is_that_of_clip(tmp_path: Path):
    words = tokenizer(tmp_path / "words")
    assert words("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
