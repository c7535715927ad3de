"""`safelight pipeline`: run a file, say everything that is wrong with it, or draw it."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import JsonValue
from typer.core import TyperGroup

from safelight.cli.copies import Copies, Wanted
from safelight.cli.inputs import given_file, parse_options, uploaded
from safelight.cli.launching import JsonOption, NamesOption, OutputOption, reporting, run_flow
from safelight.cli.options import PipelineCommand, flow_words, pipeline_options
from safelight.cli.pipeline_files import line_of, pipeline_in, pipeline_text, read_pipeline
from safelight.cli.printing import show_json, show_line
from safelight.cli.server import configured_api_url
from safelight.client.catalog import pipelines
from safelight.client.contracts import contract, refuse_unknown

RUN = "run"
PipelineArgument = Annotated[Path, typer.Argument(help="{stages: [...], parameters: {...}}")]


class _RunsFiles(TyperGroup):
    """A group in which a word that is no command is the file to run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """The command of the first word."""
        known = args and args[0] in self.list_commands(ctx)
        return super().resolve_command(ctx, args if known else [RUN, *args])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Options before the file belong to its run."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


pipeline = typer.Typer(
    cls=_RunsFiles,
    no_args_is_help=True,
    help="Run a pipeline file: safelight pipeline FILE. safelight pipeline FILE --help lists the "
    "options that it takes.",
)


@pipeline.command(
    RUN,
    cls=PipelineCommand,
    help="Run a pipeline file (JSON or YAML); extra options are the call's input and win over it. "
    "--field VALUE is given to every stage that has the field, --stage.field VALUE to one. "
    "safelight pipeline FILE --help lists them.",
)
@reporting
def run(
    context: typer.Context,
    file: PipelineArgument,
    output: OutputOption = None,
    names: NamesOption = None,
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
    wanted = Wanted(output, names)
    Copies(wanted, "pipeline")  # refuses them before any file is kept
    source = given_file(call)
    call = uploaded(call, here=configured_api_url() is None)
    run_flow("pipeline", {**described, "call_input": call}, wanted, as_json=as_json, source=source)


@pipeline.command(
    cls=PipelineCommand,
    help="Say everything that is wrong with a pipeline file, with lines; exit status 1 if anything "
    "is. Options are those of a run; media may be left out.",
)
@reporting
def check(context: typer.Context, file: PipelineArgument, as_json: JsonOption = False) -> None:
    """Check a pipeline file; nothing is run."""
    data = pipeline_text(file)
    described = pipeline_in(data, file)
    words = flow_words(context)
    call = parse_options(words, pipeline_options(described)) if words else {}
    problems = pipelines().pipeline_problems(described, call)
    told: list[dict[str, JsonValue]] = [
        {
            "line": line_of(data, one.path),
            "field": ".".join(map(str, one.path)),
            "code": one.code,
            "problem": one.problem,
            "remedy": one.remedy,
        }
        for one in problems
    ]
    if as_json:
        show_json(cast("JsonValue", told))
    else:
        for one in told:
            show_line(f"{file}:{one['line'] or 1}: {one['code']} {one['problem']}")
            show_line(f"    Fix: {one['remedy']}")
        if not told:
            show_line(f"{file}: all right")
    if told:
        raise typer.Exit(1)


@pipeline.command(help="Draw a pipeline file as a Mermaid diagram, which many pages show.")
@reporting
def show(file: PipelineArgument) -> None:
    """Draw a pipeline file."""
    described = cast("dict[str, JsonValue]", read_pipeline(file))
    for line in pipelines().pipeline_diagram(described):
        show_line(line)
