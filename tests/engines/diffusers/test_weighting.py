"""Prompts of any length and with weights mean what they say."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionXLPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from examples.untrained import build_untrained
from safelight.engines.diffusers.encodings import check_clip_skip
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusers.reading import note_unread
from safelight.engines.diffusers.weighting import chunks_of, encode, length_of, weighted
from safelight.engines.diffusion import Drawing, draw, draw_together
from safelight.errors import InvalidFieldValueError
from safelight.progress import watching
from safelight.settings import settings
from safelight.weights.checkpoints import find_checkpoint

SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("weighting")
    build_untrained(root / "models" / "tiny")
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("VOLUME_ROOT", str(root))
        settings.cache_clear()
        yield root
    settings.cache_clear()


@pytest.fixture(scope="module")
def pipeline(models: Path):
    return model_of(find_checkpoint("tiny")).pipeline


@pytest.fixture(scope="module")
def large(pipeline):
    """The same as a Stable Diffusion XL, with a second encoder of its own width."""
    torch.manual_seed(5)
    size = len(pipeline.tokenizer)
    config = CLIPTextConfig(
        vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
        hidden_size=48, intermediate_size=64, projection_dim=24, num_attention_heads=4,
        num_hidden_layers=3, max_position_embeddings=77,
    )  # fmt: skip
    assert isinstance(pipeline.text_encoder, CLIPTextModel)
    return StableDiffusionXLPipeline(
        vae=pipeline.vae, unet=pipeline.unet, scheduler=pipeline.scheduler,
        tokenizer=pipeline.tokenizer, tokenizer_2=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        text_encoder_2=CLIPTextModelWithProjection(config).eval(),
    )  # fmt: skip


def drawing(prompt: str, **changes: object) -> Drawing:
    fields: dict[str, object] = {"seed": 7, "steps": 2, "guidance_scale": 3.0, **changes}
    return Drawing(card=find_checkpoint("tiny"), prompt=prompt, **fields)


def drawn(prompt: str, **changes: object) -> np.ndarray:
    return draw(drawing(prompt, **changes), SIDE, SIDE)[0]


def plain(view, prompt: str) -> torch.Tensor:
    return view.encode_prompt(
        prompt=prompt, device=view.device, num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red cat", [("a red cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a ((red)) cat", [("a ", 1), ("red", 1.21), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("(a (red:2) cat:0.5)", [("a ", 0.5), ("red", 1), (" cat", 0.5)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("a (red cat", [("a ", 1), ("red cat", 1.1)]),
        ("a red) cat]", [("a red) cat]", 1)]),
        (r"a \(red\) cat", [("a (red) cat", 1)]),
        ("a (re[d) c]at", [("a ", 1), ("re", 1.1), ("d", 1.0), (" c", 1 / 1.1), ("at", 1)]),
        ("one BREAK two", [("one ", 1), (None, 1), (" two", 1)]),
        ("OUTBREAK: 3 cats", [("OUTBREAK: 3 cats", 1)]),
        ("Back \\ B", [("Back \\ B", 1)]),
        ("", []),
    ],
)  # fmt: skip
def test_brackets_are_taken_apart(prompt: str, parts: list[tuple[str | None, float]]):
    found = weighted(prompt)
    assert [words.text for words in found] == [text for text, _ in parts]
    assert [words.weight for words in found] == pytest.approx([weight for _, weight in parts])


def test_a_prompt_without_weights_is_encoded_as_ever(pipeline, large):
    for view in (pipeline, large):
        seen, _ = encode(view, "a photo of the red cat", 1)
        assert torch.allclose(seen, plain(view, "a photo of the red cat"), atol=1e-6)
        assert length_of(view, ("a photo of the red cat", "")) == 0
        assert length_of(view, ("a (red) cat", "")) == 1


def test_weights_are_those_of_the_formula(pipeline, large):
    times = torch.ones(77)
    times[2:4] = 1.3  # behind the mark and "a"
    times[5] = 1 / 1.1
    for view, widths in ((pipeline, [32]), (large, [32, 48])):
        bare = plain(view, "a red cat of house")
        parts: list[torch.Tensor] = []
        for part in bare.split(widths, dim=-1):
            after = part * times[None, :, None]
            parts.append(after * (part.mean() / after.mean()))
        seen, _ = encode(view, "a (red cat:1.3) of [house]", 1)
        assert torch.allclose(seen, torch.cat(parts, dim=-1), atol=1e-4, rtol=1e-4)
        assert (seen - bare).abs().max() > 1e-2


def test_what_is_long_is_read_in_chunks(pipeline, large):
    for view in (pipeline, large):
        tokenizer = pipeline.tokenizer
        assert [len(c.tokens) for c in chunks_of("cat " * 160, tokenizer, view)] == [75, 75, 10]
        assert [len(c.tokens) for c in chunks_of("a BREAK cat", tokenizer, view)] == [1, 1]
        seen, _ = encode(view, "cat " * 75 + "dog house", 3)
        for number, text in enumerate(("cat " * 75, "dog house", "")):
            part = seen[:, 77 * number : 77 * number + 77]
            assert torch.allclose(part, plain(view, text), atol=1e-6)


def test_no_thought_is_cut_at_a_comma(pipeline):
    words = "cat " * 60 + ", " + "dog " * 20
    first, second = chunks_of(words, pipeline.tokenizer, pipeline)
    comma = len(pipeline.tokenizer(",", add_special_tokens=False)["input_ids"])
    assert (len(first.tokens), len(second.tokens)) == (60 + comma, 20)


def test_the_ninetieth_word_takes_part():
    long = "cat " * 89
    with watching(None) as notes:
        assert (drawn(f"{long} dog") != drawn(f"{long} house")).any()
        assert (drawn("a", negative_prompt=f"{long} dog") != drawn("a", negative_prompt=long)).any()
    assert not any("tokens" in text for text in notes)
    assert (drawn("a (red:1.5) cat") != drawn("a red cat")).any()
    assert (drawn(r"a \(red cat") != drawn("a (red cat")).any()


@pytest.mark.slow
def test_long_and_short_prompts_are_drawn_together():
    wanted = [drawing(p) for p in ("a cat", "a (red) cat", "cat " * 90, "cat " * 91, "a dog")]
    received: dict[int, np.ndarray] = {}
    draw_together(wanted, SIDE, SIDE, lambda at, one: received.__setitem__(at, one.pixels), most=4)
    for at, each in enumerate(wanted):
        alone = draw(each, SIDE, SIDE)[0]
        assert np.abs(received[at].astype(int) - alone).max() <= 1


def test_what_other_families_do_not_read_is_said(pipeline):
    other = LatentConsistencyModelPipeline(
        **{name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=LCMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    long = "a red cat, " * 30 + "on a green meadow"
    with watching(None) as notes:
        note_unread(other, [long, "a (red) cat"])
    assert any("(77 tokens)" in text and "on a green meadow" in text for text in notes)
    assert any("knows no weights" in text for text in notes)
    with watching(None) as notes:
        note_unread(other, ["a red cat"])
        note_unread(pipeline, [long, "a (red) cat"])
    assert not notes


@pytest.mark.parametrize("prompt", ["a red cat", "a (red:1.3) cat", " ".join(["cat"] * 90)])
def test_clip_skip_2_reads_the_penultimate_layer(pipeline, prompt: str):
    """What diffusers calls clip_skip=1; weights and chunks are laid over it as over the last."""
    length = max(1, length_of(pipeline, (prompt,)))
    ours, _ = encode(pipeline, prompt, length, clip_skip=2)
    last, _ = encode(pipeline, prompt, length)
    assert not torch.allclose(ours, last)
    if length == 1 and "(" not in prompt:
        assert torch.equal(ours, penultimate(pipeline, prompt))


def penultimate(pipeline, prompt: str) -> torch.Tensor:
    """By the formula of diffusers' clip_skip=1."""
    words = pipeline.tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    encoder = pipeline.text_encoder
    with torch.no_grad():
        seen = encoder(words.input_ids, output_hidden_states=True).hidden_states[-2]
        return getattr(encoder, "text_model", encoder).final_layer_norm(seen)


