"""`safelight workflow`: workflows of ComfyUI as flows of this volume."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import JsonValue

from safelight.cli.copies import Wanted
from safelight.cli.launching import JsonOption, NamesOption, OutputOption, launch, reporting
from safelight.cli.options import WorkflowCommand
from safelight.cli.pipeline_files import start_of
from safelight.cli.printing import show_json, show_line
from safelight.cli.server import configured_api_url
from safelight.client.asking import patient_client
from safelight.client.contracts import contract
from safelight.engines.comfy.named import named_server
from safelight.engines.graphs import Graph, read_graph
from safelight.engines.object_info import Known, choices_of, config_of
from safelight.errors import (
    ContractMismatchError,
    DependencyMissingError,
    InvalidFieldValueError,
    PipelineError,
)
from safelight.workflows.converting import EXPORT, converted, is_of_editor
from safelight.workflows.files import (
    LARGEST,
    flow_of,
    keep,
    name_for,
    names,
    read_form,
    read_workflow,
    require_name,
)
from safelight.workflows.finding import find_form
from safelight.workflows.form import form_in, form_text

POOL = "gpu"
NameArgument = Annotated[str, typer.Argument(help="Of the workflow, see: safelight workflow list")]

workflow = typer.Typer(
    no_args_is_help=True,
    help="Workflows of ComfyUI: each becomes a flow with a form of its own.",
)


@workflow.command(
    help="Keep a workflow that was exported from ComfyUI, find what can be changed in it, and "
    "deploy it where a Prefect server is configured."
)
@reporting
def add(
    file: Annotated[Path, typer.Argument(help="JSON that ComfyUI exported or saved.")],
    name: Annotated[str | None, typer.Option(help="What it is called here; the file's.")] = None,
    about: Annotated[str, typer.Option(help="What it does, in a sentence.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of one of that name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a workflow."""
    text = _read(file)
    called = name_for(file) if name is None else name
    require_name(called)
    known = _known(needed=is_of_editor(text))
    if is_of_editor(text):
        text = converted(text, known, called)
    graph = read_graph(text, called)
    form = find_form(graph, known, about)
    path = keep(called, text, form_text(form), replace=replace)
    flow = flow_of(called)
    contract(flow)  # as whoever runs it reads it
    if as_json:
        show_json({"workflow": called, "flow": flow, "form": str(path), "inputs": [*form.shown()]})
    else:
        show_line(f"{called}: flow {flow}, its form in {path}")
        show_line(f"It takes {', '.join(form.shown()) or 'nothing'}.")
        for missing in _missing(graph, known):
            show_line(missing)
        if not known:
            show_line(
                "No ComfyUI is named, so limits and choices are not known: set SAFELIGHT_COMFY_URL "
                f"and run: safelight workflow form {called} --anew"
            )
    _deploy(flow)


@workflow.command(
    "form", help="Check the form of a workflow after it was edited, or find it anew; deploy it."
)
@reporting
def update_form(
    name: NameArgument,
    anew: Annotated[
        bool, typer.Option("--anew", help="Find it again by what the server says; edits are lost.")
    ] = False,
) -> None:
    """Check or renew a form."""
    text = read_workflow(name)
    graph = read_graph(text, name)
    written = read_form(name)
    if anew or written is None:
        about = _about(written, graph, name)
        form = find_form(graph, _known(needed=True), about)
        keep(name, text, form_text(form), replace=True)
    else:
        form = form_in(written, graph, name)
        keep(name, text, written, replace=True)  # also where other machines look
    contract(flow_of(name))
    show_line(f"{name} takes {', '.join(form.shown()) or 'nothing'}.")
    _deploy(flow_of(name))


@workflow.command("list", help="All workflows, their flows and what they take.")
@reporting
def list_workflows(as_json: JsonOption = False) -> None:
    """All workflows."""
    told = [_described(name) for name in names()]
    if as_json:
        show_json([*told])
        return
    for each in told:
        takes = cast("list[str]", each["inputs"])
        show_line(f"{each['workflow']}: {each['error'] or 'takes ' + ', '.join(takes)}")
    if not told:
        show_line("There are none; add one: safelight workflow add FILE")


@workflow.command(
    cls=WorkflowCommand,
    help="Run a workflow; what its form takes are options, for instance --prompt 'a cat' --seed 7. "
    "safelight workflow run NAME --help lists them.",
)
@reporting
def run(
    context: typer.Context,
    name: NameArgument,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a workflow."""
    read_workflow(name)  # says which there are
    launch(flow_of(name), {}, context, Wanted(output, names), as_json)


def _read(file: Path) -> bytes:
    text = start_of(file, LARGEST + 1)
    if len(text) > LARGEST:
        raise InvalidFieldValueError(
            f"{file} has more than {LARGEST // 2**20} MiB, too much for a workflow", EXPORT
        )
    return text


def _known(*, needed: bool) -> Known:
    """What the server says of its nodes; nothing where none is named."""
    try:
        with closing(named_server()) as server:
            server.facts()
            found = server.answer("GET", "/object_info")
    except DependencyMissingError as error:
        if not needed:
            return {}
        raise ContractMismatchError(
            f"this needs what a ComfyUI says of its nodes, and {error.problem}",
            f"{error.remedy}; or, of a workflow that was saved for the editor: {EXPORT}",
        ) from error
    return {name: told for name, told in found.items() if isinstance(told, dict)}


def _missing(graph: Graph, known: Known) -> list[str]:
    """What a server lacks that the workflow needs, a line each."""
    lines: list[str] = []
    for node in graph.values():
        if known and node.class_type not in known:
            lines.append(f"The server has no node type {node.class_type!r} ({node}).")
        for name, value in node.inputs.items():
            choices = choices_of(config_of(known, node.class_type, name))
            if choices and isinstance(value, str) and value not in choices:
                lines.append(f"The server has no {value!r} for {node}: {name}.")
    return lines


def _about(written: bytes | None, graph: Graph, name: str) -> str:
    try:
        return "" if written is None else form_in(written, graph, name).about
    except PipelineError:  # it is made anew for that
        return ""


def _described(name: str) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {"workflow": name, "flow": "", "inputs": [], "error": ""}
    try:
        told["flow"] = flow_of(name)
        told["inputs"] = [each for each in contract(flow_of(name)).described if each != "workflow"]
    except PipelineError as error:
        told["error"] = str(error)
    return told


def _deploy(flow: str) -> None:
    if configured_api_url() is None:
        return
    from safelight.cli.workflow_deployments import deploy_workflow

    with patient_client() as client:
        deploy_workflow(client, flow, POOL)
    show_line(f"deployed as {flow}/{flow}")
