"""What can be put on a model, and what remains of it afterwards: nothing."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from examples.untrained import build_untrained
from safelight.engines.diffusers import together
from safelight.engines.diffusers.batch_sizes import BatchSizes
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import (
    AddOn,
    Drawing,
    Drawn,
    add_on,
    draw,
    draw_together,
    fill,
    redraw,
)
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import (
    DependencyMissingError,
    ForbiddenPathError,
    InvalidMediaError,
    PictureRefusedError,
)
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint

SIDE = 64
PROMPT = "a photo of the red cat"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with one add-on of each kind."""
    folder = tmp_path_factory.mktemp("models")
    build_untrained(folder / "tiny")
    make_lora(folder)
    make_embedding(folder)
    make_controlnet(folder)
    make_ip_adapter(folder)
    return folder


@pytest.fixture(autouse=True)
def _settings(models: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(models))
    settings.cache_clear()


def drawing(**changes: object) -> Drawing:
    fields: dict[str, object] = {"prompt": PROMPT, "seed": 7, "steps": 3, **changes}
    return Drawing(card=find_checkpoint("tiny"), **fields)


def drawn(**changes: object) -> Pixels:
    return draw(drawing(**changes), SIDE, SIDE)[0]


def make_lora(models: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils.save_and_load import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(models / "tiny" / "unet")
    torch.manual_seed(1)
    unet.add_adapter(
        LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=["to_k", "to_v"])
    )
    for name, weight in unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight.data, std=0.7)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    for name in ("style", "other"):
        StableDiffusionPipeline.save_lora_weights(
            models / "loras", unet_lora_layers=layers, weight_name=f"{name}.safetensors"
        )
        layers = {key: value * -0.5 for key, value in layers.items()}


def make_embedding(models: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (models / "embeddings").mkdir()
    torch.manual_seed(2)
    save_file({"emb_params": torch.randn(2, 32)}, models / "embeddings" / "wish.safetensors")
    save_file({"emb_params": torch.randn(1, 32)}, models / "embeddings" / "cat.safetensors")
    save_file({"emb_params": torch.randn(1, 8)}, models / "embeddings" / "narrow.safetensors")


def make_controlnet(models: Path) -> None:
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(3)
    net = ControlNetModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=2,
        conditioning_embedding_out_channels=(2, 4),
    )
    seen = net.controlnet_cond_embedding.conv_out
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block, seen):
        torch.nn.init.normal_(block.weight, std=1.0)  # zero at first, which would do nothing
    net.save_pretrained(models / "controlnet" / "edges")


