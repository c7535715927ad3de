"""Failed runs made again: with less, by another engine, or not at all."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image

import safelight.engines as folder
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.repair_pipeline_v1 import repair_pipeline_v1
from flows.running.repairing import FailedRun, repaired
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from presets.repair_pipeline_v1 import PRESET
from safelight.engines import choosing
from safelight.errors import InvalidFieldValueError, MissingFileError, UnknownError
from safelight.provenance.manifest import Failure, load_manifest
from safelight.settings import settings
from tasks.base.keeping import load_image

pytestmark = pytest.mark.usefixtures("server", "volume")
BREAKS = """
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine

class Breaks(LocalEngine):
    engine_id = "a_breaks"
    most_tile = 0

    def can(self, request):
        return None

    def identity(self, request):
        return EngineIdentity(engine_id="a_breaks", version="1")

    def open_enlarger(self, request):
        if request.tile > self.most_tile:
            raise ZeroDivisionError("it broke")
        self.factor = request.factor
        return self

    def enlarge(self, image, on_tile=None):
        return image.repeat(self.factor, 0).repeat(self.factor, 1)

    def close(self):
        pass

ENGINE = Breaks()
"""


@pytest.fixture
def breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An enlarger that the preset below prefers, and that breaks."""
    (tmp_path / "a_breaks.py").write_text(textwrap.dedent(BREAKS))
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    choosing.engines.cache_clear()
    engine = choosing.engines()["a_breaks"]
    import flows.upscale_denoise_image_v1 as preset_flow

    before = preset_flow.PRESET
    order = before.model_copy(update={"engines": ("a_breaks", *before.engines)})
    monkeypatch.setattr(preset_flow, "PRESET", order)
    yield engine
    choosing.engines.cache_clear()
    sys.modules.pop(f"{folder.__name__}.a_breaks", None)


