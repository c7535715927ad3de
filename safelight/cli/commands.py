"""The commands of `safelight`.

What a single command needs of Prefect's workers is imported in it: that takes a second.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from pydantic import JsonValue

from safelight.cli.audit import audit
from safelight.cli.batch_commands import BATCH_HELP, GRID_HELP, HtmlOption, ZipOption, batch, grid
from safelight.cli.characters import characters
from safelight.cli.comfy import comfy
from safelight.cli.copies import Wanted
from safelight.cli.costs import COSTS_HELP, costs
from safelight.cli.exporting import export_run
from safelight.cli.inputs import local
from safelight.cli.jobs import artifacts, jobs
from safelight.cli.keys import keys
from safelight.cli.launching import (
    FileArgument,
    JsonOption,
    NamesOption,
    OutputOption,
    launch,
    reporting,
    run_flow,
)
from safelight.cli.models import models
from safelight.cli.options import (
    BatchCommand,
    NamedFlowCommand,
    flow_words,
    of_flow,
)
from safelight.cli.pipelines import pipeline
from safelight.cli.printing import (
    CONSOLE,
    show_line,
    show_preset,
    show_presets,
)
from safelight.cli.remixing import read_changes
from safelight.cli.replaying import replay_run
from safelight.cli.tidying import store
from safelight.cli.training import train
from safelight.cli.verifying import VERIFY_HELP, TrustOption, verify_file
from safelight.cli.watch_command import WATCH_HELP, watch
from safelight.cli.workflows import workflow
from safelight.client.catalog import catalog

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
app.add_typer(pipeline, name="pipeline")
app.add_typer(workflow, name="workflow")
app.add_typer(comfy, name="comfy")
app.add_typer(characters, name="characters")
app.add_typer(train, name="train")
app.add_typer(jobs, name="jobs")
app.add_typer(artifacts, name="artifacts")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.add_typer(store, name="store")
PromptArgument = Annotated[str, typer.Argument(help="What the picture shows.")]


@app.command(
    cls=NamedFlowCommand,
    help="Run a preset, or one stage; its inputs are options, for instance --prompt 'a cat' "
    "--quality pro. safelight run NAME --help lists them.",
)
@reporting
def run(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="A preset, see: safelight presets list; or a stage such as dub.")
    ],
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a preset or a stage."""
    launch(name, {}, context, Wanted(output, names), as_json)


@image.command(cls=of_flow("generate", "prompt"), help="Text to image.")
@reporting
def generate(
    context: typer.Context,
    prompt: PromptArgument,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Text to image."""
    launch("generate", {"prompt": prompt}, context, Wanted(output, names), as_json)


@image.command(cls=of_flow("transform", "image", "prompt"), help="Image to image.")
@reporting
def transform(
    context: typer.Context,
    file: FileArgument,
    prompt: PromptArgument,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Image to image."""
    launch(
        "transform",
        {"image": local(file), "prompt": prompt},
        context,
        Wanted(output, names),
        as_json,
    )


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
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repaint the white part of a mask."""
    arguments: dict[str, JsonValue] = {
        "image": local(file),
        "mask": local(mask),
        "prompt": prompt,
    }
    launch("inpaint", arguments, context, Wanted(output, names), as_json)


app.command(cls=BatchCommand, help=BATCH_HELP)(batch)
app.command(cls=NamedFlowCommand, help=GRID_HELP)(grid)
app.command(cls=BatchCommand, help=WATCH_HELP)(watch)
app.command(help=COSTS_HELP)(costs)


@app.command(
    "export",
    help="Copy what a run or batch has made, under names of your choice or as one zip.",
)
@reporting
def export_results(
    run: Annotated[str, typer.Argument(help="Id of a run, also of a batch.")],
    output: OutputOption = None,
    names: NamesOption = None,
    zipped: ZipOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy results."""
    export_run(run, Wanted(output, names, zipped, html), as_json=as_json)


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
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enlarge and clean up a picture."""
    launch("enhance", {"image": local(file)}, context, Wanted(output, names), as_json)


@app.command(cls=of_flow("interpolate", "video"), help="Raise a video's frame rate.")
@reporting
def interpolate(
    context: typer.Context,
    file: FileArgument,
    output: OutputOption = None,
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise a video's frame rate."""
    launch("interpolate", {"video": local(file)}, context, Wanted(output, names), as_json)


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
    names: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a picture again, with changes."""
    changes = read_changes(file, flow_words(context), show=show, as_json=as_json)
    if not show:
        run_flow(
            "remix",
            {"image": local(file), "changes": changes},
            Wanted(output, names),
            as_json=as_json,
        )


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


@app.command(help=VERIFY_HELP)
@reporting
def verify(
    file: Annotated[Path, typer.Argument(help="A picture or video, of anyone.")],
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who signed a file and whether it was changed."""
    if not verify_file(file, trust, as_json=as_json):
        raise typer.Exit(1)


@app.command(help="Check this machine, the store, the server and the weights, and say what to do.")
@reporting
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Also write facts for whoever helps to this new file.")
    ] = None,
) -> None:
    """Check everything a run needs."""
    from safelight.cli import health

    if bundle is not None:
        from safelight.cli.bundling import write_bundle

        write_bundle(bundle)
    findings = health.examine()
    if as_json:
        CONSOLE.print_json(json.dumps([finding.model_dump() for finding in findings]))
    else:
        health.show(findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command(help="All engines: state, version, balance, what they offer, last error.")
@reporting
def engines(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """All engines."""
    from safelight.cli.engines import list_engines

    list_engines(as_json=as_json)


@app.command(help="The page, the Prefect server with its UI, and a worker, until Ctrl-C.")
@reporting
def up(
    port: Annotated[int, typer.Option(help="Of the server and its UI.")] = 4200,
    host: Annotated[str, typer.Option(help="Address the server listens on.")] = "127.0.0.1",
    page_port: Annotated[
        int, typer.Option(help="Of the page, on this machine alone; 0 serves none.", min=0)
    ] = 4300,
) -> None:
    """Serve until Ctrl-C."""
    from safelight.cli.serving import serve

    serve(host, port, page_port)


@app.command(
    help="REST gateway of the Prefect server, until Ctrl-C: jobs, presets, files; for others than "
    "this machine once there are keys."
)
@reporting
def gateway(
    port: Annotated[int, typer.Option(help="Of the gateway.")] = 4300,
    host: Annotated[
        str, typer.Option(help="Address it listens on; others than loopback need keys.")
    ] = "127.0.0.1",
) -> None:
    """Serve the gateway until Ctrl-C."""
    from safelight.cli.gateway import become_gateway

    become_gateway(host, port)


@app.command(
    help="Tools for programs that speak MCP: presets, jobs, pictures, over standard input and "
    "output, or with --http over HTTP with a key."
)
@reporting
def mcp(
    http: Annotated[bool, typer.Option("--http", help="Listen, and ask for a key.")] = False,
    port: Annotated[int, typer.Option(help="With --http.")] = 4310,
    host: Annotated[str, typer.Option(help="With --http.")] = "127.0.0.1",
) -> None:
    """Serve MCP until the other side ends, or Ctrl-C."""
    from safelight.cli.gateway import become_mcp

    become_mcp(host if http else None, port)


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
