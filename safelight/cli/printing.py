"""What the command prints: tables in a terminal, plain lines in a pipe, or one JSON object."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Never, cast

import typer
from pydantic import BaseModel, JsonValue
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from safelight.cli.copies import Copies
from safelight.client.runs import OnProgress, RunEnd
from safelight.errors import PipelineError
from safelight.provenance.batches import BatchReport
from safelight.provenance.endings import failure_in
from safelight.store.artifact import ArtifactRef

CONSOLE = Console(emoji=False)  # or `root:x:0` of a file would be shown with a cross
ERRORS = Console(stderr=True, emoji=False)


def fail(error: PipelineError, *, as_json: bool = False) -> Never:
    """Print code, problem and fix, and leave with exit status 1."""
    show_error(error, as_json=as_json)
    raise typer.Exit(1)


def show_error(error: PipelineError, *, as_json: bool = False) -> None:
    """Print code, problem and fix; for programs also as the result of a run that never was."""
    ERRORS.print(f"[bold red]{error.code}[/] ", end="")
    ERRORS.print(error.problem, markup=False, highlight=False, soft_wrap=True)
    ERRORS.print(f"Fix: {error.remedy}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        failure: JsonValue = {"code": error.code, "problem": error.problem, "remedy": error.remedy}
        show_json({**_NO_RUN, "error": failure})


_NO_RUN: dict[str, JsonValue] = {
    "flow": None,
    "flow_run_id": None,
    "state": "REFUSED",
    "error": None,
    "stages": [],
    "artifacts": [],
    "results": [],
    "manifest": None,
}


def show_json(value: JsonValue) -> None:
    """One JSON value and nothing else, on one line in a pipe."""
    indent = 2 if CONSOLE.is_terminal else None
    typer.echo(json.dumps(value, indent=indent))


def show_line(text: str) -> None:
    """One line, never broken, so that ids and paths can be copied whole."""
    CONSOLE.print(text, markup=False, highlight=False, soft_wrap=True)


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal; in a pipe one line a row, cells between tabs, `; ` for line breaks."""
    if not CONSOLE.is_terminal:
        for row in (headings, *rows):
            typer.echo("\t".join(map(_in_one_line, row)))
        return
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    CONSOLE.print(table)


def _in_one_line(cell: str) -> str:
    return "; ".join(" ".join(line.split()) for line in cell.splitlines() if line.strip())


@contextmanager
def watching(title: str, *, quiet: bool = False) -> Generator[OnProgress]:
    """A progress bar for one run; none in a pipe."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    silent = quiet or not CONSOLE.is_terminal
    with Progress(*columns, console=CONSOLE, transient=True, disable=silent) as progress:
        task = progress.add_task(title, total=100.0)

        def update(percent: float, text: str) -> None:
            progress.update(task, completed=percent, description=f"{title} {text}")

        yield update


def outcome_facts(
    outcome: RunEnd, copies: Copies, report: BatchReport | None = None
) -> dict[str, JsonValue]:
    """What a program wants to know about a run that ended."""
    manifest, state = outcome.manifest, outcome.flow_run.state
    failure: JsonValue = None
    if manifest is not None and manifest.error is not None:
        failure = manifest.error.model_dump(mode="json")
    elif not outcome.succeeded:
        failure = failure_in(outcome.message).model_dump(mode="json")
    entries = manifest.stages if manifest is not None else ()
    results = manifest.results if manifest is not None else ()
    stages: list[JsonValue] = [
        {"stage": entry.name, "status": entry.status, "notes": [*entry.notes]} for entry in entries
    ]
    places = copies.of_run(manifest)
    artifacts: list[JsonValue] = [
        {
            "stage": entry.name,
            "uri": ref.uri,
            "place": places[ref.sha256],
            "sha256": ref.sha256,
            "media_type": ref.media_type,
            "bytes": ref.bytes,
            "width": ref.width,
            "height": ref.height,
        }
        for entry in entries
        for ref in entry.results
    ]
    facts: dict[str, JsonValue] = {
        "flow": outcome.flow,
        "flow_run_id": str(outcome.flow_run.id),
        "state": state.type.value if state is not None else "UNKNOWN",
        "error": failure,
        "stages": stages,
        "artifacts": artifacts,
        "results": [ref.uri for ref in results],
        "manifest": manifest.key if manifest is not None else None,
    }
    if report is not None:
        facts["batch"] = report.whole()
    return facts


def show_outcome(outcome: RunEnd, copies: Copies) -> None:
    """How a run ended, its stages, and where its results lie."""
    manifest = outcome.manifest
    if manifest is not None:
        show_line(f"{manifest.flow} {manifest.flow_run_id}")
        rows = [
            (
                entry.name,
                entry.status,
                f"{entry.seconds:.2f}",
                "\n".join(_facts(ref) for ref in entry.results),
                "\n".join(entry.notes),
            )
            for entry in manifest.stages
        ]
        show_rows(("stage", "status", "seconds", "result", "notes"), rows)
        places = copies.of_run(manifest)
        for entry in manifest.stages:
            for ref in entry.results:
                show_line(f"{entry.name}: {places[ref.sha256]}")
        show_line(f"manifest: {manifest.key}")
    if not outcome.succeeded:
        ERRORS.print(outcome.message, markup=False, highlight=False, soft_wrap=True, style="red")


def _facts(ref: ArtifactRef) -> str:
    size = f"{ref.width}x{ref.height}" if ref.width else f"{ref.bytes} bytes"
    return f"{size}, {ref.frames} frames at {ref.fps:g}" if ref.frames and ref.fps else size


def show_presets(found: Sequence[BaseModel]) -> None:
    """One line a preset."""
    rows: list[tuple[str, ...]] = []
    for preset in found:
        facts = preset.model_dump(mode="json")
        inputs = [*facts["required_inputs"], *(f"{name}?" for name in facts["optional_inputs"])]
        rows.append((facts["id"], facts["category"], ", ".join(inputs), facts["description"]))
    show_rows(("id", "category", "inputs", "what it does"), rows)


def show_preset(preset: BaseModel) -> None:
    """One preset with all its knobs."""
    facts = cast("dict[str, JsonValue]", preset.model_dump(mode="json", exclude_none=True))
    CONSOLE.print_json(data=facts)