@pytest.fixture
def picture(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> str:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    path = settings().volume_root / "uploads" / "face.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(photo[60:108, 200:264]).save(path)
    return "uploads/face.png"


def failed(picture: str) -> UUID:
    """The id of a run that broke."""
    state = upscale_denoise_image_v1(image=picture, quality="pro", return_state=True)
    assert state.is_failed()
    assert "UNKNOWN_ERROR" in state.message
    return state.state_details.flow_run_id


@pytest.mark.parametrize(
    ("quality", "override", "level", "factor"),
    [
        ("low", None, "low", 2),
        pytest.param("standard", None, "pro", 4, marks=pytest.mark.slow),
        ("pro", None, "pro", 4),
        ("pro", "standard", "standard", 2),
    ],
)
def test_a_run_that_broke_is_made_again_by_another_engine(
    breaks, picture: str, quality: str, override: str | None, level: str, factor: int
):
    run = failed(picture)
    result = repair_pipeline_v1(failed_job_id=run, quality=quality, quality_override=override)
    assert load_image(result.results[0]).shape == (48 * factor, 64 * factor, 3)
    told = result.data["repair"]
    assert told["of"] == str(run)
    assert told["failed_with"] == "UNKNOWN_ERROR"
    assert told["avoided_engines"] == ["a_breaks"]
    assert (f"quality: {level}, was pro" in told["changes"]) == (level != "pro")
    (part,) = result.data["parts"]
    assert part["flow"] == "upscale_denoise_image_v1"
    made = load_manifest(part["flow_run_id"])
    assert made.success
    assert made.quality == level
    served = [e.engine.engine_id for e in made.stages if e.stage_type == "upscale"]
    assert served == ["realesrgan"]
    own = load_manifest(str(result.data["manifest"]))
    assert own.results == result.results
    assert [entry.name for entry in own.stages] == [
        f"upscale_denoise_image_v1.{entry.name}" for entry in made.stages
    ]
    assert own.parameters["failed_job_id"] == str(run)


def test_smaller_tiles_go_where_a_tile_was_too_large(breaks, picture: str, monkeypatch):
    run = failed(picture)
    monkeypatch.setattr(breaks, "most_tile", 64)
    same = {"rerun": {"another_engine": False}}
    with pytest.raises(UnknownError, match="it broke"):
        repair_pipeline_v1(failed_job_id=run, quality="pro", overrides=same)
    result = repair_pipeline_v1(failed_job_id=run, quality="low", overrides=same)
    assert "overrides.upscale.tile: 64" in result.data["repair"]["changes"]
    assert load_image(result.results[0]).shape == (96, 128, 3)
    (part,) = result.data["parts"]
    assert load_manifest(part["flow_run_id"]).stages[-1].engine.engine_id == "a_breaks"


def test_a_run_that_does_not_exist_or_did_not_fail_is_refused(picture: str):
    with pytest.raises(MissingFileError, match="knows no run"):
        repair_pipeline_v1(failed_job_id=uuid4())
    state = upscale_denoise_image_v1(image=picture, quality="low", return_state=True)
    with pytest.raises(InvalidFieldValueError, match="did not fail: its state is Completed"):
        repair_pipeline_v1(failed_job_id=state.state_details.flow_run_id)
    with pytest.raises(InvalidFieldValueError, match="failed_job_id"):
        repair_pipeline_v1.checked({"failed_job_id": "the last one"})


def test_what_no_setting_mends_is_not_made_again(picture: str):
    state = upscale_denoise_image_v1(image="uploads/none.png", return_state=True)
    with pytest.raises(InvalidFieldValueError, match=r"FILE_NOT_FOUND.*no other engine mends"):
        repair_pipeline_v1(failed_job_id=state.state_details.flow_run_id)
    unasked = photoreal_portrait_v1(
        prompt="a sailor", identity_reference=picture, return_state=True
    )
    with pytest.raises(InvalidFieldValueError, match="CONSENT_MISSING"):
        repair_pipeline_v1(failed_job_id=unasked.state_details.flow_run_id)


def out_of_memory(flow: str, **parameters: object) -> FailedRun:
    return FailedRun(
        "x", flow, dict(parameters), Failure(code="OUT_OF_MEMORY", problem="", remedy="")
    )


def test_a_stage_is_asked_for_less(volume: Path):
    how = PRESET.levels["low"].rerun
    drawn = repaired(out_of_memory("generate", prompt="a", width=1024), how, None)
    assert drawn.parameters == {"prompt": "a", "width": 512, "height": 256}
    assert drawn.changes == ["width: 512, was 1024", "height: 256"]
    enlarged = repaired(out_of_memory("upscale", picture="a.png"), how, None)
    assert enlarged.parameters["tile"] == 64
    same = repaired(out_of_memory("upscale", picture="a.png"), PRESET.levels["pro"].rerun, None)
    assert same.parameters == {"picture": "a.png"}
    assert not same.changes


def test_a_preset_is_asked_for_less_of_what_it_would_have_drawn(volume: Path):
    given = {"generate": {"width": 768, "height": 1152, "steps": 9}, "upscale": {"tile": 256}}
    run = out_of_memory("photoreal_portrait_v1", prompt="a", quality="pro", overrides=given)
    kept = repaired(run, PRESET.levels["standard"].rerun, None)
    assert kept.parameters["overrides"] == {
        "generate": {"width": 576, "height": 832, "steps": 9},
        "upscale": {"tile": 128},
    }
    assert given["upscale"]["tile"] == 256  # what failed stays what it was
    lower = repaired(run, PRESET.levels["low"].rerun, None)
    assert lower.parameters["quality"] == "low"
    assert "upscale" not in lower.parameters["overrides"]
    assert "overrides.upscale: left out, low has no such step" in lower.changes
    own_size = out_of_memory("photoreal_portrait_v1", prompt="a", quality="low")
    small_model = repaired(own_size, PRESET.levels["low"].rerun, None)
    assert small_model.parameters == {"prompt": "a", "quality": "low"}  # it draws no other size


def test_an_engine_that_was_away_is_no_reason_for_less():
    run = FailedRun(
        "x",
        "photoreal_portrait_v1",
        {"prompt": "a", "quality": "pro"},
        Failure(code="ENGINE_OFFLINE", problem="", remedy=""),
    )
    assert not repaired(run, PRESET.levels["standard"].rerun, None).changes
