"""Stages with toy engines beside the real ones: who serves, and what is said of it."""

import sys
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.states import Completed

import safelight.engines as folder
from flows.running.entries import stage_entries
from safelight.client.page import _served
from safelight.engines import choosing
from safelight.errors import EngineTimeoutError
from safelight.media.images import decode_image
from safelight.media.video.stream import read_frames
from safelight.provenance.embed import read_record
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import Call, calling
from tasks.base.facts import facts_of
from tasks.base.ingest import ingest
from tasks.base.recorder import recording
from tasks.base.stage import cache_key
from tasks.upscale import UpscaleParams, upscale
from tests.media.clips import write_video

TOY = """
from threading import Barrier

from safelight import errors
from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import LocalEngine

class Toy(LocalEngine):
    engine_id, engine_type, together = {name!r}, "remote", {together}
    all_there = Barrier({together})
    asked = []

    def can(self, request):
        return None

    def health_check(self):
        return errors.EngineOfflineError("no answer", "start it") if {down} else None

    def identity(self, request):
        return EngineIdentity(engine_id={name!r}, version="7")

    def open_enlarger(self, request):
        self.factor = request.factor
        return self

    def enlarge(self, image, on_tile=None):
        self.asked.append(image.shape)
        self.all_there.wait(60)
        if {fails}:
            error = errors.EngineTimeoutError("too slow", "wait")
            error.charged = {charged}
            raise error
        return image.repeat(self.factor, 0).repeat(self.factor, 1)

    def close(self):
        pass

ENGINE = Toy()
"""
PARAMS = UpscaleParams(model="video", texture=0)


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """toy_down is out, toy_slow times out, toy_charged times out with a bill, toy_good works,
    toy_wide works on three frames at once."""
    for name, down, fails, charged, together in (
        ("toy_down", True, False, False, 1),
        ("toy_slow", False, True, False, 1),
        ("toy_charged", False, True, True, 1),
        ("toy_good", False, False, False, 1),
        ("toy_wide", False, False, False, 3),
    ):
        text = TOY.format(name=name, down=down, fails=fails, charged=charged, together=together)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    choosing.engines.cache_clear()
    yield
    choosing.engines.cache_clear()
    for path in tmp_path.glob("toy_*.py"):
        sys.modules.pop(f"{folder.__name__}.{path.stem}", None)


@pytest.fixture
def picture(volume: Path, photo: np.ndarray) -> ArtifactRef:
    path = volume / "uploads" / "crop.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo[100:108, 200:216]).save(path)
    return ingest(str(path), ("image",))


@pytest.mark.usefixtures("toys")
def test_the_next_engine_takes_over_and_everything_names_it(picture: ArtifactRef):
    call = Call(upscale.declared, [picture, PARAMS])
    with recording() as record, calling(call):
        record.engines = ("toy_down", "toy_slow", "toy_good", "realesrgan")
        asked_first = cache_key(upscale, [picture, PARAMS])
        made = upscale.fn(picture, PARAMS)
        assert cache_key(upscale, [picture, PARAMS]) != asked_first
    kept = read_record(current_store().fetch(made))
    assert kept is not None
    assert (kept.engine_id, kept.engine_version, kept.weights) == ("toy_good", "7", ())
    pixels = decode_image(current_store().read(made))
    assert np.array_equal(pixels[::2, ::2], decode_image(current_store().read(picture)))
    assert "ENGINE_TIMEOUT: too slow" in " ".join(made.metadata["notes"])
    (entry,) = stage_entries([facts_of("larger", Completed(data=made), call)])
    assert (entry.name, entry.stage_type, entry.origin) == ("larger", "upscale", "enhances")
    assert entry.engine == call.identity
    assert [(each.engine_id, each.code) for each in entry.passed_over] == [
        ("toy_down", "ENGINE_OFFLINE"),
        ("toy_slow", "ENGINE_TIMEOUT"),
    ]
    assert _served(entry) == (
        "toy_good 7; not toy_down: ENGINE_OFFLINE, no answer; "
        "not toy_slow: ENGINE_TIMEOUT, too slow"
    )


@pytest.mark.usefixtures("toys")
def test_after_a_bill_no_other_engine_is_asked(picture: ArtifactRef):
    with recording() as record:
        record.engines = ("toy_charged", "toy_good")
        with pytest.raises(EngineTimeoutError, match="too slow"):
            upscale.fn(picture, PARAMS)
    assert choosing.engines()["toy_good"].asked == []


@pytest.mark.usefixtures("toys")
def test_no_remote_engine_serves_unasked(picture: ArtifactRef):
    assert upscale.identity(PARAMS, picture).engine_id == "realesrgan"


@pytest.mark.usefixtures("toys")
def test_frames_that_an_engine_takes_at_once_come_out_in_order(volume: Path):
    path = volume / "uploads" / "steps.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((32, 48, 3), 20 * at + 20, np.uint8) for at in range(9)]
    write_video(path, frames, Fraction(8))
    with recording() as record:
        record.engines = ("toy_wide",)
        made = upscale.fn(ingest(str(path), ("video",)), PARAMS)
    assert choosing.engines()["toy_wide"].asked == [(32, 48, 3)] * 9
    levels = [frame.mean() for frame in read_frames(current_store().fetch(made))]
    assert np.allclose(levels, [20 * at + 20 for at in range(9)], atol=2)
