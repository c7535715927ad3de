"""Programs for the systems before Safelight get the bodies that they know.

`tests/data/earlier-apis.json` holds the exchanges, in the order in which such programs have them.
`<uuid>` and the like in an answer stand for what differs each time.
"""

import base64
import io
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from prefect.client.schemas.sorting import FlowRunSort

from safelight.client.runs import succeeded_runs
from safelight.gateway.app import create_api
from tests.gateway.conftest import Gateway
from tests.prefect_pool import eventually
from tests.served import CHECKOUT

EXCHANGES = json.loads((CHECKOUT / "tests" / "data" / "earlier-apis.json").read_text())
CODES = {"CONTRACT_MISMATCH", "INVALID_FIELD_VALUE", "MISSING_REQUIRED_FIELD", "FILE_NOT_FOUND"}


def is_time(value: object) -> bool:
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


def is_problem(value: Any) -> bool:
    return (
        value["ok"] is False
        and value["error_code"] in CODES | {"CONSENT_MISSING"}
        and bool(value["message"])
        and len(value["remediation"]) > 0
    )


KINDS: dict[str, Callable[[Any], bool]] = {
    "<any>": lambda value: value is None or isinstance(value, str),
    "<any text>": lambda value: isinstance(value, str),
    "<text>": lambda value: isinstance(value, str) and value != "",
    "<uuid>": lambda value: re.fullmatch(r"[0-9a-f-]{36}", value) is not None,
    "<sha256>": lambda value: re.fullmatch(r"[0-9a-f]{64}", value) is not None,
    "<file>": lambda value: re.fullmatch(r"outputs/[0-9a-f]{2}/\w+\.png", value) is not None,
    "<number>": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "<null>": lambda value: value is None,
    "<object>": lambda value: isinstance(value, dict),
    "<list>": lambda value: isinstance(value, list),
    "<time>": is_time,
    "<time or null>": lambda value: value is None or is_time(value),
    "<problem>": is_problem,
    "<mismatch>": lambda value: is_problem(value) and value["error_code"] == "CONTRACT_MISMATCH",
}


def require(found: Any, expected: Any, where: str) -> None:
    """The same fields, no more and no fewer, with values of the kind that is recorded."""
    if isinstance(expected, str) and expected in KINDS:
        assert KINDS[expected](found), (where, found)
    elif isinstance(expected, dict):
        assert isinstance(found, dict), (where, found)
        assert found.keys() == expected.keys(), (where, found)
        for name, value in expected.items():
            require(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), (where, found)
        for at, (one, value) in enumerate(zip(found, expected, strict=True)):
            require(one, value, f"{where}.{at}")
    else:
        assert found == expected, (where, found)


def filled(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {name: filled(inner, known) for name, inner in value.items()}
    return [filled(inner, known) for inner in value] if isinstance(value, list) else value


def require_events(answer: httpx.Response, job: str) -> None:
    said = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    kinds = re.findall(r"^event: (\w+)$", answer.text, re.MULTILINE)
    assert kinds[-1] == "complete"
    assert {one["job_id"] for one in said} == {job}
    assert {one["correlation_id"] for one in said} == {answer.headers["x-correlation-id"]}


def require_picture(answer: httpx.Response, job: str) -> None:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    last = json.loads(lines[-2])
    assert (last["job_id"], last["status"], last["type"]) == (job, "succeeded", "complete")
    assert "error" not in last  # what is unset is left out
    data = base64.b64decode(last["image"])
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "PNG"
    assert httpx.get(last["url"], timeout=60, trust_env=False).content == data


def photo(side: int) -> bytes:
    out = io.BytesIO()
    with Image.open(CHECKOUT / "examples" / "astronaut.png") as opened:
        opened.resize((side, side)).save(out, "PNG")
    return out.getvalue()


def ended(gateway: Gateway, job: str) -> None:
    def over() -> bool:
        status = gateway.client.get(f"/api/jobs/{job}").json()["status"]
        return status not in ("QUEUED", "RUNNING")

    eventually(over, 120)


@pytest.mark.timeout(600)
def test_recorded_exchanges_with_the_earlier_systems(gateway: Gateway, tmp_path: Path):
    png = {"Content-Type": "image/png"}
    uploaded = gateway.client.post("/api/uploads", content=photo(64), headers=png).json()["uri"]
    (tmp_path / "photo.png").write_bytes(photo(96))
    examples = gateway.volume / "datasets" / "earlier"
    examples.mkdir(parents=True)
    (examples / "photo.png").write_bytes(photo(64))
    known = {"image": uploaded, "base64": base64.b64encode(photo(64)).decode()}
    ran = succeeded_runs(gateway.pool.client, "photoreal_portrait_v1", FlowRunSort.END_TIME_DESC, 1)
    known["estimate"] = "<number>" if ran else "<null>"  # other tests share the gateway
    for each in EXCHANGES:
        asked = filled({k: v for k, v in each.items() if k in ("path", "body")}, known)
        request: dict[str, Any] = {} if "body" not in asked else {"json": asked["body"]}
        if "form" in each:
            request = {"files": {each["form"][0]: (tmp_path / "photo.png").read_bytes()}}
        answer = gateway.client.request(each["method"], asked["path"], **request)
        assert answer.status_code == each["status"], (each["name"], answer.text)
        if each["answer"] == "<events>":
            require_events(answer, known[each["of"]])
            continue
        if each["answer"] == "<done>":
            require_picture(answer, known["operation"])
            continue
        body, expected = answer.json(), filled(each["answer"], known)
        if each.get("some"):  # at least one, all of the kind of the first
            inner = body if isinstance(body, list) else body["models"]
            assert inner, each["name"]
            kind = expected if isinstance(expected, list) else expected["models"]
            kind *= len(inner)
        if each.get("keep"):
            known |= {name: body[field] for name, field in each["keep"].items()}
            expected = filled(each["answer"], known)
        require(body, expected, each["name"])
        if "wait" in each:
            ended(gateway, filled(each["wait"], known))


def test_each_earlier_path_has_a_recorded_exchange():
    recorded = {
        (each["method"], re.sub(r"[0-9a-f-]{36}", "{id}", each["path"].partition("?")[0]))
        for each in EXCHANGES
    }
    shapes = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in recorded}
    for path, methods in create_api().openapi()["paths"].items():
        ours = re.match(r"/api/(media-lab|pipeline|generation|training|characters)|/v1/jobs", path)
        if ours is None or path.endswith(("/loras", "/images/{sha256}", "/{character}")):
            continue
        for method in methods:
            shape = re.sub(r"\{\w+\}", "{}", path).replace("photoreal_portrait_v1", "{}")
            known = {(m, p.replace("photoreal_portrait_v1", "{}")) for m, p in shapes}
            assert (method.upper(), shape) in known, (method, path)
