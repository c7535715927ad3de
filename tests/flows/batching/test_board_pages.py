"""The board of a batch of very many: pages that say what the catalogue has, and no more at once."""

from collections.abc import Sequence

import pytest

from flows.batching.board_pages import AT_ONCE, BoardPages
from flows.batching.boarding import MOST_CELLS, Boarding, boarding, laid_out_list
from flows.batching.catalogue import Catalogue, told
from flows.batching.requests import Request
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.boards import PAGE, BoardCell, Counted, load_board
from safelight.provenance.manifest import Failure
from tests.prefect_pool import eventually

pytestmark = pytest.mark.usefixtures("volume")
FAILURE = Failure(code="OUT_OF_MEMORY", problem="too large", remedy="set width to 512")


def catalogue(count: int) -> Catalogue:
    each = (
        Request(n, f"line {n}", {"prompt": f"heart {n}"}, f"{n:024}{0:040}", 0)
        for n in range(count)
    )
    return Catalogue(each)


def ended(number: int, state: str = "succeeded", **more: object) -> BatchOutcome:
    error = None if state == "succeeded" else FAILURE
    facts = {"where": f"line {number}", "state": state, "seconds": 2.0, "error": error, **more}
    return BatchOutcome.model_validate({"number": number, **facts})


def cells(page: int) -> Sequence[BoardCell]:
    board = load_board("r", page)
    return board.cells if board else ()


def counted() -> Counted:
    board = load_board("r")
    assert board is not None
    assert board.counted is not None
    return board.counted


def test_pages_say_what_waits_runs_and_has_ended():
    requests = catalogue(2 * PAGE + 3)
    with BoardPages("r", "generate", requests, laid_out_list) as board:
        assert counted() == Counted(requests=2 * PAGE + 3)
        for request in requests[PAGE : PAGE + 2]:
            board.begun(request)
        requests.outcomes[PAGE] = ended(PAGE, "failed")
        board.ended(requests.outcomes[PAGE])
    assert counted().going == 1
    assert counted().ended.states == {"failed": 1}
    assert counted().ended.codes == {"OUT_OF_MEMORY": 1}
    head = load_board("r")
    assert head is not None
    assert (head.pages, head.cells) == (3, ())
    assert [len(cells(page)) for page in (1, 2, 3, 4)] == [PAGE, PAGE, 3, 0]
    failed, running, waits = cells(2)[:3]
    assert (failed.state, failed.code, failed.caption) == ("failed", "OUT_OF_MEMORY", "heart 500")
    assert (running.state, waits.state) == ("running", "waits")
    assert failed.change > running.change > waits.change == 0
    assert {cell.state for cell in (*cells(1), *cells(3))} == {"waits"}


def test_pages_where_something_happens_come_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.batching.board_writer.EVERY_SECONDS", 600.0)  # one turn at most
    requests = catalogue(20 * PAGE)
    board = BoardPages("r", "generate", requests, laid_out_list)
    board.begun(requests[-1])
    with board:
        written = [page for page in range(1, 21) if cells(page)]
        assert 20 in written
        assert len(written) <= 2 * AT_ONCE
    assert all(cells(page) for page in range(1, 21))


def test_a_batch_that_goes_on_tells_of_what_had_ended_and_numbers_go_on():
    requests = catalogue(2 * PAGE)
    with BoardPages("r", "generate", requests, laid_out_list) as board:
        requests.outcomes[3] = ended(3)
        board.ended(requests.outcomes[3])
    told_before = cells(1)[3].change
    again = catalogue(2 * PAGE)
    kept = [ended(3), ended(4, reused=True, cost_usd=0.5), ended(PAGE, "failed", cost_usd=0.25)]
    again.outcomes.enter((each.number, told(each)) for each in kept)
    with BoardPages("r", "generate", again, laid_out_list) as board:
        board.reinstated(again.outcomes)
        assert eventually(lambda: cells(2)[:1] and cells(2)[0].state == "failed")
    assert [cell.state for cell in cells(1)[2:6]] == ["waits", "succeeded", "succeeded", "waits"]
    assert cells(1)[3].change > told_before
    tally = counted().ended
    assert tally.states == {"succeeded": 2, "failed": 1}
    assert (tally.reused, tally.seconds, tally.cost_usd) == (1, 4.0, 0.25)
    assert tally.codes == {"OUT_OF_MEMORY": 1}


def test_only_very_many_are_in_pages():
    begun = BatchReport(flow_run_id="r", flow="generate", batch="b", ran="workers", requests=0)
    few, many = catalogue(2), catalogue(MOST_CELLS + 1)
    assert isinstance(boarding(begun, few, {}, ()), Boarding)
    assert isinstance(boarding(begun, many, {}, ()), BoardPages)
