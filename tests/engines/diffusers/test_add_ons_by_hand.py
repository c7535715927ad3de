"""Pictures drawn with an add-on against those of weights that were worked out by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.model import DiffusionModel, model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.pixels import Pixels
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from

Array = np.ndarray
STRENGTH = 0.8
SIDE = 64
MIDDLE = "mid_block.attentions.0.transformer_blocks.0"
LINEAR = f"{MIDDLE}.attn1.to_q"
OTHERS = (f"{MIDDLE}.attn1.to_k", f"{MIDDLE}.attn2.to_v", f"{MIDDLE}.attn2.to_out.0")
CONVOLUTIONS = ("down_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.0.conv2")
NORMS = (f"{MIDDLE}.norm2", "up_blocks.0.resnets.0.norm1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionModel]:
    folder = tmp_path_factory.mktemp("by_hand")
    build_untrained(folder / "tiny", seed=3)
    for kind in ("loras", "embeddings"):
        (folder / kind).mkdir()
    with models_from(folder):
        yield model_of(find_checkpoint("tiny"))


def folder_of(model: DiffusionModel) -> Path:
    del model
    return find_checkpoint("tiny").file_path.parent


class Change:
    """What a file holds, and what the weights have to become with it."""

    def __init__(self, pipeline: Any, seed: int = 1) -> None:
        self._pipeline = pipeline
        self._dice = np.random.default_rng(seed)
        self.file: dict[str, Array] = {}
        self.wanted: dict[str, Array] = {}

    def drawn(self, *shape: int) -> Array:
        return self._dice.normal(0, 0.7, shape).astype(np.float32)

    def before(self, name: str) -> Array:
        """Its values so far; `part.path.weight`."""
        part, _, rest = name.partition(".")
        if name in self.wanted:
            return self.wanted[name]
        layer, _, leaf = rest.rpartition(".")
        tensor = getattr(getattr(self._pipeline, part).get_submodule(layer), leaf)
        return tensor.detach().numpy().astype(np.float64).copy()

    def says(self, layer: str, **tensors: Array) -> None:
        for word, tensor in tensors.items():
            self.file[f"{layer}.{word.replace('__', '.')}"] = np.asarray(tensor, np.float32)

    def becomes(self, name: str, value: Array) -> None:
        self.wanted[name] = value


def named(path: str, start: str = "lora_unet_") -> str:
    return start + path.replace(".", "_")


def lora(change: Change) -> None:
    """A rank and an alpha of its own for each layer."""
    for path, rank, alpha in zip(
        (LINEAR, *OTHERS), (1, 2, 4, 3), (3.0, 1.0, 0.5, 3.0), strict=True
    ):
        weight = change.before(f"unet.{path}.weight")
        up, down = change.drawn(len(weight), rank), change.drawn(rank, weight.shape[1])
        change.says(
            named(path), lora_up__weight=up, lora_down__weight=down, alpha=np.float32(alpha)
        )
        for o in range(len(weight)):
            for i in range(weight.shape[1]):
                product = sum(float(up[o, r]) * float(down[r, i]) for r in range(rank))
                weight[o, i] += STRENGTH * alpha / rank * product
        change.becomes(f"unet.{path}.weight", weight)


def part_of_the_text_encoder(change: Change) -> None:
    """Two layers of the encoder and none of the rest."""
    for path, rank in (("encoder.layers.1.self_attn.q_proj", 2), ("encoder.layers.0.mlp.fc1", 1)):
        start = next(
            f"{s}{path}"
            for s in ("text_model.", "")
            if f"{s}{path}" in dict(change._pipeline.text_encoder.named_modules())
        )
        weight = change.before(f"text_encoder.{start}.weight")
        up, down = change.drawn(len(weight), rank), change.drawn(rank, weight.shape[1])
        layer = named(f"text_model.{path}", "lora_te_")
        change.says(layer, lora_up__weight=up, lora_down__weight=down, alpha=np.float32(1))
        change.becomes(f"text_encoder.{start}.weight", weight + STRENGTH / rank * (up @ down))


def locon(change: Change) -> None:
    """Convolutions, one of them with a core between its two ranks."""
    for path, core in zip(CONVOLUTIONS, (False, True), strict=True):
        weight = change.before(f"unet.{path}.weight")
        out, into, high, wide = weight.shape
        up, alpha = change.drawn(out, 2, 1, 1), np.float32(1.5)
        if core:
            mid, down = change.drawn(2, 2, high, wide), change.drawn(2, into, 1, 1)
            delta = np.einsum("oa,abyx,bi->oiyx", up[..., 0, 0], mid, down[..., 0, 0])
            change.says(named(path), lora_mid__weight=mid)
        else:
            down = change.drawn(2, into, high, wide)
            delta = np.einsum("oa,aiyx->oiyx", up[..., 0, 0], down)
        change.says(named(path), lora_up__weight=up, lora_down__weight=down, alpha=alpha)
        change.becomes(f"unet.{path}.weight", weight + STRENGTH * 1.5 / 2 * delta)


def loha(change: Change) -> None:
    """The product, number by number, of two of low rank; of a convolution with cores."""
    weight = change.before(f"unet.{LINEAR}.weight")
    a, b, c, d = (
        change.drawn(*shape) for shape in ((len(weight), 2), (2, weight.shape[1])) for _ in range(2)
    )
    change.says(
        named(LINEAR), hada_w1_a=a, hada_w1_b=c, hada_w2_a=b, hada_w2_b=d, alpha=np.float32(1)
    )
    change.becomes(f"unet.{LINEAR}.weight", weight + STRENGTH / 2 * (a @ c) * (b @ d))
    path = CONVOLUTIONS[0]
    weight = change.before(f"unet.{path}.weight")
    out, into, high, wide = weight.shape
    halves: list[Array] = []
    for number in (1, 2):
        core, first, second = (
            change.drawn(2, 2, high, wide),
            change.drawn(2, out),
            change.drawn(2, into),
        )
        change.says(
            named(path),
            **{
                f"hada_t{number}": core,
                f"hada_w{number}_a": first,
                f"hada_w{number}_b": second,
            },
        )
        halves.append(np.einsum("abyx,ao,bi->oiyx", core, first, second))
    change.says(named(path), alpha=np.float32(2))
    change.becomes(f"unet.{path}.weight", weight + STRENGTH * halves[0] * halves[1])


def lokr(change: Change) -> None:
    """A Kronecker product: whole, of low rank, and of a convolution."""
    weight = change.before(f"unet.{LINEAR}.weight")
    first, second = change.drawn(2, 4), change.drawn(len(weight) // 2, weight.shape[1] // 4)
    change.says(named(LINEAR, "lycoris_"), lokr_w1=first, lokr_w2=second, alpha=np.float32(9))
    change.becomes(f"unet.{LINEAR}.weight", weight + STRENGTH * np.kron(first, second))
    weight = change.before(f"unet.{OTHERS[0]}.weight")
    a, b = change.drawn(len(weight) // 2, 2), change.drawn(2, weight.shape[1] // 4)
    change.says(named(OTHERS[0]), lokr_w1=first, lokr_w2_a=a, lokr_w2_b=b, alpha=np.float32(1))
    change.becomes(f"unet.{OTHERS[0]}.weight", weight + STRENGTH / 2 * np.kron(first, a @ b))
    weight = change.before(f"unet.{CONVOLUTIONS[0]}.weight")
    out, into, high, wide = weight.shape
    first, second = change.drawn(2, 2), change.drawn(out // 2, into // 2, high, wide)
    change.says(named(CONVOLUTIONS[0]), lokr_w1=first, lokr_w2=second)
    delta = np.zeros_like(weight)
    for o in range(out):
        for i in range(into):
            of = first[o // (out // 2), i // (into // 2)]
            delta[o, i] = of * second[o % (out // 2), i % (into // 2)]
    change.becomes(f"unet.{CONVOLUTIONS[0]}.weight", weight + STRENGTH * delta)


def dora(change: Change) -> None:
    """Directions as of a LoRA, lengths as learnt: of rows, of columns, of a convolution's."""
    for path, by_column in ((LINEAR, False), (OTHERS[0], True), (CONVOLUTIONS[0], False)):
        weight = change.before(f"unet.{path}.weight")
        flat = weight.reshape(len(weight), -1)
        up, down = change.drawn(len(weight), 2), change.drawn(2, flat.shape[1])
        lengths = np.abs(change.drawn(flat.shape[1] if by_column else len(flat))) + 1
        together = flat + up @ down
        norms = np.sqrt((together**2).sum(0 if by_column else 1, keepdims=True))
        made = together / norms * (lengths[None] if by_column else lengths[:, None])
        kernel = weight.ndim == 4
        change.says(
            named(path),
            lora_up__weight=up[..., None, None] if kernel else up,
            lora_down__weight=down.reshape(2, *weight.shape[1:]) if kernel else down,
            alpha=np.float32(2),
            dora_scale=lengths[None]
            if by_column
            else lengths.reshape(-1, *[1] * (weight.ndim - 1)),
        )
        made = flat + STRENGTH * (made - flat)
        change.becomes(f"unet.{path}.weight", made.reshape(weight.shape))


