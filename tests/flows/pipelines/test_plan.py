"""Pipelines are checked whole, before any file or model is opened."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.pipelines.described import Pipeline, StageSpec
from flows.pipelines.plan import plan_pipeline
from safelight.errors import PipelineError

PROMPT = {"prompt": "a cat", "seed": 1}
IMAGE = {"image": "examples/astronaut.png"}
VIDEO = {"video": "examples/box.mp4"}


def spec(stage_type: str, name: str | None = None, reads=None, **parameters) -> StageSpec:
    return StageSpec(
        stage_type=stage_type, name=name or stage_type, reads=reads, parameters=parameters
    )


def plan(*stages: StageSpec, call=None, shared=None):
    return plan_pipeline(Pipeline(stages=stages, parameters=shared or {}), call or {})


REFUSED = {
    "unknown stage": (
        [spec("sharpen")],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["stage sharpen", "no stage 'sharpen'", "upscale"],
    ),
    "unknown field": (
        [spec("upscale", factor=2)],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["stage upscale", "no field factor"],
    ),
    "a mask that no stage reads": (
        [spec("upscale")],
        {**IMAGE, "mask": "examples/box.png"},
        "CONTRACT_MISMATCH",
        ["no stage reads mask"],
    ),
    "a video beside the picture that is read": (
        [spec("grade")],
        {**IMAGE, **VIDEO},
        "CONTRACT_MISMATCH",
        ["no stage reads video"],
    ),
    "media for stages that draw": (
        [spec("generate")],
        {**PROMPT, **IMAGE},
        "CONTRACT_MISMATCH",
        ["no stage reads image"],
    ),
    "missing prompt": ([spec("generate")], {}, "MISSING_REQUIRED_FIELD", ["generate", "prompt"]),
    "width 513": (
        [spec("generate", width=513)],
        PROMPT,
        "INVALID_FIELD_VALUE",
        ["stage generate", "width", "513", "multiple of 8"],
    ),
    "60 to 60": (
        [spec("interpolate", source_fps=60, target_fps=60)],
        VIDEO,
        "INVALID_FIELD_VALUE",
        ["stage interpolate", "60", "120, 240"],
    ),
    "cycle": (
        [spec("upscale", "a", ("b",)), spec("upscale", "b", ("a",))],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["circle", "a", "b"],
    ),
    "reads itself": (
        [spec("upscale", "a", ("a",))],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["circle"],
    ),
    "reads what is not there": (
        [spec("upscale", "a", ("nothing",))],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["stage a", "'nothing'"],
    ),
    "same name twice": (
        [spec("upscale", "a"), spec("upscale", "a")],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["two stages", "'a'"],
    ),
    "video into an image stage": (
        [spec("interpolate", target_fps=60), spec("refine", reads=("interpolate",))],
        {**VIDEO, **PROMPT},
        "CONTRACT_MISMATCH",
        ["stage refine", "takes image", "gives video"],
    ),
    "no input": ([spec("upscale")], {}, "MISSING_REQUIRED_FIELD", ["stage upscale", "image"]),
    "too many inputs": (
        [spec("generate"), spec("upscale", reads=("generate", "image"))],
        {**PROMPT, **IMAGE},
        "CONTRACT_MISMATCH",
        ["stage upscale", "reads 2", "takes 1"],
    ),
    "a list of nothing": (
        [spec("blend", reads=())],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["stage blend", "reads 0", "takes 1 or more (pictures)"],
    ),
    "another kind of media in a list": (
        [spec("generate"), spec("blend", reads=("generate", "audio"))],
        {**PROMPT, "audio": "uploads/a.wav"},
        "CONTRACT_MISMATCH",
        ["stage blend", "takes image or video as its pictures", "audio gives audio"],
    ),
    "a parameter no stage has": (
        [spec("upscale")],
        {**IMAGE, "stepps": 3},
        "CONTRACT_MISMATCH",
        ["call's input", "'stepps'"],
    ),
    "named as an input": (
        [spec("upscale", "image")],
        IMAGE,
        "CONTRACT_MISMATCH",
        ["'image'", "input"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_pipelines_are_refused(case: str):
    stages, call, code, words = REFUSED[case]
    with pytest.raises(PipelineError) as refused:
        plan(*stages, call=call)
    assert refused.value.code == code
    assert refused.value.remedy
    for word in words:
        assert word in refused.value.problem


@pytest.mark.slow
def test_planning_loads_no_engine():
    program = (
        "import sys\n"
        "from flows.pipelines.described import Pipeline, StageSpec\n"
        "from flows.pipelines.plan import plan_pipeline\n"
        "stages = [StageSpec(stage_type=t, name=t) for t in ('generate', 'detail', 'upscale')]\n"
        f"plan_pipeline(Pipeline(stages=stages), {PROMPT!r})\n"
        "assert not {'torch', 'diffusers', 'ncnn', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_calls_input_wins_over_stage_and_pipeline():
    stages = (spec("generate", steps=30), spec("refine", steps=31))
    planned = plan(*stages, call=PROMPT, shared={"steps": 29, "guidance_scale": 3.0})
    assert [stage.params.steps for stage in planned.stages] == [30, 31]
    assert planned.stages[0].params.guidance_scale == 3.0
    won = plan(*stages, call={**PROMPT, "steps": 12}, shared={"steps": 29})
    assert [stage.params.steps for stage in won.stages] == [12, 12]
    one = plan(*stages, call={**PROMPT, "refine.steps": 7}, shared={"steps": 29})
    assert [stage.params.steps for stage in one.stages] == [30, 7]


@pytest.mark.parametrize(
    ("older", "name"),
    [
        ("text_to_image", "generate"),
        ("refiner", "refine"),
        ("detailer", "detail"),
        ("upscaler", "upscale"),
    ],
)
def test_older_names_are_understood(older: str, name: str):
    call = {"generate": PROMPT, "upscale": IMAGE}.get(name, {**PROMPT, **IMAGE})
    assert plan(spec(older), call=call).stages[0].stage.name == name


def test_a_stage_reads_the_one_before_it_unless_told_otherwise():
    planned = plan(
        spec("generate"),
        spec("upscale", "large"),
        spec("grade", "graded", ("generate",)),
        call=PROMPT,
    )
    assert {stage.name: stage.reads for stage in planned.stages} == {
        "generate": (),
        "large": ("generate",),
        "graded": ("generate",),
    }
    assert set(planned.ends) == {"large", "graded"}


def test_a_stage_that_takes_a_list_reads_any_number():
    planned = plan(
        spec("generate", "one"),
        spec("generate", "two"),
        spec("blend", "both", ("one", "two", "image")),
        spec("storyboard", "sheet", ("both", "one", "one")),
        call={**PROMPT, **IMAGE},
    )
    reads = {stage.name: stage.reads for stage in planned.stages}
    assert (reads["both"], reads["sheet"]) == (("one", "two", "image"), ("both", "one", "one"))
    assert planned.ends == ("sheet",)
    assert plan(spec("generate"), spec("storyboard"), call=PROMPT).ends == ("storyboard",)


@given(st.data())
def test_any_dag_comes_out_in_an_order_that_works(data: st.DataObject):
    count = data.draw(st.integers(1, 8))
    reads = [data.draw(st.sampled_from(["image", *map(str, range(i))])) for i in range(count)]
    specs = [spec("upscale", str(i), (reads[i],)) for i in range(count)]
    shuffled = data.draw(st.permutations(specs))
    planned = plan(*shuffled, call=IMAGE)
    seen = {"image"}
    for stage in planned.stages:
        assert set(stage.reads) <= seen
        assert stage.gives == "image"
        seen.add(stage.name)
    assert len(planned.stages) == count


@given(st.data())
def test_any_circle_is_refused(data: st.DataObject):
    count = data.draw(st.integers(1, 6))
    specs = [spec("upscale", str(i), (str((i + 1) % count),)) for i in range(count)]
    with pytest.raises(PipelineError, match="circle"):
        plan(*data.draw(st.permutations(specs)), call=IMAGE)
