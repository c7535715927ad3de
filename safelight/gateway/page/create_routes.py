"""The room Create: choose, fill in, press, and watch it being drawn."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse, RedirectResponse, Response

from safelight.characters import keeping
from safelight.client.contracts import Described
from safelight.errors import PipelineError
from safelight.gallery.index import gallery
from safelight.gallery.rows import Filed
from safelight.gateway.job_routes import IdempotencyKey
from safelight.gateway.jobs import Job, Status, find_job
from safelight.gateway.listing import list_jobs
from safelight.gateway.offers import models
from safelight.gateway.page.bars import Piece, bar_of
from safelight.gateway.page.estimating import Estimate, estimate
from safelight.gateway.page.forms import Form, form_of, plain
from safelight.gateway.page.problems import PageRoute
from safelight.gateway.page.reading import read, typed
from safelight.gateway.page.remedies import WaysOut, ways_out
from safelight.gateway.page.rendering import shown_page, shown_part, static_names
from safelight.gateway.page.several import (
    BATCH,
    Asked,
    Several,
    field_of_axis,
    options_of,
    read_several,
    several_in,
    typed_several,
    without_several,
)
from safelight.gateway.page.shelf import FIRST, choices, levels_of, title_of
from safelight.gateway.page.words import say
from safelight.gateway.problems import STATUSES, UnknownJobError
from safelight.gateway.shared import Everything, Shared
from safelight.gateway.steering import Submission
from safelight.gateway.workflows import check, contract_of, flow_named, flows_of
from safelight.provenance.parameters_text import SAMPLERS
from safelight.weights.checkpoints import checkpoint_names, find_checkpoint
from safelight.weights.kinds import ModelType

router = APIRouter(include_in_schema=False, route_class=PageRoute)
PICKS = 200
"""Models of a picker."""
LATEST = 12
"""Results of the strip below the picture."""
_FIELD = re.compile(r"\bfield ([\w.]+)|--([\w.-]+)")


class Typed(BaseModel):
    """A form as it was typed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    values: dict[str, str] = Field(default_factory=dict[str, str], max_length=500)
    """Text by the names of fields."""


@router.get("/")
def first_page() -> Response:
    """Where whoever opens the address lands."""
    return RedirectResponse("/create")


@router.get("/create")
def choose(request: Request, shared: Everything) -> Response:
    """The form that is there for whoever has not chosen yet."""
    return create(FIRST, request, shared)


@router.get("/create/{workflow}")
def create(
    workflow: str,
    request: Request,
    shared: Everything,
    like: Annotated[UUID | None, Query(alias="from", description="A job to begin with.")] = None,
    job: UUID | None = None,
) -> Response:
    """The form of a workflow; what stands in the address is filled in."""
    flow = flow_named(workflow)
    described = contract_of(flow).described
    given: dict[str, str] = {}
    if like is not None:
        earlier = find_job(shared.client, shared.flows, like).parameters
        if flow == BATCH and (form_of_runs := _runs_of(earlier)) is not None:
            return RedirectResponse(form_of_runs)
        given = typed(earlier, described)
    given |= {k: v for k, v in request.query_params.items() if k not in ("from", "job")}
    if not given:
        given = _of_the_shipped_model(described)
    form = form_of(flow, described, given, levels_of(flow))
    parameters, _ = read(form)
    index = gallery()
    index.refresh(wait=index.is_empty())
    return shown_page(
        request,
        "create",
        "create",
        form=form,
        title=title_of(flow),
        choices=choices(static_names()),
        pickers=_pickers(form),
        expected=estimate(index, flow, parameters),
        current=_current(shared, job),
        latest=index.select("result = 1 AND kind IN ('image', 'video')", (), LATEST),
        asked_like=like is not None,
        several=several_in(given),
        axes=[*options_of(form)] if flow != BATCH else [],
    )


def _runs_of(batch: Mapping[str, JsonValue]) -> str | None:
    """Address of the form of a batch's runs, with its axes or table; None where it has more."""
    flow, shared = str(batch.get("flow")), batch.get("parameters") or {}
    several = typed_several(batch)
    if several is None or flow not in flows_of() or not isinstance(shared, dict):
        return None
    return f"/create/{flow}?{urlencode({**typed(shared, contract_of(flow).described), **several})}"


