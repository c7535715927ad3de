"""The results of a run or batch that has ended, copied under other names or as a zip."""

from safelight.cli.copies import NOWHERE, Copies, Wanted
from safelight.cli.printing import show_json, show_line
from safelight.errors import ForbiddenPathError, MissingFileError, MissingRequiredFieldError
from safelight.provenance.batches import BatchReport, load_report
from safelight.provenance.manifest import load_manifest


def export_run(run: str, wanted: Wanted, *, as_json: bool) -> None:
    """Copy what a run made.

    Args:
        run: id of a run of a batch, or what `load_manifest` takes.
        wanted: where copies go.
        as_json: for programs.

    Raises:
        MissingRequiredFieldError: nothing says where.
        MissingFileError: there is no such run, or a zip of something that is no batch is asked for.
    """
    if wanted._replace(names=None) == NOWHERE:
        raise MissingRequiredFieldError(
            "nothing says where copies go", "add --output FOLDER, --zip FILE or --html FILE"
        )
    report = _report_of(run)
    if report is None and (wanted.zip or wanted.html) is not None:
        raise MissingFileError(
            f"no batch has the id {run[:80]!r}, and zip and page are made of a batch",
            "name the run of a batch, or give --output alone",
        )
    places: list[str] = []
    if report is not None:
        copies = Copies(wanted, report.flow)
        if wanted.folder is not None:
            for outcome in report.each():
                places += copies.of_request(report, outcome)
        places += [str(made) for made in (copies.zipped(report), copies.page(report)) if made]
    else:
        manifest = load_manifest(run)
        places += Copies(wanted, manifest.flow).of_run(manifest).values()
    if as_json:
        show_json({"places": [*places]})
        return
    for place in places:
        show_line(place)


def _report_of(run: str) -> BatchReport | None:
    try:
        return load_report(run)
    except (MissingFileError, ForbiddenPathError):  # not even a name of a run
        return None
