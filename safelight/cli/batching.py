"""A batch from a file or folder of this machine, and what became of each of its requests."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import JsonValue

from safelight.cli.copies import Copies
from safelight.cli.printing import (
    outcome_facts,
    show_json,
    show_line,
    show_outcome,
    show_rows,
    watching,
)
from safelight.cli.runs import session
from safelight.cli.server import configured_api_url
from safelight.client.contracts import Contract
from safelight.client.requests import CHECKING, LARGEST_FILE, READING, CheckedRequest
from safelight.client.runs import RunEnd
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.provenance.batches import BatchReport, load_report
from safelight.store.disk import disk_errors
from safelight.store.store import current_store

GATHERING, PLANNING = "flows.batching.gathering", "flows.batching.planning"
"""Read files of requests and folders; loaded by name, since the command sits below the flows."""


class RequestFile(NamedTuple):
    """A file of requests and what it asks for."""

    data: bytes
    """Whole."""
    media_type: str
    """MIME type under which it is kept."""
    requests: Sequence[CheckedRequest]
    """In the order of the file."""
    left_aside: Sequence[str] = ()
    """Of a folder or zip: files that take no part, each with its reason."""


def read_requests(
    file: Path,
    target: Contract,
    shared: Mapping[str, JsonValue],
    sheet: str | None,
    *,
    read_prompts: bool = False,
    check: bool = False,
) -> RequestFile:
    """A file of requests, refused where it cannot be one: what is kept, others may read.

    The pictures of a folder or zip are put into the store, and the file names them there.

    Args:
        file: as it was named.
        target: the flow that will run them.
        shared: parameters of every request; a request's own win.
        sheet: of a spreadsheet; None for the first that is shown.
        read_prompts: of a folder or zip: take prompts out of the pictures' metadata.
        check: keep nothing, so that the file's bytes are not to be run.

    Raises:
        MissingFileError: there is no such file.
        InvalidFieldValueError: it is too large.
        PipelineError: as `parse` and `check_requests` say.
    """
    try:
        there = file.is_file() or file.is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        raise MissingFileError(f"there is no file {file} of requests", "correct the path")
    gathered = import_module(GATHERING).gather_local(
        file, target.flow.name, shared, sheet=sheet, read_prompts=read_prompts, keep=not check
    )
    if gathered is not None:
        return RequestFile(
            gathered.lines,
            "text/plain",
            cast("Sequence[CheckedRequest]", gathered.requests),
            [str(each) for each in gathered.left_aside],
        )
    with disk_errors(file), file.open("rb") as opened:
        data = opened.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise InvalidFieldValueError(
            f"{file} has {file.stat().st_size} bytes, at most {LARGEST_FILE} are read",
            "split it into several batches",
        )
    reading = import_module(READING)
    rows = reading.parse(data, tuple(target.described), sheet, reading.is_text(file))
    checking = import_module(CHECKING)
    requests = checking.check_requests(checking.find_target(target.flow.name), rows, shared)
    media_type = reading.workbook_type(data) or "text/plain"
    return RequestFile(data, media_type, cast("Sequence[CheckedRequest]", requests))


def without_seed_rows(shared: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The parameters of every request without `10..19`, which is a row of seeds and no seed."""
    rows = isinstance(seed := shared.get("seed"), str) and ".." in seed
    return {name: value for name, value in shared.items() if not (rows and name == "seed")}


def show_check(flow: str, file: RequestFile, *, as_json: bool) -> None:
    """What a file asks for, when nothing is to run."""
    plan = import_module(PLANNING).plan_of(flow, file.requests)
    if as_json:
        aside: list[JsonValue] = [*file.left_aside]
        show_json({**plan.told(), "left_aside": aside})
        return
    show_line(f"{plan.requests} requests of {plan.flow}; nothing has run")
    show_rows(plan.headings, plan.rows)
    show_line(plan.takes)
    show_line(plan.costs)
    show_left_aside(file)


def show_left_aside(file: RequestFile) -> None:
    """Files of a folder or zip that take no part."""
    if file.left_aside:
        show_line(f"left aside: {len(file.left_aside)}")
    for each in file.left_aside:
        show_line(f"  {each}")


def run_batch(
    file: RequestFile,
    parameters: dict[str, JsonValue],
    copies: Copies,
    *,
    as_json: bool = False,
) -> RunEnd:
    """Run the flow `batch` on a file's content and show each request.

    Without a configured server there are no workers, so the requests run one by one.
    """
    stored = current_store().put(file.data, file.media_type, folder="uploads")
    current_store().settle()
    if not as_json:
        show_left_aside(file)
    asked = {"file": stored.uri, **parameters}
    return run_requests(asked, copies, file.left_aside, as_json=as_json)


def run_requests(
    parameters: dict[str, JsonValue],
    copies: Copies,
    left_aside: Sequence[str] = (),
    *,
    as_json: bool = False,
) -> RunEnd:
    """Run the flow `batch` and show each request; see `run_batch`."""
    if configured_api_url() is None:
        parameters = {**parameters, "where": "here"}
    with session() as prefect, watching("batch", quiet=as_json) as on_progress:
        outcome = prefect.run("batch", parameters, on_progress)
    try:
        report = load_report(outcome.flow_run.id)
    except MissingFileError:  # it was refused before anything ran; the outcome says why
        report = None
    if as_json:
        aside: list[JsonValue] = [*left_aside]
        more: dict[str, JsonValue] = {"left_aside": aside} if aside else {}
        if report is not None:
            more["places"] = [
                {"request": one.where, "places": [*copies.of_request(report, one)]}
                for one in report.each()
            ]
            zipped = copies.zipped(report)
            more["zip"] = str(zipped) if zipped else None
            page = copies.page(report)
            more["html"] = str(page) if page else None
        show_json({**outcome_facts(outcome, copies, report), **more})
        return outcome
    if report is not None:
        _show(report, copies)
    else:
        show_line("no request ran")
    show_outcome(outcome, copies)
    zipped = copies.zipped(report) if report is not None else None
    if zipped is not None:
        show_line(f"zip: {zipped}")
    page = copies.page(report) if report is not None else None
    if page is not None:
        show_line(f"page: {page}")
    return outcome


def _show(report: BatchReport, copies: Copies) -> None:
    show_line(f"{report.requests} requests of {report.flow}")
    rows: list[tuple[str, ...]] = []
    for outcome in report.each():
        state = f"{outcome.state} before" if outcome.reused else outcome.state
        made = copies.of_request(report, outcome)
        if outcome.error is not None:
            made.append(f"{outcome.error.code} {outcome.error.problem}")
            made.append(f"Fix: {outcome.error.remedy}")
        rows.append((outcome.where, state, f"{outcome.seconds:.1f}", "\n".join(made)))
    show_rows(("request", "state", "seconds", "result"), rows)
