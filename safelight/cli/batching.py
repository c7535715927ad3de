"""A batch from a file of this machine, and what became of each of its requests."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

from prefect.utilities.importtools import import_object
from pydantic import JsonValue

from safelight.cli.printing import (
    outcome_facts,
    place_of,
    show_json,
    show_line,
    show_outcome,
    show_rows,
    watching,
)
from safelight.cli.runs import session
from safelight.cli.server import configured_api_url
from safelight.client.contracts import Contract
from safelight.client.runs import RunEnd
from safelight.errors import ContractMismatchError, InvalidFieldValueError, MissingFileError
from safelight.provenance.batches import BatchReport, load_report
from safelight.store.disk import disk_errors
from safelight.store.store import current_store

LARGEST_FILE = 32 * 2**20
"""Bytes; the flow reads no more."""
PARSE = "flows.batching.requests.parse"
"""Reads a file of requests; loaded by its name, since the command sits below the flows."""


class _Row(Protocol):
    """A request of a file."""

    where: str
    values: Mapping[str, JsonValue]


def read_requests(file: Path, target: Contract) -> bytes:
    """A file of requests, whole, refused where it cannot be one: what is kept, others may read.

    Args:
        file: as it was named.
        target: the flow that will run them.

    Raises:
        MissingFileError: there is no such file.
        InvalidFieldValueError: it is too large.
        ContractMismatchError: a request has a parameter that the flow has not.
        PipelineError: as `flows.batching.requests.parse` says.
    """
    try:
        there = file.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        what = f"{file} is a folder, no file" if file.is_dir() else f"there is no file {file}"
        raise MissingFileError(f"{what} of requests", "correct the path")
    with disk_errors(file), file.open("rb") as opened:
        data = opened.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise InvalidFieldValueError(
            f"{file} has {file.stat().st_size} bytes, at most {LARGEST_FILE} are read",
            "split it into several batches",
        )
    parse = cast("Callable[[bytes], list[_Row]]", import_object(PARSE))
    for row in parse(data):
        unknown = sorted(row.values.keys() - target.described.keys())
        if unknown:
            raise ContractMismatchError(
                f"{row.where}: {target.flow.name} has no parameter {unknown[0][:80]!r}",
                f"name what it takes: {', '.join(target.described)}",
            )
    return data


def run_batch(
    file: bytes, parameters: dict[str, JsonValue], output: Path | None, *, as_json: bool = False
) -> RunEnd:
    """Run the flow `batch` on a file's content and show each request.

    Without a configured server there are no workers, so the requests run one by one.
    """
    if configured_api_url() is None:
        parameters = {**parameters, "where": "here"}
    stored = current_store().put(file, "text/plain", folder="uploads")
    current_store().settle()
    with session() as prefect, watching("batch", quiet=as_json) as on_progress:
        outcome = prefect.run("batch", {"file": stored.uri, **parameters}, on_progress)
    try:
        report = load_report(outcome.flow_run.id)
    except MissingFileError:  # it was refused before anything ran; the outcome says why
        report = None
    if as_json:
        show_json(outcome_facts(outcome, output, report))
        return outcome
    if report is not None:
        _show(report, output)
    else:
        show_line("no request ran")
    show_outcome(outcome, output)
    return outcome


def _show(report: BatchReport, output: Path | None) -> None:
    show_line(f"{report.requests} requests of {report.flow}")
    rows: list[tuple[str, ...]] = []
    for outcome in report.outcomes:
        state = f"{outcome.state} before" if outcome.reused else outcome.state
        made = [place_of(ref, output) for ref in outcome.results]
        if outcome.error is not None:
            made.append(f"{outcome.error.code} {outcome.error.problem}")
            made.append(f"Fix: {outcome.error.remedy}")
        rows.append((outcome.where, state, f"{outcome.seconds:.1f}", "\n".join(made)))
    show_rows(("request", "state", "seconds", "result"), rows)