def whole_differences(change: Change) -> None:
    for path in (LINEAR, CONVOLUTIONS[1]):
        name = f"unet.{path}.weight"
        delta = change.drawn(*change.before(name).shape)
        change.says(named(path), diff=delta)
        change.becomes(name, change.before(name) + STRENGTH * delta)
    name = f"unet.{CONVOLUTIONS[1]}.bias"
    delta = change.drawn(*change.before(name).shape)
    change.says(named(CONVOLUTIONS[1]), diff_b=delta)
    change.becomes(name, change.before(name) + STRENGTH * delta)


def ia3(change: Change) -> None:
    """Vectors that scale what goes into a layer, or what comes out of it."""
    for path, on_input in ((LINEAR, True), (OTHERS[1], False)):
        weight = change.before(f"unet.{path}.weight")
        vector = change.drawn(weight.shape[1 if on_input else 0]) * 3
        shaped = vector[None] if on_input else vector[:, None]
        change.says(named(path), weight=shaped, on_input=np.float32(on_input))
        change.becomes(f"unet.{path}.weight", weight * (1 + STRENGTH * shaped))


def norms(change: Change) -> None:
    for path in NORMS:
        for leaf, word in (("weight", "w_norm"), ("bias", "b_norm")):
            name = f"unet.{path}.{leaf}"
            delta = change.drawn(*change.before(name).shape) * 3
            change.says(named(path), **{word: delta})
            change.becomes(name, change.before(name) + STRENGTH * delta)


