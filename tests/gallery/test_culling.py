"""Ratings, stacks and the cull view, by keys in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from safelight.gallery.index import gallery
from safelight.store.ratings import ratings
from safelight.store.stars import kept
from safelight.store.store import current_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE_MS = 60_000.0


@pytest.fixture
def page(served: str, browser: Browser) -> Iterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(base_url=served, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def shown(page: Page, place: int) -> str:
    return str(page.locator("a.tile").nth(place).get_attribute("data-row"))


@pytest.mark.parametrize("served", [120], indirect=True)
def test_keys_rate_the_picture_that_has_the_focus(page: Page):
    page.goto("/gallery")
    first, second, third = (shown(page, n) for n in range(3))
    tile = page.locator(f"a[data-row='{first}']")
    tile.focus()
    page.keyboard.press("4")
    expect(tile.locator("[data-rated]")).to_have_text("4 of 5")
    expect(tile).to_be_focused()  # nothing was swapped
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator(f"a[data-row='{second}'] [data-rated]")).to_have_text("Rejected")
    page.keyboard.press("j")
    page.keyboard.press("s")
    expect(page.locator(f"a[data-row='{third}'] .keep")).to_be_visible()
    page.keyboard.press("2")
    page.keyboard.press("0")
    expect(page.locator("#said")).to_have_text("Not rated")
    expect(page.locator(f"a[data-row='{third}'] [data-rated]")).to_be_empty()
    assert ratings(current_store()) == {first: 4, second: -1}
    assert kept(current_store()) == {third}
    page.locator("#q").fill("rating:>3")
    expect(page.locator("a.tile")).to_have_count(1)
    page.goto("/gallery?q=-rating:rejected")
    expect(page.locator("#total")).to_have_text("119 files")


@pytest.mark.parametrize("served", [120], indirect=True)
def test_a_key_that_is_pressed_while_tiles_are_swapped_is_not_lost(page: Page):
    page.goto("/gallery")
    first = shown(page, 0)
    page.locator(f"a[data-row='{first}']").focus()
    page.evaluate(
        """() => {
          const wall = document.querySelector("[data-page]");
          wall.innerHTML = wall.innerHTML;
          htmx.process(wall);
        }"""
    )
    page.keyboard.press("5")  # the focus went with the old tile
    expect(page.locator(f"a[data-row='{first}'] [data-rated]")).to_have_text("5 of 5")
    assert ratings(current_store()) == {first: 5}


@pytest.mark.parametrize("served", [120], indirect=True)
def test_a_drawer_rates_and_the_wall_follows(page: Page):
    page.goto("/gallery")
    first = shown(page, 0)
    page.locator(f"a[data-row='{first}']").click()
    drawer = page.locator("#drawer")
    drawer.get_by_role("button", name="3 of 5").click()
    expect(drawer.get_by_role("button", name="3 of 5")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(f"a[data-row='{first}'] [data-rated]")).to_have_text("3 of 5")
    drawer.get_by_role("button", name="Keep it").click()
    expect(page.locator(f"a[data-row='{first}'] .keep")).to_be_visible()
    drawer.get_by_role("button", name="3 of 5").click()
    expect(page.locator(f"a[data-row='{first}'] [data-rated]")).to_be_empty()
    assert ratings(current_store()) == {}


@pytest.mark.parametrize("served", [(120, 5)], indirect=True)
def test_variations_are_stacked_and_a_stack_opens(page: Page):
    page.goto("/gallery")
    page.get_by_label("variations stacked").check()
    expect(page.locator("a.tile")).to_have_count(24)
    expect(page.locator("#total")).to_have_text("120 files")
    badge = page.locator("a.tile .stack").first
    expect(badge).to_have_text("5 variations")
    page.wait_for_load_state("load")
    badge.click()
    expect(page.locator("a.tile")).to_have_count(5)
    assert "stack%3A" in page.url


@pytest.mark.parametrize("served", [5], indirect=True)
def test_a_cull_goes_on_by_itself(page: Page):
    everything = [each.sha256 for each in gallery().select("1", (), 5)]
    page.goto("/gallery")
    page.get_by_role("link", name="Cull").click()
    at = page.locator(".cull")
    expect(at).to_have_attribute("data-at", everything[0])
    page.wait_for_load_state("load")  # keys are heard once the page's modules have run
    page.keyboard.press("x")
    page.keyboard.press("s")  # pressed at once: it belongs to the picture that comes
    page.keyboard.press("3")
    expect(at).to_have_attribute("data-at", everything[2])
    expect(at.locator("figure [data-rated]")).to_have_text("3 of 5")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#undecided")).to_have_text("2 undecided")
    expect(at.get_by_text("4 of 5", exact=True).first).to_be_visible()
    page.keyboard.press("k")
    page.keyboard.press("0")
    expect(page.locator("#said")).to_have_text("Not rated")
    expect(at).to_have_attribute("data-at", everything[2])
    expect(at.locator("figure [data-rated]")).to_be_empty()
    assert ratings(current_store()) == {everything[0]: -1}
    assert kept(current_store()) == {everything[1]}
    page.goto("/gallery/cull")  # begins with what is undecided
    expect(at).to_have_attribute("data-at", everything[2])


@pytest.mark.parametrize("served", [2], indirect=True)
def test_a_file_is_dragged_out(page: Page, served: str):
    """To other programs as a file of its own name and type, to forms of ours as its link."""
    page.goto("/gallery")
    sha256 = shown(page, 0)
    tile = page.locator("a.tile").first
    carried = page.evaluate_handle("new DataTransfer()")
    tile.dispatch_event("dragstart", {"dataTransfer": carried})
    types = ("text/uri-list", "application/x-safelight", "DownloadURL")
    told = carried.evaluate("(one, types) => types.map((type) => one.getData(type))", list(types))
    file = f"{served}/page/files/{sha256}"
    assert told[0] == file
    assert told[1] == f"store:outputs/{sha256[:2]}/{sha256}.png"
    assert told[2] == f"image/png:{sha256[:12]}:{file}"
    given = page.request.get(file)
    assert given.headers["content-type"] == "image/png"
