"""Copies of a batch's results beside the store, under names of people's choice."""

from collections.abc import Collection

from prefect.logging import get_run_logger
from pydantic import JsonValue

from safelight.exports.facts import batch_results
from safelight.exports.placing import Placing
from safelight.exports.template import Template, parse
from safelight.provenance.batches import BatchReport
from safelight.settings import settings
from safelight.store.store import EXPORTS, open_exports

MOST_TOLD = 200
"""Places that the result names; the folder or prefix has them all."""


def export_template(given: str | None, parameters: Collection[str]) -> Template | None:
    """The template of a batch, else that of the settings; None where nothing is to be copied.

    Raises:
        PipelineError: as `parse` says.
    """
    if given is not None:
        return parse(given, "batch: export", parameters)
    known = settings().export_names
    return parse(known, "SAFELIGHT_EXPORT_NAMES", parameters) if known else None


def export_results(report: BatchReport, template: Template) -> list[JsonValue]:
    """Copy all results; those that are there from before stay.

    Returns:
        Where they lie.
    """
    placing = Placing(open_exports(settings()), template)
    places = [placing.put(result) for result in batch_results(report)]
    get_run_logger().info("%d results lie in %s under their names", len(places), EXPORTS)
    told: list[JsonValue] = [*places[:MOST_TOLD]]
    if len(places) > MOST_TOLD:
        told.append(f"and {len(places) - MOST_TOLD} more")
    return told