KINDS: dict[str, Callable[[Change], None]] = {
    "LoRA, ranks and alphas per layer": lora,
    "part of the text encoder": part_of_the_text_encoder,
    "LoCon": locon,
    "LoHa": loha,
    "LoKr": lokr,
    "DoRA": dora,
    "whole differences and biases": whole_differences,
    "IA3": ia3,
    "norms": norms,
}


def saved(model: DiffusionModel, name: str, change: Change) -> None:
    tensors = {key: torch.from_numpy(v.copy()) for key, v in change.file.items()}
    save_file(tensors, folder_of(model) / "loras" / f"{name}.safetensors")


def drawn(prompt: str = "a photo of the red cat", **more: Any) -> Pixels:
    drawing = Drawing(find_checkpoint("tiny"), prompt, 7, steps=2, guidance_scale=3.0, **more)
    return draw(drawing, SIDE, SIDE)[0]


@contextmanager
def with_weights(model: DiffusionModel, wanted: dict[str, Array]) -> Iterator[None]:
    """The model's own weights are these meanwhile."""
    own: dict[str, torch.Tensor] = {}
    parts = {part: getattr(model.pipeline, part) for part in ("unet", "text_encoder")}
    places = {f"{p}.{n}": w for p, module in parts.items() for n, w in module.named_parameters()}
    model.encodings.clear()
    with torch.no_grad():
        for name, value in wanted.items():
            own[name] = places[name].clone()
            places[name].copy_(torch.from_numpy(value))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                places[name].copy_(value)
        model.encodings.clear()


def off(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_with_an_add_on_is_that_of_weights_worked_out_by_hand(
    model: DiffusionModel, kind: str
):
    change = Change(model.pipeline)
    KINDS[kind](change)
    saved(model, "one", change)
    plain = drawn()
    made = drawn(loras=(add_on("loras", "one", STRENGTH),))
    with with_weights(model, change.wanted):
        wanted = drawn()
    assert off(made, wanted) <= 1
    assert off(made, plain) > 1
    assert np.array_equal(drawn(), plain)


def test_several_add_ons_follow_each_other(model: DiffusionModel):
    """Each on what those before it made: the lengths of a DoRA are of the weights it finds."""
    together = Change(model.pipeline)
    for place, kind in enumerate((lora, loha, dora, norms)):
        alone = Change(model.pipeline, seed=10 + place)
        alone.wanted = dict(together.wanted)
        kind(alone)
        saved(model, f"part_{place}", alone)
        together.wanted = alone.wanted
    uses = tuple(add_on("loras", f"part_{place}", STRENGTH) for place in range(4))
    made = drawn(loras=uses)
    with with_weights(model, together.wanted):
        wanted = drawn()
    assert off(made, wanted) <= 1
    assert off(made, drawn(loras=uses[:3])) > 1


def test_the_words_of_an_embedding_are_its_vectors(model: DiffusionModel):
    encoder = model.pipeline.text_encoder
    table = next(n for n, _ in encoder.named_parameters() if n.endswith("token_embedding.weight"))
    vectors = np.random.default_rng(2).normal(0, 0.7, (2, 32)).astype(np.float32)
    places = model.pipeline.tokenizer.convert_tokens_to_ids(["cat</w>", "dog</w>"])
    words = encoder.get_input_embeddings().weight.detach().numpy().astype(np.float64).copy()
    words[places] = vectors
    save_file(
        {"emb_params": torch.from_numpy(vectors)},
        folder_of(model) / "embeddings" / "wish.safetensors",
    )
    made = drawn("a photo of wish", embeddings=(add_on("embeddings", "wish", 1.0),))
    with with_weights(model, {f"text_encoder.{table}": words}):
        wanted = drawn("a photo of cat dog")
    assert off(made, wanted) <= 1
    assert off(made, drawn("a photo of cat dog")) > 1
