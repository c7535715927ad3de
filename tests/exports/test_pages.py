"""A batch as one HTML file: everything in it, nothing from elsewhere, and nothing overwritten."""

import base64
import io
import re
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from safelight.engines.identity import EngineIdentity
from safelight.errors import ForbiddenPathError, InvalidFieldValueError
from safelight.exports.pages import check_page, write_page
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import Failure, Manifest, StageEntry, keep_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

pytestmark = pytest.mark.usefixtures("volume")
CHROMIUM = Path("/usr/bin/chromium")
EVIL = "</p><script>alert(1)</script><img src=http://example.com/x onerror=alert(2)>\"'"


def kept(content: bytes, media_type: str = "image/png") -> ArtifactRef:
    return current_store().put(content, media_type, width=8, height=8)


def manifest_of(entry: StageEntry, prompt: str, flow: str) -> Manifest:
    return Manifest(
        flow=flow,
        flow_run_id=str(uuid4()),
        parameters={"prompt": prompt, "seed": 7},
        stages=(entry,),
        results=entry.results,
        versions={},
        device_class="cpu",
        device_name="a processor",
        started="2026-01-31T23:59:58+00:00",
        ended="2026-02-01T00:00:03+00:00",
        success=True,
    )


def stage(name: str, result: ArtifactRef, **facts: object) -> StageEntry:
    engine = EngineIdentity(engine_id="compute", version="1")
    given = {"parameters": {}, **facts}
    return StageEntry(
        name=name, stage_type=name, status="done", results=(result,), engine=engine, **given
    )  # pyright: ignore


def outcome(number: int, ref: ArtifactRef, prompt: str) -> BatchOutcome:
    run = manifest_of(stage("generate", ref), prompt, "generate")
    keep_manifest(current_store(), run)
    return BatchOutcome(
        number=number,
        where=f"cell {number}",
        state="succeeded",
        flow_run_id=run.flow_run_id,
        results=(ref,),
    )


def report_of(*outcomes: BatchOutcome, batch: str = "spring") -> BatchReport:
    return BatchReport(
        flow_run_id=str(uuid4()),
        flow="generate",
        batch=batch,
        ran="here",
        requests=len(outcomes),
        outcomes=outcomes,
    )


def data_in(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:[^,"]+,([^"]+)"', page)]


def test_all_pictures_stand_in_it_once_and_whole(tmp_path: Path):
    contents = [b"a" * 3, b"b" * (3 * 2**18 * 2 + 1), b"c" * 1000]
    refs = [kept(content) for content in contents]
    report = report_of(*(outcome(n, ref, f"words {n}") for n, ref in enumerate([*refs, refs[0]])))
    page = write_page(report, None, tmp_path / "page.html").read_text()
    assert data_in(page) == contents
    assert page.count(f'data-of="p{refs[0].sha256}"') == 1
    assert [f"words {n} (seed 7)" in page for n in range(4)] == [True] * 4


def test_a_grid_is_a_table_with_its_labels(tmp_path: Path):
    refs = [kept(content) for content in (b"1", b"22", b"333")]
    sheet = kept(b"sheet")
    entry = stage(
        "axes",
        sheet,
        parameters={
            "columns": ["steps 1", "steps 2"],
            "rows": ["cfg <3>", "cfg 4"],
            "cells": [[0, 1], [], [2], [0]],
            "title": "model a & b",
        },
        sources=tuple(ref.sha256 for ref in refs),
    )
    report = report_of(*(outcome(n, ref, "words") for n, ref in enumerate(refs)))
    run = manifest_of(entry, "", "batch")
    page = write_page(report, run, tmp_path / "page.html").read_text()
    cells = re.findall(r"<td>(.*?)</td>", page, re.DOTALL)
    assert [len(re.findall("<img", cell)) for cell in cells] == [2, 0, 1, 1]
    assert "<th>cfg &lt;3&gt;</th>" in page
    assert "model a &amp; b" in page
    assert "<li>" not in page


