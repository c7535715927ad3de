"""What a warm process keeps of Prefect between runs."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.context import SyncClientContext
from prefect.results import resolve_result_storage
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from safelight.pool.session import ApiSession
from safelight.store.results import SafelightResults, register_results

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


def test_where_results_go_is_asked_for_once():
    asked: list[str] = []
    made = ApiSession(lambda request: asked.append(request.url.path), lambda response: None)
    with closing(made):
        made.renew()
        register_results()
        with get_client(sync_client=True) as server:
            deployment = server.create_deployment(
                server.create_flow_from_name("enhance"),
                name="x",
                entrypoint="flows.enhance.enhance",
            )
            run = server.create_flow_run_from_deployment(deployment)
        asked.clear()
        flows = [made.load_flow(run) for _ in range(3)]
        storage = [resolve_result_storage(flow.result_storage or "") for flow in flows]
    assert isinstance(storage[0], SafelightResults)
    assert storage == [storage[0]] * 3
    assert storage[0]._block_document_id is not None
    assert len([path for path in asked if "block_documents" in path]) == 1