def test_a_picture_is_drawn_at_the_layer_that_is_asked_for(models: Path):
    def drawn(clip_skip: int, prompt: str = "a red cat") -> np.ndarray:
        asked = Drawing(
            card=find_checkpoint("tiny"), prompt=prompt, seed=3, steps=2, clip_skip=clip_skip
        )
        return draw(asked, SIDE, SIDE)[0]

    pipeline = model_of(find_checkpoint("tiny")).pipeline
    theirs = pipeline(
        prompt_embeds=penultimate(pipeline, "a red cat"),
        negative_prompt_embeds=penultimate(pipeline, ""),
        num_inference_steps=2,
        guidance_scale=7.5,
        width=SIDE,
        height=SIDE,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="np",
    ).images[0]
    assert np.abs(drawn(2) / 255 - theirs).max() <= 1 / 255
    assert not np.array_equal(drawn(2), drawn(1))
    assert not np.array_equal(drawn(2, "a (red:1.3) cat"), drawn(1, "a (red:1.3) cat"))
    with pytest.raises(InvalidFieldValueError, match="text encoder of this model has 2 layers"):
        drawn(3)


@pytest.mark.parametrize(("family", "most"), [("sd", 12), (None, 12), ("sdxl", 2), ("flux", 1)])
def test_layers_that_a_family_is_not_read_at_are_refused(family: str | None, most: int):
    check_clip_skip(most, family)
    with pytest.raises(InvalidFieldValueError, match="clip_skip is"):
        check_clip_skip(most + 1, family)
