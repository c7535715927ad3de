"""What commands that run a flow share: their options, how they start one, how they end."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from pydantic import JsonValue

from safelight.cli.copies import Copies, Wanted
from safelight.cli.inputs import given_file, parse_options, uploaded
from safelight.cli.main import stopped_status
from safelight.cli.options import flow_words
from safelight.cli.printing import (
    fail,
    outcome_facts,
    show_json,
    show_outcome,
    watching,
)
from safelight.cli.runs import session
from safelight.cli.server import configured_api_url, prefect_home
from safelight.cli.server_password import joined
from safelight.client.catalog import catalog
from safelight.client.contracts import contract
from safelight.client.runs import RunEnd
from safelight.errors import PipelineError
from safelight.settings import settings

P = ParamSpec("P")
FileArgument = Annotated[Path, typer.Argument(help="A file on this machine.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder that also gets a copy of the results."),
]
NamesOption = Annotated[
    str | None,
    typer.Option(
        help="What the copies are called: fields in braces, such as {prompt:40}-{seed}, and / for "
        "folders."
    ),
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
    wanted: Wanted,
    as_json: bool,
) -> None:
    """Check what one flow was given, then run it.

    Args:
        flow: name of the flow.
        arguments: what click parsed.
        context: holds the words of the flow's own options.
        wanted: where copies go.
        as_json: for programs.
    """
    known = contract(flow)
    given = {**arguments, **parse_options(flow_words(context), known.described)}
    known.check(given)
    if "overrides" in given and flow in catalog().preset_ids():
        quality = given.get("quality")
        level = str(quality) if quality else None
        catalog().check_overrides(flow, level, given["overrides"], given)
    run_flow(flow, given, wanted, as_json=as_json)


def run_flow(
    flow: str,
    parameters: dict[str, JsonValue],
    wanted: Wanted,
    *,
    as_json: bool,
    source: str | None = None,
) -> None:
    """Run one flow, show its progress and where the results lie; exit status 1 unless it worked.

    Args:
        flow: its name.
        parameters: as the flow takes them.
        wanted: where copies go.
        as_json: for programs.
        source: name of the file that it works on; None looks for it in the parameters.
    """
    copies = Copies(wanted, flow, given_file(parameters) if source is None else source)
    parameters = uploaded(parameters, here=configured_api_url() is None)
    with session() as prefect, watching(flow, quiet=as_json) as on_progress:
        outcome = prefect.run(flow, parameters, on_progress)
    if as_json:
        show_json(outcome_facts(outcome, copies))
    else:
        show_outcome(outcome, copies)
    conclude(outcome)


def conclude(outcome: RunEnd) -> None:
    """Leave with the exit status of a run that ended."""
    if outcome.interrupted and not outcome.succeeded:
        raise KeyboardInterrupt
    if not outcome.succeeded:
        raise typer.Exit(1)
