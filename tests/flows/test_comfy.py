"""Workflows of ComfyUI among other stages: with a picture and without, found again, cached."""

from pathlib import Path
from typing import Any

import pytest

from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.pipeline import pipeline
from flows.pipelines.described import Pipeline, StageSpec
from flows.pipelines.plan import plan_pipeline
from safelight.errors import PipelineError
from safelight.provenance.manifest import load_manifest
from safelight.settings import settings
from tests.engines.comfy.comfy_server import GRAPH, RECORDED, Comfy, comfy_up
from tests.tasks.test_comfy import keep


def spec(name: str, stage_type: str = "comfy", reads=None, **parameters: Any) -> StageSpec:
    return StageSpec(stage_type=stage_type, name=name, reads=reads, parameters=parameters)


@pytest.mark.parametrize(
    ("stages", "call", "reads"),
    [
        ([spec("a", workflow="draw")], {}, [()]),
        ([spec("a", workflow="redraw")], {"image": "a.png"}, [("image",)]),
        (
            [spec("a", workflow="draw"), spec("b", workflow="redraw")],
            {},
            [(), ("a",)],
        ),
        (
            [spec("a", workflow="draw"), spec("b", workflow="draw", reads=())],
            {},
            [(), ()],
        ),
    ],
)
def test_a_stage_that_may_do_without_a_picture_reads_what_is_there(
    stages: list[StageSpec], call: dict[str, Any], reads: list[tuple[str, ...]]
):
    plan = plan_pipeline(Pipeline(stages=tuple(stages)), call)
    assert [planned.reads for planned in plan.stages] == reads


@pytest.mark.parametrize("reads", [("image", "image"), ("video",)])
def test_it_takes_one_picture_and_no_more(reads: tuple[str, ...]):
    stages = (spec("a", workflow="draw", reads=reads),)
    with pytest.raises(PipelineError) as refused:
        plan_pipeline(Pipeline(stages=stages), {"image": "a.png", "video": "a.mp4"})
    assert refused.value.code == "CONTRACT_MISMATCH"


@pytest.mark.usefixtures("server")
def test_workflows_stand_among_other_stages(volume: Path, monkeypatch: pytest.MonkeyPatch):
    keep("draw", GRAPH)
    keep("redraw", RECORDED["image_graph"])
    stages = [
        spec("first", workflow="draw", inputs={"3.seed": 3}),
        spec("look", "grade", grain=0.1),
        spec("second", workflow="redraw"),
    ]
    there = Comfy()
    with comfy_up(there) as url:
        monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
        settings.cache_clear()
        there.fault("POST", "/prompt", "cut after")
        made, again = (
            pipeline(stages=[each.model_dump() for each in stages], call_input={}, seed=1)
            for _ in range(2)
        )
    assert len(there.submitted) == 2  # for two runs of two workflows
    assert made.artifacts[-1].sha256 == again.artifacts[-1].sha256
    manifest = load_manifest(str(again.data["manifest"]))
    assert [(each.name, each.engine.engine_id, each.status) for each in manifest.stages] == [
        ("first", "local_comfy", "cached"),
        ("look", "numpy", "cached"),
        ("second", "local_comfy", "cached"),
    ]


@pytest.mark.usefixtures("server")
def test_a_preset_falls_to_comfyui_where_diffusers_has_not_the_model(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    there = Comfy()
    with comfy_up(there) as url:
        monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
        settings.cache_clear()
        made = photoreal_portrait_v1(
            prompt="an old sailor",
            quality="low",
            seed=5,
            overrides={"generate": {"model": "tiny_sd15", "width": 64, "height": 64}},
        )
    assert len(there.submitted) == 1
    (stage,) = load_manifest(str(made.data["manifest"])).stages
    assert stage.engine.engine_id == "local_comfy"
    assert [(each.engine_id, each.code) for each in stage.passed_over] == [
        ("diffusers", "DEPENDENCY_MISSING")
    ]
