"""What `safelight up` serves: the Prefect UI in a real browser, and what its guide calls."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    TimeoutError,
    expect,
)

from examples.untrained import build_untrained
from safelight.cli.server_login import basic
from safelight.cli.serving import login_link
from tests.documents import blocks
from tests.prefect_database import put_database
from tests.served import CHECKOUT, safelight_up

PATIENCE_MS = 90_000.0
"""Until a test gives up; none of them measures time."""
LOOK_MS = 4_000.0
"""Before a page is loaded again."""
Shoot = Callable[[str], None]

ENDS = ("COMPLETED", "FAILED", "CRASHED")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[dict[str, str]]:
    """The users' environment of `safelight up`, with a picture and a video to work on."""
    root = tmp_path_factory.mktemp("served")
    uploads = root / "uploads"
    uploads.mkdir()
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as picture:
        picture.resize((64, 64)).save(uploads / "astronaut.png")
    shutil.copy(CHECKOUT / "examples" / "box.mp4", uploads)
    build_untrained(root / "models" / "untrained")
    put_database(database, root)
    with safelight_up(root) as environment:
        yield environment


@pytest.fixture(scope="module")
def ui(served: dict[str, str]) -> str:
    """Address of the UI."""
    return served["PREFECT_API_URL"].removesuffix("/api")


def new_link(served: dict[str, str]) -> str:
    """A link that opens the UI once."""
    return login_link(served["PREFECT_API_URL"], served["PREFECT_API_AUTH_STRING"])


