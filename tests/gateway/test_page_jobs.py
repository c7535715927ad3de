"""Jobs on the page, in a real browser: remedies by a press, logs while they grow, what is told."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.gateway.conftest import Gateway
from tests.prefect_pool import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 9}
ELSEWHERE = """
  Object.defineProperty(document, "hidden", { get: () => window.elsewhere === true });
  window.told = [];
  window.Notification = class {
    static get permission() { return localStorage.getItem("permission") ?? "default"; }
    static async requestPermission() {
      window.asked = (window.asked ?? 0) + 1;
      localStorage.setItem("permission", "granted");
      return "granted";
    }
    constructor(title, about) { window.told.push(about.body); }
    close() {}
  };
"""
"""A browser whose window is not in front, and which keeps what it would have shown."""


def test_a_remedy_is_one_press(page: Page, gateway: Gateway):
    asked = {"prompt": "a red heart", "model": "nowhere-xl", **SMALL}
    answer = gateway.client.post("/api/jobs", json={"workflow": "generate", "parameters": asked})
    failed = answer.json()["id"]
    page.goto(f"/jobs?job={failed}")
    drawer = page.locator("#drawer")
    expect(drawer.get_by_text("DEPENDENCY_MISSING").first).to_be_visible()
    expect(drawer.get_by_role("link", name="Models that are there")).to_be_visible()
    drawer.get_by_text("Log", exact=True).click()
    expect(drawer.locator("pre")).to_contain_text("nowhere-xl")
    drawer.get_by_role("button", name="Run again with the model that is there").click()
    expect(page).to_have_url(re.compile(rf"job=(?!{failed})"))
    drawer.get_by_text("States", exact=True).click()
    expect(drawer.locator(".pill").first).to_have_text("Done")  # though something is unfolded
    expect(
        drawer.get_by_text("COMPLETED").or_(drawer.get_by_text("Completed")).first
    ).to_be_visible()
    expect(drawer.locator(".steps")).to_contain_text("Generate")
    expect(drawer.locator(".stages g.done, .stages g.cached")).to_have_count(1)


def test_a_failure_on_create_is_mended_with_its_form(page: Page):
    query = "&".join(f"{name}={value}" for name, value in SMALL.items())
    page.goto(f"/create/generate?prompt=a+red+heart&model=nowhere-xl&{query}")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Run again with the model that is there").click()
    expect(page.locator("#picture")).to_be_visible()
    expect(page.locator("[name=model]")).to_have_value("")
    expect(page.get_by_label("What to see")).to_have_value("a red heart")


def test_the_end_is_told_to_who_asked_for_it_and_is_elsewhere(page: Page):
    page.context.add_init_script(ELSEWHERE)
    query = "&".join(f"{name}={value}" for name, value in {**SMALL, "seed": 77}.items())
    page.goto(f"/create/generate?prompt=a+red+heart&{query}")
    button = page.get_by_role("button", name="Tell me when something is done")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("window.asked") is None
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.get_by_label("What to see").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stop")).to_be_visible()
    page.evaluate("window.elsewhere = true")
    expect(page).to_have_title(re.compile("^Done"))
    assert page.evaluate("window.told") == ["Done: a red heart · 77"]
    page.evaluate("window.elsewhere = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page).not_to_have_title(re.compile("^Done"))
    page.reload()  # it is remembered, and a press takes it back
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


def _status(gateway: Gateway, job: str) -> str:
    return gateway.client.get(f"/api/jobs/{job}").json()["status"]


def test_the_end_is_told_in_whatever_room_the_person_is(page: Page, gateway: Gateway):
    query = "&".join(f"{name}={value}" for name, value in {**SMALL, "seed": 78}.items())
    page.goto(f"/create/generate?prompt=a+green+heart&{query}")
    page.route("**/events*", lambda route: route.abort())  # it hears of no end while it is left
    page.keyboard.press("Control+Enter")
    # not until there is something to stop: that may be what another test began
    (begun,) = json.loads(eventually(lambda: page.evaluate("localStorage.begun")))
    page.goto("/models")
    eventually(lambda: _status(gateway, begun["id"]) == "SUCCEEDED")
    expect(page.locator("#said")).to_have_text("Done: a green heart · 78")
    assert page.evaluate("localStorage.begun") == "[]"  # once
