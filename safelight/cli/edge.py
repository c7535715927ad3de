"""The edge of the command: whatever happens, a status and at most a few lines, no traceback."""

import errno
import sys

import httpx

from safelight.client.asking import refusal
from safelight.errors import DiskFullError, InvalidFieldValueError, PipelineError
from safelight.private import keep_private
from safelight.reports import as_known


def guarded(words: list[str]) -> int:
    """Run the command with these words; its exit status.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    try:
        _check_text(words)
        keep_private()
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
    """An error that nobody foresaw, with the file that holds its traceback.

    What the Prefect server answers to questions that Prefect itself asks is told as to ours.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskFullError(f"no room is left: {error}", "free space")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.HTTPError):
        cause = cause.__cause__
    return as_known(error) if cause is None else refusal(cause)


def _check_text(words: list[str]) -> None:
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidFieldValueError(
                f"word {number} of the command, {word[:80]!a}, is not UTF-8",
                "write it in UTF-8",
            ) from error
