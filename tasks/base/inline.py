"""Stages without a task run: the same key, result, tries and record, and no question to a server.

Many short runs in one flow run would pay for every stage what Prefect's engine costs. Inside
`inline()` a stage finds and keeps its result under the key that it has as a task, so that each
finds what the other has made.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.states import Completed, Failed

from safelight.errors import PipelineError
from safelight.progress import pause
from safelight.store.results import PREFIX, SafelightResults
from safelight.store.store import current_store

_inline: ContextVar[bool] = ContextVar("inline", default=False)


@contextmanager
def inline() -> Generator[None]:
    """Stages called inside are no task runs."""
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)


def is_inline() -> bool:
    """Whether a stage called now is no task run."""
    return _inline.get()


def inline_state(
    work: Callable[[], Any],
    key: Callable[[], str | None],
    delays: list[float],
) -> State[Any]:
    """How a stage ends that is found under its key, or does its work.

    Args:
        work: what the task would call.
        key: the task's cache key; None keeps nothing.
        delays: seconds before each further try of what may pass.

    Raises:
        StopRequestedError: the run was asked to stop.
    """
    wanted = key()
    known = None if wanted is None else kept_result(wanted)
    if known is not None:
        return Completed(name="Cached", data=known)
    for delay in (*delays, None):
        try:
            made = work()
        except PipelineError as error:
            if delay is None or not error.transient:
                return Failed(data=error, message=str(error))
            pause(delay)
            continue
        if isinstance(made, State):  # it was stopped
            return cast("State[Any]", made)
        kept = key()  # another engine may have done the work
        if kept is not None:
            record = _results().create_result_record(made, key=kept)
            current_store().write_record(PREFIX + kept, record.serialize())
        return Completed(data=made)
    raise AssertionError("the last try gives or fails")


def kept_result(key: str) -> Any | None:  # noqa: ANN401  (whatever the stage gives)
    """What a stage gave that is kept under a key; None where there is none, or its file is gone.

    Raises:
        PipelineError: the store does not answer.
    """
    try:
        return _results().read(key).result
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _results() -> ResultStore:
    return ResultStore(result_storage=SafelightResults(), serializer=JSONSerializer())
