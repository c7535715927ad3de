"""Many runs of one flow: from a file, a list or a grid of parameters."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from pydantic import Field, JsonValue

from flows.batching.boarding import boarding
from flows.batching.catalogue import Catalogue
from flows.batching.continuing import Continuing
from flows.batching.dispatching import Dispatch, Where, find_workers
from flows.batching.durations import Durations
from flows.batching.exporting import Exporting, export_template
from flows.batching.gathering import gather_given
from flows.batching.laying_out import (
    SheetStyle,
    check_cell,
    lay_out_all,
    lay_out_grid,
    sheet_axes,
)
from flows.batching.notices import label_batch
from flows.batching.planning import plan_of, publish_plan
from flows.batching.reading.files import read_file
from flows.batching.reading.rows import Row
from flows.batching.requests import (
    MOST_REQUESTS,
    check_words,
    checked_requests,
    find_target,
    grid_rows,
    listed,
    sorted_digest,
)
from flows.batching.spreading import spread_axes, with_seed_axis
from flows.batching.tabling import publish_tables
from flows.running.checking import RecordedFlow
from flows.running.recorded import recorded_flow
from flows.running.signature import parameters_model
from flows.running.subflows import PartFailedError
from safelight.errors import InvalidFieldValueError, MissingRequiredFieldError, PipelineError
from safelight.exports.template import LONGEST_TEMPLATE
from safelight.progress import (
    StopReason,
    StopRequestedError,
    stop_reason,
    stop_requested,
    watching,
)
from safelight.provenance.batches import BatchReport, reported
from safelight.store.artifact import ArtifactRef
from tasks.base.recorder import recorder
from tasks.sheets import Form

NOTHING: dict[str, JsonValue] = {}
NAMED_FAILURES = 5
"""Failures that the state's message names; the report names all."""
MOST_LEFT_ASIDE = 200
"""Files of a folder that log and result name; `safelight batch FOLDER --check` names all."""
Axis = Annotated[str | None, Field(max_length=100)]


class BatchIncompleteError(PartFailedError):
    """Requests of a batch failed; all others are finished. Its code is that of most of them."""


