"""The page in a real browser, over a gateway with a real server and worker."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.gateway.conftest import PATIENCE_MS, Gateway
from tests.served import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SMALL = "width=64&height=64&steps=2"


def test_a_picture_is_drawn_changed_and_downloaded(page: Page, gateway: Gateway, tmp_path: Path):
    page.goto(f"/create/generate?{SMALL}")
    page.get_by_label("What to see").fill("a red heart")
    steps = page.locator("input[name=steps]")
    steps.fill("500")
    expect(page.locator("[data-field=steps] > .why")).to_have_text(
        "500 is above 150. Take 1 to 150."
    )
    steps.fill("2")
    expect(page.locator("[data-field=steps] > .why")).to_be_empty()
    page.reload()  # a form never forgets
    expect(page.get_by_label("What to see")).to_have_value("a red heart")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stop")).to_be_visible()
    page.reload()  # nor does what is being drawn get lost
    shown = page.locator("#picture")
    expect(shown).to_be_visible()
    assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
    expect(page.locator("#run .stages g.done")).to_have_count(1)
    page.get_by_role("button", name="Another seed").click()
    expect(page.locator("#estimate")).to_contain_text(re.compile("About .* earlier like it"))
    with page.expect_download() as loading:
        page.get_by_role("link", name="Download").click()
    saved = tmp_path / "saved.png"
    loading.value.save_as(saved)
    with Image.open(saved) as picture:
        assert picture.size == (64, 64)
    address = page.url
    page.goto("/create")  # by another way, the same form
    expect(page.get_by_label("What to see")).to_have_value("a red heart")
    assert "prompt=a+red+heart" in address


def test_a_failure_is_a_card_with_a_way_out(page: Page, gateway: Gateway):
    answer = gateway.client.post(
        "/api/jobs", json={"workflow": "enhance", "parameters": {"image": "nothing.png"}}
    )
    page.goto("/jobs")
    expect(page.locator("tr", has_text="nothing.png").get_by_text("Failed")).to_be_visible()
    page.get_by_role("link", name="nothing.png").first.click()
    drawer = page.locator("#drawer")
    expect(drawer.get_by_text("FILE_NOT_FOUND")).to_be_visible()
    expect(drawer.get_by_text("What to do: correct the path")).to_be_visible()
    assert answer.json()["id"] in page.url
    drawer.get_by_text("Log", exact=True).click()
    expect(drawer.locator("pre")).to_contain_text("FILE_NOT_FOUND")
    drawer.get_by_role("link", name="Change and run").click()
    expect(page.locator("[data-field=image] [data-link='nothing.png']")).to_be_visible()
    page.goto("/jobs?status=SUCCEEDED")
    expect(page.locator("tr", has_text="nothing.png")).to_have_count(0)


def test_pictures_are_found_kept_compared_and_deleted(page: Page, gateway: Gateway):
    ids = [
        gateway.client.post(
            "/api/jobs",
            json={
                "workflow": "generate",
                "parameters": {
                    "prompt": f"a house {seed}", "seed": seed, "width": 64, "height": 64, "steps": 2
                },
            },
        ).json()["id"]
        for seed in (41, 42)
    ]  # fmt: skip
    for job in ids:
        with gateway.client.stream("GET", f"/api/jobs/{job}/events") as told:
            assert "SUCCEEDED" in "".join(told.iter_text())
    page.goto("/gallery?q=house")
    tiles = page.locator("a.tile")
    expect(tiles).to_have_count(2)
    page.locator("#q").fill("seed:41")
    expect(tiles).to_have_count(1)
    tiles.first.click()
    drawer = page.locator("#drawer")
    expect(drawer.get_by_role("heading", name="a house 41")).to_be_visible()
    expect(drawer.locator(".line")).to_contain_text("Generate")
    drawer.get_by_role("button", name="Keep it").click()
    expect(drawer.get_by_role("button", name="Keep it no longer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_empty()
    page.goto("/gallery?q=house kept:yes")
    expect(tiles).to_have_count(1)
    page.goto("/gallery?q=house")
    for tile in (tiles.nth(0), tiles.nth(1)):
        tile.focus()
        page.keyboard.press("c")
    expect(drawer.get_by_role("heading", name="Compare")).to_be_visible()
    drawer.get_by_role("slider").fill("20")
    assert drawer.locator(".over2").evaluate("one => getComputedStyle(one).clipPath") == (
        "inset(0px 0px 0px 20%)"
    )
    drawer.get_by_role("button", name="Blink").click()
    expect(drawer.locator(".compare.blink.off")).to_be_visible()
    tiles.first.click()
    drawer.get_by_text("Delete", exact=True).click()
    drawer.get_by_role("button", name="Delete this file").click()
    expect(drawer.get_by_text("The file is deleted")).to_be_visible()
    expect(tiles).to_have_count(1)


def test_a_painted_mask_is_an_upload_of_its_own(page: Page, gateway: Gateway, tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "teal").save(photo)
    page.goto("/create/inpaint")
    page.get_by_role("button", name="Paint the mask").click()
    expect(page.locator("[data-field=mask] > .why")).to_contain_text("Give the picture first")
    page.locator("#f-image").set_input_files(photo)
    expect(page.locator("[data-field=image] [data-link]")).to_contain_text("64 x 48")
    page.get_by_role("button", name="Paint the mask").click()
    canvas = page.locator("#mask canvas")
    box = canvas.bounding_box()
    assert box is not None
    across, down = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    page.mouse.move(across, down)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"] * 0.9, down)
    page.mouse.down()
    page.mouse.up()
    page.locator("#mask").get_by_role("button", name="Undo").click()
    page.locator("#mask").get_by_label("Name").fill("left half")
    page.locator("#mask").get_by_role("button", name="Use it").click()
    given = page.locator("[data-field=mask] [data-link]")
    expect(given).to_contain_text("left half.png")
    link = str(given.get_attribute("data-link"))
    with Image.open(gateway.volume / link.removeprefix("store:")) as mask:
        assert mask.size == (64, 48)
        white = mask.convert("L")
        assert (white.getpixel((16, 24)), white.getpixel((58, 24))) == (255, 0)
    page.reload()
    expect(given).to_have_attribute("data-link", link)


ROOMS = (
    *("create", "create/inpaint", "create/photoreal_portrait_v1", "create/pipeline", "jobs"),
    *("gallery", "gallery/cull", "batches", "batches/one", "people", "models", "system"),
)
PHONE, DESKTOP = 390, 1280


@pytest.mark.parametrize(
    ("scheme", "width", "rooms"),
    [
        ("light", PHONE, ("create", "jobs", "gallery")),
        *(
            pytest.param(scheme, width, ROOMS, marks=pytest.mark.soak)
            for scheme in ("light", "dark")
            for width in (PHONE, DESKTOP)
        ),
    ],
)
def test_every_room_is_for_everybody(
    gateway: Gateway, browser: Browser, scheme: str, width: int, rooms: tuple[str, ...]
):
    """Nothing serious for axe, and nothing wider than the window."""
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(
        base_url=gateway.address,
        viewport={"width": width, "height": 844},
        color_scheme="light" if scheme == "light" else "dark",
        bypass_csp=True,  # axe is put into the page
    )
    page = context.new_page()
    asked = {"flow": "generate", "grid": {"seed": [1, 2], "steps": [1, 2]}, "check": False}
    asked["parameters"] = {"prompt": "a red heart", "width": 64, "height": 64}
    batch = gateway.client.post("/api/batches", json=asked).json()["id"]
    page.goto(f"/batches/{batch}")  # so that no room is empty
    expect(page.locator(".tools .pill")).to_have_text("Done")
    for room in rooms:
        page.goto(f"/{room.replace('batches/one', f'batches/{batch}')}")
        expect(page.locator("#now > *")).to_be_visible()
        opens = {"jobs": "[data-row] a", "gallery": "a.tile"}.get(room)
        if opens is not None:
            page.locator(opens).first.click()
            expect(page.locator("#drawer [data-of]")).to_be_visible()
        for fold in page.locator("summary").all():
            fold.click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, (room, wide)
        found = Axe().run(page).response["violations"]
        bad = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not bad, (room, [(one["id"], one["nodes"][0]["html"]) for one in bad])
    context.close()


def test_a_page_of_another_origin_changes_nothing(gateway: Gateway):
    for path in ("/create/generate", "/gallery/" + "a" * 64 + "/star"):
        answer = gateway.client.post(path, json={}, headers={"Origin": "http://pictures.example"})
        assert answer.status_code == 403
    for path in ("/create", "/jobs", "/gallery", "/create/nothing"):
        policy = gateway.client.get(path).headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy


def test_a_character_is_made_and_offered(page: Page, gateway: Gateway):
    page.goto("/people")
    page.get_by_text("A new character").click()
    page.get_by_label("Name").fill("Robot")
    page.get_by_label("What it is").select_option("thing")
    page.get_by_role("button", name="Make it").click()
    drawer = page.locator("#drawer")
    expect(drawer.get_by_role("heading", name="Robot")).to_be_visible()
    page.locator("#add-reference").set_input_files(CHECKOUT / "examples" / "astronaut.png")
    expect(drawer.locator(".thumbs img")).to_have_count(1)
    drawer.get_by_role("link", name="Draw", exact=True).click()
    expect(page.get_by_label("Character")).to_have_value("Robot")


def test_the_diagnostics_bundle_holds_no_address(gateway: Gateway):
    told = gateway.client.get("/system/diagnostics")
    assert told.status_code == 200
    assert str(gateway.address).rpartition(":")[2] not in told.text
    assert "://127" not in told.text
    assert told.json()["versions"]["prefect"]
    online = [
        worker
        for pool in told.json()["system"]["pools"]
        for worker in pool["workers"]
        if worker["status"] == "ONLINE"
    ]
    assert online
    assert all(worker["devices"]["cpu:0"] > 0 for worker in online)
    assert "cpu:0" in gateway.client.get("/system").text
