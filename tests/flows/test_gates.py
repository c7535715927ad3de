"""Gates in pipelines and presets: what does not pass is drawn again, within bounds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.check import check as check_flow
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.pipelines.described import Pipeline
from flows.pipelines.plan import plan_pipeline
from flows.pipelines.run import Made, run_plan
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from presets.base.catalog import find_preset, preset_ids
from safelight.engines.diffusers.model import model_of
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    PictureRefusedError,
)
from safelight.provenance.embed import read_record
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from safelight.store.store import current_store
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.inline import inline
from tasks.base.keeping import load_image
from tasks.base.recorder import recording
from tasks.generate import GenerateParams, generate

HEART = {"prompt": "a red heart", "width": 64, "height": 64, "steps": 1}


@pytest.fixture(autouse=True)
def _on_the_cpu(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()


@pytest.fixture
def blank_for() -> Iterator[Callable[[set[int], float], list[int]]]:
    """Has the model paint the drawings of some calls in one value; tells how many were made."""
    hooks = []

    def spoil(places: set[int], value: float) -> list[int]:
        seen: list[int] = []

        def paint(module: object, inputs: object, made: torch.Tensor) -> torch.Tensor:
            painted = made.clone()
            for at in range(len(made)):
                if len(seen) in places:
                    painted[at] = value
                seen.append(len(seen))
            return painted

        decoder = model_of(find_checkpoint(None)).pipeline.vae.decoder
        hooks.append(decoder.register_forward_hook(paint))
        return seen

    yield spoil
    for hook in hooks:
        hook.remove()


def run(*stages: dict[str, object], seed: int = 5) -> tuple[Made, dict[str, object], list[str]]:
    plan = plan_pipeline(Pipeline.model_validate({"stages": stages}), {}, seed)
    made: Made = {}
    with inline(), recording() as record:
        run_plan(plan, made)
    return made, record.answer, [facts.name for facts in record.facts]


def seed_of(made: Made, name: str, at: int = 0) -> object:
    record = read_record(current_store().fetch(made[name][at]))
    assert record is not None
    return record.parameters["seed"]


GATE = {"stage_type": "check", "name": "seen", "reads": ["drawn"]}


def drawn(**given: object) -> dict[str, object]:
    return {"stage_type": "generate", "name": "drawn", "parameters": {**HEART, **given}}


def test_the_next_seed_takes_the_place_of_a_blank_drawing(blank_for):
    made_by = blank_for({0, 1}, 1.0)
    gate = {**GATE, "parameters": {"policy": "next_seed"}}
    small = {"stage_type": "grade", "name": "look", "reads": ["seen"]}
    made, answer, names = run(drawn(), gate, small)
    assert len(made_by) == 3
    assert (seed_of(made, "drawn"), seed_of(made, "seen")) == (5, 7)
    assert answer["gates"] == [{"stage": "seen", "seeds": [5, 6, 7], "taken": 7, "passed": True}]
    assert names == ["drawn", "seen", "drawn", "seen", "drawn", "seen", "look"]
    (alone,) = generate.fn(GenerateParams.model_validate({**HEART, "seed": 7}))
    assert made["seen"][0].sha256 == alone.sha256


def test_of_several_drawings_the_one_alone_is_drawn_again(blank_for):
    blank_for({1}, 1.0)
    gate = {**GATE, "parameters": {"policy": "next_seed"}}
    made, answer, _ = run(drawn(num_images=3), gate)
    assert [seed_of(made, "seen", at) for at in range(3)] == [5, 9, 7]  # 6, 7 are taken
    gates = answer["gates"]
    assert isinstance(gates, list)
    assert [each["seeds"] for each in gates] == [[5], [6, 9], [7]]


def test_tries_end(blank_for):
    made_by = blank_for(set(range(9)), 1.0)
    policy = {"policy": "next_seed", "tries": 2}
    with pytest.raises(PictureRefusedError, match="it is blank"):
        run(drawn(), {**GATE, "parameters": policy})
    assert len(made_by) == 2
    made, answer, _ = run(drawn(), {**GATE, "parameters": {**policy, "then": "warn"}}, seed=20)
    assert seed_of(made, "seen") == 20
    assert answer["gates"] == [{"stage": "seen", "seeds": [20, 21], "taken": 20, "passed": False}]


def test_what_draws_nothing_cannot_be_asked_again():
    stages = [
        drawn(),
        {"stage_type": "upscale", "name": "large", "reads": ["drawn"]},
        {**GATE, "reads": ["large"], "parameters": {"policy": "next_seed"}},
    ]
    with pytest.raises(ContractMismatchError, match="stage seen: its policy is next_seed, and lar"):
        plan_pipeline(Pipeline.model_validate({"stages": stages}), {}, 1)
    only = [{**GATE, "reads": ["image"], "parameters": {"policy": "next_seed"}}]
    with pytest.raises(ContractMismatchError, match="and image, which it reads"):
        plan_pipeline(Pipeline.model_validate({"stages": only}), {"image": "a.png"}, 1)


def test_one_drawing_without_numbers_is_left_out_alone(blank_for):
    blank_for({1}, torch.nan)
    several = GenerateParams.model_validate({**HEART, "num_images": 3, "seed": 5})
    made = generate.fn(several)
    assert [read_record(current_store().fetch(each)).parameters["seed"] for each in made] == [5, 7]  # pyright: ignore
    assert "picture 2 of 3, of seed 6, is left out" in str(made[0].metadata["notes"])
    (alone,) = generate.fn(GenerateParams.model_validate({**HEART, "seed": 7}))
    assert np.abs(load_image(made[1]).astype(int) - load_image(alone)).max() <= 1


@pytest.mark.usefixtures("server")
def test_a_preset_draws_again_what_holds_no_numbers(blank_for):
    blank_for({0}, torch.nan)
    result = photoreal_portrait_v1(
        prompt="a red heart",
        quality="low",
        seed=3,
        overrides={"generate": {"steps": 1, "width": 64, "height": 64}, "gate": {"faces": 0}},
    )
    assert result.data["gates"] == [{"seeds": [3, 4], "taken": 4, "passed": True}]


@pytest.mark.usefixtures("server")
def test_a_result_that_no_seed_draws_is_looked_at_in_the_end(volume: Path):
    path = settings().volume_root / "uploads" / "grey.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((48, 48, 3), 90, np.uint8)).save(path)
    given = {"image": "uploads/grey.png", "quality": "low"}
    with pytest.raises(PictureRefusedError, match="it is blank"):
        upscale_denoise_image_v1(**given, overrides={"gate": {"blank": True}})
    result = upscale_denoise_image_v1(**given, overrides={"gate": {"policy": "warn"}})
    manifest = load_manifest(str(result.data["manifest"]))
    assert [entry.stage_type for entry in manifest.stages] == ["denoise", "upscale", "check"]
    assert "does not pass" in str(manifest.stages[-1].notes)
    with pytest.raises(InvalidFieldValueError, match="draws nothing by a seed"):
        upscale_denoise_image_v1(**given, overrides={"gate": {"policy": "next_seed"}})
    with pytest.raises(InvalidFieldValueError, match="nothing here draws the picture"):
        check_flow(picture="uploads/grey.png", policy="next_seed")


@pytest.mark.parametrize("preset_id", preset_ids())
def test_any_preset_can_name_a_gate(preset_id: str):
    preset = find_preset(preset_id)
    for quality in preset.levels:
        knobs = preset.at(quality, {"gate": {"policy": "warn", "faces": 1}})
        assert knobs.gate is not None
        assert (knobs.gate.policy, knobs.gate.faces) == ("warn", 1)
        assert "gate" in knobs.steps()
