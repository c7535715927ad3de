"""Where a command copies results to, and what it calls them there."""

import os
from pathlib import Path
from typing import NamedTuple

from safelight.client.contracts import contract
from safelight.errors import ForbiddenPathError, MissingFileError, MissingRequiredFieldError
from safelight.exports.facts import (
    Result,
    batch_results,
    outcome_results,
    run_results,
    stage_results,
)
from safelight.exports.pages import check_page, write_page
from safelight.exports.placing import Placing, named
from safelight.exports.template import Template, parse, result_template
from safelight.exports.zips import check_zip, plan_zip, write_zip
from safelight.private import as_started
from safelight.provenance.batches import BatchOutcome, BatchReport
from safelight.provenance.manifest import MANIFESTS, Manifest, load_manifest
from safelight.store.artifact import ArtifactRef
from safelight.store.places import DiskPlace
from safelight.store.store import current_store

STAGES = "stages"
"""Folder below `--output` for what is no result of the run: what later stages read."""
SHEETS = parse("sheets/sheet-{index}", "sheets")
"""Of a batch: laid out of its results."""


class Wanted(NamedTuple):
    """The options that say where copies go, as they were typed."""

    folder: Path | None
    """`--output`."""
    names: str | None
    """`--names`."""
    zip: Path | None = None
    """`--zip`."""
    html: Path | None = None
    """`--html`."""


NOWHERE = Wanted(None, None)
"""Results stay in the store."""


class Copies:
    """Copies of results, each made once; without a folder, links into the store."""

    def __init__(self, wanted: Wanted, flow: str, source: str = "") -> None:
        """Look at the options before anything is made.

        Args:
            wanted: the options.
            flow: whose parameters are fields of the template too.
            source: file that the run works on.

        Raises:
            PipelineError: the template, the folder or the place of the zip cannot be one.
        """
        self.template = SHEETS if wanted == NOWHERE else template_for(wanted, flow)
        self.folder = wanted.folder
        self._source = source
        self._zip, self._html = wanted.zip, wanted.html
        if wanted.zip is not None:
            check_zip(wanted.zip, "--zip")
        if wanted.html is not None:
            check_page(wanted.html, "--html")
        self._placings: dict[Template, Placing] = {}
        if self.folder is not None:
            check_output(self.folder)

    def of_run(self, manifest: Manifest | None) -> dict[str, str]:
        """Place of every file that a run made, by its sha256."""
        if manifest is None:
            return {}
        template = SHEETS if manifest.flow == "batch" else self.template
        found: dict[str, str] = {}
        for stage, result in stage_results(manifest, self._source):
            found[result.ref.sha256] = self._put(result, self.template, STAGES, stage)
        for result in run_results(manifest, self._source):
            found[result.ref.sha256] = self._put(result, template)
        return found

    def of_request(self, report: BatchReport, outcome: BatchOutcome) -> list[str]:
        """Place of every result of one request."""
        if self.folder is None:
            return [link_to(ref) for ref in outcome.results]
        return [self._put(result, self.template) for result in outcome_results(report, outcome)]

    def zipped(self, report: BatchReport) -> Path | None:
        """The zip of a batch, where one was asked for and something was made."""
        if self._zip is None:
            return None
        results = batch_results(report)
        return write_zip(plan_zip(named(results, self.template), report), report, self._zip)

    def page(self, report: BatchReport) -> Path | None:
        """The page of a batch, where one was asked for and something was made."""
        if self._html is None or not any(one.results for one in report.each()):
            return None
        try:
            manifest = load_manifest(f"{MANIFESTS}{report.flow_run_id}.json")
        except MissingFileError:  # it was deleted; what it made is there
            manifest = None
        return write_page(report, manifest, self._html)

    def _put(self, result: Result, template: Template, *below: str) -> str:
        if self.folder is None:
            return link_to(result.ref)
        if template not in self._placings:
            place = DiskPlace(self.folder, private=False)
            self._placings[template] = Placing(place, template)
        return self._placings[template].put(result, *below)


LINKS = Copies(NOWHERE, "")
"""For results that stay in the store."""


def template_for(wanted: Wanted, flow: str) -> Template:
    """The template of `--names`, or of the settings.

    Raises:
        MissingRequiredFieldError: nothing is copied anywhere.
        PipelineError: as `parse` says.
    """
    parameters = contract(flow).described
    if wanted.names is None:
        return result_template(parameters)
    if wanted.folder is None and wanted.zip is None:
        raise MissingRequiredFieldError(
            "--names is given, and nothing says where copies go", "add --output FOLDER"
        )
    return parse(wanted.names, "--names", parameters)


def link_to(ref: ArtifactRef) -> str:
    """Where a file of the store can be opened."""
    link = current_store().link(ref)
    return link.removeprefix("file://") if link.startswith("file://") else link


def check_output(output: Path) -> None:
    """Make the folder that copies go to, before anything is computed for it.

    Raises:
        ForbiddenPathError: it cannot be one.
    """
    try:
        with as_started():
            output.mkdir(parents=True, exist_ok=True)
        usable = os.access(output, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ForbiddenPathError(
            f"--output is {str(output)[:200]!r}, which is no folder and cannot be made one: {why}",
            "name a folder with --output",
        ) from error
    if not usable:
        raise ForbiddenPathError(
            f"--output is {str(output)!r}, which cannot be written to",
            "name a folder of yours with --output",
        )
