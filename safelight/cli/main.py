"""The `safelight` command."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from pydantic import JsonValue, TypeAdapter, ValidationError

from safelight.cli import health, serving
from safelight.cli.backfilling import backfill
from safelight.cli.batching import run_batch
from safelight.cli.catalog import catalog
from safelight.cli.inputs import offered, parse_options, upload
from safelight.cli.printing import CONSOLE, fail, show_outcome, show_preset, show_presets, watching
from safelight.cli.replaying import replay_run
from safelight.cli.runs import session
from safelight.errors import InvalidFieldValueError, MissingFileError, PipelineError

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

PromptArgument = Annotated[str, typer.Argument(help="What the picture shows.")]
FileArgument = Annotated[Path, typer.Argument(help="A file on this machine.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder that also gets a copy of the results."),
]
SeedOption = Annotated[int | None, typer.Option(help="Same seed, same picture.")]
NegativeOption = Annotated[str | None, typer.Option(help="What the picture must not show.")]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps.")]
GuidanceOption = Annotated[float | None, typer.Option(help="How closely to follow the prompt.")]
WidthOption = Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")]
HeightOption = Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")]
StrengthOption = Annotated[float | None, typer.Option(help="0 keeps the picture, 1 redraws it.")]
ModelOption = Annotated[str | None, typer.Option(help="Name of a registered model.")]


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Print our errors as code, problem and fix, and leave with exit status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except PipelineError as error:
            fail(error)

    return run


def run_flow(flow: str, parameters: dict[str, JsonValue], output: Path | None) -> None:
    """Run one flow, show its progress and where the results lie; exit status 1 unless it worked."""
    with session() as prefect, watching(flow) as on_progress:
        outcome = prefect.run(flow, parameters, on_progress)
    show_outcome(outcome, output)
    if not outcome.succeeded:
        raise typer.Exit(1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Run a preset; its inputs are options, for instance --prompt 'a cat' --quality pro.",
)
@reporting
def run(
    context: typer.Context,
    preset: Annotated[str, typer.Argument(help="Id, see: safelight presets list")],
    output: OutputOption = None,
) -> None:
    """Run a preset."""
    catalog().find_preset(preset)
    run_flow(preset, parse_options(context.args), output)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Run a pipeline file (JSON); extra options are the call's input and win over it.",
)
@reporting
def pipeline(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="{stages: [...], parameters: {...}}")],
    output: OutputOption = None,
) -> None:
    """Run a pipeline file."""
    if not file.is_file():
        raise MissingFileError(f"there is no pipeline file {file}", "correct the path")
    try:
        described = TypeAdapter(dict[str, JsonValue]).validate_json(file.read_bytes())
    except ValidationError as error:
        raise InvalidFieldValueError(
            f"{file} is not a JSON object with stages", 'write {"stages": [...]} into it'
        ) from error
    described["call_input"] = dict(parse_options(context.args))
    run_flow("pipeline", described, output)


@image.command(help="Text to image.")
@reporting
def generate(
    prompt: PromptArgument,
    negative_prompt: NegativeOption = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    num_images: Annotated[int | None, typer.Option(help="How many, seeds counting up.")] = None,
    model: ModelOption = None,
    scheduler: Annotated[str | None, typer.Option(help="Name of the sampler.")] = None,
    output: OutputOption = None,
) -> None:
    """Text to image."""
    given = offered(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        width=width,
        height=height,
        num_images=num_images,
        model=model,
        scheduler=scheduler,
    )
    run_flow("generate", given, output)


@image.command(help="Image to image.")
@reporting
def transform(
    file: FileArgument,
    prompt: PromptArgument,
    strength: StrengthOption = None,
    negative_prompt: NegativeOption = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    model: ModelOption = None,
    output: OutputOption = None,
) -> None:
    """Image to image."""
    given = offered(
        image=upload(file),
        prompt=prompt,
        strength=strength,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        model=model,
    )
    run_flow("transform", given, output)


@image.command(help="Repaint the white part of a mask.")
@reporting
def inpaint(
    file: FileArgument,
    mask: Annotated[Path, typer.Argument(help="White is repainted.")],
    prompt: PromptArgument,
    strength: StrengthOption = None,
    mask_blur: Annotated[int | None, typer.Option(help="Feather of the mask's edge, px.")] = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    model: ModelOption = None,
    output: OutputOption = None,
) -> None:
    """Repaint the white part of a mask."""
    given = offered(
        image=upload(file),
        mask=upload(mask),
        prompt=prompt,
        strength=strength,
        mask_blur=mask_blur,
        seed=seed,
        steps=steps,
        model=model,
    )
    run_flow("inpaint", given, output)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help="Run a flow for every request of a file (JSON lines or CSV); extra options, for instance "
    "--steps 30, are given to every request that has none of its own.",
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
    output: OutputOption = None,
) -> None:
    """Run a batch."""
    given = offered(flow=flow, parallel=parallel, retries=retries, key=key, again=again)
    run_batch(file, {**given, "parameters": parse_options(context.args)}, output)


@app.command("backfill", help="Create the runs that a paused or missed schedule would have made.")
@reporting
def fill_in(
    deployment: Annotated[str, typer.Argument(help="flow/deployment, or one name for both.")],
    since: Annotated[datetime, typer.Option(help="First moment, UTC: 2026-01-31 or with a time.")],
    until: Annotated[datetime | None, typer.Option(help="Last moment, UTC; now.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only the one with this slug.")] = None,
) -> None:
    """Fill in missed runs."""
    last = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    for run in backfill(deployment, since.replace(tzinfo=UTC), last, schedule):
        verb = "created" if run.created else "was there"
        CONSOLE.print(f"{run.due.isoformat()} {run.name} {verb}", markup=False)


@app.command(help="Enlarge and clean up a picture in one step.")
@reporting
def enhance(
    file: FileArgument,
    quality_preset: Annotated[str, typer.Option(help="low, medium or high.")] = "medium",
    output: OutputOption = None,
) -> None:
    """Enlarge and clean up a picture."""
    run_flow("enhance", offered(image=upload(file), quality_preset=quality_preset), output)


@app.command(help="Raise a video's frame rate.")
@reporting
def interpolate(
    file: FileArgument,
    target_fps: Annotated[int, typer.Option(help="24, 25, 30, 50, 60, 120 or 240.")],
    source_fps: Annotated[int | None, typer.Option(help="Read from the file if left out.")] = None,
    output: OutputOption = None,
) -> None:
    """Raise a video's frame rate."""
    given = offered(video=upload(file), target_fps=target_fps, source_fps=source_fps)
    run_flow("interpolate", given, output)


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
    serving.serve(host, port)


@app.command(help="Put one deployment per flow on the configured Prefect server.")
@reporting
def deploy(
    pool: Annotated[str, typer.Option(help="Work pool, made when it is not there.")] = "gpu",
) -> None:
    """Deploy all flows."""
    serving.deploy(pool)


def main() -> None:
    """Entry point; SIGTERM ends the command as Ctrl-C does, also where SIGINT is ignored."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()