def make_ip_adapter(models: Path, model: str = "tiny", strength: float = 1.0) -> None:
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = models / "ip_adapter" / "face"
    torch.manual_seed(4)
    seen = CLIPVisionConfig(
        hidden_size=16,
        projection_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        intermediate_size=32,
        patch_size=4,
    )
    CLIPVisionModelWithProjection(seen).save_pretrained(folder / "image_encoder")
    unet = UNet2DConditionModel.from_pretrained(models / model / "unet")
    width, tokens = unet.config.cross_attention_dim, 4
    state = {
        "image_proj.proj.weight": torch.randn(width * tokens, 24),
        "image_proj.proj.bias": torch.randn(width * tokens),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    crossing = [name for name in unet.attn_processors if "attn2" in name]
    for position, name in enumerate(crossing):
        channels = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("k", "v"):
            state[f"ip_adapter.{2 * position + 1}.to_{part}_ip.weight"] = strength * torch.randn(
                channels, width
            )
    save_file(state, folder / "ip-adapter.safetensors")


def lora(weight: float, name: str = "style") -> AddOn:
    return add_on("loras", name, weight)


def square(left: int) -> Pixels:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[20:44, left : left + 20] = 255
    return image


def test_a_lora_changes_the_picture_by_its_weight_and_leaves_no_trace():
    plain = drawn()
    full, half = drawn(loras=(lora(1),)), drawn(loras=(lora(0.5),))
    assert np.array_equal(drawn(loras=(lora(0),)), plain)
    assert not np.array_equal(full, plain)
    assert not np.array_equal(full, half)
    both = drawn(loras=(lora(1), lora(1, "other")))  # other is -half of style
    assert not np.array_equal(both, full)
    assert np.array_equal(drawn(), plain)


def test_an_embedding_is_a_word_of_the_prompt_and_leaves_no_trace():
    prompt = "a photo of wish"
    plain = drawn(prompt=prompt)
    wished = drawn(prompt=prompt, embeddings=(add_on("embeddings", "wish", 1),))
    assert not np.array_equal(wished, plain)
    assert np.array_equal(drawn(prompt=prompt), plain)
    again = drawn(prompt=prompt, embeddings=(add_on("embeddings", "wish", 1),))
    assert np.array_equal(again, wished)


def test_a_controlnet_follows_its_picture():
    plain = drawn()

    def steered(weight: float, left: int) -> Pixels:
        net = add_on("controlnet", "edges", weight)
        return drawn(controlnet=net, control_image=square(left))

    assert np.array_equal(steered(0, 4), plain)
    assert not np.array_equal(steered(1, 4), plain)
    assert not np.array_equal(steered(1, 4), steered(1, 36))
    assert np.array_equal(drawn(), plain)


def test_a_controlnet_works_in_all_three_ways_of_drawing(photo: np.ndarray):
    image = np.ascontiguousarray(photo[60:124, 190:254])
    steered = drawing(steps=4, controlnet=add_on("controlnet", "edges", 1), control_image=square(4))
    mask = square(20)[..., 0]
    plain = drawing(steps=4)
    assert not np.array_equal(redraw(steered, image, 0.8)[0], redraw(plain, image, 0.8)[0])
    assert not np.array_equal(fill(steered, image, mask, 1.0)[0], fill(plain, image, mask, 1.0)[0])


def test_an_ip_adapter_follows_its_references_and_leaves_no_trace():
    plain = drawn()

    def like(weight: float, *references: Pixels) -> Pixels:
        adapter = add_on("ip_adapter", "face", weight)
        return drawn(ip_adapter=adapter, reference_images=references)

    assert np.array_equal(like(0, square(4)), plain)
    one = like(1, square(4))
    assert not np.array_equal(one, plain)
    assert not np.array_equal(one, like(1, 255 - square(36)))
    assert not np.array_equal(one, like(1, square(4), 255 - square(36)))
    assert np.array_equal(drawn(), plain)


def test_everything_together_in_a_batch_equals_the_single_pictures():
    parts: dict[str, object] = {
        "loras": (lora(0.5),),
        "controlnet": add_on("controlnet", "edges", 0.5),
        "control_image": square(4),
        "ip_adapter": add_on("ip_adapter", "face", 0.5),
        "reference_images": (square(20),),
    }
    batch = draw(drawing(num_images=2, **parts), SIDE, SIDE)
    assert np.abs(batch[1].astype(int) - drawn(seed=8, **parts)).max() <= 1


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (lambda: {"embeddings": (add_on("embeddings", "cat", 1),)}, "cat"),
        (lambda: {"embeddings": (add_on("embeddings", "narrow", 1),)}, "narrow"),
        (lambda: {"loras": (add_on("embeddings", "wish", 1),)}, "wish"),
    ],
    ids=["word is taken", "other width", "no LoRA"],
)
def test_an_add_on_that_does_not_fit_is_named(changes: Callable[[], dict[str, object]], names: str):
    plain = drawn()
    with pytest.raises(InvalidMediaError, match=names):
        drawn(**changes())
    assert np.array_equal(drawn(), plain)


def test_an_add_on_that_is_missing_or_a_path_is_refused():
    with pytest.raises(DependencyMissingError, match="style"):
        add_on("loras", "nothing", 1)
    with pytest.raises(ForbiddenPathError):
        add_on("loras", "../tiny", 1)


def test_parallel_branches_do_not_mix():
    single = [drawn(seed=seed, scheduler=name) for seed, name in enumerate(("ddim", "euler"))]
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(drawn, seed=seed, scheduler=name)
            for _ in range(2)
            for seed, name in enumerate(("ddim", "euler"))
        ]
        results = [one.result() for one in made]
    assert all(np.array_equal(result, single[i % 2]) for i, result in enumerate(results))


def test_half_precision_is_kept_and_comes_close(monkeypatch: pytest.MonkeyPatch):
    import torch

    full = drawn()
    monkeypatch.setenv("SAFELIGHT_PRECISION", "bf16")
    settings.cache_clear()
    rough = drawn()
    model = model_of(find_checkpoint("tiny"))
    assert {p.dtype for p in model.pipeline.unet.parameters()} == {torch.bfloat16}
    assert 0 < np.abs(full.astype(int) - rough).mean() < 6


