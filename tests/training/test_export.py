"""An exported model is an ordinary diffusers folder that the engine finds and draws with."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from safelight.digests import sha256_of
from safelight.engines import diffusion
from safelight.engines.diffusion import Drawing
from safelight.progress import watching
from safelight.weights import checkpoints
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.places import FACTS
from training.starter.evaluate import TEN, draw, open_model, recommended, sheet, the_ten
from training.starter.export import LARGEST_BYTES, Parts, export, write_model_card
from training.starter.networks import new_autoencoder, new_denoiser, new_text_encoder
from training.starter.settings import Settings
from training.starter.subjects import SUBJECTS
from training.starter.vocabulary import write_tokenizer

SETTINGS = Settings(3, 2.5)


def untrained(folder: Path) -> Parts:
    torch.manual_seed(0)
    text = new_text_encoder(write_tokenizer(folder))
    return Parts(new_autoencoder(), text, new_denoiser(), {"denoiser_steps": 0})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    return export(untrained(folder / "tokenizer"), folder / "starter", SETTINGS)


def test_it_is_small_and_in_half_precision(exported: Path):
    assert sum(file.stat().st_size for file in exported.rglob("*")) < LARGEST_BYTES
    files = sorted(exported.rglob("*.safetensors"))
    assert len(files) == 3
    for file in files:
        with safe_open(file, "pt") as tensors:
            assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} <= {
                "torch.float16",
                "torch.int64",
            }


def test_no_file_names_a_path_of_this_machine(exported: Path):
    for file in exported.rglob("*"):
        if file.suffix in {".json", ".md", ".txt"}:
            text = file.read_text()
            assert str(exported.parent) not in text
            assert "/tmp" not in text
            assert "_name_or_path" not in text


def test_the_facts_describe_the_files(exported: Path):
    facts = json.loads((exported / FACTS).read_text())
    listed = {exported / name: entry for name, entry in facts["files"].items()}
    others = {exported / "README.md", exported / FACTS}
    assert set(listed) == {file for file in exported.rglob("*") if file.is_file()} - others
    for file, entry in listed.items():
        assert entry == {"size_bytes": file.stat().st_size, "sha256": sha256_of(file)}
    assert recommended(exported) == SETTINGS


def test_card_and_notices_name_the_licences(exported: Path):
    assert "SIL OPEN FONT LICENSE" in (exported / "LICENSE").read_text()
    for name in ("LICENSE", "NOTICE", "README.md"):
        text = (exported / name).read_text()
        assert "Noto Color Emoji" in text
        assert "Apache" in text


def test_the_card_is_written_again_without_changing_facts(exported: Path):
    before = (exported / FACTS).read_bytes()
    (exported / "README.md").unlink()
    write_model_card(exported)
    assert "## Recipe" in (exported / "README.md").read_text()
    assert (exported / FACTS).read_bytes() == before


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_all_networks_load_in_one_precision(exported: Path, dtype: torch.dtype | None):
    chosen = {} if dtype is None else {"dtype": dtype}
    pipeline = StableDiffusionPipeline.from_pretrained(exported, local_files_only=True, **chosen)
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {network.dtype for network in networks} == {dtype or torch.float32}


def test_same_request_same_bytes_whatever_else_is_drawn(exported: Path):
    pipeline = open_model(exported)
    alone = draw(pipeline, ["a cat"], SETTINGS)[0]
    again, other = draw(pipeline, ["a cat", "a red heart"], SETTINGS)
    seed = draw(pipeline, ["a cat"], SETTINGS, seed=1)[0]
    assert np.abs(alone.astype(int) - again).max() <= 1
    assert (draw(pipeline, ["a cat"], SETTINGS)[0] == alone).all()
    assert (other != alone).any()
    assert (seed != alone).any()


def test_drawing_over_and_filling_in_work(exported: Path):
    pipeline = open_model(exported)
    grey = Image.new("RGB", (64, 64), "grey")
    mask = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    over = AutoPipelineForImage2Image.from_pipe(pipeline)
    drawn = over("a cat", image=grey, strength=0.7, num_inference_steps=3).images[0]
    assert np.asarray(drawn).shape == (64, 64, 3)
    into = AutoPipelineForInpainting.from_pipe(pipeline)
    filled = into(
        "a cat", image=grey, mask_image=mask, width=64, height=64, num_inference_steps=3
    ).images[0]
    assert np.asarray(filled).shape == (64, 64, 3)


def test_the_engine_falls_back_to_it(exported: Path, volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "STARTER", exported)
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(volume / "none"))
    card = find_checkpoint(None)
    assert (card.name, card.native_width, card.native_height) == ("starter", 64, 64)
    assert (card.recommended_steps, card.recommended_guidance_scale) == (3, 2.5)
    assert (card.base_model, card.licence) == ("sd", "Apache-2.0")
    assert {name for subject in SUBJECTS for name in subject.names} == set(card.subjects)
    drawing = Drawing(card=card, prompt="a photo of a cat", seed=0, steps=3, guidance_scale=2.5)
    picture = diffusion.draw(drawing, 64, 64)[0]
    direct = draw(open_model(exported), ["a photo of a cat"], SETTINGS)[0]
    assert np.abs(picture.astype(int) - direct).max() <= 1


def test_a_request_without_a_known_word_is_remarked_on(
    exported: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoints, "STARTER", exported)
    monkeypatch.setenv("SAFELIGHT_MODELS_DIR", str(volume / "none"))
    card = find_checkpoint("starter")
    with watching(lambda _done, _total: None) as notes:
        diffusion.note_unknown_subject(card, "a photo of a red heart")
        assert notes == []
        diffusion.note_unknown_subject(card, "the parliament of owlets")
        assert len(notes) == 1


def test_weights_beyond_half_precision_are_refused(tmp_path: Path):
    parts = untrained(tmp_path / "tokenizer")
    with torch.no_grad():
        next(parts.denoiser.parameters()).view(-1)[0] = 1e6
    with pytest.raises(ValueError, match="UNet2DConditionModel is inf"):
        export(parts, tmp_path / "starter", SETTINGS)
    assert not (tmp_path / "starter").exists()


def test_an_export_replaces_the_one_before(exported: Path, tmp_path: Path):
    folder = tmp_path / "starter"
    shutil.copytree(exported, folder)
    (folder / "left.over").touch()
    export(untrained(tmp_path / "tokenizer"), folder, SETTINGS)
    assert not (folder / "left.over").exists()
    first, second = (sorted(folder.glob("*/*.safetensors")) for folder in (exported, folder))
    assert [sha256_of(file) for file in first] == [sha256_of(file) for file in second]


@pytest.mark.slow
def test_the_sheet_shows_every_answer(exported: Path):
    from training.starter.evaluate import ask

    answers = ask(open_model(exported), the_ten()[:2], SETTINGS)
    assert [one.prompt for one, _ in answers] == list(TEN[:2])
    high, wide, _ = sheet(answers, 1).shape
    assert wide >= 128
    assert high >= 2 * 128
