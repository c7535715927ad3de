"""A batch from a file of this machine, and what became of each of its requests."""

from pathlib import Path

import typer
from pydantic import JsonValue
from rich.table import Table

from safelight.cli.printing import CONSOLE, place_of, show_outcome, watching
from safelight.cli.runs import session
from safelight.cli.server import configured_api_url
from safelight.errors import MissingFileError
from safelight.provenance.batches import BatchReport, load_report
from safelight.store.store import current_store


def run_batch(file: Path, parameters: dict[str, JsonValue], output: Path | None) -> None:
    """Run the flow `batch`, show each request, and leave with status 1 unless all succeeded.

    Without a configured server there are no workers, so the requests run one by one.

    Raises:
        MissingFileError: there is no such file.
    """
    if not file.is_file():
        raise MissingFileError(f"there is no file {file}", "correct the path")
    if configured_api_url() is None:
        parameters = {**parameters, "where": "here"}
    stored = current_store().put(file.read_bytes(), "text/plain", folder="uploads")
    current_store().settle()
    with session() as prefect, watching("batch") as on_progress:
        outcome = prefect.run("batch", {"file": stored.uri, **parameters}, on_progress)
    try:
        _show(load_report(outcome.flow_run.id), output)
    except MissingFileError:  # it was refused before anything ran; the outcome says why
        CONSOLE.print("no request ran")
    show_outcome(outcome, output)
    if not outcome.succeeded:
        raise typer.Exit(1)


def _show(report: BatchReport, output: Path | None) -> None:
    table = Table(title=f"{report.requests} requests of {report.flow}")
    for heading in ("request", "state", "seconds", "result"):
        table.add_column(heading, overflow="fold")
    for outcome in report.outcomes:
        state = f"{outcome.state} before" if outcome.reused else outcome.state
        made = [place_of(ref, output) for ref in outcome.results]
        if outcome.error is not None:
            made.append(f"{outcome.error.code} {outcome.error.problem}")
            made.append(f"Fix: {outcome.error.remedy}")
        table.add_row(outcome.where, state, f"{outcome.seconds:.1f}", "\n".join(made))
    CONSOLE.print(table)
