"""Batches on a real Prefect server with a real worker: what runs, what is kept, how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Failed

from flows.batch import batch
from flows.batching import dispatching
from flows.batching.durations import Durations
from flows.batching.laying_out import LEGIBLE_CELL, sheet_axes
from flows.batching.reading.files import parse, read_file
from flows.batching.reading.rows import LARGEST_FILE
from flows.batching.requests import (
    MOST_REQUESTS,
    Request,
    check_requests,
    find_target,
    grid_rows,
    listed,
    sorted_digest,
)
from flows.batching.runs import TAG, BatchRuns
from flows.batching.sharding import are_worth_it, is_shard
from flows.batching.shards import MOST, Sizes
from flows.pipeline import pipeline
from flows.shard import shard
from safelight.cli.backfilling import backfill
from safelight.cli.replaying import requests_of
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    InvalidFieldValueError,
    MissingFileError,
    PipelineError,
)
from safelight.params import refuse_unkept
from safelight.progress import clear_stop, request_stop
from safelight.provenance.batches import BatchOutcome, BatchReport, load_report
from safelight.provenance.manifest import load_manifest
from safelight.provenance.replay import find_run
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tests.prefect_pool import artifacts_of, eventually
from tests.unwell import LOST, Fault, Unwell, unwell

CHECKOUT = Path(__file__).resolve().parents[2]
PHOTO = CHECKOUT / "examples" / "astronaut.png"
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(codec="utf-8"))
)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), max_size=12)


# --- reading requests -------------------------------------------------------------------------


@given(st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES), min_size=1))
def test_json_lines_come_back_as_they_were_written(requests: list[dict[str, object]]):
    for ascii_only in (True, False):
        text = "\n".join(json.dumps(request, ensure_ascii=ascii_only) for request in requests)
        rows = parse(text.encode())
        assert [row.values for row in rows] == requests
        assert [row.where for row in rows] == [f"line {n + 1}" for n in range(len(requests))]


@given(
    st.lists(st.lists(CELLS.filter(str.strip), min_size=2, max_size=2), min_size=1), st.booleans()
)
def test_tables_come_back_as_they_were_written(cells: list[list[str]], bom: bool):
    import csv
    import io

    out = io.StringIO()
    csv.writer(out).writerows([["a", "b"], *cells])
    rows = parse((b"\xef\xbb\xbf" if bom else b"") + out.getvalue().encode())
    assert [list(row.values.values()) for row in rows] == cells
    lines = out.getvalue().split("\n")
    for row, (first, _) in zip(rows, cells, strict=True):
        start = lines[int(row.where.removeprefix("line ")) - 1].lstrip('"')
        assert start.startswith(first.split("\n")[0].replace('"', '""').lstrip('"'))


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_they_are_read_or_refused_with_a_code(data: bytes):
    for start in (b"", b"{", b"prompt,steps\n"):
        with suppress(PipelineError):  # any other error fails the test
            assert parse(start + data)


AXES = st.dictionaries(
    st.sampled_from(["steps", "seed", "prompt", "width"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    min_size=1,
)


@given(AXES)
def test_a_grid_has_every_combination_once_and_in_order(grid: dict[str, list[int]]):
    rows = grid_rows(grid)
    size = 1
    for values in grid.values():
        size *= len(values)
    assert len({row.place for row in rows}) == len(rows) == size
    assert [row.place for row in rows] == sorted(row.place for row in rows)
    for row in rows:
        at = dict(zip(grid, row.place, strict=True))
        assert row.values == {name: grid[name][at[name]] for name in grid}


@given(AXES, st.data())
def test_every_axis_of_a_grid_has_one_place(grid: dict[str, list[int]], data: st.DataObject):
    named = data.draw(st.lists(st.sampled_from(list(grid)), unique=True, max_size=3))
    slots = data.draw(st.permutations(["x", "y", "z"]))
    chosen = dict(zip(slots, named, strict=False))
    axes = sheet_axes(grid, chosen.get("x"), chosen.get("y"), chosen.get("z"))
    placed = [name for name in (axes.across, axes.down, *axes.others) if name is not None]
    assert sorted(placed) == sorted(grid)
    assert axes.across == chosen.get("x", axes.across)
    assert axes.down == chosen.get("y", axes.down)
    if "z" in chosen:
        assert axes.others[0] == chosen["z"]


GOOD = b'{"prompt": "a"}\n'
HOSTILE = {
    "empty": (b"", "INVALID_FIELD_VALUE", "no request"),
    "only a BOM": (b"\xef\xbb\xbf \n", "INVALID_FIELD_VALUE", "no request"),
    "latin-1": (GOOD + b'{"prompt": "caf\xe9"}', "INVALID_FIELD_VALUE", "line 2: byte 0xe9"),
    "half of utf-16": (
        '{"prompt": "a"}'.encode("utf-16")[:-1],
        "INVALID_FIELD_VALUE",
        "line 1: byte 0x7d is not UTF-16",
    ),
    "a line of 10 MB": (
        GOOD + b'{"prompt": "' + b"a" * 10_000_000 + b'"}',
        "INVALID_FIELD_VALUE",
        "line 2 has 10000014 characters",
    ),
    "a file of 33 MB": (b"\n" * (LARGEST_FILE + 1), "INVALID_FIELD_VALUE", str(LARGEST_FILE)),
    "a list of numbers": (b'[{"prompt": "a"}, 7]', "INVALID_FIELD_VALUE", "request 2 is int"),
    "half a list": (b'[{"prompt": "a"},', "INVALID_FIELD_VALUE", "the list is not JSON"),
    "broken JSON": (GOOD + b'{"prompt": "a"', "INVALID_FIELD_VALUE", "line 2 is not JSON"),
    "not an object": (GOOD + b"7", "INVALID_FIELD_VALUE", "line 2 is int"),
    "a field twice": (b'{"prompt": "a", "prompt": "b"}', "INVALID_FIELD_VALUE", "prompt is given"),
    "not a number": (b'{"prompt": "a", "steps": NaN}', "INVALID_FIELD_VALUE", "NaN"),
    "very deep": (b'{"a": ' + b"[" * 100_000, "INVALID_FIELD_VALUE", "line 1"),
    "digits": (b'{"seed": ' + b"1" * 5000 + b"}", "INVALID_FIELD_VALUE", "line 1"),
    "unknown field": (GOOD + b'{"promt": "a"}', "MISSING_REQUIRED_FIELD", "line 2"),
    "unknown column": (b"prompt,stpes\na,3\n", "CONTRACT_MISMATCH", "line 2: generate: there is"),
    "column twice": (b"prompt,prompt\na,b\n", "CONTRACT_MISMATCH", "column prompt is there 2"),
    "column without name": (b"prompt,\na,b\n", "MISSING_REQUIRED_FIELD", "line 1: a column"),
    "missing": (b"steps\n3\n", "MISSING_REQUIRED_FIELD", "line 2: generate: field prompt"),
    "empty cell": (b"prompt,steps\na,3\n,3\n", "MISSING_REQUIRED_FIELD", "line 3: generate"),
    "outside": (b"prompt,steps\na,3\nb,999999\n", "INVALID_FIELD_VALUE", "line 3: generate: field"),
    "too many cells": (b"prompt,steps\na,3,4\n", "INVALID_FIELD_VALUE", "line 2 has 3 cells"),
    "open quote": (b'prompt\n"a\nb\n', "INVALID_FIELD_VALUE", "line 2"),
    "a NUL": (
        GOOD + b'{"prompt": "tea\\u0000pot"}\n' + GOOD,
        "INVALID_FIELD_VALUE",
        "line 2: generate: field prompt has the character U+0000 at 4",
    ),
    "a NUL in a table": (
        b"prompt,negative_prompt\na,b\nc,d\0\n",
        "INVALID_FIELD_VALUE",
        "line 3: generate: field negative_prompt has the character U+0000 at 2",
    ),
    "half a pair": (GOOD + b'{"prompt": "\\udc00"}', "INVALID_FIELD_VALUE", "line 2: generate"),
    "only a header": (b"prompt,steps\n", "INVALID_FIELD_VALUE", "no row"),
    "too many": (GOOD * (MOST_REQUESTS + 1), "INVALID_FIELD_VALUE", "100001 requests"),
    "several bad": (GOOD + b'{"steps": 3}\n\n{"seed": 1}', "MISSING_REQUIRED_FIELD", "line 4"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_bad_files_are_refused_by_line_and_field(case: str):
    data, code, words = HOSTILE[case]
    with pytest.raises(PipelineError) as caught:
        check_requests(find_target("generate"), parse(data), {})
    assert caught.value.code == code
    assert words in caught.value.problem
    assert caught.value.remedy


def test_a_request_that_no_server_keeps_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.batching.requests.MOST_BYTES", 100)
    rows = listed([{"prompt": "a"}, {"prompt": "long " * 30}])
    with pytest.raises(PipelineError, match=r"request 2: generate: its parameters have \d+ bytes"):
        check_requests(find_target("generate"), rows, {})


@given(
    st.lists(st.sampled_from(["name", "list", "field"]), max_size=4), st.sampled_from("\0\ud9ab")
)
def test_what_the_server_cannot_keep_is_found_wherever_it_stands(way: list[str], bad: str):
    value: object = f"ab{bad}"
    for step in way:
        value = {"name": {f"x{bad}": 1}, "list": ["a", value], "field": {"b": value}}[step]
    found = f"U+{ord(bad):04X}"
    with pytest.raises(PipelineError, match=re.escape(found)) as caught:
        refuse_unkept({"first": "kept é 漢 \n", "second": value}, "draw")
    assert "field second" in caught.value.problem
    assert str(caught.value).isprintable()
    refuse_unkept({"first": "kept é 漢 \n 😀", "second": [1, None, {"a": 2.5}]}, "draw")


@pytest.mark.usefixtures("server", "volume")
def test_a_single_run_is_refused_too():
    with pytest.raises(PipelineError, match=r"generate: field prompt has the character U\+0000"):
        find_target("generate")(prompt="a \0")


def test_cells_mean_what_the_field_says():
    table = b'prompt,steps,loras\n[a] cat,12,\n"b",,"[{""name"": ""x"", ""weight"": 0.5}]"\n'
    rows = parse(table)
    assert rows[0].values == {"prompt": "[a] cat", "steps": "12"}
    checked = check_requests(find_target("generate"), rows[:1], {"guidance_scale": 3})
    assert checked[0].parameters == {"prompt": "[a] cat", "steps": 12, "guidance_scale": 3}


@given(st.permutations(range(4)))
def test_a_request_keeps_its_name_wherever_it_stands(order: list[int]):
    given_ones = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": "c"}]
    target = find_target("generate")
    one = check_requests(target, listed(given_ones), {})
    other = check_requests(target, listed([given_ones[place] for place in order]), {})
    assert {r.identity for r in one} == {r.identity for r in other}
    assert len({r.identity for r in one}) == 4
    assert _digest(one) == _digest(other)
    assert _digest(one) != _digest(one[:3])


def test_the_target_is_a_known_flow_and_not_a_batch():
    for name in ("nothing", "batch", "../etc", "running", "generate.generate"):
        with pytest.raises(ContractMismatchError, match="a batch can run blend, check, cine"):
            find_target(name)


def _digest(requests: list[Request]) -> str:
    return sorted_digest(sorted(one.identity for one in requests))


def test_files_come_from_allowed_places(volume: Path, tmp_path: Path):
    outside = tmp_path / "requests.jsonl"
    outside.write_bytes(GOOD)
    with pytest.raises(PipelineError) as refused:
        read_file(str(outside))
    assert refused.value.code == "PERMISSION_DENIED"
    stored = current_store().put(GOOD, "text/plain", folder="uploads")
    assert [*read_file(stored.uri)] == [*read_file(str(_written(volume, "r.jsonl", GOOD)))]
    for link in (
        "store:cache/secret",
        "store:uploads/../x",
        "store:outputs/ab/" + "0" * 64 + ".txt",
    ):
        with pytest.raises(PipelineError) as refused:
            read_file(link)
        assert refused.value.code in ("PERMISSION_DENIED", "FILE_NOT_FOUND")


def _written(volume: Path, name: str, data: bytes) -> Path:
    path = volume / "uploads" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- in this process --------------------------------------------------------------------------


def small(volume: Path, name: str = "small.png", shift: int = 0) -> str:
    """A tiny picture where runs may read it."""
    path = volume / "uploads" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(PHOTO).crop((200 + shift, 60, 232 + shift, 92)).save(path)
    return str(path)


def graded(image: str, colour: str, grain: float = 0.0) -> dict[str, object]:
    look = {"stage_type": "grade", "name": "look", "parameters": {"colour": colour}}
    return {"call_input": {"image": image}, "stages": [look], "parameters": {"grain": grain}}


def run_batch(**called: object) -> tuple[object, BatchReport]:
    state = batch(**called, return_state=True)
    return state, load_report(str(state.state_details.flow_run_id))


def states(report: BatchReport) -> list[str]:
    return [f"{o.state} before" if o.reused else o.state for o in report.outcomes]


def colours_of(run_ids: list[str]) -> list[object]:
    manifests = [load_manifest(run_id) for run_id in run_ids]
    return [manifest.stages[-1].parameters["colour"] for manifest in manifests]


@pytest.mark.usefixtures("server")
def test_one_failed_request_stops_no_other_and_the_next_batch_runs_only_it(volume: Path):
    image, late = small(volume), volume / "uploads" / "late.png"
    requests = [graded(image, "warm"), graded(str(late), "warm"), graded(image, "cool")]
    state, report = run_batch(flow="pipeline", requests=requests, where="here")
    assert state.is_failed()
    assert states(report) == ["succeeded", "failed", "succeeded"]
    told = "[FILE_NOT_FOUND] 1 of 3 requests did not succeed: request 2: [FILE_NOT_FOUND]"
    assert state.message.startswith(told)
    (failure,) = report.failures()
    assert failure["code"] == "FILE_NOT_FOUND"
    assert failure["remedy"] == "correct the path"
    small(volume, "late.png", shift=8)
    state, report = run_batch(flow="pipeline", requests=requests, where="here")
    assert state.is_completed()
    assert states(report) == ["succeeded"] * 3
    manifests = [load_manifest(outcome.flow_run_id) for outcome in report.outcomes]
    assert [m.stages[0].status for m in manifests] == ["cached", "done", "cached"]
    result = state.result()
    assert result.data["batch"]["succeeded"] == 3
    assert result.data["failures"] == []
    (sheet,) = result.artifacts
    assert load_image(sheet).shape[1] > 2 * LEGIBLE_CELL


@pytest.mark.usefixtures("server")
def test_failures_can_be_allowed(volume: Path):
    requests = [graded(small(volume), "warm"), graded("/etc/passwd", "warm")]
    result = batch(flow="pipeline", requests=requests, allow_failures=True, shards=True)
    assert "without workers there are no shards" in result.data["shards"]
    assert result.data["batch"] | {"key": ""} == {
        "key": "", "ran": "here", "requests": 2, "succeeded": 1, "failed": 1, "cancelled": 0,
        "unfinished": 0, "reused": 0,
    }  # fmt: skip
    (failure,) = result.data["failures"]
    assert (failure["request"], failure["code"]) == ("request 2", "PERMISSION_DENIED")


@pytest.mark.usefixtures("server")
def test_a_batch_is_replayed_by_its_requests(volume: Path, capsys: pytest.CaptureFixture[str]):
    requests = [graded(small(volume), "warm"), graded("/etc/passwd", "warm")]
    requests.append(graded(small(volume), "cool"))
    result = batch(flow="pipeline", requests=requests, allow_failures=True)
    of_requests = requests_of(find_run(str(result.data["flow_run_id"])))
    looks = [one.parameters["stages"][0]["parameters"]["colour"] for one in of_requests]
    assert looks == ["warm", "cool"]
    for one in of_requests:
        again = pipeline(**one.parameters)
        (before,), (after,) = one.manifest.results, again.results
        assert before.sha256 == after.sha256
    assert "1 requests did not succeed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_grid_makes_a_sheet_for_each_z_with_labelled_axes(volume: Path):
    image = small(volume)
    looks = [
        [{"stage_type": "grade", "name": "look", "parameters": {"colour": colour}}]
        for colour in ("warm", "cool", "none")
    ]
    result = batch(
        flow="pipeline",
        grid={
            "stages": looks,
            "parameters": [{"grain": 0.1}, {"grain": 0.6}],
            "seed": [1, 2],
            "call_input": [{"image": image}],
        },
        z="parameters",
        y="seed",
        x="stages",
    )
    *sheets, everything = result.artifacts
    assert len(sheets) == 2
    assert result.results == result.artifacts
    keys = [artifact.key for artifact in artifacts_of(str(result.data["flow_run_id"]))]
    assert {f"file-{sheet.sha256[:12]}" for sheet in result.results} <= set(keys)
    stages = load_manifest(result.data["flow_run_id"]).stages
    assert [entry.stage_type for entry in stages] == ["axes", "axes", "contact"]
    assert stages[0].parameters["rows"] == ["seed 1", "seed 2"]
    assert [label.count("warm") for label in stages[0].parameters["columns"]] == [1, 0, 0]
    assert stages[0].parameters["title"] == 'parameters {"grain": 0.1}, call_input ' + json.dumps(
        {"image": image}
    )
    assert "0.6" in stages[1].parameters["title"]
    made = {}
    for outcome in load_report(result.data["flow_run_id"]).outcomes:
        of_cell = load_manifest(outcome.flow_run_id).parameters
        colour = of_cell["stages"][0]["parameters"]["colour"]
        cell = of_cell["parameters"]["grain"], of_cell["seed"], colour
        made[cell] = outcome.results[0].sha256
    shown = [made[0.1, seed, colour] for seed in (1, 2) for colour in ("warm", "cool", "none")]
    assert len(set(made.values())) == 12
    assert list(stages[0].sources) == shown
    assert load_image(sheets[0]).shape == load_image(sheets[1]).shape
    assert load_image(everything).size > 0


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_requests_without_a_seed_get_one_that_a_grid_shares(volume: Path):
    image = small(volume)
    request = graded(image, "warm", grain=0.5)
    listed_runs = batch(flow="pipeline", requests=[request, request])
    grid = {name: [value] for name, value in request.items()}
    grid["parameters"].append({"grain": 0.7})
    in_grid = batch(flow="pipeline", grid=grid)
    again = batch(flow="pipeline", requests=[request, request], again=True)
    seeds = []
    for result in (listed_runs, in_grid, again):
        report = load_report(result.data["flow_run_id"])
        seeds.append([load_manifest(o.flow_run_id).parameters["seed"] for o in report.outcomes])
    assert seeds[0][0] != seeds[0][1]
    assert seeds[1][0] == seeds[1][1]
    assert not set(seeds[0]) & set(seeds[2])


@pytest.mark.usefixtures("server")
def test_the_page_of_a_batch_shows_a_table_with_pictures(volume: Path):
    requests = [graded(small(volume), "warm"), graded("/etc/passwd", "warm")]
    result = batch(flow="pipeline", requests=requests, allow_failures=True)
    (table,) = [
        str(artifact.data)
        for artifact in artifacts_of(result.data["flow_run_id"])
        if artifact.key == "requests"
    ]
    first, second = table.splitlines()[2:]
    assert "| succeeded |" in first
    assert "| ![](data:image/webp;base64," in first
    assert "| failed |" in second
    assert "| `PERMISSION_DENIED: " in second


@pytest.mark.usefixtures("server")
def test_the_form_can_ask_what_would_run(volume: Path):
    requests = [graded(small(volume), "warm")] * 7
    result = batch(flow="pipeline", requests=requests, check=True)
    told = result.data["check"]
    assert (told["flow"], told["requests"], len(told["first"])) == ("pipeline", 7, 5)
    assert told["first"][4]["where"] == "request 5"
    assert "costs nothing" in told["costs"]
    (page,) = [
        str(artifact.data)
        for artifact in artifacts_of(result.data["flow_run_id"])
        if artifact.key == "check"
    ]
    assert page.startswith("7 requests of `pipeline`; nothing has run")
    assert "| `request 5` |" in page
    assert result.artifacts == ()
    with pytest.raises(MissingFileError):
        load_report(result.data["flow_run_id"])


@pytest.mark.usefixtures("server", "volume")
def test_nothing_starts_when_any_request_is_bad(volume: Path):
    path = _written(
        volume, "bad.csv", b"image,quality_preset\n%s,low\nx.png,lowest\n" % small(volume).encode()
    )
    state = batch(flow="enhance", file=str(path), return_state=True)
    assert state.is_failed()
    assert (
        "[INVALID_FIELD_VALUE] line 3: enhance: field quality_preset is 'lowest'" in state.message
    )
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
        below = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [run.id]}))
    assert below == []


@pytest.mark.usefixtures("server", "volume")
def test_one_source_of_requests_is_given():
    for called in ({}, {"requests": [{}], "grid": {"a": [1]}}, {"requests": []}, {"grid": {}}):
        state = batch(flow="enhance", **called, return_state=True)
        assert state.is_failed()
        assert "Fix: " in state.message


@pytest.mark.usefixtures("server")
def test_a_batch_asked_to_stop_ends_cancelled_and_goes_on_later(
    volume: Path, monkeypatch: pytest.MonkeyPatch
):
    image = small(volume)
    requests = [graded(image, colour) for colour in ("warm", "cool", "none")]
    ended = dispatching.Dispatch.finished

    def stop_after_first(self: dispatching.Dispatch, *args: object) -> None:
        request_stop()
        ended(self, *args)

    monkeypatch.setattr(dispatching.Dispatch, "finished", stop_after_first)
    try:
        state, report = run_batch(flow="pipeline", requests=requests)
    finally:
        clear_stop()
    assert state.is_cancelled()
    assert states(report) == ["succeeded"]
    assert report.counts()["unfinished"] == 2
    monkeypatch.setattr(dispatching.Dispatch, "finished", ended)
    state, report = run_batch(flow="pipeline", requests=requests)
    assert states(report) == ["succeeded"] * 3
    assert colours_of([o.flow_run_id for o in report.outcomes]) == ["warm", "cool", "none"]


# --- on workers -------------------------------------------------------------------------------


def deployed(client, flow: str, name: str, pool: str, schedules=None) -> None:
    client.create_deployment(
        client.create_flow_from_name(flow),
        name=name,
        entrypoint=f"flows.{flow}.{flow}",
        work_pool_name=pool,
        enforce_parameter_schema=False,
        schedules=schedules,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, server: None) -> Path:
    """A volume for one worker; `pipeline` is deployed to its pool, `enhance` to one without any."""
    with get_client(sync_client=True) as client:
        for pool, pool_type in (("one-place", "safelight-gpu"), ("nobody", "process")):
            client.create_work_pool(WorkPoolCreate(name=pool, type=pool_type))
        deployed(client, "pipeline", "pipeline", "one-place")
        deployed(client, "shard", "shard", "one-place")
        deployed(client, "batch", "in-its-own-way", "one-place")
        deployed(client, "enhance", "enhance", "nobody")
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def worker(root: Path) -> Iterator[None]:
    """A worker with one place."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "one-place"],
        env={
            **os.environ,
            "PREFECT_API_URL": PREFECT_API_URL.value(),
            "VOLUME_ROOT": str(root),
            "SAFELIGHT_POOL_DEVICES": "cpu:1",
        },
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield
    process.terminate()
    process.wait(60)


