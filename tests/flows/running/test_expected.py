"""How many stages a preset's run will have, and the percentage that follows, with all switches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cinematic_portrait_v1 import cinematic_portrait_v1
from flows.generate import generate
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.running.progress import ProgressBoard
from flows.running.recorded import RecordedFlow, run_inline
from flows.storyboard_builder_v1 import storyboard_builder_v1
from flows.ugc_clip_builder_v1 import ugc_clip_builder_v1
from flows.upscale_denoise_image_v1 import upscale_denoise_image_v1
from safelight.settings import settings
from tasks.base.recorder import recorder
from tests.sounds import write_tone

SMALL = {"width": 64, "height": 64, "steps": 2}
DRAWN = {"prompt": "a red heart", "seed": 3, "overrides": {"generate": SMALL}}


class Watched:
    """What people see of a run: percentages, and of how many stages."""

    def __init__(self, flow: RecordedFlow[...], **given: Any) -> None:
        self.percents: list[float] = []
        self.expected: list[int] = []
        self.board = ProgressBoard()
        self.manifest = run_inline(flow, given, f"watched-{flow.name}", self.report)
        assert self.manifest.error is None
        assert self.board.recorder is not None
        self.done = len(self.board.recorder.facts) + self.board.recorder.parts_done

    def report(self, stage: str, done: int, total: int) -> None:
        del stage
        self.board.recorder = self.board.recorder or recorder()
        self.percents.append(self.board._percent(done / total if total else 0.0))
        self.expected.append(self.board.recorder.expected_stages)


@pytest.fixture
def small(volume: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> str:
    monkeypatch.setenv("SAFELIGHT_DEVICE", "cpu")
    settings.cache_clear()
    folder = settings().volume_root / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[60:92, 200:240]).save(folder / "small.png")
    write_tone(folder / "said.wav", 1)
    return "uploads/small.png"


@pytest.mark.slow
@pytest.mark.parametrize("face", [None, True, False])
@pytest.mark.parametrize("larger", [None, True, False])
@pytest.mark.parametrize("quality", ["low", "pro"])
@pytest.mark.usefixtures("small")
def test_switches_add_and_leave_stages(quality: str, face: bool | None, larger: bool | None):
    given = {**DRAWN, "quality": quality, "use_facedetailer": face, "use_upscale": larger}
    seen = Watched(photoreal_portrait_v1, **given)
    own = quality == "pro"
    count = 1 + (own if face is None else face) + (own if larger is None else larger)
    assert set(seen.expected) == {count}
    _is_right(seen, count)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("flow", "given", "count"),
    [
        # the model of the checkout draws small: two enlargements after each drawing
        (photoreal_portrait_v1, {"prompt": "a red heart", "seed": 3, "quality": "low"}, 3),
        (cinematic_portrait_v1, {**DRAWN, "quality": "low", "use_upscale": True}, 3),
        (
            storyboard_builder_v1,
            {
                "prompt_template": "heart {shot_number}",
                "shot_count": 2,
                "quality": "pro",
                "overrides": {"generate": SMALL, "storyboard": {"cell": 64}},
            },
            5,
        ),
        (
            photoreal_portrait_v1,
            {**DRAWN, "quality": "low", "overrides": {"generate": SMALL, "gate": {"faces": 0}}},
            2,
        ),
        (
            generate,
            {"prompt": "a heart", **SMALL, "num_images": 2, "use_upscale": True, "seed": 1},
            3,
        ),
    ],
)
def test_what_is_drawn_small_or_looked_at_counts(flow, given: dict[str, Any], count: int):
    seen = Watched(flow, **given)
    assert set(seen.expected) == {count}
    _is_right(seen, count)


def test_a_preset_of_two_steps(small: str):
    _is_right(Watched(upscale_denoise_image_v1, image=small, quality="low"), 2)


@pytest.mark.slow
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("sound", "quality", "count"), [(None, "standard", 2), ("said.wav", "standard", 3)]
)
def test_parts_of_a_whole_count(
    small: str, monkeypatch: pytest.MonkeyPatch, sound: str | None, quality: str, count: int
):
    seen: dict[ProgressBoard, list[float]] = {}
    finish, report = ProgressBoard.finish, ProgressBoard.report

    def finishing(board: ProgressBoard) -> None:
        seen.setdefault(board, [])
        finish(board)

    def reporting(board: ProgressBoard, stage: str, done: int, total: int) -> None:
        seen.setdefault(board, []).append(board._percent(done / total if total else 0.0))
        report(board, stage, done, total)

    monkeypatch.setattr(ProgressBoard, "finish", finishing)
    monkeypatch.setattr(ProgressBoard, "report", reporting)
    ugc_clip_builder_v1(
        product_image=small,
        prompt="a mug",
        audio=sound and f"uploads/{sound}",
        quality=quality,
        seed=1,
        overrides={"clip": {"overrides": {"animate": {"duration": 2}}}},
    )
    whole, told = list(seen.items())[-1]  # its parts have boards of their own, and end before it
    assert whole.recorder is not None
    assert whole.recorder.parts_done == 2
    assert whole.recorder.expected_stages == count
    assert whole.recorder.parts_done + len(whole.recorder.facts) == count
    assert all(100 * 2 / 3 - 0.1 <= percent <= 100 for percent in told)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_drawing_that_is_tried_again_never_takes_the_bar_back():
    gate = {"faces": 1, "tries": 3, "then": "warn"}
    seen = Watched(
        photoreal_portrait_v1,
        **{**DRAWN, "quality": "low", "overrides": {"generate": SMALL, "gate": gate}},
    )
    assert seen.expected[0] == 2
    assert seen.done == 6
    assert seen.percents == sorted(seen.percents)
    assert seen.percents[-1] <= 100


def _is_right(seen: Watched, count: int) -> None:
    assert seen.done == count
    assert seen.percents == sorted(seen.percents)
    assert seen.percents[0] <= 100 / count + 0.1
    assert 100 * (count - 1) / count - 0.1 <= seen.percents[-1] <= 100
