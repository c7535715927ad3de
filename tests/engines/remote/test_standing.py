"""How we stand with providers: keys, balance, and what people see of it."""

import json
from pathlib import Path

import pytest

from safelight.cli.engines import check_engines, list_engines
from safelight.engines.choosing import engines
from safelight.engines.interface import AnimateRequest, DrawRequest, EnlargeRequest, Request
from safelight.engines.lips import LipsyncRequest
from safelight.engines.remote.listing import EngineState, engine_states
from safelight.errors import PipelineError
from safelight.settings import settings
from tests.engines.remote.acts import as_work, fal_draws
from tests.engines.remote.connected import connected, forget_standing
from tests.engines.remote.fal_server import Fal
from tests.engines.remote.kling_server import Kling
from tests.engines.remote.runware_server import Runware
from tests.engines.remote.sync_server import Sync

REQUESTS: dict[str, Request] = {
    "provider_fal": DrawRequest(prompt="x", width=512, height=512),
    "provider_runware": EnlargeRequest("photo", 2, 256),
    "provider_kling": AnimateRequest(seconds=3, fps=24),
    "provider_synclabs": LipsyncRequest(),
}


def states() -> dict[str, EngineState]:
    return {state.engine_id: state for state in engine_states()}


@pytest.mark.parametrize("name", REQUESTS)
def test_without_a_key_an_engine_is_not_connected(volume: Path, name: str):
    engine = engines()[name]
    refusal = engine.can(REQUESTS[name])
    assert refusal is not None
    assert refusal.code == "DEPENDENCY_MISSING"
    assert "SAFELIGHT_" in refusal.remedy
    unknown = engine.verify_identity()
    assert unknown is not None
    assert unknown.code == "AUTH_MISSING"
    assert states()[name].state == "not connected"


def test_all_is_well(fal: Fal, runware: Runware, kling: Kling, sync: Sync):
    for name, request in REQUESTS.items():
        engine = engines()[name]
        wrong = engine.health_check() or engine.verify_identity()
        assert wrong is None, wrong
        assert engine.check_balance(request) is None
    found = states()
    assert [found[name].state for name in REQUESTS] == ["ready"] * 4
    assert found["provider_fal"].balance == "100.00 USD"
    assert found["provider_kling"].balance == "100.00 units"
    assert found["provider_synclabs"].balance == ""
    assert "image to video" in found["provider_kling"].offers
    assert found["realesrgan"].state == "ready"


def test_a_key_that_is_refused(
    fal: Fal, runware: Runware, kling: Kling, sync: Sync, monkeypatch: pytest.MonkeyPatch
):
    keys = ("FAL_KEY", "RUNWARE_KEY", "KLING_SECRET_KEY", "SYNCLABS_KEY")
    for name in keys:
        monkeypatch.setenv(f"SAFELIGHT_{name}", "another-key-0123456789")
    settings.cache_clear()
    forget_standing()
    for name in REQUESTS:
        engine = engines()[name]
        assert engine.health_check() is None
        refusal = engine.verify_identity()
        assert refusal is not None
        assert refusal.code == "AUTH_INVALID"
        assert "another-key" not in str(refusal)
        assert states()[name].state == "refused"


def test_a_provider_that_is_away(volume: Path, monkeypatch: pytest.MonkeyPatch):
    class Away(Runware):
        url = "http://127.0.0.1:9"

    server = Away()
    server.url = "http://127.0.0.1:9"
    connected(monkeypatch, server)
    refusal = engines()["provider_runware"].health_check()
    assert refusal is not None
    assert refusal.code == "ENGINE_OFFLINE"
    assert states()["provider_runware"].state == "offline"


def test_an_account_without_money(fal: Fal, runware: Runware, kling: Kling):
    fal.balance = runware.balance = kling.balance = 0.001
    for name in ("provider_fal", "provider_runware", "provider_kling"):
        engine = engines()[name]
        assert engine.health_check() is None
        assert engine.verify_identity() is None
        refusal = engine.check_balance(REQUESTS[name])
        assert refusal is not None
        assert refusal.code == "INSUFFICIENT_FUNDS"


def test_a_key_that_may_not_see_the_balance_is_good_enough(fal: Fal):
    fal.admin = False
    engine = engines()["provider_fal"]
    assert engine.verify_identity() is None
    assert engine.check_balance(REQUESTS["provider_fal"]) is None
    fal.locked = True
    with pytest.raises(PipelineError) as caught:
        as_work("w", fal_draws)
    assert (caught.value.code, caught.value.charged) == ("INSUFFICIENT_FUNDS", False)
    last = states()["provider_fal"].last_error
    assert last is not None
    assert last.code == "INSUFFICIENT_FUNDS"


def test_the_standing_is_asked_once_a_minute(fal: Fal):
    engine = engines()["provider_fal"]
    for _ in range(5):
        engine.health_check()
        engine.check_balance(REQUESTS["provider_fal"])
    assert len(fal.asked) == 1


def test_people_and_programs_see_the_same(fal: Fal, capsys: pytest.CaptureFixture[str]):
    as_work("w", fal_draws)
    list_engines(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["spent_today_usd"] == 0.025
    assert {each["engine_id"] for each in told["engines"]} == set(engines())
    list_engines(as_json=False)
    shown = capsys.readouterr().out
    assert "provider_fal" in shown
    assert "0.0250 USD spent on providers today" in shown
    found = {each.what: each for each in check_engines()}
    assert found["engine provider_fal"].level == "ok"
    assert "100.00 USD" in found["engine provider_fal"].found
    assert "0.0250 USD" in found["providers"].found
