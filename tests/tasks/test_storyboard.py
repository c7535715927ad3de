"""The storyboard stage: shots and their captions on one sheet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.errors import InvalidFieldValueError
from safelight.media.images import decode_image
from safelight.media.sheets import INK, caption_lines
from safelight.provenance.embed import read_record
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.ingest import ingest
from tasks.storyboard import StoryboardParams, storyboard

BOX = Path(__file__).resolve().parents[2] / "examples" / "box.mp4"


@pytest.fixture
def shots(volume: Path) -> list[ArtifactRef]:
    """Four plain pictures of different colours, 64x36 px."""
    kept: list[ArtifactRef] = []
    for level in (60, 110, 160, 210):
        file = settings().volume_root / "uploads" / f"{level}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 36), (level, 0, level)).save(file)
        kept.append(ingest(str(file), ("image",)))
    return kept


def sheet_of(pictures: list[ArtifactRef], **params: object) -> np.ndarray:
    made = storyboard.fn(pictures, StoryboardParams.model_validate(params))
    return decode_image(current_store().read(made))


def place(sheet: np.ndarray, level: int) -> tuple[int, int]:
    rows, columns = np.nonzero((sheet == (level, 0, level)).all(axis=2))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (64, 36)
    return int(columns.min()), int(rows.min())


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 16])
def test_shots_stand_in_reading_order(shots: list[ArtifactRef], columns: int):
    sheet = sheet_of(shots, columns=columns, cell=64)
    places = [place(sheet, level)[::-1] for level in (60, 110, 160, 210)]
    assert places == sorted(places)
    assert len({row for row, _ in places}) == -(-4 // columns)


def test_shots_are_numbered_unless_they_have_captions(shots: list[ArtifactRef]):
    numbered = sheet_of(shots, cell=64)
    assert np.array_equal(numbered, sheet_of(shots, cell=64, captions=("1", "2", "3", "4")))
    assert not np.array_equal(numbered, sheet_of(shots, cell=64, captions=("1", "2", "3", "5")))


@pytest.mark.parametrize(
    "text", ["The fox waits", "狐が待つ", "الثعلب ينتظر", "השועל מחכה", "Лиса ждёт", "a café, 10 €"]
)
def test_a_caption_in_any_script_is_written(shots: list[ArtifactRef], text: str):
    sheet = sheet_of(shots[:2], captions=(text, ""), columns=1, cell=256)
    ink = np.array([int(INK[at : at + 2], 16) for at in (1, 3, 5)])
    assert (np.abs(sheet.astype(int) - ink) < 60).all(axis=2).sum() > 80
    missing = sheet_of(
        shots[:2], captions=("".join(f"[U+{ord(c):04X}]" for c in text), ""), cell=256
    )
    assert not np.array_equal(sheet, missing)


def test_a_long_caption_is_written_whole(shots: list[ArtifactRef]):
    words = " ".join(f"word{number}" for number in range(24))
    sheet = sheet_of(shots[:1], captions=(words,), cell=256)
    more = sheet_of(shots[:1], captions=(words + " and_the_end",), cell=256)
    assert more.shape[0] >= sheet.shape[0]
    assert not np.array_equal(more[: sheet.shape[0]], sheet)
    made = storyboard.fn(shots[:1], StoryboardParams(captions=("far too long " * 60,), cell=256))
    assert "caption 1 takes" in " ".join(made.metadata["notes"])
    short = storyboard.fn(shots[:1], StoryboardParams(captions=(words,), cell=256))
    assert short.metadata["notes"] == []
    ones = [" ".join(["m" * 10] * count) for count in (7, 8, 9, 30)]
    assert [caption_lines(text, 256) for text in ones] == [7, 8, 9, 30]
    seven, eight, nine, thirty = (sheet_of(shots[:1], captions=(t,), cell=256) for t in ones)
    assert seven.shape[0] < eight.shape[0] == nine.shape[0]
    assert np.array_equal(nine, thirty)  # both end after the eighth
    assert not np.array_equal(nine, eight)  # which says by an ellipsis that it is not the end


def test_of_a_video_the_middle_frame_is_shown(shots: list[ArtifactRef]):
    video = ingest(str(BOX), ("video",))
    made = storyboard.fn([shots[0], video], StoryboardParams(columns=2, cell=128))
    record = read_record(current_store().fetch(made))
    assert record is not None
    assert record.sources == (shots[0].sha256, video.sha256)
    assert record.stage == "storyboard"


def test_captions_are_as_many_as_shots(shots: list[ArtifactRef]):
    with pytest.raises(InvalidFieldValueError, match="3 captions for 4 pictures"):
        storyboard.fn(shots, StoryboardParams(captions=("a", "b", "c")))


def test_the_same_shots_make_the_same_sheet(shots: list[ArtifactRef]):
    made = {storyboard.fn(shots, StoryboardParams()).sha256 for _ in range(2)}
    assert len(made) == 1
