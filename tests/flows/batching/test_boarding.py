"""What a batch tells of itself while it runs."""

from collections.abc import Mapping
from itertools import product

import pytest

from flows.batching.boarding import Boarding
from flows.batching.requests import Request
from safelight.provenance.batches import BatchOutcome
from safelight.provenance.boards import BoardCell, load_board
from safelight.provenance.manifest import Failure
from tests.prefect_pool import eventually

pytestmark = pytest.mark.usefixtures("volume")


def requests(*given: Mapping[str, object], place: bool = False) -> list[Request]:
    return [
        Request(n, f"line {n}", each, "", 0, (n // 2, n % 2) if place else ())  # pyright: ignore
        for n, each in enumerate(given, 0 if place else 1)
    ]


def cells(run: str) -> list[BoardCell]:
    board = load_board(run)
    return list(board.cells) if board else []


def test_parameters_that_make_a_grid_are_axes():
    asked = requests(
        *(
            {"prompt": prompt, "steps": steps, "seed": n, "model": "xl" if steps == 2 else "small"}
            for n, (prompt, steps) in enumerate(product("abc", (2, 4)))
        )
    )
    with Boarding("r1", "generate", asked, {}, ()):
        board = load_board("r1")
    assert board is not None
    assert [axis.name for axis in board.axes] == ["prompt", "steps"]
    assert board.axes[1].values == ("steps 2", "steps 4")
    assert [cell.place for cell in board.cells] == [*product(range(3), range(2))]
    assert [cell.caption for cell in board.cells] == [*"aabbcc"]
    assert {cell.state for cell in board.cells} == {"waits"}


def test_requests_that_make_none_say_what_tells_them_apart():
    asked = requests({"prompt": "x", "steps": 2}, {"prompt": "x", "steps": 4}, {"prompt": "x"})
    with Boarding("r5", "generate", asked, {}, ()):
        board = load_board("r5")
    assert board is not None
    assert board.axes == ()
    assert [cell.caption for cell in board.cells] == ["steps 2", "steps 4", "line 3"]


def test_a_grid_stands_in_the_order_of_its_sheets():
    grid = {"steps": [2, 4], "guidance_scale": [1.5, 7]}
    four = [{"prompt": "x"}] * 4
    with Boarding("r2", "generate", requests(*four, place=True), grid, ("guidance_scale", "steps")):  # pyright: ignore
        board = load_board("r2")
    assert board is not None
    assert [axis.values for axis in board.axes] == [
        ("guidance_scale 1.5", "guidance_scale 7"),
        ("steps 2", "steps 4"),
    ]
    assert [cell.place for cell in board.cells] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_what_begins_and_ends_is_told_meanwhile_and_by_its_number():
    asked = requests({"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"})
    with Boarding("r3", "generate", asked, {}, ()) as boarding:
        boarding.begun(asked[0], "run-1")
        assert eventually(lambda: cells("r3")[0].state == "running")
        assert cells("r3")[0].flow_run_id == "run-1"
        failed = Failure(code="OUT_OF_MEMORY", problem="too large", remedy="set width to 512")
        boarding.ended(
            BatchOutcome(number=1, where="line 1", state="failed", seconds=2.0, error=failed)
        )
        boarding.begun(asked[1])
        assert eventually(lambda: cells("r3")[1].state == "running")
    first, second, third = cells("r3")
    assert (first.state, first.code, first.seconds) == ("failed", "OUT_OF_MEMORY", 2.0)
    assert (first.change, second.change, third.change) == (2, 3, 0)
    assert first.is_over
    assert not second.is_over


def test_more_values_than_an_axis_has_make_none():
    with Boarding("r4", "generate", requests(*({"seed": n} for n in range(50))), {}, ()):
        board = load_board("r4")
    assert board is not None
    assert board.axes == ()
    assert board.cells[49].caption == "seed 49"
