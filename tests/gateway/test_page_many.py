"""The page of a batch of very many: one page of its board, however many there are."""

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed

from flows.batching.board_pages import BoardPages
from flows.batching.boarding import laid_out_list
from flows.batching.catalogue import Catalogue
from flows.batching.requests import Request
from safelight.errors import MissingFileError
from safelight.gallery.index import gallery
from safelight.provenance.batches import BatchOutcome, BatchReport, reported
from safelight.provenance.boards import BOARDS, PAGE, board_key
from safelight.provenance.endings import never_begun
from safelight.provenance.manifest import MANIFESTS, Failure, keep_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.local import LocalFolder
from safelight.store.store import current_store
from tests.gateway.conftest import Alone, in_this_process

pytestmark = pytest.mark.slow
PAGES = 9


@pytest.fixture(scope="module", name="near")
def near_server(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with in_this_process(tmp_path_factory.mktemp("near"), prefect_server) as gateway:
        yield gateway


@pytest.fixture
def batch(api: SyncPrefectClient, near: Alone) -> str:
    """The run of a batch that waits."""
    assert near.volume
    deployment = api.create_deployment(api.create_flow_from_name("batch"), name=f"b-{uuid4()}")
    return str(api.create_flow_run_from_deployment(deployment).id)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the store is asked for, and how often the server."""
    counts = Counter[str]()
    really, listed, send = LocalFolder.read, LocalFolder.list, httpx.Client.send

    def reading(self: LocalFolder, key: str) -> bytes:
        counts[key] += 1
        return really(self, key)

    def listing(self: LocalFolder, prefix: str) -> list[str]:
        counts[f"{prefix}*"] += 1
        return listed(self, prefix)

    def sending(self: httpx.Client, request: httpx.Request, **how: object) -> httpx.Response:
        counts["server"] += 1
        return send(self, request, **how)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(LocalFolder, "read", reading)
    monkeypatch.setattr(LocalFolder, "list", listing)
    monkeypatch.setattr(httpx.Client, "send", sending)
    return counts


def read(asked: Counter[str]) -> int:
    """Objects and folders of batches and runs that the store was asked for."""
    return sum(times for key, times in asked.items() if key.startswith((BOARDS, "outputs/")))


def outcome(n: int) -> BatchOutcome:
    sha256 = f"{n:064x}"
    uri = f"store:outputs/{sha256[:2]}/{sha256}.png"
    picture = ArtifactRef(uri=uri, sha256=sha256, media_type="image/png", bytes=9)
    return BatchOutcome(
        number=n,
        where=f"line {n}",
        state="succeeded",
        flow_run_id=f"run-{n}",
        seconds=1.0,
        results=(picture,),
    )


def begun(batch: str, pages: int = PAGES) -> BoardPages:
    requests = Catalogue(
        Request(n, f"line {n}", {"prompt": f"heart {n}"}, f"{n:024}{0:040}", 0)
        for n in range(1, pages * PAGE + 1)
    )
    for n in range(1, PAGE + 3):
        requests.outcomes[n] = outcome(n)
    board = BoardPages(batch, "generate", requests, laid_out_list)
    board.reinstated(requests.outcomes)
    board.begun(requests[PAGE + 2])
    return board


@pytest.mark.usefixtures("near")
def test_a_batch_under_way_shows_the_page_that_was_asked_for(
    near: Alone, batch: str, asked: Counter[str]
):
    with begun(batch):
        pass
    asked.clear()
    answer = near.ask("GET", f"/batches/{batch}?page=2")
    assert answer.status_code == 200
    assert answer.text.count('data-cell="succeeded"') == 2
    assert answer.text.count('data-cell="running"') == 1
    assert answer.text.count('data-cell="waits"') == PAGE - 3
    assert f"{PAGE + 2} of {PAGES * PAGE}" in answer.text
    assert f'<option value="{PAGES}">' in answer.text
    assert "page=2" in answer.text.partition('id="tick"')[2][:300]
    to_see, _ = asked.copy(), asked.clear()
    current_store().backend.delete(board_key(batch, 3))
    none = near.ask("GET", f"/batches/{batch}?page=3")
    assert 'data-cell="' not in none.text
    assert f"{PAGE + 2} of {PAGES * PAGE}" in none.text
    live = near.ask("GET", f"/batches/{batch}/live?page=2&since=0")
    assert live.text.count('data-cell="') == PAGE
    newest = near.ask("GET", f"/batches/{batch}/live?page=2&since={10**15}")
    assert newest.text.count('data-cell="') == 0
    assert "of 4500" in newest.text
    assert to_see.pop("server") <= 5  # and no more of more requests
    assert read(to_see) <= 3, to_see


@pytest.mark.usefixtures("near")
def test_one_that_has_ended_reads_its_head_and_a_page_and_no_manifests(
    near: Alone, batch: str, api: SyncPrefectClient, asked: Counter[str]
):
    with begun(batch):
        pass
    count = PAGES * PAGE
    report = BatchReport(
        flow_run_id=batch, flow="generate", batch="b", ran="workers", requests=count
    )
    reported(report, (outcome(n) for n in range(1, count + 1)), count)
    api.set_flow_run_state(batch, Completed(), force=True)
    for n in range(30):
        manifest = never_begun("generate", f"other-{n}", {}, Failure.of(MissingFileError("a", "b")))
        keep_manifest(current_store(), manifest)
    asked.clear()
    answer = near.ask("GET", f"/batches/{batch}?page=9")
    assert answer.text.count('data-cell="') == PAGE
    assert f"{count} of {count}" in answer.text
    assert not [key for key in asked if key.startswith(MANIFESTS)]
    assert asked.pop("server") <= 5  # and no more of more requests
    assert read(asked) <= 3, asked
    asked.clear()
    table = near.ask("GET", f"/api/batches/{batch}/table?first=4000&limit=500").json()
    assert [row["number"] for row in table["rows"]] == [*range(4001, 4501)]
    assert asked.pop("server") <= 5  # and no more of more requests
    assert read(asked) <= 3, asked


@pytest.mark.usefixtures("near")
def test_without_its_board_a_page_is_laid_out_by_the_manifests_of_its_own_runs(
    near: Alone, batch: str, api: SyncPrefectClient, asked: Counter[str]
):
    count = 5 * PAGE
    failure = Failure.of(MissingFileError("no picture", "give one"))
    for n in range(PAGE - 20, 2 * PAGE + 1):
        given = {"prompt": f"heart {n}"}
        keep_manifest(current_store(), never_begun("generate", f"run-{n}", given, failure))
    report = BatchReport(
        flow_run_id=batch, flow="generate", batch="b", ran="workers", requests=count
    )
    reported(report, (outcome(n) for n in range(1, count + 1)), count)
    api.set_flow_run_state(batch, Completed(), force=True)
    assert not [key for key in current_store().backend.list(BOARDS) if batch in key]
    assert gallery().is_empty()
    asked.clear()
    answer = near.ask("GET", f"/batches/{batch}?page=2")
    assert answer.text.count('data-cell="succeeded"') == PAGE
    assert "heart 501" in answer.text
    assert sum(key.startswith(MANIFESTS) for key in asked) == PAGE
    asked.clear()
    near.ask("GET", f"/batches/{batch}?page=2")
    assert not [key for key in asked if key.startswith(MANIFESTS)]