@router.get("/create/pick/{model_type}")
def pick(
    model_type: ModelType, request: Request, text: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Models of a type with their pictures."""
    words = text.casefold()
    known = [
        each
        for each in models(model_type.value).models
        if words in f"{each.name} {' '.join(each.tags)}".casefold()
    ]
    return shown_part(request, "picks", models=known[:PICKS])


@router.post("/create/{workflow}/check")
def check_form(workflow: str, given: Typed) -> JSONResponse:
    """What is wrong with a form, and what it would take and cost."""
    flow = flow_named(workflow)
    form, parameters, wrong = _read(flow, given)
    expected = estimate(gallery(), flow, parameters)
    said = expected.said
    several = several_in(given.values)
    if several.asked:
        asked = read_several(form, several, parameters, wrong, thorough=False)
        wrong = _wrong_of(form, several, asked)
        if not wrong:
            key = "many.count" if expected.seconds is None else "many.each"
            said = say(key, count=asked.count, none=said, each=said)
    elif not wrong:
        wrong = _refusal(form, flow, parameters)
    wrong = {k: v for k, v in wrong.items() if v != say("wrong.missing")}
    present = {group.name: group.present for group in form.groups}
    present["many"] = several.present
    return JSONResponse({"wrong": wrong, "estimate": said, "present": present})


@router.post("/create/{workflow}")
def draw(
    workflow: str, given: Typed, shared: Everything, key: IdempotencyKey = None
) -> JSONResponse:
    """Submit a job, or a batch, with what a form says; or what is wrong, beside the fields."""
    flow = flow_named(workflow)
    form, parameters, wrong = _read(flow, given)
    several = several_in(given.values)
    wanted = Submission(workflow=flow, parameters=parameters)
    if several.asked:
        asked = read_several(form, several, parameters, wrong, thorough=True)
        wrong = _wrong_of(form, several, asked)
        wanted = Submission(workflow=BATCH, parameters=asked.parameters)
    if wrong:
        return JSONResponse({"wrong": wrong}, 422)
    try:
        job = shared.submitter.submit(wanted, key)
    except PipelineError as error:
        status = STATUSES.get(error.code, 400)
        return JSONResponse({"wrong": _placed(form, error)}, status)
    return JSONResponse({"batch" if several.asked else "job": str(job.id)}, 201)


def _wrong_of(form: Form, several: Several, asked: Asked) -> dict[str, str]:
    if asked.error is None:
        return asked.wrong
    placed = _placed(form, asked.error)
    return {field_of_axis(several, name): said for name, said in placed.items()}


@router.get("/create/run/{job_id}")
def watch(job_id: UUID, request: Request, shared: Everything) -> Response:
    """A run as it is now: what it draws, its stages, its pictures once it has ended."""
    return shown_part(
        request, "run", current=current_of(find_job(shared.client, shared.flows, job_id))
    )


def _of_the_shipped_model(described: Described) -> dict[str, str]:
    """Size, steps and guidance for whoever has no model but the small one that comes along.

    At those of large models it draws nothing that anybody would want to see.
    """
    if not {"width", "height", "model"} <= described.keys() or checkpoint_names():
        return {}
    card = find_checkpoint(None)
    own = {
        "width": card.native_width,
        "height": card.native_height,
        "steps": card.recommended_steps,
        "guidance_scale": card.recommended_guidance_scale,
    }
    given = {name: plain(value) for name, value in own.items() if value and name in described}
    return {**given, "use_upscale": "true"} if "use_upscale" in described else given


def _read(flow: str, given: Typed) -> tuple[Form, dict[str, JsonValue], dict[str, str]]:
    values = without_several(given.values)
    form = form_of(flow, contract_of(flow).described, values, levels_of(flow))
    parameters, wrong = read(form)
    unknown = values.keys() - form.by_name.keys()
    if unknown:
        wrong[""] = say("wrong.unknown", names=", ".join(sorted(unknown))[:200])
    return form, parameters, wrong


def _refusal(form: Form, flow: str, parameters: dict[str, JsonValue]) -> dict[str, str]:
    try:
        check(flow, parameters)
    except PipelineError as error:
        return _placed(form, error)
    return {}


def _placed(form: Form, error: PipelineError) -> dict[str, str]:
    """An error beside the field that it names; under no name where it names none."""
    names = form.by_name
    said = f"{error.problem}. {say('wrong.fix', remedy=error.remedy)}"
    text = f"{error.problem} {error.remedy}"
    told = [(one or two).replace("-", "_").rstrip(".") for one, two in _FIELD.findall(text)]
    longest = sorted(names, key=len, reverse=True)
    told += [name for name in longest if re.search(rf"\b{re.escape(name)}\b", text)]
    for name in told:
        while name and name not in names:
            name = name.rpartition(".")[0]
        if name:
            return {name: said}
    return {"": f"{said} ({error.code})"}


def _pickers(form: Form) -> dict[str, object]:
    """What pickers of the form offer: models by type, characters, samplers."""
    wanted = {each.model_type for each in form.fields if each.model_type}
    if any(each.kind == "loras" for each in form.fields):
        wanted.add("lora")
    found: dict[str, object] = {}
    for each in wanted:
        try:
            found[each] = models(each).models
        except PipelineError:  # no such type in this version: the field takes text
            found[each] = []
    people = any(each.kind == "character" for each in form.fields)
    return {
        "models": found,
        "characters": keeping.list_all() if people else [],
        "samplers": list(SAMPLERS),
    }


@dataclass(frozen=True)
class Current:
    """A run as Create shows it."""

    job: Job
    expected: Estimate
    bar: list[Piece]
    files: list[Filed]
    title: str
    ways: WaysOut | None
    """Out of a failure."""


def _current(shared: Shared, job_id: UUID | None) -> Current | None:
    """The job of the address, else the one that runs or waits, whoever opened the page."""
    if job_id is not None:
        try:
            return current_of(find_job(shared.client, shared.flows, job_id))
        except UnknownJobError:  # an address of long ago
            pass
    for status in (Status.RUNNING, Status.QUEUED):
        found = list_jobs(
            shared.client, shared.flows, status=status, kind=None, text=None, limit=1, cursor=None
        )
        if found.jobs:
            return current_of(found.jobs[0])
    return None


def current_of(job: Job) -> Current:
    """A run with its bar, what is expected of it, and what it made."""
    index, ids = gallery(), [str(job.id)]
    # a look into the store a moment ago has not seen what ended since
    over = job.status in (Status.SUCCEEDED, Status.FAILED)
    runs = index.ran_now(ids, job.status is Status.SUCCEEDED) if over else index.ran(ids)
    ran = runs.get(str(job.id))
    expected = estimate(index, job.workflow, job.parameters)
    return Current(
        job=job,
        expected=expected,
        bar=bar_of(job, ran, expected.stages),
        files=[each for each in index.of_run(str(job.id)) if each.kind in ("image", "video")],
        title=title_of(job.workflow),
        ways=ways_out(job),
    )