@pytest.fixture
def shared_volume(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    from safelight.settings import settings

    monkeypatch.setenv("VOLUME_ROOT", str(root))
    settings.cache_clear()
    current_store.cache_clear()
    yield root
    settings.cache_clear()
    current_store.cache_clear()


def children(key: str):
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG + key]))
        return client.read_flow_runs(flow_run_filter=wanted)


@pytest.mark.usefixtures("worker")
def test_workers_run_the_requests_and_only_failed_ones_again(shared_volume: Path):
    image = small(shared_volume)
    requests = [graded(image, "warm"), graded("/etc/passwd", "warm"), graded(image, "cool")]
    called = {"flow": "pipeline", "requests": requests, "where": "workers", "parallel": 2}
    state, report = run_batch(**called, key="some-fail")
    assert states(report) == ["succeeded", "failed", "succeeded"]
    names = [child.name for child in children("some-fail")]
    assert {name.rpartition(" · ")[2] for name in names} == {f"request {n}" for n in (1, 2, 3)}
    assert any(re.fullmatch(r"pipeline passwd · \d+ · request 2", name) for name in names)
    assert report.outcomes[1].error.code == "PERMISSION_DENIED"
    assert colours_of([report.outcomes[0].flow_run_id, report.outcomes[2].flow_run_id]) == [
        "warm",
        "cool",
    ]
    with get_client(sync_client=True) as client:
        for run in children("some-fail"):
            parent = client.read_task_run(run.parent_task_run_id)
            assert parent.flow_run_id == state.state_details.flow_run_id
    state, report = run_batch(**called, key="some-fail")
    assert states(report) == ["succeeded before", "failed", "succeeded before"]
    assert len(children("some-fail")) == 4
    lost = report.outcomes[0].results[0]
    current_store().backend.delete(lost.uri.removeprefix("store:"))
    state, report = run_batch(**called, key="some-fail")
    assert states(report) == ["succeeded", "failed", "succeeded before"]


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_killed_batch_finds_its_runs_again(shared_volume: Path):
    image = small(shared_volume)
    requests = [graded(image, colour, 0.2) for colour in ("warm", "cool", "none")]
    called = {"flow": "pipeline", "requests": requests, "parallel": 2, "key": "killed"}
    process = subprocess.Popen(
        [sys.executable, "-c", f"from flows.batch import batch\nbatch(**{called!r})"],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(run.state.is_completed() for run in children("killed")):
        assert process.poll() is None, "the batch ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, report = run_batch(**called)
    assert {o.state for o in report.outcomes} == {"succeeded"}
    assert report.outcomes[0].reused or report.outcomes[1].reused
    runs = children("killed")
    assert len(runs) == 3
    assert {run.state_name for run in runs} == {"Completed"}


@pytest.mark.usefixtures("worker")
def test_shards_give_what_a_run_for_each_request_gives(shared_volume: Path):
    image = small(shared_volume, "sharded.png", shift=16)
    looks = [graded(image, colour, grain) for colour in ("warm", "cool") for grain in (0.1, 0.3)]
    requests = [{**look, "seed": 5} for look in looks] + [graded("/etc/passwd", "warm")]
    called = {"flow": "pipeline", "requests": requests, "parallel": 1, "where": "workers"}
    state, report = run_batch(**called, key="in-shards", shards=True)
    assert states(report) == ["succeeded"] * 4 + ["failed"]
    assert "request 5: [PERMISSION_DENIED]" in state.message
    shards = children("in-shards")
    assert {run.state_name for run in shards} == {"Completed"}
    assert 1 < len(shards) < len(requests)
    own = [outcome.flow_run_id for outcome in report.outcomes]
    assert len(set(own)) == len(requests)
    assert not set(own) & {str(run.id) for run in shards}
    assert colours_of(own[:4]) == ["warm", "warm", "cool", "cool"]
    assert load_manifest(own[4]).error.code == "PERMISSION_DENIED"
    again = find_run(own[0])
    assert again.flow == "pipeline"
    _, each = run_batch(**called, key="not-in-shards", again=True)
    for sharded, alone in zip(report.outcomes[:4], each.outcomes[:4], strict=True):
        assert sharded.results[0].sha256 == alone.results[0].sha256
        assert load_manifest(alone.flow_run_id).stages[0].status == "cached"
    state, report = run_batch(**called, key="in-shards", shards=True)
    assert states(report) == ["succeeded before"] * 4 + ["failed"]
    assert report.outcomes[4].flow_run_id != own[4]
    assert len(children("in-shards")) == len(shards) + 1


@pytest.mark.usefixtures("worker")
def test_a_shard_whose_process_is_killed_goes_on_with_what_is_missing(shared_volume: Path):
    image = small(shared_volume, "killed.png", shift=24)
    requests = [{**graded(image, "warm", 0.1), "seed": seed} for seed in range(12)]
    called = {"flow": "pipeline", "requests": requests, "parallel": 1, "key": "shot"}

    def kill_in_the_middle() -> None:
        folder = shared_volume / "outputs" / "manifests"
        before = set(folder.glob("*")) if folder.exists() else set()
        while len(set(folder.glob("*")) - before) < 2:
            time.sleep(0.01)
        for process in psutil.process_iter(["cmdline"]):
            if "safelight.pool.child" in (process.info["cmdline"] or []):
                parents = [str(each) for each in process.parents()]
                if any(f"pid={os.getpid()}" in each for each in parents):
                    process.kill()

    shooter = threading.Thread(target=kill_in_the_middle)
    shooter.start()
    state, report = run_batch(**called, shards=True)
    shooter.join()
    assert state.is_completed(), state
    assert states(report) == ["succeeded"] * 12
    runs = children("shot")
    assert {run.state_name for run in runs} == {"Completed"}
    manifests = [load_manifest(outcome.flow_run_id) for outcome in report.outcomes]
    assert [manifest.parameters["seed"] for manifest in manifests] == list(range(12))


@pytest.mark.usefixtures("worker")
def test_a_cancelled_batch_cancels_its_shards(shared_volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.batching.shards.FIRST", MOST)  # one that lasts
    image = Path(small(shared_volume, "stopped.png"))
    Image.open(PHOTO).save(image)
    requests = [{**graded(str(image), "cool", 0.1), "seed": seed} for seed in range(160)]
    called = {"flow": "pipeline", "requests": requests, "parallel": 1, "key": "stopped"}
    begun = threading.Event()

    def cancel() -> None:
        with get_client(sync_client=True) as client:
            while not (runs := children("stopped")):
                time.sleep(0.05)
            task = client.read_task_run(runs[0].parent_task_run_id)
            begun.set()
            client.set_flow_run_state(task.flow_run_id, Cancelling(), force=True)

    canceller = threading.Thread(target=copy_context().run, args=(cancel,))
    canceller.start()
    state, report = run_batch(**called, shards=True)
    canceller.join()
    assert begun.is_set()
    assert state.is_cancelled()
    assert report.counts()["unfinished"] > 0
    while any(not run.state.is_final() for run in children("stopped")):
        time.sleep(0.1)
    assert "Cancelled" in {run.state_name for run in children("stopped")}
    _, report = run_batch(**{**called, "requests": requests[:3]}, shards=True)
    assert states(report)[-1].startswith("succeeded")
    assert {outcome.state for outcome in report.outcomes} == {"succeeded"}


@pytest.mark.parametrize(
    ("count", "took", "cut"),
    [(23, None, False), (24, None, True), (24, 59.0, True), (24, 61.0, False), (300, 600.0, False)],
)
def test_many_short_requests_share_runs_unless_told_otherwise(
    volume: Path, count: int, took: float | None, cut: bool
):
    requests = [Request(n, f"request {n}", {"seed": n}, "", n) for n in range(count)]
    if took is not None:
        ended = BatchOutcome(number=0, where="request 0", state="succeeded", seconds=took)
        Durations("generate").learn(requests, [ended])
    assert are_worth_it("generate", requests) is cut


@pytest.mark.usefixtures("worker")
def test_a_batch_is_cut_into_shards_and_goes_on_as_it_began(shared_volume: Path):
    image = small(shared_volume, "many.png", shift=40)
    requests = [{**graded(image, "warm"), "seed": seed} for seed in range(24)]
    _, report = run_batch(flow="pipeline", requests=requests, key="many")
    assert states(report) == ["succeeded"] * 24
    assert all(is_shard(run) for run in children("many"))
    assert len(children("many")) < 24
    with get_client(sync_client=True) as client:
        alone = client.read_deployment_by_name("pipeline/pipeline")
        way = partial(_way_of, client, alone, requests)
        assert way("began-anew") is not None
        tags = [f"{TAG}began-alone"]
        run = client.create_flow_run_from_deployment(alone.id, parameters=requests[0], tags=tags)
        assert way("began-alone") is None
        client.set_flow_run_state(run.id, Cancelled(), force=True)
        assert way("began-alone") is not None


def _way_of(client: SyncPrefectClient, target: DeploymentResponse, rows: list, key: str):
    """The deployment of shards that a batch of that key would use."""
    checked = check_requests(pipeline, listed(rows), {})
    dispatch = dispatching.Dispatch(pipeline, checked, key, 4, 1, None)
    return dispatch._shards(BatchRuns(client, key), target)


@given(
    seconds=st.lists(st.floats(0, 1000), max_size=60),
    left=st.integers(1, 100_000),
    places=st.integers(1, 64),
)
def test_sizes_of_shards(seconds: list[float], left: int, places: int):
    sizes = Sizes()
    for each in seconds:
        sizes.took(each)
    count = sizes.next(left, places)
    assert 1 <= count <= min(left, MOST)
    assert count == 1 or count <= -(-left // (2 * places))
    if seconds and min(seconds[-40:]) > 60:
        assert count == 1


@pytest.mark.usefixtures("server", "volume")
@pytest.mark.parametrize(
    "place", ["outputs/manifests/x.json", f"outputs/batches/shards/{'0' * 8}-{'0' * 27}.json"]
)
def test_a_shard_reads_shards_alone(place: str):
    state = shard(requests=place, return_state=True)
    assert state.is_failed()
    assert "[INVALID_FIELD_VALUE]" in state.message


@pytest.mark.usefixtures("worker")
def test_a_batch_never_waits_for_its_own_place(shared_volume: Path):
    requests = [graded(small(shared_volume), "cool")]
    called = {"flow": "pipeline", "requests": requests}
    run = run_deployment("batch/in-its-own-way", parameters=called, timeout=120, poll_interval=0.5)
    assert run.state.is_completed(), run.state
    assert load_report(run.id).ran == "here"
    refused = run_deployment(
        "batch/in-its-own-way",
        parameters={**called, "where": "workers"},
        timeout=120,
        poll_interval=0.5,
    )
    assert refused.state.is_failed()
    assert "[CONTRACT_MISMATCH]" in refused.state.message
    assert "it would wait for its own place" in refused.state.message


@pytest.fixture(scope="module")
def own_pool(root: Path) -> str:
    """A deployment of `batch` on a pool of the type for batches."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="own", type="safelight-batch"))
        deployed(client, "batch", "own", "own")
    return "batch/own"


@contextmanager
def batch_worker(root: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "own"],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "VOLUME_ROOT": str(root)},
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.soak
@pytest.mark.usefixtures("worker")
def test_a_batch_whose_machine_went_down_goes_on_and_makes_nothing_twice(
    shared_volume: Path, own_pool: str
):
    image = small(shared_volume)
    wanted = [graded(image, colour, 0.3) for colour in ("warm", "cool", "none")]
    called = {
        "flow": "pipeline",
        "requests": [graded("/etc/passwd", "warm", 0.3), *wanted],
        "parallel": 1,
        "allow_failures": True,
        "key": "machine",
    }
    with batch_worker(shared_volume) as first:
        run = run_deployment(own_pool, parameters=called, timeout=0)
        eventually(lambda: any(child.state.is_completed() for child in children("machine")))
        family = psutil.Process(first.pid).children()
        first.kill()
        for process in family:
            process.kill()
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(run.id).state.is_running()
    with batch_worker(shared_volume), get_client(sync_client=True) as client:
        state = eventually(
            lambda: s if (s := client.read_flow_run(run.id).state).is_final() else None
        )
    assert state.is_completed(), state
    assert states(load_report(run.id)) == ["failed", *["succeeded"] * 3]
    made = Counter(child.name for child in children("machine"))
    assert set(made.values()) == {1}
    assert len(made) == 4


@pytest.mark.soak
def test_batches_that_nobody_wants_any_more_cancel_what_they_started(
    shared_volume: Path, own_pool: str
):
    called = {"flow": "enhance", "requests": [{"image": small(shared_volume)}] * 3, "parallel": 2}
    with batch_worker(shared_volume), get_client(sync_client=True) as client:
        deleted, ended = (
            run_deployment(own_pool, parameters={**called, "key": key}, timeout=0).id
            for key in ("deleted", "ended")
        )
        started = [*until_there("deleted", 2), *until_there("ended", 2)]
        client.delete_flow_run(deleted)
        client.set_flow_run_state(ended, Failed(message="enough"), force=True)
        eventually(
            lambda: all(client.read_flow_run(one.id).state.is_cancelled() for one in started)
        )
        assert len(children("deleted")) == len(children("ended")) == 2
        assert client.read_flow_run(ended).state.message == "enough"


@pytest.mark.usefixtures("server", "volume")
def test_workers_that_are_not_there_are_not_waited_for():
    for flow in ("interpolate", "upscale_denoise_image_v1"):
        with pytest.raises(DependencyMissingError, match=f"no deployment {flow}/{flow}"):
            dispatching.find_workers(flow, "workers")
        assert dispatching.find_workers(flow, "auto") is None


@contextmanager
def beside(work) -> Iterator[None]:
    """Do something from outside while a batch runs in this thread."""
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def until_there(key: str, count: int):
    return eventually(lambda: runs if len(runs := children(key)) >= count else None)


def test_cancelling_a_batch_cancels_what_it_started_and_starts_no_more(shared_volume: Path):
    image = small(shared_volume)

    def cancel() -> None:
        first, *_ = until_there("cancelled", 2)
        with get_client(sync_client=True) as client:
            parent = client.read_task_run(first.parent_task_run_id)
            client.set_flow_run_state(parent.flow_run_id, Cancelling())

    with beside(cancel):
        state, report = run_batch(
            flow="enhance", requests=[{"image": image}] * 5, parallel=2, key="cancelled"
        )
    assert state.is_cancelled()
    assert report.counts()["unfinished"] == 5
    runs = children("cancelled")
    assert len(runs) == 2
    assert {run.state.type.value for run in runs} <= {"CANCELLED", "CANCELLING"}


@pytest.fixture
def way(root: Path) -> Iterator[Unwell]:
    """A way to the server for this process; the worker has its own."""
    with unwell(PREFECT_API_URL.value()) as way, temporary_settings({PREFECT_API_URL: way.url}):
        yield way


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("fault", [500, 429, 504, LOST])
def test_one_bad_answer_to_each_question_fails_no_batch(
    shared_volume: Path, way: Unwell, fault: Fault
):
    questions = [
        ("GET", "/deployments/name/pipeline"),
        ("POST", "/flow_runs/filter"),
        ("POST", "/task_runs/"),
        ("POST", "/create_flow_run"),
        ("POST", "/artifacts/"),
    ]
    way.headers = {"Retry-After": "0"}
    way.once_each(fault, *questions)
    key = f"unwell-{fault}"
    requests = [graded(small(shared_volume), "warm", 0.01 * len(key))]
    state, report = run_batch(flow="pipeline", requests=requests, where="workers", key=key)
    assert len(way.met) == len(questions)
    assert states(report) == ["succeeded"]
    assert state.is_completed()
    assert len(children(key)) == 1, "also when the answer that it was created got lost"


@pytest.mark.parametrize("fault", [500, LOST])
def test_cancelling_a_batch_reaches_every_run_though_questions_fail(
    shared_volume: Path, way: Unwell, fault: Fault
):
    """Each question to cancel fails once, and the creation of the last run is never confirmed."""
    key = f"cancelled-{fault}"
    created = 0

    def befalls(method: str, path: str, body: bytes) -> Fault | None:
        nonlocal created
        if method == "POST" and "/create_flow_run" in path:
            created += 1
            if created >= 3:
                request_stop()
                return LOST
        if b"its batch was cancelled" in body and path not in met:
            met.append(path)
            return fault
        return None

    met: list[str] = []
    way.fault = befalls
    image = small(shared_volume)
    try:
        state, report = run_batch(
            flow="enhance", requests=[{"image": image}] * 5, parallel=4, key=key
        )
    finally:
        clear_stop()
    assert state.is_cancelled()
    assert report.counts()["unfinished"] == 5
    runs = children(key)
    assert len(runs) == 3
    assert {run.state.type.value for run in runs} <= {"CANCELLED", "CANCELLING"}
    assert len(met) == 3


def test_faults_of_single_requests_are_told_apart(shared_volume: Path):
    from prefect.states import Cancelled, Completed, Crashed

    passing = Failed(message="X: [STORE_UNAVAILABLE] no answer. Fix: wait.")
    lasting = Failed(message="X: [INVALID_FIELD_VALUE] 3, expected 4. Fix: set it to 4.")
    fates = {
        "low": [Crashed(), Crashed()],
        "medium": [None],
        "high": [Completed()],
        "stopped": [Cancelled()],
        "moved": [passing, lasting],
    }
    images = {fate: small(shared_volume, f"{fate}.png") for fate in fates}

    def befall() -> None:
        left = {images[fate]: list(states) for fate, states in fates.items()}
        seen = set()
        deadline = time.monotonic() + 60
        while any(left.values()) and time.monotonic() < deadline:
            with get_client(sync_client=True) as client:
                for run in children("faults"):
                    if run.id in seen:
                        continue
                    seen.add(run.id)
                    state = left[run.parameters["image"]].pop(0)
                    if state is None:
                        client.delete_flow_run(run.id)
                    else:
                        client.set_flow_run_state(run.id, state, force=True)

    with beside(befall):
        state, report = run_batch(
            flow="enhance",
            requests=[{"image": image} for image in images.values()],
            key="faults",
            parallel=5,
            retries=1,
        )
    assert state.is_failed()
    assert states(report) == ["crashed", "failed", "failed", "cancelled", "failed"]
    codes = [outcome.error and outcome.error.code for outcome in report.outcomes]
    assert codes == [
        "UNKNOWN_ERROR",
        "UNKNOWN_ERROR",
        "FILE_NOT_FOUND",
        None,
        "INVALID_FIELD_VALUE",
    ]
    assert report.outcomes[4].error.remedy == "set it to 4"
    assert state.message.startswith("[UNKNOWN_ERROR] 5 of 5 requests did not succeed")


# --- backfill ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
def test_a_paused_schedule_is_filled_in_once():
    nightly = DeploymentScheduleCreate(
        schedule=CronSchedule(cron="0 2 * * *", timezone="UTC"),
        active=False,
        slug="nightly",
        parameters={"seed": 5},
    )
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="later", type="process"))
        deployed(client, "generate", "generate", "later", schedules=[nightly])
        since = datetime(2026, 3, 1, tzinfo=UTC)
        until = since + timedelta(days=3)
        filled = backfill("generate", since, until, "nightly")
        assert [run.due for run in filled] == [since + timedelta(days=n, hours=2) for n in range(3)]
        assert [run.created for run in filled] == [True] * 3
        more = backfill("generate/generate", since, until + timedelta(days=1))
        assert [run.created for run in more] == [False] * 3 + [True]
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["backfill"]))
        )
    assert {run.name for run in runs} == {run.name for run in more}
    assert {run.parameters["seed"] for run in runs} == {5}
    assert sorted(run.expected_start_time for run in runs) == [run.due for run in more]


@pytest.mark.usefixtures("server")
def test_a_backfill_that_cannot_be_meant_is_refused():
    now = datetime.now(UTC)
    with pytest.raises(InvalidFieldValueError, match="until not in the future"):
        backfill("generate", now, now + timedelta(days=1))
    with pytest.raises(InvalidFieldValueError, match="since before"):
        backfill("generate", now, now - timedelta(days=1))
    with pytest.raises(DependencyMissingError, match="no deployment nothing/nothing"):
        backfill("nothing", now, now)
    with pytest.raises(DependencyMissingError, match="no schedule weekly; it has nightly"):
        backfill("generate", now, now, "weekly")
    with pytest.raises(InvalidFieldValueError, match="more than 500"):
        backfill("generate", now - timedelta(days=900), now)
