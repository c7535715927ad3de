"""Asking again for a while, where asking again does no harm."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from safelight.engines.remote.asking import SlowDownError, passing
from safelight.errors import PipelineError
from safelight.progress import pause
from safelight.settings import settings

T = TypeVar("T")
GROWS, LONGEST = 1.4, 10.0
"""The pause between two questions grows by this factor, up to so many times the first."""


def patiently(question: Callable[[], T]) -> T:
    """Ask until there is an answer, or the patience is over.

    Only for questions that change nothing, and those that a provider knows again.

    Raises:
        StopRequestedError: the run was asked to stop.
        PipelineError: as the question.
    """
    ends = time.monotonic() + settings().provider_patience_seconds
    for wait in pauses():
        try:
            return question()
        except PipelineError as error:
            left = ends - time.monotonic()
            if left <= 0 or not passing(error):
                raise
            pause(min(asked_to_wait(error) or wait, left))
    raise AssertionError("the pauses have no end")


def asked_to_wait(error: PipelineError) -> float | None:
    """Seconds that a provider asks for; None where it does not."""
    return error.wait_seconds if isinstance(error, SlowDownError) else None


def pauses() -> Iterator[float]:
    """Seconds between two tries, without an end."""
    first = settings().provider_poll_seconds
    return (min(first * GROWS**n, first * LONGEST) for n in itertools.count())
