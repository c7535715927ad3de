"""Rules of schedules that the server would count through for too long.

A rule (RFC 5545) without DTSTART begins in 2020 for Prefect, and each of its dates since then is
counted on the way to the next one, in the server's only thread, each time it plans. A rule that
fits no date is counted through for ever.
"""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from types import FrameType
from typing import Any, cast

from dateutil import rrule

from safelight.confined.calling import call_confined
from safelight.errors import PipelineError

BEGINS = "2020-01-01"
"""The first day of a rule that names none; Prefect's `DEFAULT_ANCHOR_DATE`."""
PLANNED = 100
"""Runs that Prefect plans ahead of a schedule."""
SECONDS = 5.0
"""Of a processor, to count to them. Prefect does so once a minute, and answers nobody meanwhile.
From 2020 on, every five minutes is within it and every minute is not."""
LONGEST = 10_000
"""Characters of a rule; Prefect takes 6,500."""


class _TakesTooLongError(Exception):
    pass


def endless_rule(body: object) -> str | None:
    """Why a request must be refused that makes or changes schedules; None when it need not.

    Args:
        body: of the request, as JSON has it.
    """
    for where, rule in _rules(body, ""):
        if len(rule) > LONGEST:
            continue  # Prefect refuses it
        try:
            in_time, _ = call_confined(counted, rule, SECONDS, name=where, file_bytes=len(rule))
        except PipelineError:
            in_time = False
        if not in_time:
            return (
                f"{where} is {rule[:200]!r}; counting to its next {PLANNED} dates takes over "
                f"{SECONDS:g} s of a processor. Fix: give it a DTSTART of today, and check that "
                "such dates exist."
            )
    return None


def counted(rule: str, seconds: float) -> tuple[bool, None]:
    """Whether the next dates of a rule are reached in time; called in a confined process.

    Args:
        rule: as the schedule has it.
        seconds: of this process, that it may take.
    """
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        dates = rrule.rrulestr(rule, dtstart=datetime.fromisoformat(BEGINS))
        first = getattr(dates, "_dtstart", None)
        now = datetime.now(UTC)
        if isinstance(first, datetime) and first.tzinfo is None:
            now = now.replace(tzinfo=None)
        for _ in islice(dates.xafter(now, count=None, inc=True), PLANNED):
            pass
    except _TakesTooLongError:
        return False, None
    except (ValueError, TypeError, OverflowError, AttributeError):
        return True, None  # Prefect says what is wrong with it
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return True, None


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TakesTooLongError


def _rules(value: object, where: str) -> Iterator[tuple[str, str]]:
    """The rules in a body, each with its place."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            place = f"{where}.{name}" if where else name
            if name == "rrule" and isinstance(inner, str):
                yield place, inner
            elif name not in ("parameters", "job_variables"):
                yield from _rules(inner, place)
    elif isinstance(value, list):
        for number, inner in enumerate(cast("list[object]", value)):
            yield from _rules(inner, f"{where}[{number}]")
