"""`<lora:NAME:WEIGHT>` in a prompt is a LoRA, not text."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from safelight.engines.diffusers.model import model_of
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.places import models_folder
from tasks.base.keeping import load_image
from tasks.detail import DetailParams
from tasks.generate import GenerateParams, generate
from tasks.refine import RefineParams

pytestmark = pytest.mark.usefixtures("tiny_model")
CAT = GenerateParams(prompt="a photo of the red cat", seed=7, steps=3, width=64, height=64)


@pytest.fixture
def style(tiny_model: object) -> None:
    del tiny_model
    unet = model_of(find_checkpoint(None)).pipeline.unet
    torch.manual_seed(1)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in unet.named_modules():
        if name.endswith(("to_k", "to_v")):
            wide, high = layer.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(4, high)
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(wide, 4)
    folder = models_folder() / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "style.safetensors")


def parameters(ref: ArtifactRef) -> dict[str, object]:
    record = read_record(current_store().fetch(ref))
    assert record is not None
    return dict(record.parameters)


@pytest.mark.usefixtures("style")
def test_a_tag_does_what_the_parameter_does():
    tagged = CAT.but(prompt="a photo of <lora:style:0.8> the red cat")
    assert (tagged.prompt, [(use.name, use.weight) for use in tagged.loras]) == (
        CAT.prompt,
        [("style", 0.8)],
    )
    by_tag = generate.fn(tagged)[0]
    by_name = generate.fn(CAT.but(loras=({"name": "style", "weight": 0.8},)))[0]
    plain = generate.fn(CAT)[0]
    assert by_tag.sha256 == by_name.sha256
    assert (load_image(by_tag) != load_image(plain)).any()
    assert np.asarray(load_image(by_tag)).shape == (64, 64, 3)
    kept = parameters(by_tag)
    assert kept["prompt"] == CAT.prompt
    assert kept["loras"] == [{"name": "style", "weight": 0.8}]
    content = current_store().read(by_tag)
    assert b"<lora:style:0.8>" in content


def test_a_tag_of_no_file_is_refused_by_its_name():
    with pytest.raises(DependencyMissingError, match="'nothere'"):
        generate.identity(CAT.but(prompt="a cat <lora:nothere:1>"))


@pytest.mark.parametrize("tag", ["<lora::1>", "<lora:a:x>", "<lora:a:9>", "<lora:a:nan>"])
def test_a_tag_that_says_nothing_is_refused(tag: str):
    with pytest.raises(InvalidFieldValueError, match="<lora:NAME:WEIGHT>"):
        CAT.but(prompt=f"a cat {tag}")
    for params in (DetailParams, RefineParams):
        with pytest.raises(ValidationError, match="<lora:NAME:WEIGHT>"):
            params(prompt=f"a cat {tag}")


def test_other_words_in_angles_are_text():
    assert CAT.but(prompt="a <b> cat <lora> x").prompt == "a <b> cat <lora> x"
    assert CAT.but(prompt="a cat <lora:x>").loras[0].weight == 1
    assert RefineParams(prompt="x <lora:y:0.5>").sampling.loras[0].name == "y"
    assert CAT.but(prompt="<lora:x:1>").prompt == " "


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:x:0.5>",
        "<LoRA: x : 0.5 >",
        "<lyco:x:.5>",
        "<lora:styles/x:0.5>",
        "<lora:styles\\x.safetensors:0.5>",
        "<lora:x:0.5:0.5>",
        "<lora:x:te=0.5:unet=0.5>",
        "<lora:x:unet=0.5:te=0.5>",
        "<lora:x:0.5:unet=5e-1>",
        "<lora:x:te=0.5>",
    ],
)
def test_a_tag_has_many_spellings(tag: str):
    params = CAT.but(prompt=f"a cat {tag}")
    assert [(use.name, use.weight, use.text_weight) for use in params.loras] == [("x", 0.5, None)]
    assert params.prompt == "a cat"


@pytest.mark.parametrize(
    ("tag", "text", "picture"),
    [
        ("<lora:x:0.8:0.5>", 0.8, 0.5),  # the text encoder's comes first
        ("<lora:x:te=0.8:unet=0.5>", 0.8, 0.5),
        ("<lora:x:unet=0.5:te=0.8>", 0.8, 0.5),
        ("<lora:x:0.8:unet=0.5>", 0.8, 0.5),
        ("<lora:x:unet=0.5>", 1.0, 0.5),
        ("<lora:x:0:1>", 0.0, 1.0),
    ],
)
def test_a_tag_has_weights_for_text_and_picture(tag: str, text: float, picture: float):
    (use,) = CAT.but(prompt=f"a cat {tag}").loras
    assert (use.text_weight, use.weight) == (text, picture)


@pytest.mark.usefixtures("style")
def test_weights_of_text_and_picture_are_kept_and_read_again():
    tagged = CAT.but(prompt="a photo of the red cat <lora:style:0.3:0.8>")
    made = generate.fn(tagged)[0]
    assert parameters(made)["loras"] == [{"name": "style", "weight": 0.8, "text_weight": 0.3}]
    assert b"<lora:style:0.3:0.8>" in current_store().read(made)
    # the file has no layer of a text encoder, so that its weight there changes nothing
    alone = generate.fn(CAT.but(loras=({"name": "style", "weight": 0.8},)))[0]
    assert (load_image(made) == load_image(alone)).all()


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("<lora:x:9:1>", "from -4 to 4"),
        ("<lora:x:te=nan:unet=1>", "from -4 to 4"),
        ("<lora:x:1:lbw=ALL>", "'lbw=ALL', which takes no part"),
        ("<lora:x:1:1:8>", "'8', which takes no part"),
        ("<lora:x:1:te=1>", "'te=1', which takes no part"),
        ("<lora:styles/:1>", "<lora:NAME:WEIGHT>"),
    ],
)
def test_a_tag_that_says_more_than_counts_is_refused(tag: str, said: str):
    with pytest.raises(InvalidFieldValueError, match=said):
        CAT.but(prompt=f"a cat {tag}")
