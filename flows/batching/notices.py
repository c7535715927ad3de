"""What Prefect's automations can say of a batch or watched folder: counts, and three pictures."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid4

from prefect.context import FlowRunContext
from prefect.types import KeyValueLabels
from pydantic import JsonValue

from safelight.client.asking import patient_client
from safelight.client.page import PAGE_SECONDS, left_out, link_to_result
from safelight.errors import (
    ConsentMissingError,
    ContractMismatchError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingFileError,
    MissingRequiredFieldError,
    SafetyFilterError,
)
from safelight.exports.facts import Result, outcome_results
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import Failure

T = TypeVar("T")
LABEL = "safelight."
"""Before the names of all labels."""
ROUND_ENDED = "safelight.round-ended"
"""Event of a watched folder in which nothing is left to do."""
PICTURES = 3
REFUSALS = frozenset(
    error.code
    for error in (
        ConsentMissingError,
        ContractMismatchError,
        ForbiddenPathError,
        InvalidFieldValueError,
        MissingFileError,
        MissingRequiredFieldError,
        SafetyFilterError,
    )
)
"""Codes of what fails again until somebody changes what was asked for."""


class Counts(NamedTuple):
    """How requests ended."""

    done: int
    failed: int
    """By a fault, or cancelled."""
    refused: int
    """For what was asked."""


def label_batch(report: BatchReport) -> None:
    """Put counts and links onto the run of a batch, where its automations find them."""
    run = _own_run()
    if run is None:
        return
    tally = report.tally()
    refused = sum(count for code, count in tally.codes.items() if code in REFUSALS)
    done = tally.states.get("succeeded", 0)
    counts = Counts(done, tally.ended - done - refused, refused)
    links = _links(_some_of(report, _sampled(report, tally.ended)))
    labels: KeyValueLabels = {
        f"{LABEL}requests": report.requests,
        **{f"{LABEL}{name}": count for name, count in counts._asdict().items()},
        f"{LABEL}unfinished": report.requests - sum(counts),
        **{  # all of them: a run that is made again keeps no link of before
            f"{LABEL}picture-{at + 1}": links[at] if at < len(links) else ""
            for at in range(PICTURES)
        },
    }
    with left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
        client.update_flow_run_labels(run, labels)


def tell_round(
    made: Sequence[Result | None], errors: Sequence[Failure | None], flow: str, folder: str, to: str
) -> None:
    """Send the event that a round of a watched folder has ended, unless nothing was done in it.

    Args:
        made: the first result of each content that is done.
        errors: of each that is refused.
        flow: that each of them ran.
        folder: that is watched.
        to: where results are.
    """
    run = _own_run()
    if run is None or not (made or errors):
        return
    counts = _counts(errors, len(made))
    links: list[JsonValue] = [*_links(_spread([each for each in made if each is not None]))]
    payload: dict[str, JsonValue] = {"flow": flow, "folder": folder, "to": to}
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": ROUND_ENDED,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "payload": {**payload, **counts._asdict(), "pictures": links},
    }
    with left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
        client.request("POST", "/events", json=[event])


def _own_run() -> UUID | None:
    context = FlowRunContext.get()
    return context.flow_run.id if context and context.flow_run else None


def _counts(errors: Sequence[Failure | None], done: int) -> Counts:
    refused = sum(error is not None and error.code in REFUSALS for error in errors)
    return Counts(done, len(errors) - refused, refused)


def _sampled(report: BatchReport, ended: int) -> list[BatchOutcome]:
    """All outcomes; of many, some from the beginning, the middle and the end."""
    if not report.parts:
        return [*report.outcomes]
    places = (0, ended // 2, ended - PICTURES)
    return [outcome for place in places for outcome in report.page(place, PICTURES)]


def _some_of(report: BatchReport, outcomes: Sequence[BatchOutcome]) -> list[Result]:
    made = [outcome for outcome in outcomes if any(ref.kind == "image" for ref in outcome.results)]
    some = [outcome_results(report, outcome) for outcome in _spread(made or outcomes)]
    return [results[0] for results in some if results]


def _spread(several: Sequence[T]) -> list[T]:
    """The first, the last and what is between them."""
    last = len(several) - 1
    places = {round(last * at / (PICTURES - 1)) for at in range(PICTURES)} if several else ()
    return [several[at] for at in sorted(places)]


def _links(results: Sequence[Result]) -> list[str]:
    return [link_to_result(result) for result in results]
