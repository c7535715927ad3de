"""What a run tells by events: numbered, rarely, and nothing of what is over at once."""

import io
from unittest.mock import ANY
from uuid import uuid4

import pytest
from PIL import Image

from flows.running import telling as tells
from flows.running.gating import gated
from flows.running.telling import Telling
from presets.base.gate import GateParams
from safelight.client.telling import Told
from safelight.progress import StopReason, clear_stop, request_stop
from tasks.base.recorder import recorder, recording


@pytest.fixture(name="sent")
def caught(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Payloads that would go to the server."""
    found: list[dict] = []

    def send(event: str, resource: dict, payload: dict) -> None:
        assert event == "safelight.flow-run.progress"
        assert resource["prefect.resource.id"].startswith("prefect.flow-run.")
        found.append(payload)

    monkeypatch.setattr(tells, "emit_event", send)
    return found


def photo() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((640, 640), 90).convert("RGB").save(out, "PNG")
    return out.getvalue()


def test_words_are_numbered_and_hold_what_is_new(sent: list[dict]):
    told = Telling(uuid4(), 2)
    told.stage("draw", "generate", "began")
    told.picture(photo())
    told.tell(25.0, "generate: 5 of 20", "generate", 5, 20)
    told.tell(50.0, "generate: 10 of 20", "generate", 10, 20)
    told.finish(None)
    read = [Told.model_validate(payload) for payload in sent]
    assert [(one.attempt, one.number, one.last) for one in read] == [
        (2, 1, False),
        (2, 2, False),
        (2, 3, True),
    ]
    assert read[0].stages[0].name == "draw"
    assert read[0].preview is not None
    assert len(read[0].preview) <= 8000
    assert read[1].stages == ()
    assert read[1].preview is None
    assert sent[0] == {**sent[0], "eta_seconds": ANY, "step": 5, "steps": 20}


def test_a_run_that_is_over_at_once_tells_nothing(sent: list[dict]):
    told = Telling(uuid4(), 1)
    told.stage("draw", "generate", "done")
    told.finish(None)
    assert sent == []


def test_a_run_that_is_somebody_elses_tells_nothing(sent: list[dict]):
    told = Telling(uuid4(), 1)
    request_stop(StopReason.GIVE_UP)
    try:
        told.tell(5.0, "generate: 1 of 20")
    finally:
        clear_stop()
    assert sent == []


def test_nothing_is_shown_of_a_picture_that_may_be_refused_yet():
    shown: list[bytes] = []

    class DrawnError(Exception):
        pass

    def draw(seed: int) -> None:
        del seed
        assert recorder().view is None
        raise DrawnError

    with recording() as mine:
        mine.view = shown.append
        with pytest.raises(DrawnError):
            gated(draw, 1, GateParams())
        assert mine.view is not None
