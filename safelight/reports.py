"""What becomes of an exception that nobody foresaw: a code for people, its traceback in a file."""

import logging
import traceback
from pathlib import Path
from uuid import uuid4

from safelight.errors import PipelineError, UnknownError, one_line
from safelight.private import make_folder
from safelight.redacting import redacted
from safelight.settings import settings

LOG = logging.getLogger(__name__)
FOLDER = "cache/reports"
"""Under the volume root: one file a report, its name is the report's id."""
KEPT = 200
"""Reports; the oldest go first."""
LONGEST = 400
"""Characters of the exception's own text that go into the message; the report has all."""


def as_known(error: BaseException) -> PipelineError:
    """The error itself if it has a code; else UNKNOWN_ERROR, with the traceback in a report.

    Args:
        error: as it was caught at the edge of a run, a command or a worker.
    """
    if isinstance(error, PipelineError):
        return error
    text = one_line(redacted(str(error)))
    said = f"{type(error).__name__}: {text[:LONGEST]}".rstrip(": .")
    report = uuid4().hex[:12]
    trace = redacted("".join(traceback.format_exception(error)))
    LOG.debug("report %s\n%s", report, trace)
    try:
        path = _keep(report, trace)
    except OSError as unwritten:
        return UnknownError(
            f"{said} (report {report}, which could not be written: {unwritten.strerror})",
            "run it again with PREFECT_LOGGING_LEVEL=DEBUG, which shows the traceback",
        )
    return UnknownError(f"{said} (report {report})", f"send in {path}, which has the traceback")


def _keep(report: str, trace: str) -> Path:
    folder = settings().volume_root.absolute() / FOLDER
    make_folder(folder)
    path = folder / f"{report}.txt"
    path.touch(0o600)  # a traceback may name what others must not read
    path.write_text(trace, encoding="utf-8", errors="backslashreplace")
    reports = sorted(folder.glob("*.txt"), key=lambda kept: kept.stat().st_mtime)
    for old in reports[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
