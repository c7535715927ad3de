"""A batch's results by REST as one zip that can be taken up where it broke off."""

import io
import zipfile
from uuid import uuid4

import pytest

from safelight.provenance.batches import BatchOutcome, BatchReport, keep_report
from safelight.store.store import current_store
from tests.gateway.conftest import Alone


@pytest.fixture(scope="module", name="url")
def kept_batch(alone: Alone) -> str:
    outcomes = [
        BatchOutcome(
            number=number,
            where=f"Tasse {number}/rot",
            state="succeeded",
            flow_run_id=str(uuid4()),
            results=(current_store().put(bytes([number]) * 4000, "image/png"),),
        )
        for number in range(1, 6)
    ]
    run = str(uuid4())
    keep_report(
        BatchReport(
            flow_run_id=run,
            flow="generate",
            batch="fr\u00fchling",
            ran="here",
            requests=5,
            outcomes=tuple(outcomes),
        )
    )
    return f"/api/batches/{run}/zip"


def test_a_batch_is_one_zip(alone: Alone, url: str):
    answer = alone.ask("GET", url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    said = answer.headers["content-disposition"]
    assert said.startswith("attachment; ")
    assert "filename*=UTF-8''generate-fr%C3%BChling.zip" in said
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"Tasse {n}/rot.png" for n in range(1, 6)]
    by_number = alone.ask("GET", url, params={"names": "{batch}-{number:03}"})
    with zipfile.ZipFile(io.BytesIO(by_number.content)) as archive:
        assert archive.namelist()[4] == "fr\u00fchling-005.png"
    assert by_number.headers["etag"] != answer.headers["etag"]


def test_a_download_goes_on_where_it_broke_off(alone: Alone, url: str):
    whole = alone.ask("GET", url)
    tag, got = whole.headers["etag"], whole.content[:7001]
    while len(got) < len(whole.content):
        headers = {"Range": f"bytes={len(got)}-", "If-Range": tag}
        if len(got) < 15000:
            headers["Range"] += str(len(got) + 3999)
        part = alone.ask("GET", url, headers=headers)
        assert part.status_code == 206
        end = len(got) + len(part.content) - 1
        assert part.headers["content-range"] == f"bytes {len(got)}-{end}/{len(whole.content)}"
        got += part.content
    assert got == whole.content
    assert alone.ask("GET", url, headers={"Range": "bytes=-50"}).content == got[-50:]


def test_the_whole_comes_where_a_part_would_not_fit(alone: Alone, url: str):
    whole = alone.ask("GET", url)
    for headers in (
        {"Range": "bytes=0-3", "If-Range": '"other"'},
        {"Range": "bytes=0-3,5-7"},
    ):
        answer = alone.ask("GET", url, headers=headers)
        assert (answer.status_code, answer.content) == (200, whole.content)
    known = alone.ask("GET", url, headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    beyond = alone.ask("GET", url, headers={"Range": f"bytes={len(whole.content)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"
    head = alone.ask("HEAD", url)
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]
    assert head.content == b""


def test_what_is_wrong_is_refused_with_a_code(alone: Alone, url: str):
    for path, parameters, headers, status, code in (
        (url, {"names": "{prmpt}"}, {}, 400, "CONTRACT_MISMATCH"),
        (url, {"names": "../{prompt}"}, {}, 400, "INVALID_FIELD_VALUE"),
        (url, {"names": "x" * 401}, {}, 400, "INVALID_FIELD_VALUE"),
        (url, {}, {"Range": "bytes=a-b"}, 400, "INVALID_FIELD_VALUE"),
        (f"/api/batches/{uuid4()}/zip", {}, {}, 404, "FILE_NOT_FOUND"),
        ("/api/batches/none/zip", {}, {}, 400, "INVALID_FIELD_VALUE"),
    ):
        answer = alone.ask("GET", path, params=parameters, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (status, code), path
