"""Somebody who was never here: from `safelight up` to a picture, changed and downloaded."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, expect

from safelight.loopback import free_port
from tests.browsing import browser  # noqa: F401
from tests.served import safelight_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
MOST_CLICKS = 3
PATIENCE_MS = 300_000.0


def test_a_picture_is_at_most_three_clicks_away(tmp_path: Path, browser: Browser):  # noqa: F811
    expect.set_options(timeout=PATIENCE_MS)
    port = free_port()
    clicks: list[str] = []

    def click(what: Locator) -> None:
        clicks.append(what.inner_text())
        what.click()

    with safelight_up(tmp_path, port):
        context = browser.new_context(base_url=f"http://127.0.0.1:{port}", accept_downloads=True)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_label("What to see")).to_be_focused()
        page.keyboard.type("a red heart")
        click(page.locator("#draw"))
        picture = page.locator("#picture")
        expect(picture).to_be_visible()
        assert len(clicks) <= MOST_CLICKS
        first = picture.get_attribute("src")
        page.get_by_label("What to see").fill("a blue bird")
        click(page.locator("#draw"))
        expect(picture).not_to_have_attribute("src", str(first))
        with page.expect_download() as loading:
            click(page.locator("#download"))
        saved = tmp_path / "saved.png"
        loading.value.save_as(saved)
        with Image.open(saved) as shown:
            assert min(shown.size) >= 64
        assert len(clicks) == 3, clicks
        context.close()
