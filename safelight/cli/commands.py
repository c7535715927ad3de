"""The commands of `safelight`.

What a single command needs of Prefect's workers is imported in it: that takes a second.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, cast

import typer
from pydantic import JsonValue

from safelight.cli.batching import read_requests, run_batch
from safelight.cli.inputs import local, offered, parse_options, uploaded
from safelight.cli.main import stopped_status
from safelight.cli.models import models
from safelight.cli.options import (
    BatchCommand,
    PipelineCommand,
    PresetCommand,
    flow_words,
    of_flow,
    pipeline_options,
    read_pipeline,
)
from safelight.cli.printing import (
    CONSOLE,
    check_output,
    fail,
    outcome_facts,
    show_json,
    show_line,
    show_outcome,
    show_preset,
    show_presets,
    watching,
)
from safelight.cli.remixing import read_changes
from safelight.cli.replaying import replay_run
from safelight.cli.runs import session
from safelight.cli.server import configured_api_url, prefect_home
from safelight.cli.server_password import joined
from safelight.client.catalog import catalog, pipelines
from safelight.client.contracts import contract, refuse_unknown
from safelight.client.runs import RunEnd
from safelight.errors import PipelineError
from safelight.settings import settings

P = ParamSpec("P")
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image and video pipelines that can be trusted to finish.",
)
image = typer.Typer(no_args_is_help=True, help="Single pictures.")
presets = typer.Typer(no_args_is_help=True, help="The presets and their knobs.")
app.add_typer(image, name="image")
app.add_typer(presets, name="presets")
app.add_typer(models, name="models")

PromptArgument = Annotated[str, typer.Argument(help="What the picture shows.")]
FileArgument = Annotated[Path, typer.Argument(help="A file on this machine.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder that also gets a copy of the results."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object, for programs.")
]


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Print our errors as code, problem and fix; 1 after one, 130 or 143 after a signal."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with joined(prefect_home(settings().volume_root)):
                command(*args, **kwargs)
        except PipelineError as error:
            fail(error, as_json=kwargs.get("as_json") is True)
        except KeyboardInterrupt:
            raise typer.Exit(stopped_status()) from None

    return run


def launch(
    flow: str,
    arguments: dict[str, JsonValue],
    context: typer.Context,
    output: Path | None,
    as_json: bool,
) -> None:
    """Check what one flow was given, then run it.

    Args:
        flow: name of the flow.
        arguments: what click parsed.
        context: holds the words of the flow's own options.
        output: folder for copies.
        as_json: for programs.
    """
    known = contract(flow)
    given = {**arguments, **parse_options(flow_words(context), known.described)}
    known.check(given)
    if "overrides" in given and flow in catalog().preset_ids():
        quality = given.get("quality")
        catalog().check_overrides(flow, str(quality) if quality else None, given["overrides"])
    run_flow(flow, given, output, as_json=as_json)


def run_flow(
    flow: str, parameters: dict[str, JsonValue], output: Path | None, *, as_json: bool
) -> None:
    """Run one flow, show its progress and where the results lie; exit status 1 unless it worked."""
    if output is not None:
        check_output(output)
    parameters = uploaded(parameters, here=configured_api_url() is None)
    with session() as prefect, watching(flow, quiet=as_json) as on_progress:
        outcome = prefect.run(flow, parameters, on_progress)
    if as_json:
        show_json(outcome_facts(outcome, output))
    else:
        show_outcome(outcome, output)
    conclude(outcome)


def conclude(outcome: RunEnd) -> None:
    """Leave with the exit status of a run that ended."""
    if outcome.interrupted and not outcome.succeeded:
        raise KeyboardInterrupt
    if not outcome.succeeded:
        raise typer.Exit(1)


@app.command(
    cls=PresetCommand,
    help="Run a preset; its inputs are options, for instance --prompt 'a cat' --quality pro. "
    "safelight run PRESET --help lists them.",
)
@reporting
def run(
    context: typer.Context,
    preset: Annotated[str, typer.Argument(help="Id, see: safelight presets list")],
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a preset."""
    catalog().find_preset(preset)
    launch(preset, {}, context, output, as_json)


@app.command(
    cls=PipelineCommand,
    help="Run a pipeline file (JSON); extra options are the call's input and win over it. "
    "--field VALUE is given to every stage that has the field, --stage.field VALUE to one. "
    "safelight pipeline FILE --help lists them.",
)
@reporting
def pipeline(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="{stages: [...], parameters: {...}}")],
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline file."""
    described = cast("dict[str, JsonValue]", read_pipeline(file))
    known = contract("pipeline")
    known.flow.checked(dict(described))  # names fields of the file, not options
    options = pipeline_options(described)
    call = parse_options(flow_words(context), options)
    refuse_unknown(call, options, file.name)
    pipelines().check_pipeline(described, call)
    if output is not None:
        check_output(output)
    call = uploaded(call, here=configured_api_url() is None)
    run_flow("pipeline", {**described, "call_input": call}, output, as_json=as_json)


@image.command(cls=of_flow("generate", "prompt"), help="Text to image.")
@reporting
def generate(
    context: typer.Context,
    prompt: PromptArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Text to image."""
    launch("generate", {"prompt": prompt}, context, output, as_json)


