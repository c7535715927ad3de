"""The edge of the command: whatever happens, a status and at most a few lines, no traceback."""

import errno
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from safelight.errors import InvalidFieldValueError, PipelineError, UnknownError
from safelight.settings import settings


def guarded(words: list[str]) -> int:
    """Run the command with these words; its exit status.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    try:
        _check_text(words)
        settings()
    except PipelineError as error:
        sys.stderr.write(f"{error.code} {error.problem}\nFix: {error.remedy}\n")
        return 1
    from safelight.cli.commands import app
    from safelight.cli.printing import show_error

    as_json = "--json" in words
    try:
        app(args=words, prog_name="safelight")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BrokenPipeError:
        return 1
    except PipelineError as error:
        show_error(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001  (the edge: no traceback reaches the terminal)
        show_error(reported(error), as_json=as_json)
    return 1


def reported(error: Exception) -> PipelineError:
    """An error that nobody foresaw, with the file that holds its traceback."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        from safelight.errors import DiskFullError

        return DiskFullError(f"no room is left: {error}", "free space")
    report = uuid4().hex[:12]
    said = " ".join(str(error).split())[:300]
    found = f"{type(error).__name__}: {said}" if said else type(error).__name__
    try:
        log = _write(report, error)
    except OSError as refused:
        return UnknownError(
            f"{found} (report {report}, which could not be written: {refused})",
            "see that VOLUME_ROOT is a folder that can be written to, then try again",
        )
    return UnknownError(f"{found} (report {report})", f"send the report {log}")


def _write(report: str, error: Exception) -> Path:
    folder = settings().volume_root.resolve() / "cache" / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{report}.log"
    trace = "".join(traceback.format_exception(error))
    log.write_text(f"{datetime.now(UTC).isoformat()}\n{trace}", errors="backslashreplace")
    return log


def _check_text(words: list[str]) -> None:
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidFieldValueError(
                f"word {number} of the command, {word[:80]!a}, is not UTF-8",
                "write it in UTF-8",
            ) from error
