"""A job that may cost money is not submitted before somebody says yes to the sum."""

import pytest

from safelight.mcp import costs
from safelight.mcp.costs import CostNotConfirmedError, Estimate, estimate, require_confirmed
from safelight.settings import reload_settings


class Server:
    """A Prefect server at which nothing ran yet."""

    def read_flow_runs(self, **filters):
        del filters
        return []


@pytest.fixture
def paid(volume, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_FAL_KEY", "a-name:a-long-secret-of-fal")
    monkeypatch.setenv("SAFELIGHT_FAL_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SAFELIGHT_PROVIDER_PATIENCE_SECONDS", "0")
    reload_settings()
    del volume


def _of(usd=None, limit=None, may_cost=True):
    return Estimate(may_cost=may_cost, providers=["fal"], usd=usd, run_limit_usd=limit)


def test_work_on_own_devices_is_free(volume):
    del volume
    for workflow in ("image_generation", "photoreal_portrait_v1"):
        assert not estimate(Server(), workflow, {}).may_cost
    require_confirmed(_of(may_cost=False), None)


def test_a_provider_with_a_key_may_cost(paid, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_BUDGET_RUN_USD", "0.5")
    reload_settings()
    told = estimate(Server(), "image_to_video_v1", {})
    assert (told.may_cost, told.providers, told.usd) == (True, ["provider_fal"], None)
    assert told.to_confirm == 0.5
    assert not estimate(Server(), "image_generation", {}).may_cost
    assert estimate(Server(), "image_generation", {"engines": ["provider_fal"]}).may_cost


@pytest.mark.parametrize(
    ("expected", "confirmed"),
    [(_of(0.2), None), (_of(0.2), 0.1), (_of(None, 0.5), None), (_of(), None)],
)
def test_too_little_is_refused(expected, confirmed):
    with pytest.raises(CostNotConfirmedError, match="confirm_cost_usd"):
        require_confirmed(expected, confirmed)


def test_enough_is_taken():
    require_confirmed(_of(0.2), 0.2)
    require_confirmed(_of(None, 0.5), 1)
    require_confirmed(_of(), 0.3)


def test_what_the_last_runs_cost_is_the_estimate(monkeypatch):
    class Run:
        id = "x"

    class Manifest:
        def __init__(self, cost_usd):
            self.cost_usd = cost_usd

    class Some(Server):
        def read_flow_runs(self, **filters):
            assert filters["limit"] == costs.LOOKED_AT
            return [Run(), Run(), Run()]

    told = iter([Manifest(0.1), None, Manifest(0.3)])
    monkeypatch.setattr(costs, "manifest_of", lambda run: next(told))
    assert costs._spent_before(Some(), "image_to_video_v1") == 0.3
