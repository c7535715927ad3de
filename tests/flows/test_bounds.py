"""How much one run may ask for, and what is no number."""

import io

import numpy as np
import pytest
from PIL import Image

from flows.batch import batch
from flows.generate import generate
from flows.pipeline import pipeline
from flows.pipelines.described import MOST_STAGES
from safelight.errors import InvalidFieldValueError
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.base.keeping import keep_image, record_of
from tasks.grade import GradeParams, grade


def grading(count: int) -> list[dict[str, object]]:
    return [
        {"stage_type": "grade", "name": f"s{n}", "parameters": {"grain": 0.5}, "reads": ["image"]}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("flow", "given"),
    [
        (generate, {"prompt": "x", "seed": True}),
        (generate, {"prompt": "x", "guidance_scale": False}),
        (batch, {"flow": "generate", "requests": [{"prompt": "x"}], "parallel": True}),
        (pipeline, {"stages": grading(1), "seed": True}),
    ],
)
def test_true_and_false_are_no_numbers(flow, given: dict[str, object]):
    with pytest.raises(InvalidFieldValueError, match=r"expected a number"):
        flow.checked(given)


def test_switches_stay_switches():
    assert generate.checked({"prompt": "x", "use_controlnet": False})["use_controlnet"] is False
    assert generate.checked({"prompt": "x", "seed": 1, "guidance_scale": 2})["seed"] == 1


def test_a_pipeline_has_a_bounded_number_of_stages():
    assert len(pipeline.checked({"stages": grading(MOST_STAGES)})["stages"]) == MOST_STAGES
    with pytest.raises(InvalidFieldValueError, match=f"at most {MOST_STAGES}"):
        pipeline.checked({"stages": grading(MOST_STAGES + 1)})


def picture() -> ArtifactRef:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(file, "png")
    return current_store().put(file.getvalue(), "image/png")


@pytest.mark.usefixtures("volume")
def test_the_history_in_a_file_does_not_double():
    pixels = np.zeros((8, 8, 3), np.uint8)
    made, before = picture(), picture()
    for number in range(12):
        params = GradeParams(grain=number / 100)
        with calling(Call(grade.declared, [made, params])):
            record = record_of(params, [made, before])
            before, made = made, keep_image(pixels, record)
    assert len(record.history) == 11


@pytest.mark.usefixtures("server", "volume")
def test_more_calls_than_a_run_may_make_are_refused_before_any_of_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("flows.pipelines.run.MOST_CALLS", 3)
    state = pipeline(
        stages=grading(4), call_input={"image": picture().uri}, seed=1, return_state=True
    )
    assert state.is_failed()
    assert "[INVALID_FIELD_VALUE] the stages run more than 3 times" in (state.message or "")