@recorded_flow
def batch(
    flow: Annotated[
        str, Field(min_length=1, max_length=100, description="The flow that each request runs.")
    ],
    file: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="Requests: a table (CSV, .xlsx, .ods) whose header names parameters, JSON "
            "objects, or a prompt a line; or a folder or zip of pictures or clips, each a request. "
            "Under the volume root, or the store: link of a file.",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=100,
            description="Sheet of a spreadsheet. None: the first that is shown.",
        ),
    ] = None,
    read_prompts: Annotated[
        bool,
        Field(
            description="Of a folder or zip: pictures without a prompt beside them have the one in "
            "their metadata."
        ),
    ] = False,
    requests: Annotated[
        list[dict[str, JsonValue]] | None,
        Field(description="Requests, each an object of parameters; instead of a file."),
    ] = None,
    grid: Annotated[
        dict[str, list[JsonValue]] | None,
        Field(
            description="Every combination of these values, instead of a file: "
            '{"steps": [20, 30], "seed": ["10..19"]}. {"every": PROMPT} in a list of prompts '
            "stands for all combinations of a prompt with choices."
        ),
    ] = None,
    parameters: Annotated[
        dict[str, JsonValue],
        Field(description="Given to every request; a request's own values win."),
    ] = NOTHING,
    check: Annotated[
        bool,
        Field(
            description="Run nothing: say how many requests there are, the first of them, and what "
            "they will take and cost."
        ),
    ] = False,
    parallel: Annotated[
        int, Field(ge=1, le=64, description="Requests that are under way at once.")
    ] = 4,
    retries: Annotated[
        int,
        Field(ge=0, le=10, description="More tries for a request whose failure may pass."),
    ] = 1,
    where: Annotated[
        Where,
        Field(
            description="On the workers of the flow's deployment, here one by one, or whichever "
            "of them is possible."
        ),
    ] = "auto",
    shards: Annotated[
        bool | None,
        Field(
            description="On workers: run many short requests in one flow run, each with a manifest "
            "of its own. False: a flow run for each. None: shards from 24 requests on, unless they "
            "take a minute each."
        ),
    ] = None,
    key: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._-]{1,100}$",
            description="Batches of the same key share their finished requests. None: all "
            "batches that ask for the same.",
        ),
    ] = None,
    again: Annotated[
        bool, Field(description="Run finished requests again, with other seeds.")
    ] = False,
    export: Annotated[
        str | None,
        Field(
            max_length=LONGEST_TEMPLATE,
            description="Template by which each result is also copied to exports/ beside the "
            "store: {batch}/{prompt:40}-{number:04}. None: as SAFELIGHT_EXPORT_NAMES says.",
        ),
    ] = None,
    allow_failures: Annotated[
        bool,
        Field(description="End as completed though requests failed; the result lists them."),
    ] = False,
    x: Annotated[Axis, Field(description="Key of the grid that runs across a sheet.")] = None,
    y: Annotated[Axis, Field(description="Key of the grid that runs down a sheet.")] = None,
    z: Annotated[Axis, Field(description="Key of the grid with a sheet for each value.")] = None,
    sheets: Annotated[
        bool, Field(description="Lay out what was made on sheets. False: the results alone.")
    ] = True,
    cell: Annotated[
        int | None,
        Field(
            ge=32,
            le=1024,
            description="Side of a picture on sheets, px. None: as the largest, 128 to 256.",
        ),
    ] = None,
    title: Annotated[str, Field(max_length=200, description="Written above each sheet.")] = "",
    legends: Annotated[
        bool, Field(description="The values of a grid beside its rows and above its columns.")
    ] = True,
    sheet_form: Annotated[Form, Field(description="Of the sheets' files.")] = "png",
) -> list[ArtifactRef]:
    """Run a flow for every request of a file, a list or a grid, and lay out what it makes."""
    target = find_target(flow)
    template = export_template(export, parameters_model(target.fn).model_fields)
    _check_source(file, sheet, requests, grid, read_prompts=read_prompts)
    if grid is not None:
        grid, parameters = with_seed_axis(grid, parameters)
        grid = spread_axes(grid, MOST_REQUESTS)
    order = sheet_axes(grid or {}, x, y, z)
    style = SheetStyle(title, legends, cell, sheet_form)
    if sheets and grid:
        check_cell(grid, order, style)
    continuing = Continuing()
    before = None if check else continuing.found()
    if before is not None:
        name, checked = before
    else:
        if file is not None:
            rows = _from_file(file, sheet, target, parameters, read_prompts=read_prompts)
        else:
            rows = grid_rows(grid, parameters) if grid is not None else listed(requests or [])
        checked = Catalogue(checked_requests(target, rows, parameters))
        name = _run_id() if again else key or sorted_digest(checked.identities())
    if "seed" in parameters_model(target.fn).model_fields:
        checked.seed_by(name)
    if before is None:
        check_words(checked)
    if check:
        plan = plan_of(target.name, checked)
        publish_plan(plan)
        recorder().answer["check"] = plan.told()
        return []
    if before is None:
        continuing.keep(name, checked)
    deployment = find_workers(flow, where)
    get_run_logger().info(
        "batch %s: %d requests %s",
        name,
        len(checked),
        f"in work pool {deployment.work_pool_name}" if deployment else "in this process",
    )
    if shards and deployment is None:
        told = "without workers there are no shards: requests run one by one in this process"
        get_run_logger().warning("%s", told)
        recorder().answer["shards"] = told
    begun = BatchReport(
        flow_run_id=_run_id(),
        flow=target.name,
        batch=name,
        ran="workers" if deployment else "here",
        requests=len(checked),
    )
    exporting = Exporting(begun, template) if template is not None else None
    ended = exporting.ended if exporting is not None else None
    board = boarding(begun, checked, grid or {}, order.names)
    dispatch = Dispatch(target, checked, name, parallel, retries, shards, ended, board)
    try:
        with board, watching(recorder().stage_listener("requests")):
            dispatch.run(deployment)
    except StopRequestedError:
        if stop_requested() and stop_reason() is not StopReason.CANCEL:
            raise  # whoever goes on with it says how it ends
        _conclude(begun, dispatch, exporting)
        raise
    report = _conclude(begun, dispatch, exporting)
    continuing.forget()
    made: list[ArtifactRef] = []
    if sheets:
        made = lay_out_grid(grid, order, checked, dispatch.outcomes, style) if grid else []
        if not (grid and order.wraps(grid)):  # else its sheets show all
            made += lay_out_all(checked, dispatch.outcomes, style)
    counts = report.counts()
    if counts["succeeded"] != len(checked) and not allow_failures:
        raise _incomplete(report)
    return made