@pytest.fixture
def page(browser: Browser, ui: str, served: dict[str, str]) -> Iterator[Page]:
    """A page of a visitor who was never here and came by a link."""
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(base_url=ui, viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    opened.goto(new_link(served), wait_until="commit")
    yield opened
    context.close()


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Shoot:
    """Takes a picture of the page as it is; SAFELIGHT_SCREENSHOTS names a folder that keeps it."""
    folder = Path(os.environ.get("SAFELIGHT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        path = folder / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
        assert path.stat().st_size > 5000

    return take


def open_form(page: Page, flow: str) -> None:
    """From the list of deployments to the form of a custom run."""
    page.goto("/deployments")
    page.get_by_placeholder("Search deployments").fill(flow)  # the list has pages
    page.wait_for_url(re.compile("NameLike="))  # a click before that is lost
    page.get_by_role("link", name=flow, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()


def field(page: Page, name: str) -> Locator:
    """The innermost part of the form with the parameter's title and its input."""
    title = page.get_by_text(re.compile(rf"^{name}( \(Optional\))?$"))
    whole = page.locator("div").filter(has=title).filter(has=page.get_by_role("group"))
    return whole.last


def choices(page: Page, name: str) -> Locator:
    """Opened by a key: a click on the text opens and closes the list in this version."""
    field(page, name).get_by_role("group").get_by_role("button").press("Space")
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    return options


def submit(page: Page, name: str) -> None:
    """Start the run under this name and go to its page."""
    page.get_by_text("Run Name").locator("xpath=following::input[1]").fill(name)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text(f"{name} scheduled to start now").first).to_be_visible()
    page.goto("/runs")
    run = page.get_by_role("link", name=name, exact=True)
    wait_for(page, run)
    run.click()
    expect(page).to_have_url(re.compile("/runs/flow-run/"))


def open_artifacts(page: Page) -> None:
    page.get_by_role("tablist").get_by_text("Artifacts", exact=True).click()


def wait_for(page: Page, shown: Locator, where: Callable[[Page], None] = lambda page: None) -> None:
    """Wait and reload as people do: by itself a page may ask only each half minute.

    Args:
        page: of one run or of all.
        shown: what will be seen there.
        where: what to click first.
    """
    while True:
        where(page)
        try:
            shown.first.wait_for(timeout=LOOK_MS)
        except TimeoutError:
            page.reload()
        else:
            return


def test_the_form_says_what_a_parameter_means_and_may_be(page: Page, shoot: Shoot):
    open_form(page, "photoreal_portrait_v1")
    expect(field(page, "prompt")).to_contain_text("What the picture shows.")
    expect(field(page, "seed")).to_contain_text("-1 to 18446744073709551615")
    expect(field(page, "consent_given")).to_contain_text("the permission of the person")
    expect(field(page, "quality").get_by_role("button", name="standard")).to_be_visible()
    page.mouse.wheel(0, -2000)
    shoot("form-portrait")
    assert choices(page, "quality").all_inner_texts() == ["low", "standard", "pro"]
    open_form(page, "generate")
    for name, text, default in (
        ("steps", "Denoising steps. 1 to 150.", "20"),
        ("guidance_scale", "0 to 30.", "7.5"),
        ("width", "64 to 4096, a multiple of 8.", "512"),
    ):
        expect(field(page, name)).to_contain_text(text)
        expect(field(page, name).get_by_role("group").locator("input")).to_have_value(default)
    titles = page.get_by_text(re.compile(r"^\w+( \(Optional\))?$")).all_inner_texts()
    wanted = [title.removesuffix(" (Optional)") for title in titles]
    assert [name for name in wanted if name in ("prompt", "seed", "steps", "height")] == [
        *("prompt", "seed", "steps", "height")
    ]


def test_wrong_parameters_are_refused_at_their_field(page: Page, shoot: Shoot):
    open_form(page, "generate")
    field(page, "steps").get_by_role("group").locator("input").fill("500")
    page.get_by_role("button", name="Submit").click()
    expect(field(page, "prompt")).to_contain_text("'prompt' is a required property")
    field(page, "prompt").get_by_role("textbox").fill("a red heart")
    page.get_by_role("button", name="Submit").click()
    said = page.get_by_text(re.compile("'steps'.*500 is greater than the maximum of 150")).first
    expect(said).to_be_visible()
    assert "/run?" in page.url
    shoot("form-refused")


def test_a_run_started_by_clicks_shows_its_result(page: Page, shoot: Shoot):
    open_form(page, "enhance")
    field(page, "image").get_by_role("textbox").fill("uploads/astronaut.png")
    expect(field(page, "quality_preset").get_by_role("button", name="medium")).to_be_visible()
    choices(page, "quality_preset").get_by_text("low", exact=True).click()
    shoot("form-filled")
    submit(page, "by-clicks")
    wait_for(page, page.get_by_text("Completed", exact=True))
    wait_for(page, page.get_by_role("link", name="file-"), open_artifacts)
    shoot("run-finished")
    page.get_by_role("link").filter(has_text="What enhance made").click()
    picture = page.locator("img[src^='data:image/']")
    expect(picture).to_be_visible()
    assert picture.evaluate("shown => shown.decode().then(() => shown.naturalWidth)") == 128
    expect(page.get_by_text("128x128")).to_be_visible()
    shoot("result")
    page.go_back()
    open_artifacts(page)
    page.get_by_role("link").filter(has_text="Stages of this run").click()
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows.nth(1)).to_contain_text(re.compile("enhance.*done.*MiB.*realesrgan", re.DOTALL))
    shoot("manifest")


@pytest.mark.soak
def test_a_running_run_shows_progress_and_is_cancelled_by_clicks(page: Page, shoot: Shoot):
    open_form(page, "interpolate")
    field(page, "video").get_by_role("textbox").fill("uploads/box.mp4")
    choices(page, "target_fps").get_by_text("240", exact=True).click()
    submit(page, "to-be-cancelled")
    wait_for(page, page.get_by_text("Running", exact=True))
    steps = page.get_by_text(re.compile(r"^interpolate: \d+ of \d+$"))
    wait_for(page, steps, open_artifacts)
    shoot("run-under-way")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Confirm").click()
    wait_for(page, page.get_by_text("Cancelled", exact=True))
    shoot("run-cancelled")


def test_a_link_opens_both_uis_without_a_question(page: Page, shoot: Shoot):
    for version, path in (("v2", "/v2/deployments"), ("v1", "/deployments")):
        page.goto(path)
        expect(page.get_by_role("link", name="enhance", exact=True).first).to_be_visible()
        assert "login" not in page.url
        shoot(f"by-link-{version}")
    assert "safelight" not in page.evaluate("document.cookie + JSON.stringify(localStorage)")


@pytest.mark.soak
def test_whoever_came_without_a_link_is_asked(browser: Browser, served: dict[str, str], ui: str):
    for path in ("/v2/deployments", "/deployments"):
        context = browser.new_context(base_url=ui)
        visitor = context.new_page()
        visitor.goto(path)
        asked = visitor.get_by_placeholder("admin:pass")
        expect(asked).to_be_visible()
        asked.fill(served["PREFECT_API_AUTH_STRING"])
        visitor.get_by_role("button", name="Login").click()
        expect(visitor.get_by_text("Deployments").first).to_be_visible()
        context.close()


ATTACK = """async (base) => {
    const body = '{"name": "NAME"}';
    const json = {"Content-Type": "application/json"}, plain = {"Content-Type": "text/plain"};
    const got = [];
    const attempt = async (path, options) => {
        try {
            const answer = await fetch(base + path, {credentials: "include", ...options});
            got.push(answer.type === "opaque" ? "opaque" : answer.status);
        } catch (error) { got.push("refused"); }
    };
    await attempt("/api/admin/version", {});
    await attempt("/api/flows/", {method: "POST", headers: json, body});
    await attempt("/api/flows/", {method: "POST", mode: "no-cors", headers: plain, body});
    await attempt("/login/link", {method: "POST", mode: "no-cors"});
    got.push(await new Promise((told) => {
        const socket = new WebSocket(base.replace("http", "ws") + "/api/events/out", ["prefect"]);
        socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: null}));
        socket.onmessage = (message) => told(JSON.parse(message.data).type);
        socket.onclose = () => told("refused");
    }));
    return got;
}"""
"""What a page can do to a server on this machine in the browser of somebody who is logged in."""


@pytest.mark.parametrize(
    "origin", ["http://pictures.example", "http://localhost:8123", "http://127.0.0.1:8123"]
)
def test_a_foreign_page_can_do_nothing(page: Page, ui: str, served: dict[str, str], origin: str):
    def flows() -> list[str]:
        answer = httpx.post(f"{ui}/api/flows/filter", json={}, headers=known, timeout=60)
        return [flow["name"] for flow in answer.raise_for_status().json()]

    known = {"Authorization": basic(served["PREFECT_API_AUTH_STRING"])}
    name = f"from-{origin.rpartition('/')[2]}"
    own = page.evaluate(ATTACK.replace("NAME", f"{name}-own"), ui)
    assert own[:2] == [200, 201]
    assert own[4] == "auth_success"
    page.route(f"{origin}/**", lambda route: route.fulfill(body="<p>Pictures</p>"))
    page.goto(f"{origin}/page")
    got = page.evaluate(ATTACK.replace("NAME", name), ui)
    assert got[:2] == ["refused", "refused"]
    assert got[2] in ("opaque", "refused")
    assert got[4] == "refused"
    assert f"{name}-own" in flows()
    assert name not in flows()


def test_the_commands_of_the_api_guide(served: dict[str, str], tmp_path: Path):
    script = "\n".join(blocks("docs/api.md", "sh"))
    there = urlsplit(served["PREFECT_API_URL"]).netloc
    kept_in = f"{served['VOLUME_ROOT']}/cache"
    for theirs, ours in (("127.0.0.1:4200", there), ("data/cache", kept_in)):
        assert theirs in script
        script = script.replace(theirs, ours)
    known = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={name: value for name, value in served.items() if name not in known},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    (refused,) = [line for line in said if "Validation failed" in line]
    assert "'quality_preset'" in refused
    assert refused.endswith("409")
    assert [line for line in said if line in ENDS] == ["COMPLETED"]
    assert said[-1] == "CANCELLED"
    (uri,) = [line for line in said if line.startswith("store:outputs/")]
    kept = Path(served["VOLUME_ROOT"]) / uri.removeprefix("store:")
    assert (tmp_path / "result.png").read_bytes() == kept.read_bytes()

    program = "\n".join(blocks("docs/api.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=served,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state, fetched, stopped = done.stdout.splitlines()
    assert state.startswith("COMPLETED")
    (name,) = ast.literal_eval(fetched)
    assert (tmp_path / name).read_bytes() == kept.read_bytes()
    assert stopped == "CANCELLED"
