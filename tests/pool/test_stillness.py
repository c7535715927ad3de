"""Processes that live and do nothing are replaced, and their runs go on."""

import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from safelight import progress
from safelight.pool.devices import Device
from safelight.pool.process import WarmProcess
from safelight.pool.stillness import LOOK_SECONDS, Silence, stillness
from safelight.settings import settings
from tests.prefect_pool import Pool, begun, children


@pytest.mark.soak
def test_a_stopped_process_is_replaced_and_its_run_goes_on(pool: Pool):
    worker = pool.start_worker(SAFELIGHT_POOL_SILENCE_SECONDS="10")
    (child,) = children(worker)
    run = pool.create("steps", count=60)
    begun(pool)
    child.send_signal(signal.SIGSTOP)
    assert pool.end(run).is_completed()
    assert not child.is_running()
    assert "gave no sign of life for" in pool.log()
    states = pool.client.read_flow_run_states(run)
    assert any("no sign of life" in (state.message or "") for state in states)


@pytest.fixture
def process() -> WarmProcess:
    return WarmProcess(Device("cpu:0", "cpu", 1.0, ()))


def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_POOL_SILENCE_SECONDS", "10")
    monkeypatch.setenv("SAFELIGHT_POOL_STALL_SECONDS", "30")
    settings.cache_clear()


def test_a_sign_of_life_ends_the_silence(process: WarmProcess, monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch)
    silence = Silence()
    for _ in range(int(10 / LOOK_SECONDS)):
        silence.look(7)
        assert not stillness(process, silence)
    silence.look(8)
    assert silence.seconds == 0
    for _ in range(int(10 / LOOK_SECONDS)):
        silence.look(8)
    assert "no sign of life for 10 s" in stillness(process, silence)


def test_a_stage_without_a_step_stands_still(process: WarmProcess, monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch)
    process.still_seconds = 29.9
    assert not stillness(process, Silence())
    process.still_seconds = 30.0
    assert "no step for 30 s" in stillness(process, Silence())


@pytest.mark.parametrize(
    "sign", [lambda: progress.step(1, 2), lambda: progress.pause(0)], ids=["step", "pause"]
)
def test_steps_and_pauses_are_signs_of_moving(
    sign: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert progress.still_seconds() == 0
    with progress.moving():
        now[0] += 50
        assert progress.still_seconds() == 50
        sign()
        assert progress.still_seconds() == 0
        now[0] += 3
        assert progress.still_seconds() == 3
    assert progress.still_seconds() == 0
