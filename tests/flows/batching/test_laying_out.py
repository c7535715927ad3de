"""Sheets of grids: as many cells as people can look at, and the rest on further sheets."""

from math import prod
from pathlib import Path

import pytest
from PIL import Image
from prefect import flow
from pydantic import JsonValue

from flows.batch import batch
from flows.batching.laying_out import (
    ALONG,
    LEGIBLE_CELL,
    MOST_SHEETS,
    SheetStyle,
    check_cell,
    lay_out_grid,
    sheet_axes,
)
from flows.batching.requests import Request, grid_rows
from safelight.errors import InvalidFieldValueError
from safelight.media.images import decode_image
from safelight.provenance.batches import BatchOutcome
from safelight.provenance.manifest import load_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tests.flows.batching.test_exporting import look

SMALL = SheetStyle(cell=32)


def colour(value: int) -> ArtifactRef:
    image = Image.new("RGB", (32, 32), (value % 250, value // 250 * 40, 90))
    path = Path(current_store().scratch) / f"{value}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return current_store().put(path, "image/png", width=32, height=32)


def laid_out(
    grid: dict[str, list[JsonValue]], style: SheetStyle = SMALL, **named: str
) -> list[ArtifactRef]:
    """The sheets of a grid whose cells are pictures of their number's colour."""
    rows = grid_rows(grid, {"prompt": "x"})
    requests = [Request(n, row.where, {}, "", 0, row.place) for n, row in enumerate(rows, 1)]
    outcomes = {
        request.number: BatchOutcome(
            number=request.number, where="", state="succeeded", results=(colour(request.number),)
        )
        for request in requests
    }
    axes = sheet_axes(grid, named.get("x"), named.get("y"), named.get("z"))
    check_cell(grid, axes, style)

    @flow
    def sheets() -> list[ArtifactRef]:
        return lay_out_grid(grid, axes, requests, outcomes, style)

    return sheets()


def seen(sheets: list[ArtifactRef]) -> list[set[int]]:
    """The numbers of the cells on each sheet, told by their colours."""
    found: list[set[int]] = []
    for ref in sheets:
        pixels = load_image(ref).reshape(-1, 3)
        ours = pixels[(pixels[:, 2] == 90) & (pixels[:, 1] % 40 == 0)]
        found.append({int(r) + 250 * int(g) // 40 for r, g, _ in {tuple(p) for p in ours}})
    return found


@pytest.mark.usefixtures("server", "volume")
def test_a_long_axis_goes_on_on_further_sheets():
    across = ALONG + 5
    sheets = laid_out({"steps": [*range(1, across + 1)], "width": [64, 128]}, x="steps")
    assert [len(cells) for cells in seen(sheets)] == [2 * ALONG, 10]
    assert set.union(*seen(sheets)) == set(range(1, 2 * across + 1))
    assert all(ref.width is not None and ref.width < 2000 for ref in sheets)


@pytest.mark.usefixtures("server", "volume")
def test_one_axis_is_laid_out_row_by_row():
    sheets = laid_out({"seed": [*range(300)]})
    assert [len(cells) for cells in seen(sheets)] == [200, 100]
    assert all(max(ref.width or 0, ref.height or 0) < 2500 for ref in sheets)
    (strip,) = laid_out({"seed": [*range(12)]})
    assert (strip.width or 0) > 4 * (strip.height or 0)


def test_more_sheets_than_anybody_looks_at_are_refused():
    grid: dict[str, list[JsonValue]] = {"steps": [1], "seed": [*range(MOST_SHEETS + 1)]}
    assert prod(map(len, grid.values())) < 2000
    with pytest.raises(InvalidFieldValueError, match=f"{MOST_SHEETS + 1} sheets, one for each of"):
        check_cell(grid, sheet_axes(grid, "steps", None, "seed"), SheetStyle())
    check_cell(grid, sheet_axes(grid, "seed", None, None), SheetStyle())


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_row_of_seeds_of_all_cells_is_drawn_and_shown_once(volume: Path):
    image = volume / "uploads" / "a.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(image)
    grid: dict[str, list[JsonValue]] = {"call_input": [{"image": str(image)}]}
    shared = {**look(image, "warm"), "seed": "0..21"}
    del shared["call_input"]
    result = batch(flow="pipeline", grid=grid, parameters=shared, where="here")
    assert result.data["batch"]["succeeded"] == 22
    manifest = load_manifest(str(result.data["flow_run_id"]))
    (sheet,) = [stage for stage in manifest.stages if stage.name in ("axes", "contact")][:1]
    assert "seed 21" in str(sheet.parameters)
    assert decode_image(current_store().read(sheet.results[0])).shape[0] > 32


@pytest.mark.usefixtures("server", "volume")
def test_small_pictures_do_not_stand_lost_in_cells_of_the_usual_size():
    grid: dict[str, list[JsonValue]] = {"steps": [1, 2, 3], "seed": [4, 5]}
    (fitting,) = laid_out(grid, SheetStyle())
    (usual,) = laid_out(grid, SheetStyle(cell=256))
    assert fitting.width is not None
    assert usual.width is not None
    assert 3 * LEGIBLE_CELL < fitting.width < 0.6 * usual.width
