"""LoRAs of Flux, which diffusers itself puts on: what each layer gets, and what is named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from safelight.engines.diffusers.drawing import AddOn
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.errors import InvalidMediaError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from
from tests.gpu.shapes import build

LAYERS = ("attn.to_q", "attn.to_out.0", "ff.net.2")
STRENGTH = 0.7
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("flux")
    build("flux", folder / "flux", True, "cpu")
    (folder / "loras").mkdir()
    with models_from(folder) as models:
        yield models


def drawn(*loras: str) -> Pixels:
    uses = tuple(add_on("loras", name, STRENGTH) for name in loras)
    return draw(Drawing(find_checkpoint("flux"), "a cat", 5, steps=2, loras=uses), 64, 64)[0]


def transformer() -> torch.nn.Module:
    return model_of(find_checkpoint("flux")).pipeline.transformer


def lora() -> tuple[Tensors, Tensors]:
    """A file whose layers differ in rank, and what is to be added to each weight."""
    torch.manual_seed(2)
    held: Tensors = {}
    added: Tensors = {}
    for rank, layer in enumerate(LAYERS, 1):
        path = f"transformer_blocks.0.{layer}"
        out, into = transformer().get_submodule(path).weight.shape
        down, up = torch.randn(rank, into), torch.randn(out, rank)
        held[f"transformer.{path}.lora_A.weight"] = down
        held[f"transformer.{path}.lora_B.weight"] = up
        added[path] = STRENGTH * (up @ down)
    return held, added


def test_each_layer_gets_what_the_file_says_whatever_its_rank(folder: Path):
    held, added = lora()
    save_file(held, folder / "loras" / "ranks.safetensors")
    plain = drawn()
    with watching(None) as notes:
        made = drawn("ranks")
    assert [note for note in notes if note.startswith("LoRA")] == []
    own = {path: transformer().get_submodule(path).weight for path in added}
    before = {path: weight.detach().clone() for path, weight in own.items()}
    with torch.no_grad():
        for path, weight in own.items():
            weight += added[path]
    wanted = drawn()
    with torch.no_grad():
        for path, weight in own.items():
            weight.copy_(before[path])
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.abs(made.astype(int) - plain).max() > 1
    assert np.array_equal(drawn(), plain)


def dogs(*loras: AddOn) -> Pixels:
    """Of a prompt whose encoding no other test keeps."""
    return draw(Drawing(find_checkpoint("flux"), "a dog", 5, steps=2, loras=loras), 64, 64)[0]


def test_the_text_encoder_has_a_weight_of_its_own(folder: Path):
    held, added = lora()
    encoder = model_of(find_checkpoint("flux")).pipeline.text_encoder
    path = next(path for path, _ in encoder.named_modules() if path.endswith("0.self_attn.q_proj"))
    query = encoder.get_submodule(path)
    down, up = torch.randn(2, query.in_features), torch.randn(query.out_features, 2)
    held |= {f"text_encoder.{path}.lora_A.weight": down, f"text_encoder.{path}.lora_B.weight": up}
    save_file(held, folder / "loras" / "both.safetensors")
    apart = add_on("loras", "both", STRENGTH, -2.0)
    made, alike = dogs(apart), dogs(add_on("loras", "both", STRENGTH))
    changes = [(transformer().get_submodule(path).weight, change) for path, change in added.items()]
    changes.append((query.weight, -2.0 * (up @ down)))
    before = [weight.detach().clone() for weight, _ in changes]
    with torch.no_grad():
        for weight, change in changes:
            weight += change
    wanted = dogs()
    with torch.no_grad():
        for (weight, _), own in zip(changes, before, strict=True):
            weight.copy_(own)
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.abs(made.astype(int) - alike).max() > 1


def test_a_layer_that_the_model_lacks_is_named(folder: Path):
    held, _ = lora()
    alien = {
        "transformer.transformer_blocks.99.attn.to_q.lora_A.weight": torch.ones(1, 4),
        "transformer.transformer_blocks.99.attn.to_q.lora_B.weight": torch.ones(4, 1),
    }
    save_file({**held, **alien}, folder / "loras" / "more.safetensors")
    with watching(None) as notes:
        drawn("more")
    said = "; ".join(notes)
    assert "took no part: transformer.transformer_blocks.99.attn.to_q" in said
    assert "transformer_blocks.0" not in said


@pytest.mark.parametrize("word", ["dora_scale", "hada_w1_a", "lora_magnitude_vector.weight"])
def test_kinds_that_the_library_leaves_out_are_refused(folder: Path, word: str):
    held, _ = lora()
    path = f"transformer.transformer_blocks.0.{LAYERS[0]}"
    save_file({**held, f"{path}.{word}": torch.ones(4, 1)}, folder / "loras" / "odd.safetensors")
    plain = drawn()
    with pytest.raises(InvalidMediaError, match="of no kind known for this family"):
        drawn("odd")
    assert np.array_equal(drawn(), plain)
