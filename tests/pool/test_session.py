"""What a warm process keeps of Prefect between runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from safelight.pool.session import ApiSession

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiSession]:
    monkeypatch.chdir(tmp_path)
    made = ApiSession(lambda request: None, lambda response: None)
    yield made
    made.close()


def client() -> object:
    """The client that runs would use now."""
    context = SyncClientContext.get()
    return context and context.client


def test_settings_and_client_stay_while_nothing_changes(
    session: ApiSession, monkeypatch: pytest.MonkeyPatch
):
    session.renew()
    first = client()
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "other for each run")
    session.renew()
    assert first is not None
    assert client() is first
    session.close()
    assert client() is None


@pytest.mark.parametrize("where", ["environment", "prefect.toml", "folder"])
def test_changed_settings_are_taken_over(
    session: ApiSession, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session.renew()
    first = client()
    before = PREFECT_CLIENT_MAX_RETRIES.value()
    if where == "environment":
        monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", str(before + 1))
    else:
        folder = tmp_path if where == "prefect.toml" else tmp_path / "other"
        folder.mkdir(exist_ok=True)
        (folder / "prefect.toml").write_text(f"[client]\nmax_retries = {before + 1}\n")
        monkeypatch.chdir(folder)
    session.renew()
    assert client() is not first
    assert PREFECT_CLIENT_MAX_RETRIES.value() == before + 1
