"""The gallery with thousands of files: how long until it is seen, and what scrolling costs."""

import time

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

COUNT = 10_000
PAGES = 40
"""Of 100 files, that are scrolled through."""
FIRST_PAINT_SECONDS = 1.0
GROWTH = 1.25
"""What memory may be at the end, of what it was after a few pages."""
pytestmark = pytest.mark.timeout(1800)


def memory(session: CDPSession) -> tuple[float, float]:
    """MiB of the heap after a collection, and nodes."""
    session.send("HeapProfiler.collectGarbage")
    told = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return told["JSHeapUsedSize"] / 2**20, told["Nodes"]


def scroll(page: Page, pages: int) -> None:
    """Until so many pages of the wall have been loaded."""
    end = time.monotonic() + 240
    while page.locator("[data-page]").count() < pages:
        assert time.monotonic() < end, page.locator("[data-page]").count()
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(100)


@pytest.mark.slow
@pytest.mark.parametrize("served", [450], indirect=True)
def test_scrolling_loads_a_hundred_at_a_time_and_lets_go_of_what_is_far(
    served: str,
    browser: Browser,
):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{served}/gallery")
    assert page.locator("a.tile").count() == 100
    scroll(page, 5)
    assert page.locator("[data-next]").count() == 0
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("document.querySelectorAll('a.tile').length < 300")
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator("a.tile").first).to_contain_text("picture 449")
    page.locator("a.tile").first.click()
    expect(page.locator("#drawer").get_by_role("heading", name="picture 449")).to_be_visible()
    context.close()


@pytest.mark.soak
@pytest.mark.parametrize("served", [COUNT], indirect=True)
def test_it_is_seen_at_once_and_scrolls_without_growing(
    served: str,
    browser: Browser,
):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{served}/gallery")  # templates are compiled, thumbnails of the first page made
    page.wait_for_load_state("load")
    paints: list[float] = []
    for _ in range(5):
        page.goto(f"{served}/gallery")
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints.append(page.evaluate(entry) / 1000)
    assert page.locator("a.tile").count() == 100
    print(f"first paints {paints}")  # noqa: T201
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    scroll(page, 6)
    page.wait_for_timeout(1000)
    before = memory(session)
    scroll(page, PAGES)
    page.wait_for_timeout(1000)
    after = memory(session)
    shown = page.locator("a.tile").count()
    print(  # noqa: T201
        f"first paint {sorted(paints)[2]:.2f} s (worst {max(paints):.2f}); after 600 files "
        f"{before[0]:.1f} MiB, {before[1]:.0f} nodes; after {PAGES * 100} {after[0]:.1f} MiB, "
        f"{after[1]:.0f} nodes, {shown} tiles"
    )
    assert sorted(paints)[2] < FIRST_PAINT_SECONDS
    assert after[0] < GROWTH * before[0]
    assert shown < 2000
    context.close()
