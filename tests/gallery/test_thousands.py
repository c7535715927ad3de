"""The gallery with thousands of files: how long until it is seen, and what scrolling costs."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.gallery.index import gallery
from safelight.gateway.app import create_app
from safelight.loopback import free_port
from tests.browsing import browser  # noqa: F401

COUNT = 10_000
PAGES = 40
"""Of 100 files, that are scrolled through."""
FIRST_PAINT_SECONDS = 1.0
GROWTH = 1.25
"""What memory may be at the end, of what it was after a few pages."""
pytestmark = pytest.mark.timeout(1800)


def fill(volume: Path, count: int) -> None:
    """The files and manifests of so many runs, as a store of a folder has them."""
    manifests = volume / "outputs" / "manifests"
    manifests.mkdir(parents=True)
    for number in range(count):
        out = io.BytesIO()
        colour = (number % 256, number // 256 * 6 % 256, 120)
        Image.new("RGB", (96, 96 + number % 3 * 32), colour).save(out, "PNG")
        digest = sha256(out.getvalue()).hexdigest()
        key = f"outputs/{digest[:2]}/{digest}.png"
        (volume / key).parent.mkdir(exist_ok=True)
        (volume / key).write_bytes(out.getvalue())
        ref = {
            "uri": f"store:{key}", "sha256": digest, "media_type": "image/png",
            "bytes": len(out.getvalue()), "width": 96, "height": 96 + number % 3 * 32,
        }  # fmt: skip
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        run = str(uuid4())
        engine = {"engine_id": "diffusers", "version": "1", "weights": [], "device_class": "cpu"}
        stage = {
            "name": "generate", "stage_type": "generate", "status": "done", "results": [ref],
            "parameters": {"prompt": f"picture {number}"}, "engine": engine, "seconds": 1.0,
        }  # fmt: skip
        manifest = {
            "flow": "generate", "flow_run_id": run, "versions": {}, "device_class": "cpu",
            "parameters": {"prompt": f"picture {number}", "seed": number}, "stages": [stage],
            "results": [ref], "device_name": "cpu", "started": at.isoformat(),
            "ended": at.isoformat(), "success": True,
        }  # fmt: skip
        (manifests / f"{run}.json").write_text(json.dumps(manifest))


@pytest.fixture
def served(volume: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A gateway over a full store; the gallery needs no Prefect server."""
    fill(volume, request.param)
    begun = time.monotonic()
    assert gallery().refresh() == request.param
    print(f"index filled in {time.monotonic() - begun:.1f} s")  # noqa: T201
    port = free_port()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        server = uvicorn.Server(uvicorn.Config(create_app(), port=port, log_level="warning"))
        thread = threading.Thread(target=copy_context().run, args=(server.run,))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join()


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


@pytest.mark.parametrize("served", [450], indirect=True)
def test_scrolling_loads_a_hundred_at_a_time_and_lets_go_of_what_is_far(
    served: str,
    browser: Browser,  # noqa: F811
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
    browser: Browser,  # noqa: F811
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
