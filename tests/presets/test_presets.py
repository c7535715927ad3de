"""Every preset: its card, its levels, overrides that keep what they do not name."""

import importlib
from pathlib import Path

import pytest
import yaml

from flows.running.inputs import knobs_of
from presets.base.catalog import find_preset, preset_ids
from safelight.engines.choosing import engines
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from tasks.base.recorder import recording
from tasks.upscale import upscale

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("preset_id", preset_ids())
def test_a_preset_is_whole(preset_id: str):
    preset = find_preset(preset_id)
    assert preset.id == preset_id
    assert set(preset.levels) == {"low", "standard", "pro"}
    assert preset.steps
    flow = getattr(importlib.import_module(f"flows.{preset_id}"), preset_id)
    assert flow.name == preset_id
    properties = flow.parameters.properties
    assert set(preset.required_inputs) <= set(flow.parameters.required)
    assert set(preset.optional_inputs) <= set(properties)
    for name, shown in properties.items():
        assert shown.get("description") not in (None, "", name), f"{name} has no help text"
        assert "position" in shown


@pytest.mark.parametrize("preset_id", preset_ids())
def test_a_preset_names_engines_that_exist(preset_id: str):
    preset = find_preset(preset_id)
    assert preset.engines
    assert set(preset.engines) <= set(engines())


def test_the_order_of_a_preset_reaches_its_stages():
    preset = find_preset("photoreal_portrait_v1")
    reversed_order = preset.model_copy(update={"engines": ("rife", "diffusers")})
    with recording() as record:
        knobs = knobs_of(reversed_order, "pro", {"generate": {"steps": 3}})
        assert record.engines == ("rife", "diffusers")
        assert record.expected_stages == len(knobs.steps()) == 3
        assert knobs.generate.steps == 3
        assert upscale.identity(knobs.upscale).engine_id == "realesrgan"
        record.engines = ("nowhere",)
        with pytest.raises(ContractMismatchError, match="nowhere"):
            upscale.identity(knobs.upscale)


def test_every_flow_has_a_deployment_and_every_deployment_a_flow():
    described = yaml.safe_load((CHECKOUT / "deployments" / "prefect.yaml").read_text())
    deployed = {deployment["entrypoint"] for deployment in described["deployments"]}
    assert {f"flows.{preset_id}.{preset_id}" for preset_id in preset_ids()} <= deployed
    for entrypoint in deployed:
        module, _, name = entrypoint.rpartition(".")
        assert getattr(importlib.import_module(module), name).name == name


def test_the_numbers_of_the_contract():
    levels = find_preset("photoreal_portrait_v1").levels
    drawn = {
        name: (knobs.generate.steps, knobs.generate.guidance_scale, knobs.steps())
        for name, knobs in levels.items()
    }
    assert drawn == {
        "low": (25, 6.5, ("generate",)),
        "standard": (40, 7.5, ("generate", "detail")),
        "pro": (50, 8.0, ("generate", "detail", "upscale")),
    }
    cinematic = find_preset("cinematic_portrait_v1").levels
    assert [cinematic[level].generate.steps for level in ("low", "standard", "pro")] == [30, 35, 40]
    assert [cinematic[level].grade.tone > 0 for level in ("low", "standard", "pro")] == [
        False,
        True,
        True,
    ]
    assert cinematic["pro"].grade.colour == "cinematic"
    factors = find_preset("upscale_denoise_image_v1").levels
    assert [factors[level].upscale.upscale_factor for level in ("low", "standard", "pro")] == [
        2,
        2,
        4,
    ]
    boards = find_preset("storyboard_builder_v1").levels
    assert {boards[level].aspect for level in boards} == {(16, 9)}
    clips = find_preset("image_to_video_v1").levels
    assert [clips[level].animate.duration for level in ("low", "standard", "pro")] == [2, 3, 5]
    videos = find_preset("upscale_deflicker_video_v1").levels
    assert [
        (videos[level].upscale.upscale_factor, videos[level].interpolate is not None)
        for level in ("low", "standard", "pro")
    ] == [(2, False), (2, False), (4, True)]


def test_an_override_keeps_every_tuned_value_it_does_not_name():
    preset = find_preset("photoreal_portrait_v1")
    knobs = preset.at("pro", {"generate": {"steps": 3}})
    assert knobs.generate.steps == 3
    assert knobs.generate.guidance_scale == 8.0
    assert knobs.generate.prompt == preset.levels["pro"].generate.prompt
    assert knobs.upscale == preset.levels["pro"].upscale


@pytest.mark.parametrize(
    ("overrides", "error", "word"),
    [
        ({"sharpen": {"x": 1}}, ContractMismatchError, "sharpen"),
        ({"upscale": {"tile": 128}}, ContractMismatchError, "upscale"),
        ({"generate": {"stepps": 1}}, ContractMismatchError, "stepps"),
        ({"generate": {"steps": 0}}, InvalidFieldValueError, "steps"),
        ({"aspect": {"x": 1}}, ContractMismatchError, "aspect"),
    ],
)
def test_overrides_of_what_is_not_there_are_refused(overrides, error, word):
    with pytest.raises(error, match=word):
        find_preset("photoreal_portrait_v1").at("low", overrides)


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ContractMismatchError, match="photoreal_portrait_v1"):
        find_preset("../pipeline")
