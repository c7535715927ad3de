"""Copies of a batch's results beside the store, under names of people's choice."""

import logging
from collections.abc import Collection

from prefect.logging import get_run_logger
from pydantic import JsonValue

from safelight.errors import PipelineError
from safelight.exports.facts import outcome_results
from safelight.exports.placing import Placing
from safelight.exports.template import Template, parse
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.settings import settings
from safelight.store.store import EXPORTS, open_exports

LOG = logging.getLogger(__name__)
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


class Exporting:
    """Copies results as their requests end; what is there from before stays.

    Whoever goes on with a batch whose process died is told again of the requests that had ended:
    it finds their copies, whatever order they came in.

    Args:
        begun: names the batch and its flow.
        template: of the names.
    """

    def __init__(self, begun: BatchReport, template: Template) -> None:
        self._begun = begun
        self._placing = Placing(open_exports(settings()), template)
        self._places: dict[tuple[int, int], str] = {}

    def ended(self, outcome: BatchOutcome) -> None:
        """Copy what a request made; what fails now is copied when the batch ends."""
        try:
            self._copy(outcome)
        except PipelineError as error:
            LOG.warning("%s is copied later: %s", outcome.where, error)

    def rest(self, report: BatchReport) -> list[JsonValue]:
        """Copy what is not copied yet.

        Returns:
            Where all results lie, in their order.

        Raises:
            PipelineError: of the store or the place.
        """
        for outcome in report.each():
            self._copy(outcome)
        places = [place for _, place in sorted(self._places.items())]
        get_run_logger().info("%d results lie in %s under their names", len(places), EXPORTS)
        told: list[JsonValue] = [*places[:MOST_TOLD]]
        if len(places) > MOST_TOLD:
            told.append(f"and {len(places) - MOST_TOLD} more")
        return told

    def _copy(self, outcome: BatchOutcome) -> None:
        if all((outcome.number, at) in self._places for at in range(len(outcome.results))):
            return
        for at, result in enumerate(outcome_results(self._begun, outcome)):
            if (outcome.number, at) not in self._places:
                self._places[outcome.number, at] = self._placing.put(result)
