"""What Create offers beside fields, in a real browser: pickers with pictures, masks from files."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from safetensors.numpy import save_file

from tests.gateway.conftest import Gateway
from tests.served import BIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PASTE = """async (selector) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 24 });
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const files = new DataTransfer();
  files.items.add(new File([blob], "pasted.png", { type: "image/png" }));
  const [kind, name] = selector === null ? ["paste", "clipboardData"] : ["drop", "dataTransfer"];
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { clipboardData: files, bubbles: true })
    : new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true });
  (selector === null ? document.body : document.querySelector(selector)).dispatchEvent(event);
}"""


def test_models_and_loras_are_chosen_by_their_pictures(page: Page, gateway: Gateway):
    folder = gateway.volume / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in (("ink", "black"), ("chalk", "white")):
        weights = {"lora_unet.lora_down.weight": np.ones((4, 8), np.float32)}
        save_file(weights, folder / f"{name}.safetensors")
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.preview.png")
    subprocess.run(
        [BIN / "safelight", "models", "scan"],
        env={**os.environ, **gateway.pool.project.environment},
        check=True,
        capture_output=True,
    )
    page.goto("/create/generate")
    page.locator("[data-group=look] summary").click()
    loras = page.locator("[data-field=loras]")
    loras.get_by_role("button", name="Choose by picture").click()
    cards = page.locator("#pick [data-take]")
    expect(cards).to_have_count(2)
    expect(cards.first.locator("img")).to_be_visible()
    page.get_by_label("Part of the name, a tag").fill("ink")
    expect(cards).to_have_count(1)
    cards.first.click()
    expect(page.locator("#pick")).not_to_be_visible()
    expect(loras.locator("[data-lora=ink] img")).to_be_visible()
    loras.get_by_label("Weight of ink").fill("0.6")
    expect(page).to_have_url(re.compile(r"loras=.*0\.6"))
    page.reload()
    expect(loras.locator("[data-lora=ink]")).to_be_visible()
    page.locator("[data-field=model]").get_by_role("button", name="Choose by picture").click()
    page.locator("#pick [data-take=untrained]").click()
    expect(page.locator("[data-field=model] select")).to_have_value("untrained")


def test_pictures_are_pasted_and_dropped(page: Page):
    page.goto("/create/transform")
    given = page.locator("[data-field=image] [data-link]")
    page.evaluate(PASTE, None)
    expect(given).to_contain_text("pasted.png · 40 x 24")
    page.get_by_role("button", name="Take away").first.click()
    expect(given).to_have_count(0)
    page.evaluate(PASTE, "[data-field=image] .drop")
    expect(given).to_have_count(1)
    before = page.url
    page.evaluate(PASTE, "#now")  # beside the target: nothing is lost
    assert page.url == before


def test_a_mask_is_loaded_and_saved(page: Page, tmp_path: Path):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.new("RGB", (64, 48), "teal").save(photo)
    painted = Image.new("L", (32, 24), 0)
    painted.paste(255, (0, 0, 16, 24))
    painted.save(mask)
    page.goto("/create/inpaint")

    def late(route: Route) -> None:
        page.wait_for_timeout(500)
        route.continue_()

    page.route("**/api/uploads", late, times=1)
    page.locator("#f-image").set_input_files(photo)
    page.get_by_role("button", name="Paint the mask").click()  # the picture is still on its way
    board = page.locator("#mask")
    board.get_by_label("Load").set_input_files(mask)
    board.get_by_label("Name").fill("left")
    board.get_by_role("button", name="Invert").click()
    with page.expect_download() as loading:
        board.get_by_role("button", name="Save").click()
    assert loading.value.suggested_filename == "left.png"
    with Image.open(loading.value.path()) as saved:
        grey = saved.convert("L")
        assert (saved.size, grey.getpixel((8, 24)), grey.getpixel((56, 24))) == ((64, 48), 0, 255)
    board.get_by_role("button", name="Undo").click()
    board.get_by_role("button", name="Use it").click()
    expect(page.locator("[data-field=mask] [data-link]")).to_contain_text("left.png")
    page.get_by_label("What to see").fill("a door")
    expect(page.locator("[data-field=mask] [data-link]")).to_contain_text("left.png")