def _check_source(
    file: str | None,
    sheet: str | None,
    requests: Sequence[dict[str, JsonValue]] | None,
    grid: dict[str, list[JsonValue]] | None,
    *,
    read_prompts: bool,
) -> None:
    given = [
        name
        for name, value in (("file", file), ("requests", requests), ("grid", grid))
        if value is not None
    ]
    if not given:
        raise MissingRequiredFieldError(
            "batch: none of file, requests and grid is given", "give one of them"
        )
    if len(given) > 1:
        raise InvalidFieldValueError(
            f"batch: {' and '.join(given)} are given, expected one of them", "remove all but one"
        )
    if file is None and sheet is not None:
        raise InvalidFieldValueError(
            f"batch: sheet is {sheet!r}, and there is no file", "give a file, or leave out sheet"
        )
    if file is None and read_prompts:
        raise InvalidFieldValueError(
            "batch: read_prompts is true, and there is no file",
            "give a folder or zip, or leave out read_prompts",
        )


def _from_file(
    file: str,
    sheet: str | None,
    target: RecordedFlow[...],
    shared: dict[str, JsonValue],
    *,
    read_prompts: bool,
) -> Iterable[Row]:
    gathered = gather_given(file, target, shared, sheet=sheet, read_prompts=read_prompts)
    if gathered is None:
        return read_file(file, parameters_model(target.fn).model_fields, sheet)
    rows, left_aside = gathered
    if left_aside:
        told = [str(each) for each in left_aside[:MOST_LEFT_ASIDE]]
        if len(told) < len(left_aside):
            told.append(f"and {len(left_aside) - len(told)} more")
        recorder().answer["left_aside"] = [*told]
        get_run_logger().warning("left aside: %s", "; ".join(told))
    return rows


def _run_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id if context and context.flow_run else uuid4())


def _conclude(begun: BatchReport, dispatch: Dispatch, exporting: Exporting | None) -> BatchReport:
    """Keep the report, show the table, and put the counts into the result."""
    outcomes = dispatch.outcomes
    report = reported(begun, outcomes.in_order(), len(outcomes))
    Durations(report.flow).learn(dispatch.requests, outcomes.in_order())
    recorder().answer.update(
        {
            "batch": {"key": report.batch, "ran": report.ran, **report.counts()},
            "failures": report.failures(),
            "report": report.key,
        }
    )
    publish_tables(dispatch.requests, outcomes)
    label_batch(report)
    if exporting is not None:
        recorder().answer["exports"] = exporting.rest(report)
    return report


def _incomplete(report: BatchReport) -> BatchIncompleteError:
    tally = report.tally()
    count = sum(tally.codes.values())
    bad = [o for o in (*report.outcomes, *report.failed) if o.state != "succeeded"]
    named = "; ".join(
        f"{o.where}: " + (f"[{o.error.code}] {o.error.problem}" if o.error else o.state)
        for o in bad[:NAMED_FAILURES]
    )
    more = f"; and {count - NAMED_FAILURES} more" if count > NAMED_FAILURES else ""
    remedy = next((o.error.remedy for o in bad if o.error is not None), "look at their runs")
    codes = Counter({code: times for code, times in tally.codes.items() if code})
    return BatchIncompleteError(
        f"{count} of {report.requests} requests did not succeed: {named}{more}",
        f"{remedy}; then run the batch again: finished requests are kept",
        codes.most_common(1)[0][0] if codes else PipelineError.code,
    )
