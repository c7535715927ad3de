"""Batches on the page, in a real browser: the grid fills while the batch runs."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.gateway.conftest import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_cells_of_a_grid_fill_while_the_batch_runs(page: Page, gateway: Gateway):
    asked = {
        "flow": "generate",
        "grid": {"steps": [2, 3], "seed": [1, 2, 3]},
        "parameters": {"prompt": "a red heart", "width": 64, "height": 64},
        "sheets": False,
    }
    batch = gateway.client.post("/api/batches", json=asked).json()["id"]
    page.goto(f"/batches/{batch}")
    drawn = page.locator(".cell[data-cell=succeeded] img")
    waiting = page.locator(".cell[data-cell=waits], .cell[data-cell=running]")
    expect(drawn.first).to_be_visible()
    assert page.locator("#tick[data-live=yes]").count() == 1
    assert waiting.count() > 0
    expect(page.locator("thead th")).to_have_text(["steps 2", "steps 3"])
    expect(page.locator("tbody th")).to_have_text(["seed 1", "seed 2", "seed 3"])
    expect(drawn).to_have_count(6)
    expect(page.locator(".tools .pill")).to_have_text("Done")
    expect(page.locator("#figures")).to_contain_text("6 of 6")
    page.get_by_label("Rows").select_option("steps")
    expect(page).to_have_url(re.compile("y=steps"))
    expect(page.locator("tbody th")).to_have_text(["steps 2", "steps 3"])
    page.locator(".cell img").first.click()
    expect(page.locator("#drawer [data-of]")).to_be_visible()


def test_a_batch_with_a_failure_says_where_and_is_run_again(page: Page, gateway: Gateway):
    asked = {
        "flow": "generate",
        "requests": [{"prompt": "one", "seed": 5}, {"prompt": "two", "model": "nowhere-xl"}],
        "parameters": {"width": 64, "height": 64, "steps": 2},
        "retries": 0,
        "sheets": False,
    }
    batch = gateway.client.post("/api/batches", json=asked).json()["id"]
    page.goto(f"/batches/{batch}")
    expect(page.locator(".tools .pill")).to_have_text("Failed")
    failed = page.locator(".cell[data-cell=failed]")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text(re.compile("[A-Z]+_[A-Z_]+"))
    expect(page.locator("#figures")).to_contain_text("1 of 2")
    page.get_by_role("button", name="Run the failed ones again").click()
    expect(page.locator(".tools .pill")).to_have_text(re.compile("Waits|Running"))
    expect(page.locator(".tools .pill")).to_have_text("Failed")
    expect(page.locator("#figures")).to_contain_text("1 of 2")
    with page.expect_download() as loading:
        page.get_by_role("link", name="Table").click()
    assert loading.value.path().read_text().count("\n") == 3


def test_a_grid_and_a_table_are_begun_from_create(page: Page, tmp_path: Path):
    page.goto("/batches")
    page.get_by_role("link", name="New batch").click()
    many = page.locator("#many")
    expect(many.get_by_label("Columns: what changes")).to_be_visible()
    page.goto("/create/generate?width=64&height=64&many.x=steps#many")
    many.get_by_label("Columns: values").fill("2, 900")
    expect(page.locator("[data-field='many.x.values'] > .why")).to_contain_text("900")
    many.get_by_label("Columns: values").fill("2, 3")
    many.get_by_label("Rows: what changes").select_option("prompt")
    many.get_by_label("Rows: values").fill("a red heart, a blue bird")
    expect(page.locator("#estimate")).to_contain_text("4 runs.")
    page.locator("#draw").click()
    expect(page).to_have_url(re.compile("/batches/[0-9a-f-]{36}"))
    expect(page.locator(".cell[data-cell=succeeded] img")).to_have_count(4)
    expect(page.locator("thead th")).to_have_text(["steps 2", "steps 3"])
    expect(page.locator("tbody th")).to_have_text(["prompt a red heart", "prompt a blue bird"])
    expect(page.locator(".tools .pill")).to_have_text("Done")
    batch = page.url.rpartition("/")[2].partition("?")[0]
    page.goto(f"/create/batch?from={batch}")  # changed and run again from the same form
    expect(page).to_have_url(re.compile("/create/generate"))
    expect(many.get_by_label("Rows: values")).to_have_value("a red heart, a blue bird")
    for place in ("Columns", "Rows"):
        many.get_by_label(f"{place}: what changes").select_option("")
        many.get_by_label(f"{place}: values").fill("")
    table = tmp_path / "hearts.csv"
    table.write_text("promt\nx\n")
    given, why = page.locator("#f-many-table"), page.locator("[data-field='many.table'] > .why")
    given.set_input_files(table)
    expect(why).to_contain_text("promt")
    table.write_text("prompt,seed,steps\na red heart,7,2\na green circle,8..9,2\n")
    given.set_input_files(table)
    expect(many.locator("[data-link]")).to_contain_text("hearts.csv")
    expect(page.locator("#estimate")).to_contain_text("2 runs.")
    page.locator("#draw").click()
    expect(page.locator(".cell[data-cell=succeeded] img")).to_have_count(3)
