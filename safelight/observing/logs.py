"""Begins the log of a process, and writes what happens in it."""

import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from safelight.errors import PipelineError
from safelight.observing.files import FOLDER, DailyFile
from safelight.observing.lines import FACTS, JsonLine
from safelight.redacting import know_environment, redacted
from safelight.settings import settings

SEEN = logging.getLogger("safelight.seen")
"""What happened: requests, calls, runs. In files alone; the terminal shows what is out of order."""
_OWN_WAY = ("uvicorn", "fastapi", "prefect.extra", "prefect._internal")
"""Loggers that do not hand on their records."""
_handler: DailyFile | None = None
_plain_factory = logging.getLogRecordFactory()


def begin_log(service: str) -> None:
    """Write what this process logs to the files of its service, once a process.

    Args:
        service: folder below `logs/` of the volume.
    """
    global _handler
    keep_secrets_out()
    if _handler is not None or not settings().log_files:
        return
    SEEN.setLevel(logging.INFO)
    SEEN.propagate = False
    handler = DailyFile(settings().volume_root.resolve() / FOLDER / service)
    handler.setFormatter(JsonLine(service))
    for logger in (logging.getLogger(), SEEN, *map(logging.getLogger, _OWN_WAY)):
        logger.addHandler(handler)
    _handler = handler


def end_log() -> None:
    """Write no more; for a process that goes on under other settings."""
    global _handler
    if _handler is None:
        return
    for logger in (logging.getLogger(), SEEN, *map(logging.getLogger, _OWN_WAY)):
        logger.removeHandler(_handler)
    _handler.close()
    _handler = None


def seen(event: str, **facts: Any) -> None:  # noqa: ANN401
    """Write that something happened.

    Args:
        event: in a few words.
        facts: fields of the line.
    """
    SEEN.info("%s", event, extra={FACTS: facts})


@contextmanager
def timed(event: str, **facts: Any) -> Generator[dict[str, Any]]:  # noqa: ANN401
    """Write that something happened when it is over, with how long it took and how it failed.

    Yields:
        The facts, to which the block may add.
    """
    began = time.perf_counter()
    try:
        yield facts
    except Exception as error:
        known = error if isinstance(error, PipelineError) else None
        code = known.code if known else type(error).__name__
        facts |= {"seconds": round(time.perf_counter() - began, 4), "failed": code}
        seen(event, **facts)
        raise
    facts["seconds"] = round(time.perf_counter() - began, 4)
    seen(event, **facts)


def keep_secrets_out() -> None:
    """Take secrets out of every record of this process, for whatever handler."""
    know_environment(os.environ)
    logging.setLogRecordFactory(_clean_record)


def _clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401
    record = _plain_factory(*args, **kwargs)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  # arguments that do not fit: logging says so itself
        return record
    clean = redacted(message)
    if clean != message:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[1] is not None:
        trace = logging.Formatter().formatException(record.exc_info)
        hidden = redacted(trace)
        if hidden != trace:
            record.exc_text = hidden
    return record
