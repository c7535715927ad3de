"""What the command prints."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Never, cast

import typer
from pydantic import BaseModel, JsonValue
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from safelight.cli.runs import OnProgress, RunEnd
from safelight.errors import PipelineError
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

CONSOLE = Console()
ERRORS = Console(stderr=True)


def fail(error: PipelineError) -> Never:
    """Print code, problem and fix, and leave with exit status 1."""
    ERRORS.print(f"[bold red]{error.code}[/] ", end="")
    ERRORS.print(error.problem, markup=False)
    ERRORS.print(f"Fix: {error.remedy}", markup=False)
    raise typer.Exit(1)


@contextmanager
def watching(title: str) -> Generator[OnProgress]:
    """A progress bar for one run."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task(title, total=100.0)

        def update(percent: float, text: str) -> None:
            progress.update(task, completed=percent, description=f"{title} {text}")

        yield update


def show_outcome(outcome: RunEnd, output: Path | None) -> None:
    """How a run ended, its stages, and where its results lie."""
    manifest = outcome.manifest
    if manifest is not None:
        table = Table(title=f"{manifest.flow} {manifest.flow_run_id}")
        for heading in ("stage", "status", "seconds", "result", "notes"):
            table.add_column(heading, overflow="fold")
        for entry in manifest.stages:
            made = "\n".join(_facts(ref) for ref in entry.results)
            table.add_row(
                entry.name, entry.status, f"{entry.seconds:.2f}", made, "\n".join(entry.notes)
            )
        CONSOLE.print(table)
        for entry in manifest.stages:
            for ref in entry.results:
                place = place_of(ref, output)
                CONSOLE.print(f"{entry.name}: {place}", markup=False, soft_wrap=True)
        CONSOLE.print(f"manifest: {manifest.key}", markup=False, soft_wrap=True)
    if not outcome.succeeded:
        ERRORS.print(outcome.message, markup=False, soft_wrap=True, style="red")


def _facts(ref: ArtifactRef) -> str:
    size = f"{ref.width}x{ref.height}" if ref.width else f"{ref.bytes} bytes"
    return f"{size}, {ref.frames} frames at {ref.fps:g}" if ref.frames and ref.fps else size


def place_of(ref: ArtifactRef, output: Path | None) -> str:
    """Where a result can be opened; copies it to `output` when that is given."""
    store = current_store()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        target = output / f"{ref.sha256[:16]}{ref.extension}"
        target.write_bytes(store.read(ref))
        return str(target)
    link = store.link(ref)
    return link.removeprefix("file://") if link.startswith("file://") else link


def show_presets(found: Sequence[BaseModel]) -> None:
    """One line a preset."""
    table = Table()
    for heading in ("id", "category", "inputs", "what it does"):
        table.add_column(heading, overflow="fold")
    for preset in found:
        facts = preset.model_dump(mode="json")
        optional = [f"{name}?" for name in facts["optional_inputs"]]
        table.add_row(
            facts["id"],
            facts["category"],
            ", ".join([*facts["required_inputs"], *optional]),
            facts["description"],
        )
    CONSOLE.print(table)


def show_preset(preset: BaseModel) -> None:
    """One preset with all its knobs."""
    facts = cast("dict[str, JsonValue]", preset.model_dump(mode="json", exclude_none=True))
    CONSOLE.print_json(data=facts)