def test_a_grid_of_one_long_axis_has_the_value_of_each_picture(tmp_path: Path):
    refs = [kept(content) for content in (b"1", b"22", b"333")]
    report = report_of(*(outcome(n, ref, "words") for n, ref in enumerate(refs)))
    sheets = [
        stage(
            "contact",
            kept(b"sheet %d" % at),
            parameters={"captions": captions},
            sources=tuple(refs[number].sha256 for number in shown),
        )
        for at, (captions, shown) in enumerate([(["steps 1", "steps 2"], (0, 1)), (["<3>"], (2,))])
    ]
    run = manifest_of(sheets[0], "", "batch")
    run = run.model_copy(update={"stages": tuple(sheets), "parameters": {"grid": {"steps": [1]}}})
    page = write_page(report, run, tmp_path / "page.html").read_text()
    said = re.findall(r'id="p([0-9a-f]+)".*?<p>(.*?)</p></li>', page)
    assert said == [
        (ref.sha256, text)
        for ref, text in zip(refs, ["steps 1", "steps 2", "&lt;3&gt;"], strict=True)
    ]
    without = run.model_copy(update={"stages": ()})  # sheets were not asked for
    page = write_page(report, without, tmp_path / "other.html").read_text()
    assert page.count("words (seed 7)</p></li>") == 3


def test_words_of_a_prompt_are_words(tmp_path: Path):
    failed = BatchOutcome(
        number=2,
        where=f"line {EVIL}",
        state="failed",
        error=Failure(code="X", problem=EVIL, remedy=""),
    )
    report = report_of(outcome(1, kept(b"x"), EVIL), failed, batch=EVIL)
    page = write_page(report, None, tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert page.count("example.com/x onerror") > 3  # it is there, as text
    assert "default-src 'none'" in page


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
def test_it_opens_without_a_network_and_shows_a_picture_large(tmp_path: Path, photo: np.ndarray):
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "PNG")
    refs = [kept(data.getvalue()), kept(data.getvalue()), kept(b"broken")]
    report = report_of(*(outcome(n, ref, f"an astronaut {n}") for n, ref in enumerate(refs)))
    file = write_page(report, None, tmp_path / "page.html")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 900, "height": 700})
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        widths = [img.evaluate("img => img.naturalWidth") for img in page.locator("li img").all()]
        assert widths == [512, 512, 0]
        page.locator("li img").nth(1).click()
        large = page.locator("dialog img")
        expect(large).to_be_visible()
        assert large.evaluate("img => img.naturalWidth") == 512
        expect(page.locator("dialog p")).to_have_text("an astronaut 1 (seed 7)")
        large.click()
        expect(large).to_be_hidden()
        browser.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_nothing_of_others_is_overwritten(tmp_path: Path):
    file = tmp_path / "page.html"
    report = report_of(outcome(1, kept(b"x"), "one"))
    assert write_page(report, None, file) == file
    again = report.model_copy(
        update={"outcomes": (*report.outcomes, outcome(2, kept(b"y"), "two"))}
    )
    assert write_page(again, None, file) == file
    assert "two" in file.read_text()
    other = report_of(outcome(1, kept(b"x"), "one"), batch="autumn")
    assert write_page(other, None, file) == tmp_path / "page-2.html"
    assert "two" in file.read_text()
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html>mine")
    assert write_page(report, None, mine) == tmp_path / "mine-2.html"
    assert mine.read_text() == "<!doctype html>mine"
    check_page(file, "--html")
    for place in (mine, tmp_path / "none" / "page.html"):
        with pytest.raises(ForbiddenPathError, match="--html"):
            check_page(place, "--html")


def test_more_than_a_browser_opens_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("safelight.exports.pages.MOST_BYTES", 10)
    report = report_of(outcome(1, kept(b"x" * 11), "one"))
    with pytest.raises(InvalidFieldValueError, match="11 bytes"):
        write_page(report, None, tmp_path / "page.html")
    assert not list(tmp_path.glob("page*"))