@image.command(cls=of_flow("transform", "image", "prompt"), help="Image to image.")
@reporting
def transform(
    context: typer.Context,
    file: FileArgument,
    prompt: PromptArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Image to image."""
    launch("transform", {"image": local(file), "prompt": prompt}, context, output, as_json)


@image.command(
    cls=of_flow("inpaint", "image", "mask", "prompt"), help="Repaint the white part of a mask."
)
@reporting
def inpaint(
    context: typer.Context,
    file: FileArgument,
    mask: Annotated[Path, typer.Argument(help="White is repainted.")],
    prompt: PromptArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repaint the white part of a mask."""
    arguments: dict[str, JsonValue] = {
        "image": local(file),
        "mask": local(mask),
        "prompt": prompt,
    }
    launch("inpaint", arguments, context, output, as_json)


@app.command(
    cls=BatchCommand,
    help="Run a flow for every request of a file (JSON lines or CSV); extra options, for instance "
    "--steps 30, are given to every request that has none of its own. "
    "safelight batch --flow NAME --help lists them.",
)
@reporting
def batch(
    context: typer.Context,
    file: FileArgument,
    flow: Annotated[str, typer.Option(help="Preset or other flow that each request runs.")],
    parallel: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    retries: Annotated[int | None, typer.Option(help="More tries after a passing fault.")] = None,
    key: Annotated[str | None, typer.Option(help="Batches of one key share results.")] = None,
    again: Annotated[bool, typer.Option(help="Also what is finished, with other seeds.")] = False,
    shards: Annotated[
        bool, typer.Option("--shards", help="On workers: many short requests in one flow run.")
    ] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a batch."""
    target = contract(flow)
    requests = read_requests(file, target)
    shared = parse_options(flow_words(context), target.described)
    target.check(shared, partly=True)
    given = offered(
        flow=flow, parallel=parallel, retries=retries, key=key, again=again, shards=shards
    )
    contract("batch").check(given)
    if output is not None:
        check_output(output)
    shared = uploaded(shared, here=configured_api_url() is None)
    conclude(run_batch(requests, {**given, "parameters": shared}, output, as_json=as_json))


@app.command("backfill", help="Create the runs that a paused or missed schedule would have made.")
@reporting
def fill_in(
    deployment: Annotated[str, typer.Argument(help="flow/deployment, or one name for both.")],
    since: Annotated[datetime, typer.Option(help="First moment, UTC: 2026-01-31 or with a time.")],
    until: Annotated[datetime | None, typer.Option(help="Last moment, UTC; now.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only the one with this slug.")] = None,
) -> None:
    """Fill in missed runs."""
    from safelight.cli.backfilling import backfill

    last = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    for run in backfill(deployment, since.replace(tzinfo=UTC), last, schedule):
        verb = "created" if run.created else "was there"
        show_line(f"{run.due.isoformat()} {run.name} {verb}")


@app.command(cls=of_flow("enhance", "image"), help="Enlarge and clean up a picture in one step.")
@reporting
def enhance(
    context: typer.Context,
    file: FileArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enlarge and clean up a picture."""
    launch("enhance", {"image": local(file)}, context, output, as_json)


@app.command(cls=of_flow("interpolate", "video"), help="Raise a video's frame rate.")
@reporting
def interpolate(
    context: typer.Context,
    file: FileArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise a video's frame rate."""
    launch("interpolate", {"video": local(file)}, context, output, as_json)


@app.command(
    cls=of_flow("generate"),
    help="Draw a picture again from what AUTOMATIC1111, ComfyUI, InvokeAI or Safelight wrote into "
    "its file; options replace values of the file.",
)
@reporting
def remix(
    context: typer.Context,
    file: FileArgument,
    show: Annotated[bool, typer.Option("--show", help="Say what was understood, no more.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a picture again, with changes."""
    changes = read_changes(file, flow_words(context), show=show, as_json=as_json)
    if not show:
        run_flow("remix", {"image": local(file), "changes": changes}, output, as_json=as_json)


@presets.command("list", help="All presets.")
@reporting
def list_presets() -> None:
    """All presets."""
    found = catalog()
    show_presets([found.find_preset(preset_id) for preset_id in found.preset_ids()])


@presets.command("show", help="One preset with its inputs, steps and knobs.")
@reporting
def show(preset: Annotated[str, typer.Argument(help="Id of the preset.")]) -> None:
    """One preset."""
    show_preset(catalog().find_preset(preset))


@app.command(help="Make a run again from its manifest or from a file it made, and compare.")
@reporting
def replay(
    source: Annotated[str, typer.Argument(help="Manifest key, manifest file, or a made file.")],
) -> None:
    """Make a run again and compare."""
    if not replay_run(source):
        raise typer.Exit(1)


@app.command(help="Check this machine, the store, the server and the weights, and say what to do.")
@reporting
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check everything a run needs."""
    from safelight.cli import health

    findings = health.examine()
    if as_json:
        CONSOLE.print_json(json.dumps([finding.model_dump() for finding in findings]))
    else:
        health.show(findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command(help="Prefect server with its UI, and a worker, until Ctrl-C.")
@reporting
def up(
    port: Annotated[int, typer.Option(help="Of the server and its UI.")] = 4200,
    host: Annotated[str, typer.Option(help="Address the server listens on.")] = "127.0.0.1",
) -> None:
    """Serve until Ctrl-C."""
    from safelight.cli.serving import serve

    serve(host, port)


@app.command(help="Print a link that opens the UI of safelight up once, within ten minutes.")
@reporting
def login() -> None:
    """Print a link to the UI."""
    from safelight.cli.serving import new_login_link

    show_line(new_login_link())


@app.command(help="Put one deployment per flow on the configured Prefect server.")
@reporting
def deploy(
    pool: Annotated[str, typer.Option(help="Work pool, made when it is not there.")] = "gpu",
) -> None:
    """Deploy all flows."""
    from safelight.cli import serving

    serving.deploy(pool)
