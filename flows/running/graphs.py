"""Flows that run a workflow of ComfyUI, with a form made of what can be changed in it."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from flows.running.checking import RecordedFlow
from flows.running.inputs import ingest_media
from flows.running.recorded import recorded_flow
from safelight.engines.graphs import Graph, Scalar, place_of, read_graph
from safelight.errors import MissingRequiredFieldError
from safelight.params import Seed as DrawnSeed
from safelight.params import checked
from safelight.store.artifact import ArtifactRef
from safelight.store.store import SCHEME, current_store
from safelight.workflows.files import flow_of, read_form, read_workflow
from safelight.workflows.finding import find_form
from safelight.workflows.form import MEDIA, Form, Input, form_in, value_at
from tasks.base.recorder import recorder
from tasks.comfy import ComfyParams, comfy

PINNED = "workflow"
"""The parameter that says which state of the workflow's file a run has."""
LONGEST_TEXT = 20_000
_TOLD = (
    "Which state of the workflow's file runs: leave it as it is. A run that is made again has that "
    "of the first."
)
LONGEST_PLACE = 4096
_NUMBERS: dict[str, Any] = {"integer": int, "number": float}


def graph_flow(workflow: str) -> RecordedFlow[...]:
    """The flow of a workflow, as its files are now.

    Raises:
        MissingFileError: there is no such workflow.
        PipelineError: one of its files is not as it should be.
    """
    text = read_workflow(workflow)
    graph = read_graph(text, workflow)
    written = read_form(workflow)
    form = find_form(graph, {}) if written is None else form_in(written, graph, workflow)
    link = _link(text)

    def body(**called: Any) -> list[ArtifactRef]:  # noqa: ANN401
        pinned = called.pop(PINNED)
        if pinned == link:
            current_store().put(text, "application/json", folder="uploads")
        inputs: dict[str, Scalar] = {}
        media: dict[str, str] = {}
        for name, each in form.inputs.items():
            if not each.shown:
                if each.default is not None:
                    inputs[each.at] = each.default
            elif each.kind in MEDIA:
                media[each.at] = ingest_media(name, called[name], (each.kind,)).uri
            elif called[name] is not None:
                inputs[each.at] = called[name]
        recorder().expected_stages = 1
        params = checked(
            ComfyParams, "comfy", workflow=pinned, inputs=inputs, media=media, makes="all"
        )
        return comfy(None, params)

    _dress(body, workflow, form, graph, link)
    return recorded_flow(body)


def pinned(target: RecordedFlow[...]) -> dict[str, str]:
    """What tells a run of a workflow from one of another state of its file."""
    known = inspect.signature(target.fn).parameters.get(PINNED)
    is_graph = target.fn.__module__ == "flows.workflow" and known is not None
    return {PINNED: str(known.default)} if is_graph and known is not None else {}


def _link(text: bytes) -> str:
    digest = hashlib.sha256(text).hexdigest()
    return f"{SCHEME}uploads/{digest[:2]}/{digest}.json"


def _dress(body: Callable[..., Any], workflow: str, form: Form, graph: Graph, link: str) -> None:
    """Give the function the name, text and parameters of the workflow."""
    shown = form.shown().items()
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=_type(each),
            default=_default(name, each, graph, workflow),
        )
        for name, each in sorted(shown, key=lambda item: item[1].kind not in MEDIA)
    ]
    parameters.append(
        inspect.Parameter(
            PINNED,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[str, Field(pattern=r"^store:uploads/", description=_TOLD)],
            default=link,
        )
    )
    body.__name__ = body.__qualname__ = flow_of(workflow)
    body.__doc__ = form.about or f"The ComfyUI workflow {workflow}."
    body.__module__ = "flows.workflow"
    body.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _default(name: str, each: Input, graph: Graph, workflow: str) -> object:
    if each.kind in MEDIA:
        return inspect.Parameter.empty
    if each.kind == "seed" and name == "seed":
        return each.default
    if each.default is not None:
        return each.default
    held = value_at(graph, place_of(graph, each.at, workflow))
    if isinstance(held, bool | int | float | str):
        return held
    raise MissingRequiredFieldError(
        f"workflow {workflow}: {name} has no default, and {each.at} is linked to another node",
        f"give {name} a default in workflows/{workflow}.yaml, or remove it there",
    )


def _type(each: Input) -> Any:  # noqa: ANN401
    title = each.title or each.at
    if each.kind in MEDIA:
        told = f"{title}. A file under the volume root, or the store: link of an artifact."
        return Annotated[str, Field(min_length=1, max_length=LONGEST_PLACE, description=told)]
    if each.kind == "seed":
        return Annotated[DrawnSeed, Field(description=f"{title} None or -1: one is drawn.")]
    if each.kind == "choice":
        return Annotated[Literal[each.choices], Field(description=title)]
    if each.kind == "text":
        return Annotated[str, Field(max_length=LONGEST_TEXT, description=title)]
    if each.kind == "switch":
        return Annotated[bool, Field(description=title)]
    limits = Field(ge=each.least, le=each.most, description=title)
    return Annotated[_NUMBERS[each.kind], limits]