def test_progress_counts_through_all_batches():
    import torch

    model = model_of(find_checkpoint("tiny"))

    def too_large(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.cuda.OutOfMemoryError("no room")

    hook = model.pipeline.unet.register_forward_pre_hook(too_large)
    seen: list[tuple[int, int]] = []
    try:
        with watching(lambda done, total: seen.append((done, total))):
            draw(drawing(num_images=3), SIDE, SIDE)
    finally:
        hook.remove()
    assert seen == [(done, 9) for done in range(1, 10)]


@pytest.mark.parametrize(
    ("failures", "means", "worst"), [(1, "slices", 1), (2, "tiles", 60)], ids=["slices", "tiles"]
)
def test_frugal_settings_end_with_the_run_that_needed_them(failures: int, means: str, worst: int):
    import torch

    before = drawn()
    model = model_of(find_checkpoint("tiny"))
    unet, vae = model.pipeline.unet, model.pipeline.vae
    kinds = {name: type(p) for name, p in unet.attn_processors.items()}
    left = iter(range(failures))
    seen: set[tuple[bool, bool]] = set()

    def fails_at_first(module: object, inputs: object) -> None:
        if next(left, None) is not None:
            raise torch.cuda.OutOfMemoryError("no room")
        sliced = {name: type(p) for name, p in unet.attn_processors.items()} != kinds
        seen.add((sliced, vae.use_tiling))

    hook = unet.register_forward_pre_hook(fails_at_first)
    try:
        with watching(None) as notes:
            frugal = drawn()
    finally:
        hook.remove()
    assert means in notes[-1]
    assert seen == {(True, means == "tiles")}
    assert np.abs(frugal.astype(int) - before).max() <= worst
    assert {name: type(p) for name, p in unet.attn_processors.items()} == kinds
    assert not vae.use_tiling
    assert np.array_equal(drawn(), before)


def test_an_ip_adapter_survives_frugal_settings():
    import torch

    parts: dict[str, object] = {
        "ip_adapter": add_on("ip_adapter", "face", 1),
        "reference_images": (square(4),),
    }
    before = drawn(**parts)
    model = model_of(find_checkpoint("tiny"))
    left = iter(range(1))

    def fails_at_first(module: object, inputs: object) -> None:
        if next(left, None) is not None:
            raise torch.cuda.OutOfMemoryError("no room")

    hook = model.pipeline.unet.register_forward_pre_hook(fails_at_first)
    try:
        with watching(None) as notes:
            frugal = drawn(**parts)
    finally:
        hook.remove()
    assert "tiles" in notes[-1]
    assert np.abs(frugal.astype(int) - before).mean() < 12  # only the decoder's tiles differ
    assert np.array_equal(drawn(**parts), before)


def test_a_model_that_cannot_be_loaded_is_named(models: Path, tmp_path: Path):
    forget_loaded()
    broken = models / "broken"
    shutil.copytree(models / "tiny", broken)
    try:
        (broken / "unet" / "config.json").unlink()
        with pytest.raises(InvalidMediaError, match="broken"):
            draw(Drawing(card=find_checkpoint("broken"), prompt=PROMPT, seed=1), SIDE, SIDE)
    finally:
        shutil.rmtree(broken)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_drawn_in_smaller_ones(monkeypatch: pytest.MonkeyPatch):
    import torch

    sizes = BatchSizes("does not fit", 4)
    for count in (1, 1, 2, 2):  # twice as fast each time: four together are tried next
        sizes.took(count, 1.0)
    monkeypatch.setattr(together, "batch_sizes", lambda _kind, _most, **_how: sizes)
    wanted = [drawing(steps=1, seed=seed) for seed in range(12)]
    tried: list[int] = []

    def too_many(_unet: object, inputs: tuple[torch.Tensor, ...]) -> None:
        tried.append(len(inputs[0]) // 2)  # guided: each picture twice
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")

    hook = model_of(wanted[0].card).pipeline.unet.register_forward_pre_hook(too_many)
    received: list[tuple[int, Drawn]] = []
    try:
        with watching(None) as notes:
            draw_together(
                wanted, SIDE, SIDE, lambda at, drawn: received.append((at, drawn)), most=4
            )
    finally:
        hook.remove()
    assert [at for at, _ in received] == list(range(12))
    assert max(drawn.batch for _, drawn in received) == 2
    assert tried.count(4) == 1
    assert "4 pictures do not fit together" in " ".join(notes)
    alone = draw(wanted[11], SIDE, SIDE)[0]
    assert np.abs(received[11][1].pixels.astype(int) - alone).max() <= 1


def test_values_that_are_no_numbers_are_no_picture():
    import torch

    model = model_of(find_checkpoint("tiny"))

    def overflow(module: object, inputs: object, made: torch.Tensor) -> torch.Tensor:
        broken = made.clone()
        broken[-1, 0, 3, 3] = torch.nan
        return broken

    hook = model.pipeline.vae.decoder.register_forward_hook(overflow)
    try:
        first, second = draw(drawing(num_images=2), SIDE, SIDE)
        assert second is None  # it alone
        assert first is not None
        with pytest.raises(PictureRefusedError, match="1 of 1 pictures hold values that are no"):
            draw(drawing(), SIDE, SIDE)
    finally:
        hook.remove()
    assert drawn().shape == (SIDE, SIDE, 3)
