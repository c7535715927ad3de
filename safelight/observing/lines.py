"""A log record as one JSON object on one line."""

import json
import logging
import os
import re
import traceback
from datetime import UTC, datetime
from typing import Any

from safelight.errors import PipelineError, one_line
from safelight.observing.correlating import current, of_run
from safelight.redacting import redacted

_CODED = re.compile(r"\[([A-Z]+(?:_[A-Z]+)+)\] (.*?)\. Fix: (.*)\.", re.DOTALL)
FACTS = "safelight_facts"
"""Attribute of a record: further fields of its line."""
_OF_PREFECT = (
    "flow_run_id",
    "flow_run_name",
    "flow_name",
    "task_run_id",
    "task_run_name",
    "worker_name",
)


class JsonLine(logging.Formatter):
    """Formats records for files; secrets and people's folders are taken out.

    A failure with a code says it first, with what to do, and has no traceback: the code says more.

    Args:
        service: which part of Safelight this process is.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its break."""
        failure = record.exc_info[1] if record.exc_info else None
        message = redacted(record.getMessage())
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
        }
        line |= _coded(failure, message)
        line |= {"message": message, "service": self._service, "logger": record.name}
        prefects = {name: getattr(record, name, None) for name in _OF_PREFECT}
        line["correlation_id"] = _correlation(record, prefects)
        line |= {name: str(value) for name, value in prefects.items() if value}
        line |= _clean(getattr(record, FACTS, {}))
        line["process"] = os.getpid()
        if failure is not None and not isinstance(failure, PipelineError):
            line["traceback"] = redacted("".join(traceback.format_exception(failure)))
        return json.dumps(line, ensure_ascii=False, default=str)


def _correlation(record: logging.LogRecord, prefects: dict[str, Any]) -> str:
    known = getattr(record, "correlation_id", "") or current()
    if not known and prefects["flow_run_id"]:
        return of_run(prefects["flow_run_id"], None)
    return str(known)


def _coded(failure: BaseException | None, message: str) -> dict[str, str]:
    if isinstance(failure, PipelineError):
        return {"code": failure.code, "problem": failure.problem, "remedy": failure.remedy}
    said = _CODED.search(message)
    if said is None:
        return {}
    return {"code": said[1], "problem": said[2], "remedy": said[3]}


def _clean(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: redacted(one_line(value)) if isinstance(value, str) else value
        for name, value in facts.items()
    }
