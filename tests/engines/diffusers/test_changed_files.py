"""Single files of models, and embeddings, with one thing changed: drawn as they say, or refused."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from examples.untrained import build_untrained
from safelight.engines.diffusers.embeddings import read_embedding, vectors_for
from safelight.engines.diffusers.model import model_of
from safelight.engines.diffusion import Drawing, add_on, draw
from safelight.engines.machine.loaded import forget_loaded
from safelight.errors import PipelineError
from safelight.pixels import Pixels
from safelight.progress import watching
from safelight.weights.checkpoints import find_checkpoint
from tests.engines.diffusers.models_folder import models_from, with_change
from tests.engines.test_single_file import build

Tensors = dict[str, torch.Tensor]
WIDTH = 32
PREDICTIONS = {
    "epsilon": None,
    "eps": None,
    "v": "v_prediction",
    "V-Prediction": "v_prediction",
    "sample": "sample",
    "flow": "refused",
    "[]": "refused",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("changed")
    build_untrained(folder / "tiny")
    (folder / "embeddings").mkdir()
    with models_from(folder) as models:
        yield models


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return build(tmp_path_factory.mktemp("narrow") / "folder", seed=4)


def drawn(name: str, scheduler: str | None = None) -> Pixels:
    drawing = Drawing(find_checkpoint(name), "a red cat", 5, steps=1, guidance_scale=1.0)
    return draw(replace(drawing, scheduler=scheduler), 64, 64)[0]


def changed(held: Tensors, dice: random.Random) -> tuple[Tensors, Tensors, str, str]:
    """What is in the changed file, what it says by hand, what was changed, and how."""
    key = dice.choice(sorted(held))
    way = dice.choice(("drop", "rename", "add", "half", "whole numbers", "shape", "twice"))
    given, meant = with_change(held, key, way), dict(held)
    if way in ("half", "whole numbers", "twice"):
        meant[key] = given[key].float()
    return given, meant, key, way


def check_single_files(models: Path, held: Tensors, seeds: range) -> None:
    """Each draws what its tensors say by hand, or is refused; its account names the others."""
    refused = made = 0
    for seed in seeds:
        given, meant, key, way = changed(held, random.Random(seed))
        save_file(given, models / "mutated.safetensors", {"format": "pt", "title": "x"})
        try:
            picture = drawn("mutated")
        except PipelineError as error:
            assert error.code != "UNKNOWN_ERROR", (seed, key, str(error))  # noqa: PT017
            assert way in ("drop", "rename", "shape", "whole numbers"), (seed, key, way)
            refused += 1
            continue
        made += 1
        assert way not in ("drop", "rename"), (seed, key, way)  # a table of words may be longer
        account = model_of(find_checkpoint("mutated")).account
        assert account.used == held.keys(), (seed, key, way)
        left = {"metadata.title"} | ({f"{key}_"} if way == "add" else set())
        assert account.unused.keys() == left, (seed, key, way)
        save_file(meant, models / "meant.safetensors")
        assert np.array_equal(picture, drawn("meant")), (seed, key, way)
        forget_loaded()
    assert refused
    assert made


@pytest.mark.slow
def test_changed_single_files_are_drawn_as_they_say_or_refused(models: Path, held: Tensors):
    check_single_files(models, held, range(8))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_120_changed_single_files_are_drawn_as_they_say_or_refused(models: Path, held: Tensors):
    check_single_files(models, held, range(100, 220))


@pytest.mark.parametrize("said", PREDICTIONS)
def test_what_a_single_file_says_it_predicts_counts_or_is_refused(
    models: Path, held: Tensors, said: str
):
    save_file(held, models / "told.safetensors", {"modelspec.prediction_type": said})
    (models / "told.json").unlink(missing_ok=True)
    wanted = PREDICTIONS[said]
    if wanted == "refused":
        with pytest.raises(PipelineError, match="expected epsilon, v or sample"):
            find_checkpoint("told")
        (models / "told.json").write_text('{"prediction_type": "epsilon"}')
        assert find_checkpoint("told").prediction_type == "epsilon"
        return
    save_file(held, models / "plain.safetensors")
    assert np.array_equal(drawn("told", "ddim"), drawn("plain", "ddim")) is (wanted is None)
    model = model_of(find_checkpoint("told"))
    assert model.own_scheduler.config.prediction_type == (wanted or "epsilon")
    assert "metadata.modelspec.prediction_type" in model.account.used


LAYOUTS = ("emb_params", "<word>", "string_to_param")
FIELDS = {
    "string_to_token": {"*": 265},
    "name": "x",
    "step": 4,
    "sd_checkpoint": "y",
    "brand": [1, 2],
}


def a_file(folder: Path, dice: random.Random) -> tuple[str, torch.Tensor, str, set[str]]:
    """An embedding with one change: its name, vectors by hand, the change, what it has besides."""
    vectors = torch.randn(dice.randint(1, 3), WIDTH, generator=torch.Generator().manual_seed(1))
    layout = dice.choice(LAYOUTS)
    way = dice.choice(
        ("none", "flat", "more", "field", "half", "whole numbers", "wide", "nan", "empty", "deep")
    )
    tensor = vectors
    if way == "flat":
        vectors = vectors[:1].clone()
        tensor = vectors[0].clone()
    if way == "half":
        tensor = vectors.half()
        vectors = tensor.float()
    if way == "whole numbers":
        tensor = (vectors * 100).to(torch.int32)
    if way == "wide":
        tensor = torch.cat([vectors, vectors[:, :1]], 1)
    if way == "nan":
        tensor = vectors.clone()
        tensor[0, 0] = torch.nan
    if way == "empty":
        tensor = vectors[:0].clone()
    if way == "deep":
        tensor = vectors[None].clone()
    pickled = layout == "string_to_param" or dice.random() < 0.4
    besides: dict[str, object] = {}
    if way == "field":
        besides = {name: FIELDS[name] for name in dice.sample(sorted(FIELDS), 2)}
    more = {"other": torch.ones(1, WIDTH)} if way == "more" else {}
    named = {"*" if layout == "string_to_param" else layout: tensor, **more}
    if pickled:
        content = {layout: named, **besides} if layout == "string_to_param" else named | besides
        torch.save(content, folder / "changed.pt")
    else:
        fields = {name: str(value) for name, value in besides.items()}
        save_file(named, folder / "changed.safetensors", fields)
    return way, vectors, layout, set(besides)


def check_embeddings(models: Path, seeds: range) -> None:
    """Each word is the vectors by hand and all else is named, or the file is refused."""
    folder = models / "embeddings"
    card = find_checkpoint("tiny")
    refused = made = 0
    for seed in seeds:
        for left in folder.glob("*"):
            left.unlink()
        way, vectors, layout, besides = a_file(folder, random.Random(seed))
        (file,) = folder.iterdir()

        def with_word(name: str = "changed") -> Pixels:
            words = (add_on("embeddings", name, 1.0),)
            drawing = Drawing(card, f"a {name} cat", 5, steps=1, guidance_scale=1.0)
            return draw(replace(drawing, embeddings=words), 64, 64)[0]

        with watching(None) as notes:
            try:
                picture = with_word()
            except PipelineError as error:
                assert error.code != "UNKNOWN_ERROR", (seed, way, str(error))  # noqa: PT017
                known = way in ("whole numbers", "wide", "nan", "empty", "deep")
                assert known or (way == "more" and layout != "emb_params"), (seed, way, layout)
                refused += 1
                continue
        made += 1
        found, account = vectors_for(read_embedding(file), {"": WIDTH})
        assert torch.equal(found[""].float(), vectors), (seed, way, layout)
        unused = besides | ({"other"} if way == "more" else set())
        assert account.unused.keys() == unused, (seed, way, layout)
        assert all(any(name in note for note in notes) for name in unused), (seed, notes)
        save_file({"emb_params": vectors.contiguous()}, folder / "meant.safetensors")
        assert np.array_equal(picture, with_word("meant")), (seed, way, layout)
    assert refused
    assert made


def test_changed_embeddings_are_read_as_they_say_or_refused(models: Path):
    check_embeddings(models, range(20))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_300_changed_embeddings_are_read_as_they_say_or_refused(models: Path):
    check_embeddings(models, range(100, 400))
